package index

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
)

// clustered returns n vectors around some centres: what embeddings look like,
// and harder for a graph than uniform ones.
func clustered(r *rand.Rand, n, dim int) []float32 {
	centres := make([]float32, 12*dim)
	for i := range centres {
		centres[i] = float32(r.NormFloat64()) * 2
	}
	base := make([]float32, n*dim)
	for i := range n {
		c := r.IntN(12)
		for d := range dim {
			base[i*dim+d] = centres[c*dim+d] + float32(r.NormFloat64())
		}
	}
	return base
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func newFlat(tb testing.TB, dim int, m Metric, base []float32) *Flat {
	tb.Helper()
	f, err := NewFlat(dim, m, base)
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Publish(len(base) / dim); err != nil {
		tb.Fatal(err)
	}
	return f
}

func newHNSW(tb testing.TB, o HNSWOptions, base []float32) *HNSW {
	tb.Helper()
	h, err := NewHNSW(o, base)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// repaired links the rows of h that are not reached and returns how many there were.
func repaired(tb testing.TB, h *HNSW) int {
	tb.Helper()
	n, err := h.Repair(context.Background(), 2)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// insertAll inserts rows [0, n) from several goroutines.
func insertAll(tb testing.TB, h *HNSW, n, goroutines int) {
	tb.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			var s Scratch
			for row := next.Add(1) - 1; row < int64(n); row = next.Add(1) - 1 {
				if err := h.Insert(uint32(row), &s); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if h.Len() != n {
		tb.Fatalf("%d rows inserted, Len is %d", n, h.Len())
	}
}

// recall is the part of the true neighbours that was found; ones as near as the
// last true one count.
func recall(got, want []Neighbor) float64 {
	if len(want) == 0 {
		return 1
	}
	hits := 0
	for _, g := range got {
		if g.Distance <= want[len(want)-1].Distance*(1+1e-5)+1e-6 || slices.ContainsFunc(want, func(w Neighbor) bool { return w.Row == g.Row }) {
			hits++
		}
	}
	return float64(min(hits, len(want))) / float64(len(want))
}

// wantSorted checks what holds for every result: ascending, no row twice, all allowed.
func wantSorted(tb testing.TB, got []Neighbor, allowed *bitset.Set) {
	tb.Helper()
	seen := map[uint32]bool{}
	for i, g := range got {
		if i > 0 && got[i-1].Compare(g) >= 0 {
			tb.Fatalf("result %d is out of order: %v after %v", i, g, got[i-1])
		}
		if seen[g.Row] {
			tb.Fatalf("row %d is there twice", g.Row)
		}
		if seen[g.Row] = true; allowed != nil && !allowed.Has(int(g.Row)) {
			tb.Fatalf("row %d is not allowed", g.Row)
		}
	}
}

// meanRecall compares h with exact search over some queries and returns how
// many of them were scanned.
func meanRecall(tb testing.TB, h *HNSW, f *Flat, queries []float32, k, ef int, allowed *bitset.Set) (mean float64, scanned int) {
	tb.Helper()
	var s, exact Scratch
	n := 0
	for q := range slices.Chunk(queries, h.Dim()) {
		want := f.Search(q, k, allowed, &exact)
		got := h.Search(q, k, ef, allowed, &s)
		wantSorted(tb, got, allowed)
		if len(got) != len(want) {
			tb.Fatalf("%d results, want %d", len(got), len(want))
		}
		if s.Stats().Scanned {
			scanned++
		}
		mean += recall(got, want)
		n++
	}
	return mean / float64(n), scanned
}

func TestRecallOfAllMetricsAfterParallelBuild(t *testing.T) {
	const n, dim = 2000, 24
	r := rng(1)
	base := clustered(r, n+40, dim)
	base, queries := base[:n*dim], base[n*dim:]
	for m := L2; m <= Cosine; m++ {
		if raceEnabled && m != Cosine { // the one with most shared memory
			continue
		}
		h := newHNSW(t, HNSWOptions{Dim: dim, Metric: m, Capacity: n, M: 12, EfConstruction: 64}, base)
		insertAll(t, h, n, 4)
		repaired(t, h)
		top := 0
		for row := range uint32(n) {
			top = max(top, h.level(row))
		}
		if _, level, _ := h.start(); level != top || top == 0 {
			t.Fatalf("%s: walks start on level %d of %d", m, level, top)
		}
		got, scanned := meanRecall(t, h, newFlat(t, dim, m, base), queries, 10, 64, nil)
		if scanned > 0 {
			t.Fatalf("%s: %d searches were scans and prove nothing", m, scanned)
		}
		if got < 0.95 {
			t.Errorf("%s: recall@10 is %.3f", m, got)
		}
		// Beyond the size for which the walk keeps a sorted array.
		var s Scratch
		if !h.walkAllowed(queries[:dim], h.scale(queries[:dim]), h.descendTo(queries[:dim], &s), 200, nil, noBudget, &s) {
			t.Fatalf("%s: a walk without a budget gave up", m)
		}
		if got := recall(h.take(10, &s), newFlat(t, dim, m, base).Search(queries[:dim], 10, nil, new(Scratch))); got < 0.9 {
			t.Errorf("%s: recall@10 with heaps is %.3f", m, got)
		}
	}
}

// descendTo prepares s for a walk on level 0 and returns where it begins.
func (h *HNSW) descendTo(q []float32, s *Scratch) Neighbor {
	s.begin(h.m0)
	row, level, _ := h.start()
	row, d := h.descend(q, h.scale(q), row, level, 0, s)
	s.seen.reset(h.capacity)
	s.seen.add(row)
	return Neighbor{Row: row, Distance: d}
}

func TestSearchBesideInsertsReturnsCompleteRowsOnly(t *testing.T) {
	const n, dim = 1200, 8
	r := rng(4)
	base := clustered(r, n, dim)
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: Cosine, Capacity: n, M: 4, EfConstruction: 20}, base)
	allowed := bitset.New(n)
	for i := 0; i < n; i += 2 {
		allowed.Add(i)
	}
	var done atomic.Bool
	var searchers sync.WaitGroup
	for i := range 2 {
		searchers.Go(func() {
			var s Scratch
			for q := 0; !done.Load(); q = (q + 7) % n {
				set := []*bitset.Set{nil, allowed}[i]
				before := h.Len()
				got := h.Search(base[q*dim:][:dim], 5, 8, set, &s)
				if set == nil && len(got) < min(5, before) {
					t.Errorf("%d results from %d rows", len(got), before)
				}
				for _, g := range got {
					if !h.isReady(g.Row) {
						t.Errorf("row %d is not complete", g.Row)
					}
				}
				wantSorted(t, got, set)
			}
		})
	}
	insertAll(t, h, n, 3)
	done.Store(true)
	searchers.Wait()
	repaired(t, h)
	if got, _ := meanRecall(t, h, newFlat(t, dim, Cosine, base), base[:20*dim], 5, 40, nil); got < 0.95 {
		t.Errorf("recall@5 afterwards is %.3f", got)
	}
}

func TestRowWhoseInsertIsNotCompleteIsWalkedButNotReturned(t *testing.T) {
	const n, hidden = 200, 77
	base := make([]float32, n)
	for i := range base {
		base[i] = float32(i)
	}
	h := newHNSW(t, HNSWOptions{Dim: 1, Metric: L2, Capacity: n, M: 2}, base)
	var s Scratch
	for row := range uint32(n) {
		if row != hidden {
			if err := h.Insert(row, &s); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.running.Add(1)
	h.connect(hidden, base[hidden:][:1], &s)
	q := []float32{hidden}
	for name, search := range map[string]func() []Neighbor{
		"walk":     func() []Neighbor { return h.Search(q, 8, 8, nil, &s) },
		"scan":     func() []Neighbor { return h.Search(q, 8, n, nil, &s) },
		"filtered": func() []Neighbor { return h.Search(q, 8, 8, allOf(n), &s) },
		"heaps": func() []Neighbor {
			h.walkAllowed(q, 1, h.descendTo(q, &s), 8, nil, noBudget, &s)
			return h.take(8, &s)
		},
	} {
		got := search()
		if len(got) != 8 || slices.ContainsFunc(got, func(g Neighbor) bool { return g.Row == hidden }) {
			t.Errorf("%s: %v", name, got)
		}
		if s.Stats().Scanned != (name == "scan") {
			t.Errorf("%s: %+v", name, s.Stats())
		}
	}
}

func TestDuplicatesDoNotHideOtherRows(t *testing.T) {
	const n, dim = 3000, 8
	r := rng(5)
	for _, m := range []Metric{L2, Cosine} {
		if raceEnabled && m == L2 {
			continue
		}
		base := clustered(r, n, dim)
		for i := 0; i < n; i += 2 { // half of the rows are the same, and come between the others
			copy(base[i*dim:][:dim], base[:dim])
		}
		h := newHNSW(t, HNSWOptions{Dim: dim, Metric: m, Capacity: n, M: 8, EfConstruction: 60}, base)
		insertAll(t, h, n, 2)
		repaired(t, h)
		f := newFlat(t, dim, m, base)
		var odd []float32
		for i := 1; i < 60; i += 2 {
			odd = append(odd, base[i*dim:][:dim]...)
		}
		if got, _ := meanRecall(t, h, f, odd, 10, 64, nil); got < 0.95 {
			t.Errorf("%s: recall@10 of rows beside duplicates is %.3f", m, got)
		}
		if got, _ := meanRecall(t, h, f, base[:dim], 100, 100, nil); got < 0.95 {
			t.Errorf("%s: recall@100 of duplicates is %.3f", m, got)
		}
	}
}

func TestAllRowsEqual(t *testing.T) {
	const n, dim = 700, 4
	base := make([]float32, n*dim)
	for i := range base {
		base[i] = 1
	}
	for m := L2; m <= Cosine; m++ {
		h := newHNSW(t, HNSWOptions{Dim: dim, Metric: m, Capacity: n, M: 4, EfConstruction: 30}, base)
		insertAll(t, h, n, 2)
		if got := h.Search(base[:dim], 50, 50, nil, new(Scratch)); len(got) != 50 {
			t.Errorf("%s: %d of 50 equal rows found", m, len(got))
		}
		if lost := repaired(t, h); lost > 0 {
			t.Errorf("%s: %d equal rows count as out of reach", m, lost)
		}
	}
}

func TestRepairReachesEveryRow(t *testing.T) {
	const n, dim = 2000, 6
	base := clustered(rng(6), n, dim)
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, M: 3, EfConstruction: 20}, base)
	insertAll(t, h, n, 2)
	start, _, _ := h.start()
	// Cut off some rows by hand, whatever pruning did.
	for i := range h.links0 {
		if h.links0[i] > 0 && h.links0[i]-1 != start && h.links0[i]%50 == 0 {
			h.links0[i] = start + 1
		}
	}
	if repaired(t, h) < n/100 {
		t.Fatal("rows that were cut off were not noticed")
	}
	if lost, err := h.repairs().round(context.Background(), 2, &progress{}); err != nil || lost > n/200 {
		t.Fatalf("%d rows are still out of reach", lost)
	}
}

func TestEveryDimension(t *testing.T) {
	const n = 150
	r := rng(7)
	for dim := 1; dim <= 130; dim++ {
		if raceEnabled && dim%16 != 1 {
			continue
		}
		base := clustered(r, n+5, dim)
		m := L2 + Metric(dim%3)
		queries := base[n*dim:]
		h := newHNSW(t, HNSWOptions{Dim: dim, Metric: m, Capacity: n, M: 4, EfConstruction: 40}, base[:n*dim])
		insertAll(t, h, n, 1)
		repaired(t, h)
		got, scanned := meanRecall(t, h, newFlat(t, dim, m, base[:n*dim]), queries, 3, 20, nil)
		if scanned > 0 || got < 0.8 { // dimension 1 under Cosine knows two directions only
			t.Errorf("dimension %d, %s: recall@3 is %.2f, %d scans", dim, m, got, scanned)
		}
	}
}

func TestFewRows(t *testing.T) {
	base := []float32{1, 0, 0, 1, 1, 1}
	h := newHNSW(t, HNSWOptions{Dim: 2, Metric: L2, Capacity: 3}, base)
	f := newFlat(t, 2, L2, base[:0])
	var s Scratch
	q := []float32{1, 0}
	if got := h.Search(q, 10, 10, nil, &s); len(got) != 0 {
		t.Fatalf("empty index: %v", got)
	}
	if got := f.Search(q, 10, nil, &s); len(got) != 0 {
		t.Fatalf("empty flat index: %v", got)
	}
	for n := 1; n <= 3; n++ {
		if err := h.Insert(uint32(n-1), &s); err != nil {
			t.Fatal(err)
		}
		got := h.Search(q, 10, 1, nil, &s)
		if len(got) != n || got[0] != (Neighbor{Row: 0}) {
			t.Fatalf("%d rows: %v", n, got)
		}
		if got := h.Search(q, 0, 10, nil, &s); len(got) != 0 {
			t.Fatalf("k = 0: %v", got)
		}
		// A filter made when there were fewer rows, and one made for more.
		if got := h.Search(q, 10, 1, allOf(n-1), &s); len(got) != n-1 {
			t.Fatalf("%d of %d rows allowed: %v", n-1, n, got)
		}
		if got := h.Search(q, 10, 1, allOf(1000), &s); len(got) != n {
			t.Fatalf("%d rows, all allowed: %v", n, got)
		}
	}
	if got := newFlat(t, 2, L2, base).Search(q, 10, allOf(2), &s); len(got) != 2 {
		t.Fatalf("flat, 2 of 3 rows allowed: %v", got)
	}
}

func TestInsertErrors(t *testing.T) {
	nan := float32(math.NaN())
	base := []float32{1, 2, float32(math.Inf(1)), 0, 3, nan, 5, 6}
	h := newHNSW(t, HNSWOptions{Dim: 2, Metric: L2, Capacity: 4}, base)
	var s Scratch
	for _, c := range []struct {
		row  uint32
		want errclass.Class
	}{{4, errclass.Exhausted}, {math.MaxUint32, errclass.Exhausted}, {1, errclass.Invalid}, {2, errclass.Invalid}} {
		if err := h.Insert(c.row, &s); !errclass.Is(err, c.want) {
			t.Errorf("row %d: %v, want class %v", c.row, err, c.want)
		}
	}
	if err := h.Insert(0, &s); err != nil {
		t.Fatal(err)
	}
	if err := h.Insert(0, &s); !errclass.Is(err, errclass.Exists) {
		t.Errorf("second insert of a row: %v", err)
	}
	if got := h.Search([]float32{nan, 1}, 1, 1, nil, &s); len(got) != 1 {
		t.Errorf("query that is not a number: %v", got)
	}
	if h.Len() != 1 {
		t.Errorf("%d rows", h.Len())
	}
}

func TestOptionsListAllProblems(t *testing.T) {
	_, err := NewHNSW(HNSWOptions{Dim: -1, Metric: 9, M: 1, EfConstruction: -5, Capacity: -2}, nil)
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"Dim", "Metric", "L2, IP, COSINE", "M is 1", "EfConstruction", "Capacity"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if _, err := NewHNSW(HNSWOptions{Dim: 4, Metric: L2, Capacity: 3}, make([]float32, 11)); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("base that is too small: %v", err)
	}
	for _, err := range []error{
		func() error { _, err := NewFlat(0, L2, nil); return err }(),
		func() error { _, err := NewFlat(3, 0, nil); return err }(),
	} {
		if !errclass.Is(err, errclass.Invalid) {
			t.Errorf("flat: %v", err)
		}
	}
	if err := newFlat(t, 2, L2, make([]float32, 4)).Publish(3); !errclass.Is(err, errclass.Exhausted) {
		t.Errorf("publish past the end: %v", err)
	}
}

func TestStopCutsASearch(t *testing.T) {
	const n, dim = 3000, 8
	base := clustered(rng(8), n, dim)
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, M: 4, EfConstruction: 20}, base)
	insertAll(t, h, n, 2)
	var stop atomic.Bool
	s := Scratch{Stop: &stop}
	half := bitset.New(n)
	for i := range n / 2 {
		half.Add(2 * i)
	}
	few := bitset.New(n)
	few.Add(7)
	for _, cut := range []bool{true, false} {
		stop.Store(cut)
		for name, search := range map[string]func(){
			"walk":          func() { h.Search(base[:dim], 10, 100, nil, &s) },
			"heaps":         func() { h.Search(base[:dim], 10, 100, half, &s) },
			"filtered scan": func() { h.Search(base[:dim], 10, 100, few, &s) },
			"scan":          func() { newFlat(t, dim, L2, base).Search(base[:dim], 10, nil, &s) },
		} {
			search()
			if got := s.Stats(); got.Stopped != cut || cut && got.Distances > n/4 {
				t.Errorf("%s with stop %v: %+v", name, cut, got)
			}
		}
	}
}

