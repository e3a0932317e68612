package index

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// withoutHalves has no search compare rows by codes of half a byte.
func withoutHalves(x *ivf) { x.halves.of.Store(&vec.HalfRows{}) }

// allHalves makes codes of half a byte of all rows, as one search after another does.
func allHalves(x *ivf) (of *vec.HalfRows) {
	for range 2 + x.n*x.dim/halfRun + x.n/scanChunk {
		if of = x.halvesOf(new(Scratch)); of != nil {
			break
		}
	}
	return of
}

// unmet forgets all filters, so that the next search meets its own for the first time, and leaves what is kept of rows.
func unmet(x *ivf) { x.marks = newFilterCache[marks](marksKept) }

// TestRowsAreComparedByHalvesBeforeFineCodes, and as much is found at the same distances as by fine codes alone.
func TestRowsAreComparedByHalvesBeforeFineCodes(t *testing.T) {
	const n = 20_000
	queries := 25
	if raceEnabled {
		queries = 2
	}
	for _, c := range []struct {
		kind   Kind
		metric Metric
		dim    int
	}{{KindScaNN, L2, 96}, {KindScaNN, Cosine, 100}, {KindScaNN, IP, 130}, {KindIVFSQ8, L2, 128}} {
		base, asked := clustered(rng(101), n, c.dim), clustered(rng(102), queries, c.dim)
		f := newFlat(t, c.dim, c.metric, base)
		x := buildIVFFor(t, c.kind, c.metric, c.dim, 200, base)
		fast, made := x.kern.HalfFast(), allHalves(x)
		if fast != (made != nil) {
			t.Fatalf("%v: rows have codes of half a byte: %v, and a kernel: %v", c, !fast, fast)
		}
		for name, allowed := range map[string]*bitset.Set{
			"a tenth, anywhere":         filterOf(n, func(row int) bool { return row%10 == 7 }),
			"a tenth, around one row":   around(f, n/10),
			"one of 50, anywhere":       filterOf(n, func(row int) bool { return row%50 == 7 }),
			"one of 50, around one row": around(f, n/50),
		} {
			for _, k := range []int{1, 10, 60} {
				q, sum, plain := &Query{K: k, Allowed: allowed}, 0.0, 0.0
				var s, exact Scratch
				for v := range slices.Chunk(asked, c.dim) {
					want := f.Search(v, k, allowed, &exact)
					x.halves.of.Store(made)
					unmet(x)
					rows := slices.Clone(x.Search(v, q, &s))
					wantSorted(t, rows, allowed)
					sum += recall(rows, want)
					withoutHalves(x)
					unmet(x)
					others := x.Search(v, q, &s)
					plain += recall(others, want)
					for _, r := range others {
						if i := slices.IndexFunc(rows, func(o Neighbor) bool { return o.Row == r.Row }); i >= 0 && rows[i].Distance != r.Distance {
							t.Fatalf("%v, %s: row %d is at %v, and %v by fine codes alone", c, name, r.Row, rows[i].Distance, r.Distance)
						}
					}
				}
				if sum < plain-0.005*float64(queries) {
					t.Errorf("%v, %s, %d wanted: recall %.3f, and %.3f by fine codes alone", c, name, k, sum/float64(queries), plain/float64(queries))
				}
			}
		}
	}
}

