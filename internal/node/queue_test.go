package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/mqtest"
)

// openIn starts a standalone node of the world whose queue is in a folder.
func (w *world) openIn(dir, adopt string) (r *rig, identity string) {
	w.t.Helper()
	q, err := embedded.Open(embedded.Options{Dir: dir})
	must(w.t, err)
	w.queue = func() mq.Queue { return q }
	return w.open(func(o *Options) { o.Sole, o.AdoptQueue = true, adopt }), q.Identity()
}

// refuses waits until the node says why it does not serve, and tries a change.
func (r *rig) refuses(why error, words ...string) {
	r.t.Helper()
	eventually(r.t, "a reason", func() bool { return errors.Is(r.Problem(), why) })
	for _, word := range words {
		if text := r.Problem().Error(); !strings.Contains(text, word) {
			r.t.Errorf("%q does not say %q", text, word)
		}
	}
	select {
	case <-r.Ready():
		r.t.Error("it is ready")
	default:
	}
	_, err := r.Insert(within(r.t), things, "", &schema.Batch{Rows: 1, Columns: []*schema.Column{keysOf(7777),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2)}}}, false)
	if !errclass.Is(err, errclass.Conflict) {
		r.t.Errorf("a change is %v", err)
	}
	if n, _, err := r.count(within(r.t), false); err == nil {
		r.t.Errorf("a read finds %d rows", n)
	}
}

// TestTwoNodesWithQueuesOfTheirOwnDoNotShareStorage: positions of the one mean nothing
// in the other, and what the second acknowledged would be lost.
func TestTwoNodesWithQueuesOfTheirOwnDoNotShareStorage(t *testing.T) {
	w := newWorld(t)
	first, _ := w.openIn(filepath.Join(t.TempDir(), "a"), "")
	first.ready().create()
	first.insert(between(0, 100)...)
	second, id := w.openIn(filepath.Join(t.TempDir(), "b"), "")
	second.refuses(catalog.ErrOtherQueue, "replicas: 1", "Pulsar", "queue.adopt: "+id)
	// What may be done is long, and the same for all logs and collections: once is enough.
	eventually(t, "the collection, too, is named", func() bool {
		text := second.Problem().Error()
		return strings.Contains(text, `serve collection "things": `) && strings.Contains(text, " is not opened either") && strings.Count(text, "replicas: 1") == 1
	})
	first.insert(between(100, 150)...)
	first.flush()
	first.has(150)
}

// TestAnEmptyQueueDoesNotHideWhatIsWritten: the volume of the queue was lost. The node
// refuses, and once it is told to begin anew, numbers its messages from behind all
// that is stored.
func TestAnEmptyQueueDoesNotHideWhatIsWritten(t *testing.T) {
	w := newWorld(t)
	lost, empty := filepath.Join(t.TempDir(), "lost"), filepath.Join(t.TempDir(), "empty")
	r, _ := w.openIn(lost, "")
	r.ready().create()
	for from := int64(0); from < 100; from += 10 {
		r.insert(between(from, from+10)...)
	}
	r.flush()
	r.checkpointed()
	r.close()
	r, id := w.openIn(empty, "")
	r.refuses(catalog.ErrOtherQueue, id)
	r.close()
	r, _ = w.openIn(empty, "another")
	r.refuses(catalog.ErrOtherQueue, id)
	r.close()
	r, _ = w.openIn(empty, id)
	r.ready().has(100)
	r.insert(between(100, 150)...)
	r.remove(between(0, 5)...)
	r.has(145)
	r.flush()
	r.insert(between(150, 160)...)
	r.close()
	r, _ = w.openIn(empty, "") // the option may go, or stay
	r.ready().has(155)
	r.flush()
	r.checkpointed()
	r.close()
	r, id = w.openIn(lost, "") // it comes back, too late
	r.refuses(catalog.ErrOtherQueue)
	r.close()
	r, _ = w.openIn(lost, id)
	eventually(t, "a reason", func() bool { return r.Problem() != nil && strings.Contains(r.Problem().Error(), "without messages") })
}

// TestAQueueThatWasSetBackIsNotServed: it is the same, from before some of what is stored.
func TestAQueueThatWasSetBackIsNotServed(t *testing.T) {
	w := newWorld(t)
	dir, copied := filepath.Join(t.TempDir(), "q"), filepath.Join(t.TempDir(), "copy")
	r, _ := w.openIn(dir, "")
	r.ready().create()
	r.insert(between(0, 10)...)
	r.close()
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	r, _ = w.openIn(dir, "")
	r.ready()
	for from := int64(10); from < 100; from += 10 {
		r.insert(between(from, from+10)...)
	}
	r.flush()
	r.checkpointed()
	r.close()
	r, _ = w.openIn(copied, "")
	r.refuses(mq.ErrAhead, "restore it")
	r.close()
	r, _ = w.openIn(dir, "")
	r.ready().has(100)
}

// TestABrokerThatLostItsTopicIsNotServed.
func TestABrokerThatLostItsTopicIsNotServed(t *testing.T) {
	w := newWorld(t)
	r := w.open(nil).ready()
	r.create()
	r.insert(between(0, 10)...)
	r.flush()
	r.checkpointed()
	r.close()
	had := w.broker
	w.broker = mqtest.NewBroker(mqtest.MemoryOptions{})
	r = w.open(nil)
	r.refuses(mq.ErrAhead, "restore the topic", "has no messages", "Z) are stored")
	r.close()
	w.broker = had
	w.open(nil).ready().has(10)
}

// TestAnOwnerLetsGoOfALogThatAnotherQueueHas: somebody has told the other to take its place.
func TestAnOwnerLetsGoOfALogThatAnotherQueueHas(t *testing.T) {
	w := newWorld(t)
	r, id := w.openIn(filepath.Join(t.TempDir(), "q"), "")
	r.ready().create()
	r.insert(between(0, 10)...)
	_, err := r.o.Catalog.AdoptQueue(context.Background(), topic, id, "another", "")
	must(t, err)
	eventually(t, "the log is let go of", func() bool { return errors.Is(r.Problem(), catalog.ErrOtherQueue) })
	if _, err := r.WALs().Get(topic); err == nil {
		t.Error("it goes on to write")
	}
}
