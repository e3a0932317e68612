package node

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// lose drops all messages of the topic but the newest, as if it had been deleted and the next
// message had made it again.
func (w *world) lose(t *testing.T) {
	t.Helper()
	q := w.broker.Connect()
	b, err := q.Bounds(within(t), topic)
	must(t, err)
	must(t, q.Trim(within(t), topic, b.Last))
	must(t, q.Close(within(t)))
}

// lostText says what is told of the topic.
func (r *rig) lostText() (text string) {
	for _, line := range r.Troubles() {
		if strings.Contains(line, "begin-anew "+topic) {
			text = line
		}
	}
	return text
}

// TestATopicThatIsDeletedUnderItsOwnerIsToldUntilAllIsStored: with and without a checkpoint
// before that. What was in it and is in memory is stored, nobody has to ask for it.
func TestATopicThatIsDeletedUnderItsOwnerIsToldUntilAllIsStored(t *testing.T) {
	for name, young := range map[string]bool{"young": true, "with a checkpoint": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var away atomic.Bool
			r := w.open(func(o *Options) {
				unstoredYet(o)
				o.Bucket = full{o.Bucket, &away}
			}).ready()
			r.create()
			if !young {
				r.insert(between(0, 10)...)
				r.flush()
			}
			away.Store(true)
			r.insert(between(10, 20)...)
			r.has(map[bool]int64{true: 10, false: 20}[young])
			eventually(t, "it is known that all of the log is read", func() bool {
				all := r.watched()
				return len(all) == 1 && !all[0].Unproven
			})
			if len(r.LostTopics()) != 0 || r.lostText() != "" {
				t.Fatalf("told of before: %+v", r.LostTopics())
			}
			w.lose(t)
			eventually(t, "it is told", func() bool { return r.lostText() != "" })
			if all := r.LostTopics(); len(all) != 1 || all[0].PChannel != topic || !strings.Contains(r.lostText(), "it begins at ") {
				t.Errorf("%+v: %s", all, r.lostText())
			}
			r.insert(between(20, 30)...) // it goes on
			eventually(t, "what is in memory is to be stored", func() bool { return r.FlushesFailing() > 0 })
			if r.lostText() == "" {
				t.Error("nothing of it is stored, and it is not told any more")
			}
			away.Store(false)
			eventually(t, "all is stored", func() bool { return len(r.LostTopics()) == 0 && r.lostText() == "" })
			r.kill()
			w.open(nil).ready().has(map[bool]int64{true: 20, false: 30}[young])
		})
	}
}

// TestATopicThatIsDeletedBeforeItIsReadIsMissed: rows were acknowledged, and the node had yet to
// open its reader, which begins at the oldest message there is. The rows are in nobody's
// memory: no checkpoint passes over them, and reads fail.
func TestATopicThatIsDeletedBeforeItIsReadIsMissed(t *testing.T) {
	for name, old := range map[string]bool{"the first collection": false, "another one has a checkpoint": true} {
		t.Run(name, func(t *testing.T) { deletedBeforeItIsRead(t, old) })
	}
}