// TestHalvesAreNearTheDistancesOfRows, of all lengths.
func TestHalvesAreNearTheDistancesOfRows(t *testing.T) {
	const dim, n = 150, 3000
	base := clustered(rng(103), n, dim)
	clear(base[17*dim:][:dim]) // far from the mean, as the others are moved away from 0
	for i := range base {
		if i/dim != 17 {
			base[i] += 3
		}
	}
	for _, m := range []Metric{L2, IP, Cosine} {
		x := buildIVFFor(t, KindScaNN, m, dim, 20, base)
		of := allHalves(x)
		if !x.kern.HalfFast() {
			if of != nil {
				t.Fatal("there are codes without a kernel that is fast with them")
			}
			continue
		}
		var s Scratch
		rows, far, near := make([]uint32, n), make([]float32, n), make([]float32, n)
		squares, count, lengths := 0.0, 0.0, make([]float64, n) // squared, less the mean
		for i := range lengths {
			row, scale := base[i*dim:][:dim], float32(1)
			if m == Cosine {
				scale = x.kern.InvNorm(row)
			}
			for j, value := range row {
				u := float64(value*scale - x.fine.mean[j])
				lengths[i] += u * u
			}
		}
		for i := range rows {
			rows[i] = uint32(i)
		}
		for q := range 20 {
			v := base[(q*97+1)*dim:][:dim]
			x.fine.prepare(v, &s.fine)
			p := plan{halves: of}
			x.fine.byHalves(p.halvesFor(&s.fine), rows, far, &s.fine)
			x.byID(v, x.scale(v), rows, near)
			for i := range rows {
				if m == Cosine && i == 17 {
					continue // it has no direction
				}
				off := math.Abs(float64(far[i]-near[i])) / math.Sqrt(s.fine.square*lengths[i]+1e-6)
				if squares, count = squares+off*off, count+1; !(off <= 0.12) {
					t.Fatalf("%s: row %d is at %v, and %v by its half bytes: lengths are %v and %v", m, i, near[i], far[i], math.Sqrt(lengths[i]), math.Sqrt(s.fine.square))
				}
			}
		}
		if mean := math.Sqrt(squares / count); !(mean <= 0.03) {
			t.Errorf("%s: half bytes are off by %v of the lengths' product", m, mean)
		}
	}
}

// TestNumbersThatAreTooLargeHaveNoHalves and are found by fine codes or vectors, as before.
func TestNumbersThatAreTooLargeHaveNoHalves(t *testing.T) {
	const dim, n = 80, 6000
	base := clustered(rng(104), n, dim)
	for i := range base {
		base[i] *= 1e16
	}
	x, f := buildIVFFor(t, KindScaNN, L2, dim, 60, base), newFlat(t, dim, L2, base)
	var a allowance
	a.left.Store(1 << 30)
	x.LearnWithin(&a)
	allowed, sum := filterOf(n, func(row int) bool { return row%12 == 7 }), 0.0
	var s, exact Scratch
	if x.halvesOf(&s) != nil || x.halves.existing() != nil || a.left.Load() != 1<<30 {
		t.Fatalf("there are codes of half a byte of rows of lengths about 1e17, or %d bytes are taken for them", 1<<30-a.left.Load())
	}
	for i := range 20 {
		v := base[i*dim:][:dim]
		sum += recall(x.Search(v, &Query{K: 10, Allowed: allowed}, &s), f.Search(v, 10, allowed, &exact))
	}
	if sum < 0.95*20 {
		t.Errorf("recall %.3f", sum/20)
	}
	// A query can be too large for rows that are not.
	for i := range base {
		base[i] /= 1e16
	}
	x = buildIVFFor(t, KindScaNN, L2, dim, 60, base)
	p, v := plan{k: 10, halves: allHalves(x)}, slices.Clone(base[:dim])
	for i := range v {
		v[i] *= 1e16
	}
	if x.fine.prepare(v, &s.fine); p.halvesFor(&s.fine) != nil || p.coarseRows(&s.fine) != 74 {
		t.Error("a query of a length of 1e17 is compared by half bytes")
	}
}

