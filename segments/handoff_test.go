package segments

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

// readers query all the time until stop is called, and fail the test if a count
// or a key is wrong. The rows [0, n) are always there.
func (r *rig) readers(n int, query func(key int64) error) (stop func()) {
	var wg sync.WaitGroup
	var done atomic.Bool
	var rounds atomic.Int64
	for range 3 {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				if c := r.count(0); c != int64(n) {
					r.t.Errorf("count is %d, want %d", c, n)
					return
				}
				if err := query(int64(i % n)); err != nil {
					r.t.Error(err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	return func() {
		before := rounds.Load()
		for rounds.Load() < before+3 && !r.t.Failed() {
			r.count(0)
		}
		done.Store(true)
		wg.Wait()
	}
}

func (r *rig) findKey(key int64) error {
	res, err := r.search(SearchRequest{Vectors: vectorOf(key, 0), TopK: 1})
	if err != nil {
		return err
	}
	if len(res.Keys.Int) != 1 || res.Keys.Int[0] != key {
		return fmt.Errorf("nearest to row %d is %v", key, res.Keys.Int)
	}
	return nil
}

func TestHandOffIsOneStepForReaders(t *testing.T) {
	r := newRig(t, rigOptions{})
	const n = 200
	for s := range int64(4) {
		r.insert(s, seq(s*50, s*50+50)...)
	}
	stop := r.readers(n, r.findKey)
	for s := range int64(4) {
		r.handOff(s)
	}
	stop()
	for s := range int64(4) {
		if st := r.status(s).State; st != "loaded" {
			t.Errorf("segment %d is %s", s, st)
		}
	}
}

// TestReleaseUnderAReader: a segment that is released stays readable for those
// who hold a Snapshot, and is gone, files and all, when the last one lets go.
func TestReleaseUnderAReader(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 100)...)
	r.handOff(1)
	first, second := r.coll.Acquire(), r.coll.Acquire()
	s := first.view.segments[0].segment.(*Sealed)
	if got := r.coll.Release(1); !slices.Equal(got, []int64{1}) {
		t.Fatalf("released %v", got)
	}
	if len(r.coll.Segments()) != 0 || r.count(0) != 0 {
		t.Fatal("released and still served")
	}
	first.Release()
	first.Release() // harmless
	// Reading now would fault if the files were unmapped.
	sum := float32(0)
	for _, v := range s.stored(vectorField).base {
		sum += v
	}
	if _, err := os.Stat(s.dir); err != nil || sum == 0 {
		t.Fatalf("the files went while a reader was there: %v", err)
	}
	second.Release()
	r.idle()
	if left, _ := filepath.Glob(filepath.Join(r.dir, "*")); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
	if used := r.set.Ledger().Used(); used[KindSealed] != 0 || used[KindMapped] != 0 {
		t.Fatalf("ledger: %v", used)
	}
}

// idle waits until the goroutines that close segments have ended.
func (r *rig) idle() {
	r.t.Helper()
	eventually(r.t, "segments that nobody reads are closed", func() bool { return len(r.set.late.Running()) == 0 })
}

func TestReleaseAndLoadAgain(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.handOff(1)
	held := r.coll.Acquire()
	r.coll.Release(1)
	r.delete(3) // nobody has the segment: it comes from the buffer
	must(t, r.load(1))
	r.check(r.now)
	held.Release()
	r.idle()
	r.check(r.now)
	if r.coll.Release(1, 99); len(r.coll.Release(1)) != 0 {
		t.Fatal("released twice")
	}
}

// stall makes the load of a segment wait at its first file until go on is called.
func (r *rig) stall() (stalled <-chan struct{}, goOn func()) {
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if c.Op == objstore.OpGet && filepath.Ext(c.Key) == ".parquet" {
			once.Do(func() { close(in); <-out })
		}
		return objstore.Fault{}
	})
	return in, sync.OnceFunc(func() { close(out) })
}

// noticed is a context that tells when somebody begins to wait for its end.
type noticed struct {
	context.Context
	waits func()
}

func (n *noticed) Done() <-chan struct{} {
	n.waits()
	return n.Context.Done()
}