func deletedBeforeItIsRead(t *testing.T, old bool) {
	w := newWorld(t)
	if old {
		r := w.open(nil).ready()
		r.createAs("old", 1)
		coll, err := r.Collection(within(t), "old")
		must(t, err)
		eventually(t, "it has a checkpoint", func() bool {
			c, err := r.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
			return err == nil && c.Checkpoint != ""
		})
		r.close()
	}
	var hold atomic.Bool
	hold.Store(true)
	w.broker.SetHooks(mqtest.Hooks{BeforeOpenReader: func(_ context.Context, _ string, o mq.ReaderOptions) error {
		if strings.Contains(o.Name, "#") && hold.Load() { // the dispatcher's
			return errclass.New(errclass.Retryable, "not yet")
		}
		return nil
	}})
	r := w.open(nil)
	r.create()
	eventually(t, "the rows are written", func() bool {
		_, err := r.Delete(within(t), things, "", keysOf(1))
		return err == nil
	})
	r.insert(between(0, 10)...)
	had := len(w.broker.Messages(topic))
	eventually(t, "the next message is written", func() bool { return len(w.broker.Messages(topic)) > had })
	w.lose(t)
	hold.Store(false)
	eventually(t, "it is told what to do", func() bool {
		err := r.Problem()
		return err != nil && strings.Contains(err.Error(), "it had been written to at") && strings.Contains(err.Error(), "begin-anew "+topic)
	})
	if n, _, err := r.count(within(t), false); err == nil {
		t.Errorf("a read finds %d rows", n)
	}
	coll, err := r.Collection(within(t), things)
	must(t, err)
	c, err := r.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
	must(t, err)
	if c.Checkpoint != "" {
		t.Errorf("a checkpoint has passed over the rows: %+v", c)
	}
	r.kill()
	if _, err := w.beginAnew(t); err != nil {
		t.Errorf("%v", err)
	}
	w.open(nil).ready().has(0)
}

// TestATopicIsWholeWhateverTheClock of who created a collection said, which is gone by now.
func TestATopicIsWholeWhateverTheClock(t *testing.T) {
	w := newWorld(t)
	r := w.open(func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Hour) } }).ready()
	r.create()
	r.insert(between(0, 10)...)
	r.flush()
	r.checkpointed()
	must(t, r.DropCollection(within(t), things))
	r.createAs("next", 1)
	coll, err := r.Collection(within(t), "next")
	must(t, err)
	eventually(t, "the topic is trimmed", func() bool {
		b, err := r.o.Queue.Bounds(within(t), topic)
		c, bad := r.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
		return err == nil && bad == nil && c.Checkpoint != "" && !b.First.IsZero()
	})
	must(t, r.DropCollection(within(t), "next"))
	r.close()
	r = w.open(nil).ready()
	r.create()
	r.insert(between(0, 5)...)
	r.has(5)
	r.close()
	r = w.open(nil).ready()
	r.has(5)
	if text := r.lostText(); text != "" || len(r.LostTopics()) != 0 {
		t.Errorf("a topic is said to be lost that is not: %s", text)
	}
}

// TestATopicThatIsAnotherOneUnderItsOwnerIsTold before anything is written to it.
func TestATopicThatIsAnotherOneUnderItsOwnerIsTold(t *testing.T) {
	w := newWorld(t)
	to := &atomic.Pointer[mqtest.Memory]{}
	first := w.broker.Connect()
	to.Store(first)
	w.queue = func() mq.Queue { return moving{first, to} }
	r := w.open(func(o *Options) { unstoredYet(o); o.WAL.TimeTickInterval = time.Hour }).ready()
	r.create()
	r.insert(between(0, 10)...)
	other := w.anew(t, false).Connect()
	defer func() { must(t, other.Close(context.Background())) }()
	to.Store(other)
	eventually(t, "it is told", func() bool { return strings.Contains(r.lostText(), "this node has written to it up to") })
	to.Store(first)
	eventually(t, "it is the right one again", func() bool { return r.lostText() == "" })
}

// TestATopicIsWholeThatIsTrimmed by its owner, while collections come and go.
func TestATopicIsWholeThatIsTrimmed(t *testing.T) {
	w := newWorld(t)
	var told atomic.Pointer[string]
	r := w.open(func(o *Options) {
		o.RefreshInterval = time.Millisecond
		o.Flush = flush.Options{Interval: time.Millisecond, CheckpointInterval: 2 * time.Millisecond, Logger: o.Logger}
	}).ready()
	stop, watch := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watch)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				for _, l := range r.LostTopics() {
					text := l.String()
					told.Store(&text)
				}
			}
		}
	}()
	for range 10 {
		r.create()
		r.insert(between(0, 10)...)
		r.flush()
		must(t, r.DropCollection(within(t), things))
	}
	close(stop)
	<-watch
	if text := told.Load(); text != nil {
		t.Errorf("a topic is said to be lost that is not: %s", *text)
	}
}
