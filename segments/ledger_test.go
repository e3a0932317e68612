package segments

import (
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

func TestTheLedgerRefusesAtItsLimit(t *testing.T) {
	l := NewLedger(100)
	a, err := l.Reserve(KindGrowing, 60)
	must(t, err)
	_, err = l.Reserve(KindSealed, 41)
	wantClass(t, err, errclass.Exhausted)
	if !strings.Contains(err.Error(), "41 bytes of sealed: 60 of 100 bytes are in use") {
		t.Fatalf("%v does not have the numbers", err)
	}
	wantClass(t, a.Grow(math.MaxInt64), errclass.Exhausted) // adding it up would overflow
	if l.Total() != 60 || l.Refused() != 2 || l.Limit() != 100 {
		t.Fatalf("total %d, refused %d", l.Total(), l.Refused())
	}
	must(t, a.Grow(40))
	d := l.Force(KindDeletes, 1000)
	m, err := l.Reserve(KindMapped, 1<<40)
	must(t, err)
	if l.Total() != 1100 {
		t.Fatalf("total %d: deletes pass, mapped files do not count", l.Total())
	}
	a.Commit(10)
	if got := l.Used(); got[KindGrowing] != 10 || got[KindDeletes] != 1000 || got[KindMapped] != 1<<40 {
		t.Fatalf("%v", got)
	}
	for _, r := range []*Reservation{a, d, m, a, nil, {}} {
		r.Release()
	}
	if l.Total() != 0 || l.Used()[KindMapped] != 0 {
		t.Fatalf("left: %v", l.Used())
	}
	if _, err := NewLedger(0).Reserve(KindGrowing, math.MaxInt64/2); err != nil {
		t.Fatalf("no limit: %v", err)
	}
}

// TestWhatACallWasRefusedCountsAsWanted: with 650 of 1,000 bytes in use nobody would
// make room, and a call that wants 400 be refused for ever.
func TestWhatACallWasRefusedCountsAsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger(1_000)
		_, err := l.Reserve(KindGrowing, 650)
		must(t, err)
		calls := l.Force(KindCalls, 0)
		wantClass(t, calls.GrowBeyond(501, 0), errclass.Exhausted)
		if _, err := l.Reserve(KindSealed, 400); err == nil || l.Short(70) {
			t.Errorf("memory is short because of what never fits, or of a load: %v", err)
		}
		wantClass(t, calls.GrowBeyond(400, 0), errclass.Exhausted)
		if !l.Short(70) || l.Above(70) {
			t.Errorf("short %v, above %v", l.Short(70), l.Above(70))
		}
		time.Sleep(wantFor + time.Second)
		if l.Short(70) {
			t.Error("it is wanted for ever")
		}
	})
}

func TestTheLedgerIsSafeForConcurrentUse(t *testing.T) {
	l := NewLedger(1000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				r, err := l.Reserve(KindScratch, 300)
				if err != nil {
					continue
				}
				if err := r.Grow(200); err == nil && i%2 == 0 {
					r.Commit(100)
				}
				if l.Total() > 1000 {
					t.Error("past the limit")
				}
				r.Release()
			}
		})
	}
	wg.Wait()
	if l.Total() != 0 {
		t.Fatalf("%d bytes left", l.Total())
	}
}

// TestRowsThatHaveNoRoomLeaveNothing, and can come again; deletes always pass.
func TestRowsThatHaveNoRoomLeaveNothing(t *testing.T) {
	r := newRig(t, rigOptions{memory: 200_000}) // the first chunk takes 139,264
	r.insert(1, seq(0, 100)...)
	before := r.set.Ledger().Used()
	at := Position{Timestamp: r.now + 10}
	for _, segment := range []int64{1, 2} {
		err := r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: r.batch(seq(100, 5000), 0), Upsert: true}, at)
		wantClass(t, err, errclass.Exhausted)
		r.idle()
		if got := r.set.Ledger().Used(); got[KindGrowing] != before[KindGrowing] || got[KindDeletes] != before[KindDeletes] {
			t.Fatalf("before %v, after %v", before, got)
		}
		if r.ch.Applied().Timestamp != r.now || len(r.coll.Segments()) != 1 {
			t.Fatal("something of it was applied")
		}
		r.check(r.now)
	}
	r.set.Ledger().limit.Store(1) // worse
	r.delete(1, 2, 3)
	r.check(r.now)
	r.set.Ledger().limit.Store(0)
	r.now = at.Timestamp
	r.put(1, seq(100, 5000), 0, true) // the same again
	r.check(r.now)
}

