package node

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