// TestALoadOfAChannelThatBeganAnewIsItsOwn: it waits for one that was under way
// before, and does not get the error that the channel has gone.
func TestALoadOfAChannelThatBeganAnewIsItsOwn(t *testing.T) {
	r := uploaded(t, rigOptions{})
	stalled, goOn := r.stall()
	defer goOn()
	before := r.loadLater(1)
	<-stalled
	r.coll.Unwatch("v")
	var err error
	r.ch, err = r.coll.Watch("v", Position{ID: "anew", Timestamp: r.now}, map[int64]uint64{1: Latest})
	must(t, err)
	waits, after := make(chan struct{}), make(chan error, 1)
	go func() {
		ctx := &noticed{t.Context(), sync.OnceFunc(func() { close(waits) })}
		after <- r.coll.Load(ctx, LoadRequest{SegmentID: 1, VChannel: "v", Path: "segments/1"})
	}()
	select {
	case <-waits: // for the one under way: it has joined it
	case err := <-after:
		t.Fatalf("loaded beside the one under way: %v", err)
	}
	if n := len(r.set.Loading()); n != 1 {
		t.Fatalf("%d loads are under way", n)
	}
	goOn()
	if err := <-before; !errclass.Is(err, errclass.Closed) && !errclass.Is(err, errclass.Conflict) {
		t.Errorf("the load of the channel that has gone: %v", err)
	}
	must(t, <-after)
	r.check(r.now)
}

func (r *rig) loadLater(segment int64, deltas ...Delta) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.load(segment, deltas...) }()
	return done
}

// TestNoDeleteIsLostDuringALoad: deletes that come before, while and after a
// segment is loaded hide its rows, though the buffer is trimmed whenever it may be.
func TestNoDeleteIsLostDuringALoad(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1) // as on a node that does not serve it yet
	before := r.delete(1)
	// The catalog gets the delete as a file, and the buffer is trimmed.
	file := r.delta("deltas/1", deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1}}, before))
	r.ch.TrimDeletes(before)

	unpin := r.ch.PinDeletes()
	stalled, goOn := r.stall()
	done := r.loadLater(1, file)
	<-stalled
	during := r.delete(2)
	unpin() // the caller need not wait: the load has a pin of its own
	r.ch.TrimDeletes(during)
	if got := len(r.ch.mu.buffer.batches); got != 1 {
		t.Fatalf("%d deletes in the buffer while a load is under way, want the one after the file", got)
	}
	goOn()
	must(t, <-done)
	if got := len(r.ch.mu.buffer.batches); got != 0 {
		t.Fatalf("%d deletes in the buffer after the load: the trim was put off, not dropped", got)
	}
	r.delete(3)
	r.checkAlways()
}

// TestALoadThatMissesDeletesFails: its caller asked the catalog too early.
func TestALoadThatMissesDeletesFails(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1)
	asked := r.now
	r.delete(1)
	r.ch.TrimDeletes(r.now)
	q := LoadRequest{SegmentID: 1, VChannel: "v", Path: "segments/1", DeltasUpTo: asked}
	wantClass(t, r.coll.Load(t.Context(), q), errclass.Retryable)
	r.idle()
	if len(r.coll.Segments()) != 0 {
		t.Fatal("published without a delete")
	}
	q.DeltasUpTo = r.now
	q.Deltas = []Delta{r.delta("deltas/1", deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1}}, r.now))}
	must(t, r.coll.Load(t.Context(), q))
	r.check(r.now)
}

// TestDeletesWhileManyLoad: random deletes beside loads and releases.
func TestDeletesWhileManyLoad(t *testing.T) {
	r := newRig(t, rigOptions{})
	const n, segments = 40, 3
	for s := range int64(segments) {
		r.insert(s, seq(s*n, s*n+n)...)
		r.seal(s)
		r.upload(s)
		r.ch.Forget(s)
	}
	var wg sync.WaitGroup
	for s := range int64(segments) {
		wg.Go(func() {
			for range 4 {
				if err := r.load(s); err != nil {
					t.Error(err)
				}
				r.coll.Release(s)
			}
			if err := r.load(s); err != nil {
				t.Error(err)
			}
		})
	}
	for k := int64(0); k < n*segments; k += 2 {
		r.delete(k)
	}
	wg.Wait()
	r.checkAlways()
}

