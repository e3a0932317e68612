package catalog

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Topic remembers of the topic of a pchannel, in a queue that nodes share, that it was
// written to: one that is found without that has been lost. Checkpoints say so too, as soon
// as a channel has one.
type Topic struct {
	Header
	PChannel string `json:"pchannel"`
	Written
}

// Written is a position that a topic had.
type Written struct {
	// Position is its text, not read here; "" = none is known.
	Position string `json:"written"`
	// VChannels are the channels that had no checkpoint then, and were there: the topic is not
	// trimmed past it before each of them has one, or is gone.
	VChannels []string `json:"vchannels,omitempty"`
}

// writtenMost is of how many channels a topic remembers that they are written to. The oldest go first.
const writtenMost = 256

func (t *Topic) validate() error {
	var p problems
	p.err(checkPChannel(t.PChannel))
	p.check(len(t.Position) <= MaxPosition, "a position of %d bytes, at most %d", len(t.Position), MaxPosition)
	p.check(len(t.VChannels) <= writtenMost, "%d channels, at most %d", len(t.VChannels), writtenMost)
	return p.join(errclass.Invalid)
}

// Written returns what is remembered of the topic of a pchannel.
func (c *Catalog) Written(ctx context.Context, pchannel string) (Written, error) {
	if err := checkPChannel(pchannel); err != nil {
		return Written{}, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.topicKey(pchannel)
	for try := 0; ; try++ {
		t, _, err := load[Topic](ctx, c, key, maxSmallManifest)
		switch {
		case errclass.Is(err, errclass.NotFound):
			return Written{}, nil
		case err == nil && t.PChannel != pchannel:
			return Written{}, errclass.New(errclass.Corrupt, "manifest %s is of pchannel %q, want %q", key, t.PChannel, pchannel)
		case err == nil:
			return t.Written, nil
		}
		if err := c.again(ctx, key, err, try); err != nil {
			return Written{}, errors.Wrapf(err, "what is known of the topic of pchannel %s", pchannel)
		}
	}
}

// NoteWritten remembers a position that a topic has, for a channel without a checkpoint that was there
// before it, and for those known before that have none: young are all channels without one. Once it is remembered for
// a channel it stays.
func (c *Catalog) NoteWritten(ctx context.Context, pchannel, vchannel, position string, young []string) error {
	return c.changeTopic(ctx, pchannel, func(w *Written) bool {
		if slices.Contains(w.VChannels, vchannel) {
			return false
		}
		names := slices.DeleteFunc(w.VChannels, func(name string) bool { return !slices.Contains(young, name) })
		names = append(names, vchannel)
		*w = Written{position, names[max(len(names)-writtenMost, 0):]}
		return true
	})
}

// ForgetWritten forgets what is remembered of a topic.
func (c *Catalog) ForgetWritten(ctx context.Context, pchannel string) error {
	return c.changeTopic(ctx, pchannel, func(w *Written) bool {
		changed := w.Position != "" || len(w.VChannels) > 0
		*w = Written{}
		return changed
	})
}

// changeTopic writes what is remembered of a topic if it is changed.
func (c *Catalog) changeTopic(ctx context.Context, pchannel string, by func(*Written) (changed bool)) error {
	if err := checkPChannel(pchannel); err != nil {
		return err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.topicKey(pchannel)
	for try := 0; ; try++ {
		_, err := change(ctx, c, key, maxSmallManifest, func(m *Topic, _ bool) error {
			if !by(&m.Written) {
				return errUnchanged
			}
			return nil
		})
		if errclass.Is(err, errclass.NotFound) {
			t := &Topic{PChannel: pchannel}
			if !by(&t.Written) {
				return nil
			}
			err = c.put(ctx, key, t, maxSmallManifest, "")
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
