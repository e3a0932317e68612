package segments

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// twoSealed returns a rig with two sealed segments of 100 rows and a growing one of 50.
func twoSealed(t *testing.T, o rigOptions) *rig {
	r := newRig(t, o)
	r.insert(1, seq(0, 100)...)
	r.insert(2, seq(100, 200)...)
	r.insert(3, seq(200, 250)...)
	r.handOff(1)
	r.handOff(2)
	return r
}

func partial() Read { return Read{AllowPartial: true} }

func TestAPanicCostsItsRequestAndThenTheSegment(t *testing.T) {
	r := twoSealed(t, rigOptions{set: func(o *Options) { o.QuarantineAfter = 3 }})
	broken := false
	r.sabotage(1, func(segment) {
		if broken {
			panic("boom")
		}
	})
	q := SearchRequest{Vectors: vectorOf(150, 0), TopK: 200}
	if res := r.found(q); len(res.Keys.Int) != 200 || res.Stats.SearchedShare != 1 {
		t.Fatalf("%d hits, share %v", len(res.Keys.Int), res.Stats.SearchedShare)
	}
	broken = true
	_, err := r.search(q)
	wantClass(t, err, errclass.Panicked)
	if st := r.status(1); st.State != "loaded" {
		t.Fatalf("one panic is not three: %+v", st)
	}
	q.AllowPartial = true
	wantPartial := func(class errclass.Class) {
		t.Helper()
		res := r.found(q)
		if len(res.Keys.Int) != 150 || res.Stats.SearchedShare != 0.6 {
			t.Fatalf("%d hits, share %v, want 150 and 0.6", len(res.Keys.Int), res.Stats.SearchedShare)
		}
		f := res.Stats.Failures
		if len(f) != 1 || f[0].SegmentID != 1 || f[0].VChannel != "v" || errclass.Of(f[0].Err) != class {
			t.Fatalf("failures %v", f)
		}
		if s := res.Stats; len(s.Sealed) != 1 || s.Sealed[0] != 2 || len(s.Growing) != 1 || s.Growing[0] != 3 {
			t.Fatalf("answered: sealed %v, growing %v", s.Sealed, s.Growing)
		}
	}
	wantPartial(errclass.Panicked)
	version, changed := r.set.Version()
	wantPartial(errclass.Panicked) // the third
	select {
	case <-changed:
	default:
		t.Fatalf("version %d: quarantine is a change", version)
	}
	if st := r.status(1); st.State != "quarantined" || !strings.Contains(st.Error, "boom") {
		t.Fatalf("%+v", st)
	}
	broken = false // too late
	wantPartial(errclass.Corrupt)
	q.AllowPartial = false
	_, err = r.search(q)
	wantClass(t, err, errclass.Corrupt)
	_, err = r.coll.Query(t.Context(), &QueryRequest{CountOnly: true}, nil)
	wantClass(t, err, errclass.Corrupt)
	res, err := r.coll.Query(t.Context(), &QueryRequest{Read: partial(), CountOnly: true}, nil)
	must(t, err)
	if res.Count != 150 || res.Stats.SearchedShare != 0.6 {
		t.Fatalf("%+v", res)
	}
	// What does not need the segment is not disturbed.
	if keys, _ := r.prices(QueryRequest{Read: Read{ReadTimestamp: 1000}}); len(keys) != 0 {
		t.Fatalf("before its rows: %v", keys)
	}
	must(t, r.load(1)) // does nothing: it is there
	if r.status(1).State != "quarantined" {
		t.Fatal("Load alone does not heal")
	}
	r.coll.Release(1)
	must(t, r.load(1))
	r.check(r.now)
}

// TestGrowingSegmentsInQuarantineAreNotSealed: who released or loaded one again as if it were
// would find nothing stored of it.
func TestGrowingSegmentsInQuarantineAreNotSealed(t *testing.T) {
	r := twoSealed(t, rigOptions{set: func(o *Options) { o.QuarantineAfter = 1 }})
	for _, id := range []int64{2, 3} { // 3 grows
		r.sabotage(id, func(segment) { panic("boom") })
	}
	r.found(SearchRequest{Read: partial(), Vectors: vectorOf(150, 0), TopK: 200})
	if r.status(2).State != "quarantined" || r.status(3).State != "quarantined" {
		t.Fatalf("%+v and %+v are not in quarantine", r.status(2), r.status(3))
	}
	ids := r.coll.SealedIDs("v")
	slices.Sort(ids)
	if !slices.Equal(ids, []int64{1, 2}) {
		t.Errorf("the sealed ones of v are %v, want 1 and 2", ids)
	}
	if all := r.coll.SealedIDs(""); len(all) != 2 || len(r.coll.SealedIDs("other")) != 0 {
		t.Errorf("the sealed ones are %v, want 1 and 2, and none of another channel", all)
	}
}