// TestTheLedgerHasWhatGrowsWithData and lets go of it when that shrinks.
func TestTheLedgerHasWhatGrowsWithData(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "FLAT", Metric: index.Cosine}})
	used := func(k Kind) int64 { return r.set.Ledger().Used()[k] }
	grows := func(what string, k Kind, do func()) {
		t.Helper()
		before := used(k)
		do()
		if used(k) <= before {
			t.Errorf("%s: %d bytes of %s, before it were %d", what, used(k), k, before)
		}
	}
	grows("rows", KindGrowing, func() { r.insert(1, seq(0, 5000)...) })
	grows("more rows", KindGrowing, func() { r.insert(1, seq(5000, 5010)...) })
	grows("a bitmap of deletes", KindGrowing, func() { r.delete(7) })
	grows("the delete buffer", KindDeletes, func() { r.delete(seq(100, 200)...) })
	if st := r.status(1); st.MemoryBytes != used(KindGrowing) {
		t.Errorf("the segment says %d, the ledger %d", st.MemoryBytes, used(KindGrowing))
	}
	grows("a sealed segment", KindSealed, func() { r.handOff(1) })
	r.idle()
	if used(KindGrowing) != 0 {
		t.Errorf("%d bytes of the growing segment are left after the hand-off", used(KindGrowing))
	}
	if used(KindMapped) == 0 {
		t.Error("mapped files are not in the ledger")
	}
	grows("deleted rows", KindSealed, func() { r.delete(seq(1000, 2000)...) })
	grows("norms for exact searches by cosine", KindSealed, func() { r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 1}) })
	if st := r.status(1); st.MemoryBytes != used(KindSealed) {
		t.Errorf("the segment says %d, the ledger %d", st.MemoryBytes, used(KindSealed))
	}
	r.ch.TrimDeletes(r.now)
	if used(KindDeletes) != 0 {
		t.Errorf("%d bytes of deletes after all were trimmed", used(KindDeletes))
	}
	if used(KindScratch) != 0 || used(KindDownload) != 0 {
		t.Errorf("left of what has ended: %v", r.set.Ledger().Used())
	}
}

// TestWhatGoesBeyondTheLimitIsBounded, however many small reads there are.
func TestWhatGoesBeyondTheLimitIsBounded(t *testing.T) {
	l := NewLedger(1000)
	l.Force(KindGrowing, 5000)
	var reads []*Reservation
	for range 100 {
		r := l.Force(KindScratch, 0)
		if err := r.growBeyond(freeBytes, freeBytes); err != nil {
			wantClass(t, err, errclass.Exhausted)
			break
		}
		if err := r.growBeyond(1, freeBytes); err == nil {
			t.Fatal("one read has more than its share")
		}
		reads = append(reads, r)
	}
	if got := int64(len(reads)) * freeBytes; got != beyondLimit || l.Total() != 5000+beyondLimit {
		t.Fatalf("%d bytes beyond the limit, %d in all", got, l.Total())
	}
	reads[0].Commit(freeBytes / 2)
	reads[1].Release()
	last := l.Force(KindScratch, 0)
	must(t, last.growBeyond(freeBytes, freeBytes))
	if err := l.Force(KindScratch, 0).growBeyond(freeBytes, freeBytes); err == nil {
		t.Fatal("half a share was as good as a whole one")
	}
	for _, r := range append(reads, last) {
		r.Release()
	}
	if l.mu.beyond[KindScratch] != 0 || l.Total() != 5000 {
		t.Fatalf("left: %v, %d in all", l.mu.beyond, l.Total())
	}
}

// TestWhatIsTakenStepByStepComesBack to the reserve beyond the limit too, whichever way
// it is given back.
func TestWhatIsTakenStepByStepComesBack(t *testing.T) {
	for name, back := range map[string]func(r *Reservation, n int64) bool{
		"growBeyond": func(r *Reservation, n int64) bool { return r.growBeyond(-n, freeBytes) == nil },
		"growSpare":  func(r *Reservation, n int64) bool { return r.growSpare(-n, 50) },
		"Commit":     func(r *Reservation, n int64) bool { r.Commit(r.size() - n); return true },
	} {
		l := NewLedger(1000)
		l.Force(KindGrowing, 1000)
		r := l.Force(KindScratch, 100)
		for range 2 * beyondLimit / freeBytes {
			must(t, r.growBeyond(freeBytes-100, freeBytes))
			if !back(r, freeBytes-100) || l.mu.beyond[KindScratch] != 0 || r.size() != 100 {
				t.Fatalf("%s: %d bytes are beyond the limit, %d in all", name, l.mu.beyond[KindScratch], r.size())
			}
		}
	}
}

