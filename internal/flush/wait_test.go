package flush

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// rig is a flusher that owns no log, and a channel with segments.
type rig struct {
	t    *testing.T
	f    *Flusher
	coll *segments.Collection
	ch   Channel
	ts   uint64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigWith(t, nil)
}

// newRigWith is newRig with a ledger; nil = one without a limit.
func newRigWith(t *testing.T, l *segments.Ledger) *rig {
	t.Helper()
	r := &rig{t: t, ts: 100}
	bucket := objstore.NewMem(nil)
	cat, err := catalog.Open(t.Context(), catalog.Options{Bucket: bucket})
	must(t, err)
	p, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	set, err := segments.New(segments.Options{Dir: filepath.Join(t.TempDir(), "segments"), Pool: p, Ledger: l, GrowingRows: 1000})
	must(t, err)
	s := &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}
	r.coll = set.Add(segments.CollectionInfo{ID: 1, Name: "items", Schema: s, Indexes: map[int64]segments.VectorIndex{101: {Type: "FLAT", Metric: index.L2}}})
	ch, err := r.coll.Watch("v", segments.Position{ID: "0", Timestamp: r.ts}, nil)
	must(t, err)
	r.ch = Channel{Channel: ch, PChannel: "p"}
	r.f, err = New(Options{Catalog: cat, Bucket: bucket, Dir: filepath.Join(t.TempDir(), "flush"),
		WAL: func(string) (*wal.WAL, error) {
			return nil, errclass.New(errclass.NotFound, "another node has the log")
		},
		Channels: func() []Channel { return []Channel{r.ch} }})
	must(t, err)
	t.Cleanup(func() {
		for _, c := range []func(context.Context) error{r.f.Close, set.Close, p.Close, bucket.Close} {
			must(t, c(context.Background()))
		}
	})
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

// grow puts a row into a growing segment.
func (r *rig) grow(segment, partition int64) {
	r.t.Helper()
	r.ts += 10
	b := &schema.Batch{Rows: 1, Columns: []*schema.Column{{FieldID: 100, Type: schema.Int64, Int: []int64{1}},
		{FieldID: 101, Type: schema.FloatVector, Dim: 2, Float: []float32{1, 2}}}}
	must(r.t, r.ch.ApplyRows(segments.Rows{SegmentID: segment, PartitionID: partition, Batch: b}, segments.Position{Timestamp: r.ts}))
	r.ch.Advance(segments.Position{Timestamp: r.ts})
}

// wait calls Wait elsewhere, and returns once it is waiting.
func (r *rig) wait(ctx context.Context, id int64) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.f.Wait(ctx, r.ch, r.ts, id) }()
	for {
		r.f.mu.Lock()
		n := len(r.f.mu.waiting)
		r.f.mu.Unlock()
		if n > 0 || len(done) > 0 {
			return done
		}
	}
}

func (r *rig) nobodyWaits() {
	r.t.Helper()
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if n := len(r.f.mu.waiting); n != 0 {
		r.t.Fatalf("%d waiters left", n)
	}
}

func TestWaitEndsWhenTheSegmentIsInTheCatalog(t *testing.T) {
	r := newRig(t)
	r.grow(1, 7)
	done := r.wait(t.Context(), 1)
	r.f.flushed(r.ch, Flushed{SegmentID: 1})
	must(t, <-done)
	must(t, r.f.Wait(t.Context(), r.ch, r.ts, 1)) // again: it is there
	r.nobodyWaits()
}

