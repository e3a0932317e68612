package catalog

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Queue tells which queue has the log of a pchannel: positions in the manifests of
// channels mean something in that one alone.
type Queue struct {
	Header
	PChannel string `json:"pchannel"`
	Identity string `json:"identity"`
	// Begin is the text of the position that the queue begins behind, not read here: it
	// took the place of one that is gone, with what only that had. "" = at its beginning.
	Begin string `json:"begin,omitempty"`
}

const maxIdentity = 1024

func (q *Queue) validate() error {
	var p problems
	p.err(checkPChannel(q.PChannel))
	p.check(q.Identity != "" && len(q.Identity) <= maxIdentity, "identity of %d bytes, want 1 to %d", len(q.Identity), maxIdentity)
	p.check(len(q.Begin) <= MaxPosition, "a position of %d bytes, at most %d", len(q.Begin), MaxPosition)
	return p.join(errclass.Invalid)
}

// ErrOtherQueue is the error of a log of a pchannel that is in another queue.
var ErrOtherQueue = errclass.Mark(errors.New("catalog: the log is in another queue"), errclass.Conflict)

// BindQueue remembers that the log of the pchannel is in the queue of that identity, if
// nothing is known of it yet, and returns what is known. If that is another queue,
// the error is ErrOtherQueue, and what is known is returned all the same. A queue that
// has no identity, "", is not remembered: it is another one than all that have, and nil
// is returned if none is known.
func (c *Catalog) BindQueue(ctx context.Context, pchannel, identity string) (*Queue, error) {
	if err := checkPChannel(pchannel); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.queueKey(pchannel)
	for try := 0; ; try++ {
		q, _, err := load[Queue](ctx, c, key, maxSmallManifest)
		if errclass.Is(err, errclass.NotFound) {
			if identity == "" {
				return nil, nil
			}
			q = &Queue{PChannel: pchannel, Identity: identity}
			if err = c.put(ctx, key, q, maxSmallManifest, ""); err == nil {
				return q, nil
			}
			if errors.Is(err, objstore.ErrPrecondition) {
				continue // another was first, or a lost try of ours
			}
		}
		switch {
		case err == nil && q.PChannel != pchannel:
			return nil, errclass.New(errclass.Corrupt, "manifest %s is of pchannel %q, want %q", key, q.PChannel, pchannel)
		case err == nil && q.Identity != identity:
			return q, errors.Wrapf(ErrOtherQueue, "pchannel %s: in %q, not in %q", pchannel, q.Identity, identity)
		case err == nil:
			return q, nil
		}
		if err := c.again(ctx, key, err, try); err != nil {
			return nil, errors.Wrapf(err, "queue of pchannel %s", pchannel)
		}
	}
}

// AdoptQueue lets the queue of an identity take the place of another one, of which it
// was known that instead has the log. It begins behind begin. If it is a third one by now
// that has the log, the error is ErrOtherQueue.
func (c *Catalog) AdoptQueue(ctx context.Context, pchannel, instead, identity, begin string) (*Queue, error) {
	if err := checkPChannel(pchannel); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	q, err := change(ctx, c, c.queueKey(pchannel), maxSmallManifest, func(m *Queue, _ bool) error {
		switch m.Identity {
		case identity:
			return errUnchanged
		case instead:
			m.Identity, m.Begin = identity, begin
			return nil
		}
		return errors.Wrapf(ErrOtherQueue, "%s, not %s", m.Identity, instead)
	})
	return q, errors.Wrapf(err, "adopt queue %s for pchannel %s", identity, pchannel)
}

func (c *Catalog) queueKey(pchannel string) string {
	return c.o.Prefix + "/queues/" + pchannel + ".json"
}
