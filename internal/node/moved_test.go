package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
)

// movingLog is a queue whose log moves on between what a node knows of it and what it asks the queue:
// some of the questions wait for the test.
type movingLog struct {
	mq.Queue
	bounds, readers *held
}

type held struct {
	left  atomic.Int64 // how many questions are to wait
	asked chan struct{}
	goOn  chan struct{}
}

func newHeld() *held { return &held{asked: make(chan struct{}), goOn: make(chan struct{})} }

func (h *held) wait(ctx context.Context) error {
	if h.left.Add(-1) < 0 {
		return nil
	}
	select {
	case h.asked <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-h.goOn:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (q movingLog) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	if err := q.bounds.wait(ctx); err != nil {
		return mq.Bounds{}, err
	}
	return q.Queue.Bounds(ctx, topic)
}

func (q movingLog) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	if err := q.readers.wait(ctx); err != nil {
		return nil, err
	}
	return q.Queue.OpenReader(ctx, topic, o)
}

// movesOn has the owner of the log write and store more, and waits until the log is trimmed so far
// that what comes next behind each checkpoint of before is gone.
func (r *rig) movesOn(ids ...int64) {
	r.t.Helper()
	r.insert(ids[0])
	r.insert(ids[1:]...)
	w, err := r.WALs().Get(topic)
	must(r.t, err)
	at := w.LastTimestamp()
	r.flush()
	eventually(r.t, "the log is trimmed", func() bool {
		b, err := r.o.Queue.Bounds(within(r.t), topic)
		must(r.t, err)
		return b.First.Timestamp >= at
	})
}

// beside returns an owner of a log, of which rows are stored, and a node beside it whose queue is a movingLog.
func (w *world) beside() (owner, n *rig, q movingLog) {
	owner = w.open(dispatched)
	owner.own()
	owner.create()
	owner.load()
	owner.insert(between(0, 10)...)
	owner.flush()
	owner.checkpointed()
	q = movingLog{bounds: newHeld(), readers: newHeld()}
	w.queue = func() mq.Queue { q.Queue = w.broker.Connect(); return q }
	return owner, w.open(dispatched), q
}

// TestALogThatIsTrimmedWhileItIsLookedAtIsNotLost: a node has read the manifest of a channel, and before it asks the
// queue the owner of the log has stored more, and has let go of that. Nothing is lost: a later manifest says so.
func TestALogThatIsTrimmedWhileItIsLookedAtIsNotLost(t *testing.T) {
	load := func(n *rig) error {
		_, err := n.LoadCollection(within(n.t), things)
		return err
	}
	own := func(n *rig) error {
		_, _, err := n.AssignChannel(within(n.t), topic, 0)
		return err
	}
	for name, c := range map[string]struct {
		begin func(*rig) error
		times int64 // that the log moves on
	}{
		"it is loaded":                      {load, 1}, // what the queue has said then is remembered
		"its log is taken":                  {own, 1},
		"its log is taken, again and again": {own, movesMost - 1},
	} {
		t.Run(name, func(t *testing.T) {
			owner, n, q := newWorld(t).beside()
			q.bounds.left.Store(c.times)
			begun := make(chan error, 1)
			go func() { begun <- c.begin(n) }()
			rows := int64(10)
			for range c.times {
				select {
				case <-q.bounds.asked:
				case err := <-begun:
					t.Fatalf("with %d rows: %v", rows, err)
				}
				owner.movesOn(between(rows, rows+10)...)
				rows += 10
				q.bounds.goOn <- struct{}{}
			}
			must(t, <-begun)
			if lost := n.LostTopics(); len(lost) > 0 {
				t.Errorf("it is lost: %+v", lost)
			}
			n.load()
			n.has(rows)
		})
	}
}

// TestAChannelWhosePlaceIsTrimmedBeforeEachReaderBeginsAnew: its place is gone when it begins, and
// when it begins anew, as the owner of the log has stored more each time.
func TestAChannelWhosePlaceIsTrimmedBeforeEachReaderBeginsAnew(t *testing.T) {
	owner, n, q := newWorld(t).beside()
	const times = movesMost
	q.readers.left.Store(times)
	begun := make(chan error, 1)
	go func() {
		_, err := n.LoadCollection(within(n.t), things)
		begun <- err
	}()
	rows := int64(10)
	for range times {
		select {
		case <-q.readers.asked:
		case <-time.After(hangs):
			t.Fatalf("with %d rows: it does not begin again; lost: %+v", rows, n.LostTopics())
		}
		if lost := n.LostTopics(); len(lost) > 0 {
			t.Errorf("with %d rows it is lost: %+v", rows, lost)
		}
		owner.movesOn(between(rows, rows+10)...)
		rows += 10
		q.readers.goOn <- struct{}{}
	}
	must(t, <-begun)
	n.has(rows)
	if lost := n.LostTopics(); len(lost) > 0 {
		t.Errorf("it is lost: %+v", lost)
	}
}

// TestAChannelThatIsStoredForTheFirstTimeWhileItsReaderIsOpenedLacksNothing: a node that does not own the log has read
// that a channel has no checkpoint, so that it is to be read from the oldest message. Before its reader is there the
// owner stores all, for the first time, and lets go of it: what is the oldest then comes behind rows that the node
// knows nowhere. No read does without them, also if the catalog is not looked at for an hour.
func TestAChannelThatIsStoredForTheFirstTimeWhileItsReaderIsOpenedLacksNothing(t *testing.T) {
	w := newWorld(t)
	owner := w.open(func(o *Options) { dispatched(o); unstoredYet(o) })
	owner.own()
	owner.create()
	owner.load()
	owner.insert(between(0, 10)...)
	q := movingLog{bounds: newHeld(), readers: newHeld()}
	w.queue = func() mq.Queue { q.Queue = w.broker.Connect(); return q }
	n := w.open(func(o *Options) { dispatched(o); o.RefreshInterval = time.Hour })
	q.readers.left.Store(1)
	n.load()
	<-q.readers.asked
	owner.movesOn(between(10, 20)...)
	q.readers.goOn <- struct{}{}
	n.has(20)
	owner.insert(between(20, 30)...)
	n.has(30)
	if lost := n.LostTopics(); len(lost) > 0 {
		t.Errorf("it is lost: %+v", lost)
	}
}