// TestOrderedReadsGiveBackWhatTheyTook beyond the limit: those that drop rows on the
// way do it in steps.
func TestOrderedReadsGiveBackWhatTheyTook(t *testing.T) {
	r := newRig(t, rigOptions{memory: 1 << 30})
	for i := range int64(4) {
		r.insert(1, seq(i*2000, i*2000+2000)...)
	}
	l := r.set.Ledger()
	l.limit.Store(l.Total()) // small reads are still answered
	r.prices(QueryRequest{Limit: 10, OrderBy: []Order{{FieldID: priceField}}})
	if n := l.mu.beyond[KindScratch]; n != 0 {
		t.Errorf("%d bytes count as beyond the limit after all reads have ended", n)
	}
}

// TestReadsThatHaveNoRoomAreRefused and leave nothing; small ones always pass.
func TestReadsThatHaveNoRoomAreRefused(t *testing.T) {
	r := newRig(t, rigOptions{})
	n := int64(freeBytes/16 + 100)
	for s := range int64(8) {
		r.insert(s, seq(s*n/8, s*n/8+n/8)...)
	}
	l := r.set.Ledger()
	l.limit.Store(1)
	var many []float32
	for range 1000 {
		many = append(many, vectorOf(1, 0)...)
	}
	_, err := r.search(SearchRequest{Vectors: many, TopK: 200})
	wantClass(t, err, errclass.Exhausted)
	_, err = r.coll.Query(t.Context(), &QueryRequest{Read: Read{OutputFields: []int64{vectorField}}}, func(*schema.Batch, uint64) error { return nil })
	wantClass(t, err, errclass.Exhausted)
	if l.Used()[KindScratch] != 0 {
		t.Fatalf("left: %v", l.Used())
	}
	if r.holderOf(1).faults.Load() != 0 {
		t.Fatal("it is not the segment's fault")
	}
	r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10})
	if keys, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan("id < 10")}}); len(keys) != 10 {
		t.Fatalf("%v", keys)
	}
}

// TestEachKindHasItsOwnReserve beyond the limit, and what is given back first is
// what lies there.
func TestEachKindHasItsOwnReserve(t *testing.T) {
	l := NewLedger(1000)
	l.Force(KindGrowing, 900)
	calls := l.Force(KindCalls, 0)
	must(t, calls.GrowBeyond(100, 50)) // under the limit
	must(t, calls.GrowBeyond(50, 50))
	wantClass(t, calls.GrowBeyond(1, 50), errclass.Exhausted)
	must(t, calls.GrowBeyond(1, 60)) // one that may take more
	must(t, l.Force(KindScratch, 0).growBeyond(freeBytes, freeBytes))
	wantClass(t, calls.GrowBeyond(math.MaxInt64, 60), errclass.Exhausted)
	calls.Commit(140)
	if got := l.mu.beyond[KindCalls]; got != 40 {
		t.Fatalf("%d bytes beyond the limit, want 40", got)
	}
	calls.Release()
	if l.mu.beyond[KindCalls] != 0 || l.Used()[KindCalls] != 0 {
		t.Fatalf("left: %v, %v", l.mu.beyond, l.Used())
	}
}

// TestTheLedgerSaysWhenMuchHasMoved since the process was looked at, though all of it
// was given back: it may be there still, as garbage.
func TestTheLedgerSaysWhenMuchHasMoved(t *testing.T) {
	l := NewLedger(0)
	moved := func() bool {
		select {
		case <-l.Moved():
			return true
		default:
			return false
		}
	}
	l.Force(KindScratch, 1<<40).Release()
	if moved() {
		t.Error("nobody has looked yet")
	}
	l.Observe(0, 32_000)
	l.Force(KindMapped, 1<<40).Release()
	l.Force(KindScratch, 600).Release()
	if moved() {
		t.Error("600 bytes of 32,000 are much")
	}
	l.Force(KindScratch, 600).Release()
	if !moved() || moved() {
		t.Error("1,200 bytes were taken, and nobody heard, or twice")
	}
	l.Force(KindScratch, 1).Release()
	if !moved() {
		t.Error("nobody has looked, and it is not said again")
	}
	l.Observe(0, 32_000)
	l.Force(KindScratch, 600).Release()
	if moved() {
		t.Error("what was taken before the look counts")
	}
}

// TestTheLedgerIsStarvedByTheProcess alone: what the limit has no room for is no sign of garbage.
func TestTheLedgerIsStarvedByTheProcess(t *testing.T) {
	l := NewLedger(1000)
	l.Observe(1900, 2000)
	if _, err := l.Reserve(KindScratch, 1001); err == nil || l.Starved() {
		t.Errorf("of more than the limit: %v", err)
	}
	if _, err := l.Reserve(KindScratch, 200); err == nil || !l.Starved() || l.Starved() {
		t.Errorf("of more than the process may have: %v", err)
	}
	select {
	case <-l.Moved():
	default:
		t.Error("the process is not looked at")
	}
	if _, err := l.Reserve(KindScratch, 50); err != nil || l.Starved() {
		t.Errorf("of what there is: %v", err)
	}
}