func TestSealedSegmentsOfAChannelThatWasLeft(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.handOff(1)
	r.insert(2, seq(20, 30)...)
	r.coll.Unwatch("v")
	_, err := r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 1})
	wantClass(t, err, errclass.Conflict)
	if got := r.coll.Segments(); len(got) != 1 || got[0].ID != 1 {
		t.Fatalf("segments %v: the growing one goes with its channel", got)
	}
	t.Run("nothing missed", func(t *testing.T) {
		_, err := r.coll.Watch("v", Position{Timestamp: r.now}, map[int64]uint64{1: Latest})
		must(t, err)
		if len(r.coll.Segments()) != 1 {
			t.Fatal("it had seen all deletes and is gone")
		}
		r.coll.Unwatch("v")
	})
	t.Run("deletes passed by", func(t *testing.T) {
		_, err := r.coll.Watch("v", Position{Timestamp: r.now + 1}, map[int64]uint64{1: Latest})
		must(t, err)
		if len(r.coll.Segments()) != 0 {
			t.Fatal("it has missed deletes and would show rows that are gone")
		}
	})
}

// TestAReadWhoseChannelLeaves must not take its rows for gone.
func TestAReadWhoseChannelLeaves(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2, 3)
	left := false
	read := Read{Guarantee: func(string) uint64 {
		if !left {
			// Between the wait for the timestamp and the snapshot.
			left = true
			r.coll.Unwatch("v")
		}
		return 0
	}}
	_, err := r.coll.Query(t.Context(), &QueryRequest{Read: read, CountOnly: true}, nil)
	wantClass(t, err, errclass.Conflict)

	t.Run("and comes back", func(t *testing.T) {
		var err error
		r.ch, err = r.coll.Watch("v", Position{Timestamp: 1000}, nil)
		must(t, err)
		calls := 0
		read := Read{Guarantee: func(string) uint64 {
			switch calls++; calls {
			case 1:
				r.coll.Unwatch("v")
				if r.ch, err = r.coll.Watch("v", Position{Timestamp: 1000}, nil); err != nil {
					t.Error(err)
				}
				return 0
			case 2:
				// The new one has no rows yet: the read has to wait for it, too.
				go func() {
					at := Position{Timestamp: 1010}
					if err := r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch([]int64{1, 2, 3}, 0)}, at); err != nil {
						t.Error(err)
					}
					r.ch.Advance(at)
				}()
			}
			return 1010
		}}
		res, err := r.coll.Query(t.Context(), &QueryRequest{Read: read, CountOnly: true}, nil)
		must(t, err)
		if res.Count != 3 || calls != 2 {
			t.Fatalf("count %d, want 3; asked %d times", res.Count, calls)
		}
	})
}

// TestTwoChannels are read at their own timestamps and leave one by one.
func TestTwoChannels(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2)
	var other *Channel
	watch := sync.OnceFunc(func() {
		var err error
		other, err = r.coll.Watch("w", Position{Timestamp: 5000}, nil)
		must(t, err)
		at := Position{Timestamp: 5010}
		must(t, other.ApplyRows(Rows{SegmentID: 2, PartitionID: 7, Batch: r.batch([]int64{3, 4}, 0)}, at))
		other.Advance(at)
	})
	// One that comes while a read waits is read as well.
	res, err := r.coll.Query(t.Context(), &QueryRequest{CountOnly: true, Read: Read{Guarantee: func(string) uint64 { watch(); return 0 }}}, nil)
	must(t, err)
	if res.Count != 4 || !slices.Equal(res.Stats.Channels, []string{"v", "w"}) || res.ReadTimestamp != r.now {
		t.Fatalf("%+v", res)
	}
	other.ApplyDeletes(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1, 3}}, Position{Timestamp: 5020})
	other.Advance(Position{Timestamp: 5020})
	if keys, _ := r.prices(QueryRequest{}); !slices.Equal(keys, []int64{1, 2, 4}) {
		t.Fatalf("%v: a delete is for its channel", keys)
	}
	r.coll.Unwatch("v")
	if keys, _ := r.prices(QueryRequest{}); !slices.Equal(keys, []int64{4}) {
		t.Fatalf("%v", keys)
	}
}