// TestAWaitThatIsGivenUpSaysForWhat: which segment, and what keeps it.
func TestAWaitThatIsGivenUpSaysForWhat(t *testing.T) {
	r := newRig(t)
	r.grow(12, 7)
	gaveUp := func(want ...string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		done := r.wait(ctx, 12)
		cancel()
		err := <-done
		for _, w := range append(want, "segment 12 of channel v") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%v does not say %q", err, w)
			}
		}
	}
	// No step of the loop comes between: one is under way, or is to wait, as far as it knows.
	r.f.mu.Lock()
	for s := r.f.mu.steps["v"]; s != nil; s = r.f.mu.steps["v"] {
		r.f.mu.Unlock()
		<-s.done
		r.f.mu.Lock()
	}
	r.f.mu.steps["v"] = &step{}
	r.f.mu.Unlock()
	gaveUp("being built or stored")
	r.f.mu.Lock()
	r.f.mu.failing["v"] = &failure{err: errors.New("no route to storage"), since: time.Now().Add(-time.Minute)}
	r.f.mu.Unlock()
	gaveUp("failing for 1m", "no route to storage")
	r.f.mu.Lock()
	delete(r.f.mu.failing, "v")
	delete(r.f.mu.steps, "v")
	r.f.mu.retryAt["v"] = time.Now().Add(time.Hour)
	r.f.mu.Unlock()
	gaveUp("other channels are before it")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.f.Wait(ctx, r.ch, r.ts+1, 12); err == nil || !strings.Contains(err.Error(), "[12] of channel v to be read from the log") {
		t.Error(err)
	}
}

// TestASegmentWithoutRowsNeedsNoFlush: its appends have failed.
func TestASegmentWithoutRowsNeedsNoFlush(t *testing.T) {
	r := newRig(t)
	must(t, r.f.Wait(t.Context(), r.ch, r.ts, 99))
	r.nobodyWaits()
}

func TestWaitEndsWithItsPartition(t *testing.T) {
	r := newRig(t)
	r.grow(1, 7)
	done := r.wait(t.Context(), 1)
	r.coll.DropPartition(7)
	r.f.Kick()
	must(t, <-done)
	r.nobodyWaits()
}

func TestWaitEndsWithItsChannelContextAndFlusher(t *testing.T) {
	r := newRig(t)
	r.grow(1, 7)
	ctx, cancel := context.WithCancel(t.Context())
	done := r.wait(ctx, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !errclass.Is(err, errclass.Retryable) {
		t.Fatal(err)
	}
	r.nobodyWaits()
	done = r.wait(t.Context(), 1)
	r.coll.Unwatch("v")
	r.f.Kick()
	if err := <-done; !errclass.Is(err, errclass.Retryable) {
		t.Fatalf("the rows may not be in the catalog: %v", err)
	}
	r.nobodyWaits()

	r = newRig(t)
	r.grow(1, 7)
	done = r.wait(t.Context(), 1)
	must(t, r.f.Close(context.Background()))
	if err := <-done; !errclass.Is(err, errclass.Closed) {
		t.Fatal(err)
	}
	// The seal has not been applied here yet.
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := r.f.Wait(ctx, r.ch, r.ts+1, 1); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestOptionsListAllProblems(t *testing.T) {
	_, err := New(Options{SealRows: -1, Workers: -1})
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"Catalog", "Bucket", "Dir", "WAL", "Channels", "SealRows", "Workers"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// hangs is how long a test waits for what should happen at once, on a machine that has
// much else to do.
const hangs = 3 * time.Minute

// eventually waits until ok says so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(hangs); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", hangs, what)
		}
	}
}

// TestAChannelThatIsNotWatchedAnyMoreHasNoCheckpoint: it has let go of rows that are not stored, and would put it behind them.
func TestAChannelThatIsNotWatchedAnyMoreHasNoCheckpoint(t *testing.T) {
	r := newRig(t)
	r.f.mu.saved["v"] = saved{timestamp: r.ts}
	r.grow(7, 1)
	r.ch.Advance(segments.Position{ID: "9", Timestamp: r.ts + 5})
	r.coll.Unwatch("v")
	if to := r.ch.Checkpoint(); to.Timestamp != r.ts+5 {
		t.Fatalf("the channel is at %+v: the test has nothing to show", to)
	}
	must(t, r.f.checkpoint(t.Context(), r.ch, nil, true)) // there is no log to commit with
}
