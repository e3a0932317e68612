package node

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/mqtest"
	"github.com/querynode/querynode/mq/wal"
)

// frozen is a queue whose readers hand out nothing while it is shut.
type frozen struct {
	mq.Queue
	mu   sync.Mutex
	open chan struct{}
}

func freezable(q mq.Queue) *frozen {
	f := &frozen{Queue: q, open: make(chan struct{})}
	close(f.open)
	return f
}

func (f *frozen) shut() (open func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = make(chan struct{})
	return sync.OnceFunc(func() { close(f.open) })
}

func (f *frozen) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := f.Queue.OpenReader(ctx, topic, o)
	return &frozenReader{r, f}, err
}

type frozenReader struct {
	mq.Reader
	f *frozen
}

func (r *frozenReader) Next(ctx context.Context) (mq.Message, error) {
	r.f.mu.Lock()
	open := r.f.open
	r.f.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
		return mq.Message{}, ctx.Err()
	}
	return r.Reader.Next(ctx)
}

// TestAnOwnerThatWasReplacedDoesNotAnswerStrongReads: it does not know yet, and
// has not read what its successor has acknowledged.
func TestAnOwnerThatWasReplacedDoesNotAnswerStrongReads(t *testing.T) {
	w := newWorld(t)
	var late *frozen
	w.queue = func() mq.Queue { late = freezable(w.broker.Connect()); return late }
	never := func(o *Options) { o.WAL.TimeTickInterval = -1 }
	old := w.open(never).ready()
	old.create()
	old.insert(between(0, 10)...)
	old.has(10)
	w.queue = nil
	next := w.open(nil).ready() // takes the log
	open := late.shut()
	defer open()
	next.insert(10)
	next.has(11)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	got, _, err := old.count(ctx, false)
	if err == nil || !errclass.Of(err).Retry() {
		t.Errorf("the old owner answers with %d of 11 rows: %v", got, err)
	}
	open()
	old.has(11) // like everybody else
}

// TestAnOwnerThatWasReplacedIsNoOlderThanTheBound: it believes that what it has
// acknowledged is all there is, for as long as it has nothing to write.
func TestAnOwnerThatWasReplacedIsNoOlderThanTheBound(t *testing.T) {
	w := newWorld(t)
	var late *frozen
	w.queue = func() mq.Queue { late = freezable(w.broker.Connect()); return late }
	old := w.open(func(o *Options) { o.WAL.TimeTickInterval, o.BoundedStaleness = -1, time.Nanosecond }).ready()
	old.create()
	old.insert(between(0, 10)...)
	old.has(10)
	w.queue = nil
	next := w.open(nil).ready() // takes the log
	open := late.shut()
	defer open()
	next.insert(10)
	for inserted := time.Now(); time.Since(inserted) < 2*time.Millisecond; { // timestamps count milliseconds
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	got, _, err := old.countAt(ctx, Freshness{Level: Bounded}, false)
	if err == nil && got != 11 || err != nil && !errclass.Of(err).Retry() {
		t.Errorf("the old owner answers with %d of 11 rows: %v", got, err)
	}
	open()
	if got, _, err := old.countAt(within(t), Freshness{Level: Bounded}, false); err != nil || got != 11 {
		t.Errorf("%d of 11 rows, %v", got, err)
	}
}

// TestAnOwnerThatWasReplacedLearnsItByATimetick, if it has nothing else to write.
func TestAnOwnerThatWasReplacedLearnsItByATimetick(t *testing.T) {
	w := newWorld(t)
	old, next := w.open(dispatched), w.open(dispatched)
	old.own()
	l, err := old.WALs().Get(topic)
	must(t, err)
	next.own()
	eventually(t, "the old owner knows", func() bool { return l.State() != wal.Ready })
	if _, err := l.Append(within(t), wal.Entry{Type: wal.Insert, VChannel: "v"}); !errors.Is(err, mq.ErrFenced) {
		t.Errorf("an append by the old owner: %v", err)
	}
}

// TestTheOwnerAnswersStrongReadsWithoutATimetick: it writes something small, once
// for all reads that wait.
func TestTheOwnerAnswersStrongReadsWithoutATimetick(t *testing.T) {
	w := newWorld(t)
	n := w.open(func(o *Options) { o.Standalone, o.WAL.TimeTickInterval = false, time.Hour })
	n.own()
	n.create()
	n.load()
	n.insert(between(0, 10)...)
	l, err := n.WALs().Get(topic)
	must(t, err)
	before := l.Stats().Fences
	var readers sync.WaitGroup
	for range 20 {
		readers.Go(func() {
			for range 5 {
				if got, _, err := n.count(within(t), false); err != nil || got != 10 {
					t.Errorf("%d rows, %v", got, err)
				}
			}
		})
	}
	readers.Wait()
	if s := l.Stats(); s.Ticks != 1 || s.Fences == before || s.Fences > before+100 {
		t.Errorf("100 reads took %d fences and %d timeticks", s.Fences-before, s.Ticks)
	}
}

// TestASoleNodeAsksNobody: on a queue of its own the owner just knows.
func TestASoleNodeAsksNobody(t *testing.T) {
	n := newWorld(t).open(func(o *Options) { o.Sole = true }).ready()
	n.create()
	n.insert(between(0, 10)...)
	n.has(10)
	l, err := n.WALs().Get(topic)
	must(t, err)
	if s := l.Stats(); s.Fences != 0 {
		t.Errorf("%d fences", s.Fences)
	}
}

// BenchmarkStrongRead counts 100 rows at STRONG on the embedded queue, as the sole
// node of a queue, as the owner of a log that others could take, and as a node
// that follows it (timeticks come every 200 ms).
func BenchmarkStrongRead(b *testing.B) {
	for _, c := range []struct {
		name             string
		sole, standalone bool
		follower         bool
	}{{"sole", true, true, false}, {"owner", false, true, false}, {"owner/dispatched", false, false, false}, {"follower", false, false, true}} {
		for _, readers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/readers=%d", c.name, readers), func(b *testing.B) {
				w := newWorld(b)
				w.broker = mqtest.NewBroker(mqtest.MemoryOptions{})
				files, err := embedded.Open(embedded.Options{Dir: b.TempDir()})
				must(b, err)
				w.queue = func() mq.Queue { return unclosed{files} }
				b.Cleanup(func() { must(b, files.Close(context.Background())) })
				change := func(o *Options) {
					o.Sole, o.Standalone, o.WAL.TimeTickInterval = c.sole, c.standalone, 200*time.Millisecond
				}
				n := w.open(change)
				if !c.standalone {
					n.own()
				}
				n.create()
				n.load()
				n.insert(between(0, 100)...)
				if c.follower {
					n = w.open(change)
					n.load()
				}
				n.has(100)
				took := make([][]time.Duration, readers)
				b.ResetTimer()
				var all sync.WaitGroup
				for r := range readers {
					all.Go(func() {
						for range max(1, b.N/readers) {
							begun := time.Now()
							if _, _, err := n.count(context.Background(), false); err != nil {
								b.Error(err)
							}
							took[r] = append(took[r], time.Since(begun))
						}
					})
				}
				all.Wait()
				b.StopTimer()
				flat := slices.Concat(took...)
				slices.Sort(flat)
				b.ReportMetric(float64(flat[len(flat)/2].Nanoseconds())/1e6, "p50-ms")
				b.ReportMetric(float64(flat[len(flat)*99/100].Nanoseconds())/1e6, "p99-ms")
			})
		}
	}
}

// unclosed is a connection to a queue that its nodes share.
type unclosed struct{ mq.Queue }

func (unclosed) Close(context.Context) error { return nil }
