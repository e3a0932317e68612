package node

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/mq"
)

// late is a queue whose readers read nothing more while a test holds them.
type late struct {
	mq.Queue
	at *gate
}

type gate struct {
	shut atomic.Pointer[chan struct{}] // nil = open
	held atomic.Bool                   // a reader waits
}

func (q late) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Queue.OpenReader(ctx, topic, o)
	if err != nil {
		return nil, err
	}
	return lateReader{r, q.at}, nil
}

type lateReader struct {
	mq.Reader
	at *gate
}

func (r lateReader) Next(ctx context.Context) (mq.Message, error) {
	if shut := r.at.shut.Load(); shut != nil {
		r.at.held.Store(true)
		select {
		case <-*shut:
		case <-ctx.Done():
			return mq.Message{}, ctx.Err()
		}
	}
	return r.Reader.Next(ctx)
}

// TestAReaderThatLagsIsToldThatItsTopicWasDeleted: it does not own the log, and had yet to read rows of it.
// They are not passed over: its reads fail, and it is told, until the owner, which has them in
// memory, has stored them, or the topic is begun anew.
func TestAReaderThatLagsIsToldThatItsTopicWasDeleted(t *testing.T) {
	for name, stored := range map[string]bool{"its owner stores them": true, "they are given up": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var away atomic.Bool
			owner := w.open(func(o *Options) {
				dispatched(o)
				unstoredYet(o)
				o.Bucket = full{o.Bucket, &away}
			})
			owner.create()
			owner.own()
			owner.load()
			owner.insert(between(0, 10)...)
			owner.flush()
			at := &gate{}
			w.queue = func() mq.Queue { return late{w.broker.Connect(), at} }
			reader := w.open(dispatched)
			reader.load()
			reader.has(10)
			shut := make(chan struct{})
			at.shut.Store(&shut)
			eventually(t, "it reads nothing more", at.held.Load)
			away.Store(true)
			owner.insert(between(10, 20)...)
			owner.has(20)
			w.lose(t)
			eventually(t, "the owner is told", func() bool { return owner.lostText() != "" })
			close(shut) // the reader may know by now, from a look at the topic, or finds out as it reads on
			at.shut.Store(nil)
			eventually(t, "the reader is told", func() bool { return reader.lostText() != "" && len(reader.LostTopics()) == 1 })
			if text := reader.lostText(); !strings.Contains(text, "leave it running") || strings.Contains(text, "what is written to it here would be lost") {
				t.Error(text)
			}
			if n, _, err := reader.count(within(t), false); err == nil || !strings.Contains(err.Error(), "begin-anew "+topic) {
				t.Errorf("a read finds %d rows: %v", n, err)
			}
			if stored {
				away.Store(false)
				eventually(t, "all is stored", func() bool { return owner.lostText() == "" })
				reader.serves(20)
				return
			}
			owner.kill()
			w.queue = nil
			if _, err := w.beginAnew(t); err != nil {
				t.Fatal(err)
			}
			owner = w.open(dispatched)
			owner.own()
			reader.serves(10)
			owner.insert(between(20, 25)...)
			reader.serves(15)
		})
	}
}

// serves waits until the node has so many rows, and nothing to tell.
func (r *rig) serves(want int64) {
	r.t.Helper()
	eventually(r.t, "it serves", func() bool {
		got, _, err := r.count(within(r.t), false)
		return err == nil && got == want && r.lostText() == "" && len(r.LostTopics()) == 0
	})
}