// TestWhatABuildWillTakeCountsAsInUse for what makes room and for inserts, and is refused to nobody: the largest one, since they are built one
// after the other, besides what is taken for builds already.
func TestWhatABuildWillTakeCountsAsInUse(t *testing.T) {
	l, a, b := NewLedger(1000), &toBuild{}, &toBuild{}
	held := l.Force(KindGrowing, 300)
	check := func(what string, ahead int64, above80 bool) {
		t.Helper()
		if got := l.Ahead(); got != ahead || l.Above(80) != above80 || l.Short(80) != above80 {
			t.Errorf("%s: %d ahead, want %d; above 80 %%: %v, short: %v", what, got, ahead, l.Above(80), l.Short(80))
		}
	}
	check("nothing", 0, false)
	l.expect(a, 200)
	l.expect(b, 400)
	check("two", 400, false)
	l.expect(b, 501)
	check("more rows", 501, true)
	read, err := l.Reserve(KindScratch, 700)
	if err != nil || l.Total() != 1000 {
		t.Errorf("what is only expected is in nobody's way: %d bytes are in use, %v", l.Total(), err)
	}
	read.Release()
	building, err := l.roomToBuild(450)
	must(t, err)
	check("one of them is built", 51, true)
	l.expect(b, 0)
	check("it has been built", 0, false)
	building.Release()
	check("and has ended", 200, false)
	l.expect(a, 0)
	l.expect(a, 0)
	held.Release()
	check("all are gone", 0, false)
}

// TestACompactionIsNoPartOfWhatIsAhead: it runs beside the flush. It gets no room that the flush will need, which is never refused, and takes
// none of that away from what inserts see.
func TestACompactionIsNoPartOfWhatIsAhead(t *testing.T) {
	l, g := NewLedger(1000), &toBuild{}
	held := l.Force(KindGrowing, 300)
	l.expect(g, 500)
	for _, kind := range []Kind{KindBuild, KindCompaction} {
		if _, err := l.Reserve(kind, 201); !errclass.Is(err, errclass.Exhausted) || !strings.Contains(err.Error(), "will add 500") {
			t.Errorf("%s of what the flush will take: %v", kind, err)
		}
	}
	read, err := l.Reserve(KindScratch, 700)
	must(t, err)
	read.Release()
	compaction, err := l.Reserve(KindBuild, 200)
	must(t, err)
	if l.Ahead() != 500 || !l.Above(95) {
		t.Errorf("beside a compaction: %d bytes ahead, above 95 %%: %v", l.Ahead(), l.Above(95))
	}
	if err := compaction.Grow(1); !errclass.Is(err, errclass.Exhausted) {
		t.Errorf("more for the compaction: %v", err)
	}
	building, err := l.roomToBuild(500)
	must(t, err)
	if l.Ahead() != 0 || l.Total() != 1000 {
		t.Errorf("while the flush builds: %d bytes ahead, %d in use", l.Ahead(), l.Total())
	}
	building.Release()
	compaction.Release()
	l.expect(g, 0)
	again, err := l.Reserve(KindBuild, 700)
	must(t, err)
	again.Release()
	held.Release()
	if l.Total() != 0 || l.Ahead() != 0 {
		t.Errorf("at the end %d bytes are in use, %d ahead", l.Total(), l.Ahead())
	}
}

// TestWhatIsAheadEndsOnceTheSegmentIsStored, whoever stored it: its index is not built here then, however long its growing copy serves reads.
func TestWhatIsAheadEndsOnceTheSegmentIsStored(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	r.ch.ToBuild(1)
	ahead := func(what string, rows int) {
		t.Helper()
		if got, want := r.set.Ledger().Ahead(), BuildBytes(r.coll.Info(), rows, 1); got != want {
			t.Errorf("%s: %d bytes ahead, want %d", what, got, want)
		}
	}
	r.insert(1, seq(0, 50)...)
	r.insert(2, seq(50, 80)...)
	ahead("two grow", 50)
	list, release := r.ch.Growing() // a read
	defer release()
	r.ch.MarkFlushed(1)
	ahead("an earlier owner had stored the larger", 30)
	r.ch.ToBuild(1)
	ahead("the next step of the flush", 30)
	r.ch.Forget(2)
	r.ch.ToBuild(1)
	if len(list) != 2 || r.set.Ledger().Ahead() != 0 {
		t.Errorf("%d bytes ahead once the other is let go, too", r.set.Ledger().Ahead())
	}
}