func TestCorruptBytesQuarantineAtOnce(t *testing.T) {
	r := twoSealed(t, rigOptions{})
	h := r.holderOf(1)
	r.set.fault(h, errors.New("no memory, a deadline, whatever"))
	r.set.fault(h, errclass.New(errclass.Exhausted, "busy"))
	if h.quarantined() != "" || h.faults.Load() != 0 {
		t.Fatal("such errors say nothing about the segment")
	}
	r.set.fault(h, errclass.New(errclass.Corrupt, "wrong checksum"))
	if h.quarantined() == "" {
		t.Fatal("one is enough")
	}
	r.set.fault(h, errclass.New(errclass.Corrupt, "another"))
	if !strings.Contains(h.quarantined(), "wrong checksum") {
		t.Fatalf("the first reason stays: %s", h.quarantined())
	}
}

// TestALostDeleteQuarantinesAtOnce: the segment would show a row that is gone.
func TestALostDeleteQuarantinesAtOnce(t *testing.T) {
	r := twoSealed(t, rigOptions{})
	r.sabotage(2, func(segment) { panic("boom") })
	r.delete(150, 50)
	r.sabotage(2, nil)
	_, err := r.search(SearchRequest{Vectors: vectorOf(150, 0), TopK: 1})
	wantClass(t, err, errclass.Corrupt)
	res := r.found(SearchRequest{Vectors: vectorOf(50, 0), TopK: 250, Read: partial()})
	if len(res.Keys.Int) != 149 {
		t.Fatalf("%d hits; the others have taken the delete", len(res.Keys.Int))
	}
	r.coll.Release(2)
	must(t, r.load(2))
	r.check(r.now)
}

func TestAPanicInTheOutputCountsToo(t *testing.T) {
	r := twoSealed(t, rigOptions{set: func(o *Options) { o.QuarantineAfter = 1 }})
	r.sabotage(2, func(s segment) {
		pc := make([]uintptr, 10)
		frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
		for f, more := frames.Next(); more; f, more = frames.Next() {
			if strings.HasSuffix(f.Function, "sabotaged).gather") {
				panic("boom")
			}
		}
	})
	_, err := r.search(SearchRequest{Vectors: vectorOf(150, 0), TopK: 1, Read: Read{OutputFields: []int64{priceField}}})
	wantClass(t, err, errclass.Panicked)
	if r.status(2).State != "quarantined" || r.status(1).State == "quarantined" {
		t.Fatal("the wrong one is in quarantine")
	}
}

// TestAMappedFileThatShrinksIsAFault: SIGBUS would kill the process.
func TestAMappedFileThatShrinksIsAFault(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no mapping")
	}
	r := newRig(t, rigOptions{})
	n := int64(2000) // 64,000 bytes: several pages
	r.insert(1, seq(0, n)...)
	r.handOff(1)
	r.insert(2, n)
	must(t, os.Truncate(filepath.Join(r.sealed(1).dir, "vector_103.npy"), 4096))
	q := SearchRequest{Vectors: vectorOf(n, 0), TopK: 1}
	for range 3 {
		_, err := r.search(q)
		wantClass(t, err, errclass.Panicked)
	}
	_, err := r.search(q)
	wantClass(t, err, errclass.Corrupt)
	q.AllowPartial = true
	if res := r.found(q); len(res.Keys.Int) != 1 || res.Keys.Int[0] != n || res.Stats.SearchedShare > 0.01 {
		t.Fatalf("%v, share %v", res.Keys.Int, res.Stats.SearchedShare)
	}
}

// TestAKeyFilterThatShrinksLosesNoDelete: it saves time only.
func TestAKeyFilterThatShrinksLosesNoDelete(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 5000)...)
	r.handOff(1)
	must(t, os.Truncate(filepath.Join(r.sealed(1).dir, "keys.bloom"), 0))
	r.delete(17, 4000)
	r.check(r.now)
	if keys, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan("id in [16, 17, 18]")}}); len(keys) != 2 {
		t.Fatalf("by key: %v", keys)
	}
}

func TestAFaultInTheOutputIsAnError(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 2000)...)
	r.handOff(1)
	must(t, os.Truncate(filepath.Join(r.sealed(1).dir, "vector_103.npy"), 4096))
	err := func() error {
		_, err := r.coll.Query(t.Context(), &QueryRequest{Read: Read{OutputFields: []int64{vectorField}}},
			func(*schema.Batch, uint64) error { return nil })
		return err
	}()
	wantClass(t, err, errclass.Panicked)
	if r.holderOf(1).faults.Load() != 1 {
		t.Fatal("it does not count against the segment")
	}
}

// TestListsThatPanicCostSpeedOnly: the builder lives on.
func TestListsThatPanicCostSpeedOnly(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	r.set.listsAfter = 10
	r.insert(1, seq(0, 5)...)
	g := r.holderOf(1).segment.(*Growing)
	g.vectors()[0].dim = 0 // a division by it panics
	r.set.builder.turn(t.Context(), withRef(r.holderOf(1)), g)
	g.vectors()[0].dim = dim
	r.insert(1, seq(5, 400)...)
	r.check(r.now)
	r.built(1, 256)
}

func withRef(h *holder) *holder {
	h.refs.Add(1)
	return h
}