// TestADeleteWhilePublishing: the buffer is applied before the lock is taken, and
// what came meanwhile under it.
func TestADeleteWhilePublishing(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.handOff(1)
	h, held := r.holderOf(1), r.coll.Acquire()
	defer held.Release()
	r.coll.Release(1)
	r.delete(1)
	defer r.ch.PinDeletes()()
	between := sync.OnceFunc(func() { r.delete(2) })
	h.segment = &sabotaged{h.segment, func(segment) { between() }}
	must(t, r.ch.publish(t.Context(), []*holder{h}, nil, 0))
	r.check(r.now)
}

// TestAChannelWatchedAgainKeepsItsRows: the old one's leaving does not take the
// new one's segments along.
func TestAChannelWatchedAgainKeepsItsRows(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2)
	old := r.ch
	r.coll.Unwatch("v")
	wantClass(t, old.ApplyRows(Rows{SegmentID: 9, PartitionID: 7, Batch: r.batch([]int64{9}, 0)}, r.tick()), errclass.Closed)
	old.ApplyDeletes(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1}}, r.tick())
	var err error
	r.ch, err = r.coll.Watch("v", Position{Timestamp: 1000}, nil)
	must(t, err)
	if _, err := r.coll.Watch("v", Position{}, nil); !errclass.Is(err, errclass.Exists) {
		t.Fatalf("watched twice: %v", err)
	}
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch([]int64{1, 2}, 0)}, Position{Timestamp: 1010}))
	r.ch.Advance(Position{Timestamp: 1010})
	if c := r.count(0); c != 2 {
		t.Fatalf("count %d", c)
	}
	r.coll.Unwatch("none")
}

// TestAReadWaitsForAChannelThatIsWatchedAnew: neither a read that waits for the
// old one nor one that comes while there is none fails or misses its rows.
func TestAReadWaitsForAChannelThatIsWatchedAnew(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2)
	ts := r.now + 10
	answers := make(chan error, 3)
	read := func() {
		res, err := r.coll.Query(t.Context(), &QueryRequest{Read: Read{Guarantee: func(string) uint64 { return ts }}, CountOnly: true}, nil)
		if err == nil && res.Count != 2 {
			err = errors.Newf("%d rows", res.Count)
		}
		answers <- err
	}
	go read()
	old := r.ch.tsafe
	eventually(t, "the read waits", func() bool {
		old.mu.Lock()
		defer old.mu.Unlock()
		return len(old.mu.waiters) == 1
	})
	over := r.coll.Anew()
	r.coll.Unwatch("v")
	go read()
	quick, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.coll.Query(quick, &QueryRequest{CountOnly: true}, nil)
	wantClass(t, err, errclass.Retryable)
	select {
	case err := <-answers:
		t.Fatalf("a read did without the channel: %v", err)
	case <-time.After(50 * time.Millisecond): // both reads have met its absence by now
	}
	r.ch, err = r.coll.Watch("v", Position{Timestamp: 1}, nil)
	must(t, err)
	over()
	over()
	go read()
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch([]int64{1, 2}, 0)}, Position{Timestamp: ts}))
	r.ch.Advance(Position{Timestamp: ts})
	for range 3 {
		must(t, <-answers)
	}

	t.Run("that does not come back", func(t *testing.T) {
		over := r.coll.Anew()
		r.coll.Unwatch("v")
		go read()
		over()
		wantClass(t, <-answers, errclass.Conflict)
	})
}

