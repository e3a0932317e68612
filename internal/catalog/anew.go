package catalog

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// BeginAnew makes a channel begin at the oldest message of its topic, whatever position
// was stored: the topic took the place of one that is gone. What is stored stays, and so does
// the timestamp of the checkpoint: messages at or before it count as stored. term, from
// NextTerm, fences the owners before. To repeat it is no error. Errors: Fenced, NotFound.
func (c *Catalog) BeginAnew(ctx context.Context, vchannel string, term uint64) error {
	if err := checkVChannel(vchannel); err != nil {
		return err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.channelKey(vchannel)
	_, err := change(ctx, c, key, maxChannelBytes, func(m *Channel, _ bool) error {
		if err := m.checkName(key, vchannel); err != nil {
			return err
		}
		switch {
		case term < m.Term:
			return errclass.New(errclass.Fenced, "term %d is fenced: a newer owner has committed with term %d", term, m.Term)
		case term == m.Term && m.Checkpoint == "":
			return errUnchanged
		}
		m.Term, m.Checkpoint = term, ""
		return nil
	})
	return errors.Wrapf(err, "begin channel %s anew", vchannel)
}