func TestSearchDoesNotAllocate(t *testing.T) {
	const n, dim = 3000, 8
	base := clustered(rng(9), n, dim)
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: Cosine, Capacity: n, M: 4, EfConstruction: 20}, base)
	insertAll(t, h, n-1, 2)
	f := newFlat(t, dim, Cosine, base)
	half := bitset.New(n)
	for i := range n / 2 {
		half.Add(2 * i)
	}
	var s Scratch
	for name, search := range map[string]func(){
		"walk":     func() { h.Search(base[:dim], 10, 50, nil, &s) },
		"filtered": func() { h.Search(base[:dim], 10, 50, half, &s) },
		"flat":     func() { f.Search(base[:dim], 10, half, &s) },
	} {
		if got := testing.AllocsPerRun(20, search); got > 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	if s.Bytes() == 0 || h.Bytes() == 0 {
		t.Error("memory is not counted")
	}
}

func TestLevelsFallOffByM(t *testing.T) {
	const n, m = 100_000, 16
	count := map[int]int{}
	for row := range n {
		count[levelOf(uint32(row), 42, m)]++
	}
	up := n - count[0]
	if up < n/m*9/10 || up > n/m*11/10 || count[2] == 0 {
		t.Fatalf("%d of %d rows are above level 0 with M = %d: %v", up, n, m, count)
	}
}

// TestARowThatIsOutOfReachIsLinkedFromOthers, not from itself: higher levels may lead to it.
func TestARowThatIsOutOfReachIsLinkedFromOthers(t *testing.T) {
	const n, dim = 2000, 6
	base := clustered(rng(6), n, dim)
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, M: 3, EfConstruction: 20}, base)
	insertAll(t, h, n, 2)
	start, _, _ := h.start()
	cut := 0
	for row := range uint32(n) {
		if row == start || h.upperOff[row] == h.upperOff[row+1] {
			continue
		}
		cut++
		for i := range h.links0 { // nothing leads to row, and row to nothing
			if h.links0[i] == row+1 {
				h.links0[i] = start + 1
			}
		}
		clear(h.list(row, 0))
		if repaired(t, h) == 0 {
			t.Fatal("a row that was cut off was not noticed")
		}
		for i, link := range h.list(row, 0) {
			if link == row+1 {
				t.Fatalf("row %d is its own neighbour %d", row, i)
			}
		}
		if lost, err := h.repairs().round(context.Background(), 2, &progress{}); err != nil || lost > n/200 {
			t.Fatalf("%d rows are still out of reach", lost)
		}
		if cut == 20 {
			break
		}
	}
}