func TestADroppedPartitionIsGoneAndStaysGone(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.put(1, seq(0, 10), 0, false, 7)
	r.put(2, seq(10, 20), 0, false, 8)
	r.put(3, seq(20, 30), 0, false, 8)
	r.handOff(2)
	r.seal(3)
	r.upload(3)
	stalled, goOn := r.stall()
	done := r.loadLater(3)
	<-stalled
	r.coll.DropPartition(8)
	if keys, _ := r.prices(QueryRequest{}); !slices.Equal(keys, seq(0, 10)) {
		t.Fatalf("keys %v", keys)
	}
	goOn()
	wantClass(t, <-done, errclass.Conflict)
	wantClass(t, r.load(2), errclass.Conflict)
	r.put(4, seq(30, 40), 0, true, 8) // rows that were on their way
	r.idle()
	check := func() {
		t.Helper()
		if keys, _ := r.prices(QueryRequest{}); !slices.Equal(keys, seq(0, 10)) {
			t.Fatalf("keys %v", keys)
		}
		for _, st := range r.coll.Segments() {
			if st.PartitionID == 8 {
				t.Fatalf("segment %d of the partition is back", st.ID)
			}
		}
	}
	check()
	// Watched again, the log brings its rows once more.
	r.coll.Unwatch("v")
	var err error
	r.ch, err = r.coll.Watch("v", Position{Timestamp: 1000}, nil)
	must(t, err)
	r.now = 1000
	r.put(1, seq(0, 10), 0, false, 7)
	r.put(2, seq(10, 20), 0, false, 8)
	wantClass(t, r.load(2), errclass.Conflict)
	check()
}

func TestCheckpointStaysBeforeRowsThatAreNotInTheCatalog(t *testing.T) {
	r := newRig(t, rigOptions{})
	start := r.now
	r.insert(1, 1)
	second := r.now
	r.insert(2, 2)
	r.delete(5)
	if at := r.ch.Checkpoint(); at.Timestamp != start {
		t.Fatalf("checkpoint %d, want %d: before the first row", at.Timestamp, start)
	}
	r.seal(1)
	r.ch.MarkFlushed(1)
	if at := r.ch.Checkpoint(); at.Timestamp != second {
		t.Fatalf("checkpoint %d, want %d: before the first row of segment 2", at.Timestamp, second)
	}
	r.ch.Forget(2)
	if at := r.ch.Checkpoint(); at != r.ch.Applied() || at.Timestamp != r.now {
		t.Fatalf("checkpoint %v, want what is applied, %v", at, r.ch.Applied())
	}
	if !r.ch.IsFlushed(2) || r.ch.IsFlushed(3) {
		t.Fatal("flushed segments")
	}
	list, release := r.ch.Growing()
	defer release()
	if len(list) != 1 || list[0].Start().Timestamp != start || list[0].End().Timestamp != second+30 {
		t.Fatalf("growing %v from %v to %v", len(list), list[0].Start(), list[0].End())
	}
}

func TestRowsAfterTheSealAreRefused(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1)
	r.seal(1)
	err := r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch([]int64{2}, 0)}, r.tick())
	wantClass(t, err, errclass.Conflict)
	r.ch.Advance(Position{Timestamp: r.now})
	r.check(r.now)
}

func TestVersionGrowsWithEachChange(t *testing.T) {
	r := newRig(t, rigOptions{})
	v, changed := r.set.Version()
	r.insert(1, 1)
	select {
	case <-changed:
	default:
		t.Fatal("a new segment is a change")
	}
	v2, changed := r.set.Version()
	r.insert(1, 2)
	r.coll.Release(99)
	select {
	case <-changed:
		t.Fatal("nothing came or went")
	default:
	}
	if v2 <= v {
		t.Fatalf("version %d after %d", v2, v)
	}
}

// TestAnAbandonedReadLetsGoWhenItsTasksEnd: the caller has gone, the segment
// stays until the task that reads it has ended.
func TestAnAbandonedReadLetsGoWhenItsTasksEnd(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.handOff(1)
	in, out := make(chan struct{}), make(chan struct{})
	r.sabotage(1, func(segment) { close(in); <-out })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.coll.Search(ctx, &SearchRequest{FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 1, Metric: r.o.index.Metric})
		done <- err
	}()
	<-in
	cancel()
	if err := <-done; err == nil {
		t.Fatal("no error though the context ended")
	}
	dir := r.sealed(1).dir
	r.coll.Release(1)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the files went under the task: %v", err)
	}
	if r.set.Ledger().Used()[KindScratch] == 0 {
		t.Fatal("what the task writes to is not in the ledger")
	}
	close(out)
	r.idle()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("the files stay: %v", err)
	}
}
