package catalog

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Topic remembers of the topic of a pchannel, in a queue that nodes share, that it was
// written to: one that is found without that has been lost. Checkpoints say so too, as soon
// as there are any.
type Topic struct {
	Header
	PChannel string `json:"pchannel"`
	// Written is the text of a position that the topic had, not read here; "" = none is known.
	Written string `json:"written"`
}

func (t *Topic) validate() error {
	var p problems
	p.err(checkPChannel(t.PChannel))
	p.check(len(t.Written) <= MaxPosition, "a position of %d bytes, at most %d", len(t.Written), MaxPosition)
	return p.join(errclass.Invalid)
}

// Written returns the position that is remembered of the topic of a pchannel; "" = none.
func (c *Catalog) Written(ctx context.Context, pchannel string) (string, error) {
	if err := checkPChannel(pchannel); err != nil {
		return "", err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.topicKey(pchannel)
	for try := 0; ; try++ {
		t, _, err := load[Topic](ctx, c, key, maxSmallManifest)
		switch {
		case errclass.Is(err, errclass.NotFound):
			return "", nil
		case err == nil && t.PChannel != pchannel:
			return "", errclass.New(errclass.Corrupt, "manifest %s is of pchannel %q, want %q", key, t.PChannel, pchannel)
		case err == nil:
			return t.Written, nil
		}
		if err := c.again(ctx, key, err, try); err != nil {
			return "", errors.Wrapf(err, "what is known of the topic of pchannel %s", pchannel)
		}
	}
}

// NoteWritten remembers another position, "" = none, in place of that which the caller knows of.
// If somebody else was faster, theirs is kept; that is no error.
func (c *Catalog) NoteWritten(ctx context.Context, pchannel, instead, written string) error {
	if err := checkPChannel(pchannel); err != nil {
		return err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.topicKey(pchannel)
	for try := 0; ; try++ {
		_, err := change(ctx, c, key, maxSmallManifest, func(m *Topic, _ bool) error {
			if m.Written != instead || instead == written {
				return errUnchanged
			}
			m.Written = written
			return nil
		})
		if errclass.Is(err, errclass.NotFound) {
			if instead != "" || written == "" {
				return nil
			}
			err = c.put(ctx, key, &Topic{PChannel: pchannel, Written: written}, maxSmallManifest, "")
			if errors.Is(err, objstore.ErrPrecondition) {
				continue // another was first, or a lost try of ours
			}
			if err != nil {
				if err = c.again(ctx, key, err, try); err == nil {
					continue
				}
			}
		}
		return errors.Wrapf(err, "note that the topic of pchannel %s is written to", pchannel)
	}
}

func (c *Catalog) topicKey(pchannel string) string {
	return c.o.Prefix + "/topics/" + pchannel + ".json"
}