// TestHalvesAreKeptWithinMemory, given back when they are forgotten, and not begun with by a search that is stopped.
func TestHalvesAreKeptWithinMemory(t *testing.T) {
	const dim, n, workers, plenty = 96, 24_000, 3, 1 << 30
	base := clustered(rng(105), n, dim)
	x := buildIVFFor(t, KindScaNN, L2, dim, 100, base)
	if !x.kern.HalfFast() {
		t.Skip("no kernel is fast with codes of half a byte here, so there are none")
	}
	var a allowance
	x.LearnWithin(&a)
	if allHalves(x) != nil {
		t.Fatal("there are codes, though there is no memory for them")
	}
	a.left.Store(plenty)
	stopped := Scratch{Stop: new(atomic.Bool)}
	stopped.Stop.Store(true)
	if x.halvesOf(&stopped) != nil || x.halves.made > 0 {
		t.Fatalf("a search that is stopped made codes of %d rows", x.halves.made)
	}
	x.Forget()
	if sizeOf(x) != 0 || a.left.Load() != plenty {
		t.Fatalf("what was begun is forgotten: %d bytes are left, %d not given back", sizeOf(x), plenty-a.left.Load())
	}
	const each = 64 + 8
	if x.halvesOf(new(Scratch)); x.halves.made == 0 || sizeOf(x) != n*each || plenty-a.left.Load() != n*each {
		t.Fatalf("one search made codes of %d rows, %d bytes are kept and %d were asked for", x.halves.made, sizeOf(x), plenty-a.left.Load())
	}
	if allHalves(x) == nil || sizeOf(x) != n*each || plenty-a.left.Load() != n*each {
		t.Fatalf("%d bytes are kept, %d were asked for", sizeOf(x), plenty-a.left.Load())
	}
	done := make(chan error)
	for w := range workers {
		go func() {
			var s Scratch
			for i := range 200 {
				set := filterOf(n, func(row int) bool { return row%11 == (w*200+i)%10 || row == i }) // new to it
				got := x.Search(base[i*dim:][:dim], &Query{K: 10, Allowed: set}, &s)
				if len(got) != 10 || int(got[0].Row) != i {
					done <- fmt.Errorf("%d rows, of which %v is nearest to row %d", len(got), got, i)
					return
				}
			}
			done <- nil
		}()
	}
	for left := workers; left > 0; {
		x.Forget()
		select {
		case err := <-done:
			if left--; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	x.Forget()
	if sizeOf(x) != 0 || a.left.Load() != plenty {
		t.Errorf("%d bytes are left, %d not given back", sizeOf(x), plenty-a.left.Load())
	}
}

// forgetful is memory of which the index is told to give back what it has just while it takes some.
type forgetful struct {
	taken int64
	x     *ivf
}

func (m *forgetful) Take(n int64) bool {
	if m.taken += n; n > 0 {
		m.x.Forget()
	}
	return true
}

// TestHalvesThatAreForgottenWhileTheyAreMadeAreDropped: by the search that makes the last of them, if that is so.
func TestHalvesThatAreForgottenWhileTheyAreMadeAreDropped(t *testing.T) {
	const dim, n = 80, 4000
	x := buildIVFFor(t, KindScaNN, L2, dim, 20, clustered(rng(106), n, dim))
	if !x.kern.HalfFast() {
		t.Skip("no kernel is fast with codes of half a byte here, so there are none")
	}
	m := &forgetful{x: x}
	x.LearnWithin(m)
	x.halvesOf(new(Scratch))
	if x.halves.existing() != nil || sizeOf(x) != 0 || m.taken != 0 {
		t.Errorf("codes are there, and %d bytes of memory are taken", m.taken)
	}
}

// TestASearchMakesHalvesForItsFilter if that is new and allows few rows, but more than are scanned in no time.
func TestASearchMakesHalvesForItsFilter(t *testing.T) {
	const dim, n = 96, 30_000
	base := clustered(rng(106), n, dim)
	x, f := buildIVFFor(t, KindScaNN, L2, dim, 150, base), newFlat(t, dim, L2, base)
	for _, c := range []struct {
		name    string
		allowed *bitset.Set
		made    bool
		few     func(halves bool) bool
	}{
		{"half of the rows", filterOf(n, func(row int) bool { return row%2 == 1 }), false, func(bool) bool { return false }},
		{"one of a hundred", filterOf(n, func(row int) bool { return row%100 == 1 }), false, func(bool) bool { return true }},
		{"a tenth", filterOf(n, func(row int) bool { return row%10 == 1 }), true, func(bool) bool { return true }},
		{"a tenth, around one row", around(f, n/10), true, func(halves bool) bool { return halves }}, // by fine codes that takes longer
	} {
		x.Forget()
		unmet(x)
		var s Scratch
		for range 4 { // the last goes by what those before have made
			unmet(x)
			x.Search(base[:dim], &Query{K: 10, Effort: 4, Allowed: c.allowed}, &s)
		}
		if made := x.halves.existing() != nil; made != (c.made && x.kern.HalfFast()) {
			t.Errorf("%s: there are codes of half a byte: %v", c.name, made)
		}
		if st := s.Stats(); c.made && x.kern.HalfFast() && (st.Codes > 0 || st.Distances == 0 || st.Ranked >= st.Distances) {
			t.Errorf("%s: %+v", c.name, st)
		}
		unmet(x)
		if few := x.plan(&Query{K: 10, Effort: 4, Allowed: c.allowed}, &s).few; few != c.few(x.kern.HalfFast()) {
			t.Errorf("%s: rows are compared one by one: %v", c.name, few)
		}
	}
}
