package index

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// scanned is a scan of the rows allowed (nil: all) in which a part of the k nearest may be missing.
func scanned(g *sqGraph, v []float32, k int, missing float64, allowed []uint64, s *Scratch) []Neighbor {
	s.begin(g.m0)
	sq := g.prepare(v, s)
	return g.scanMissing(v, &sq, k, k, missing, allowed, s)
}

// First lines tell which rows are worth more: what they leave out is not among the nearest, also where they say little.
func TestAScanByFirstLinesFindsTheNearest(t *testing.T) {
	const n, dim, asked, k = 2500, 200, 30, 10
	for name, base := range map[string][]float32{
		"few directions": flattish(rng(61), n+asked, dim, 120), // all values of a record in its first lines
		"all directions": gauss(62, n+asked, dim),              // of which the first line has no more than others
		"groups":         clustered(rng(63), n+asked, dim),
	} {
		queries := base[n*dim:]
		for _, m := range []Metric{L2, IP, Cosine} {
			g, _ := buildCodes(t, m, dim, base[:n*dim])
			f := newFlat(t, dim, m, base[:n*dim])
			for shape, allowed := range selections(f, 0.4) {
				var s, exact Scratch
				found, compared, last := map[float64]float64{}, map[float64]int{}, 0
				for _, missing := range []float64{0.2, 0.01, glanceMissing} {
					for i := range asked {
						v := queries[i*dim:][:dim]
						got := scanned(g, v, k, missing, nonNil(allowed.Words()), &s)
						wantSorted(t, got, allowed)
						found[missing] += recall(got, f.Search(v, k, allowed, &exact)) / asked
						compared[missing] += s.Stats().Distances - allowed.Count()
					}
					if compared[missing] < last {
						t.Errorf("%s, %s, %s: %d compared if %v may be missing, %d if more", name, m, shape, compared[missing], missing, last)
					}
					last = compared[missing]
				}
				// Less may be missing than first lines are good for: each row is compared, once.
				if got := scanned(g, queries[:dim], k, glanceMissing/2, nonNil(allowed.Words()), &s); len(got) != k || s.Stats().Distances != allowed.Count() {
					t.Errorf("%s, %s, %s: %d found of %d, %+v", name, m, shape, len(got), allowed.Count(), s.Stats())
				}
				if found[0.2] < 0.85 || found[0.01] < 0.97 || found[glanceMissing] < 0.98 {
					t.Errorf("%s, %s, %s: found %v, compared %v", name, m, shape, found, compared)
				}
			}
		}
	}
}

// About as many distances as wanted are less than what is said of them, wherever they are.
func TestTheNearestByFirstLinesAreAboutAsManyAsWanted(t *testing.T) {
	const n = 8000
	r := rng(64)
	sorted := make([]float32, n)
	for i := range sorted {
		sorted[i] = float32(r.NormFloat64())
	}
	slices.Sort(sorted)
	shuffled := slices.Clone(sorted)
	r.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for name, dist := range map[string][]float32{"in order": sorted, "in no order": shuffled} {
		for _, want := range []int{50, 68, 200, 1000} {
			f := glanceScratch{dist: dist}
			limit, got := f.nearer(vec.Detect(), want), 0
			for _, d := range dist {
				if d < limit {
					got++
				}
			}
			if got < want/2 || got > 2*want {
				t.Errorf("%s: %d are nearer, want about %d", name, got, want)
			}
		}
	}
	for name, x := range map[string]float32{"infinite": float32(math.Inf(1)), "no number": float32(math.NaN())} {
		f := glanceScratch{dist: slices.Repeat([]float32{x}, n)}
		if limit := f.nearer(vec.Detect(), 50); limit <= math.MaxFloat32 {
			t.Errorf("%s: %v", name, limit)
		}
	}
}

// Numbers whose products are none, or all the same, leave no row out and take none twice.
func TestAScanByFirstLinesOfNumbersThatTellNothing(t *testing.T) {
	const n, dim, k = 2000, 16, 10
	for name, base := range map[string][]float32{
		"equal":    slices.Repeat([]float32{1}, n*dim),
		"huge":     times(gauss(66, n, dim), 1e30),
		"tiny":     times(gauss(67, n, dim), 1e-30),
		"one huge": append(slices.Repeat([]float32{1}, (n-1)*dim), slices.Repeat([]float32{2e38}, dim)...),
	} {
		g, _ := buildCodes(t, L2, dim, base)
		var s Scratch
		if got := scanned(g, base[:dim], k, 0.05, nil, &s); len(got) != k {
			t.Errorf("%s: %d rows", name, len(got))
		} else {
			rows := map[uint32]bool{}
			for _, h := range got {
				rows[h.Row] = true
			}
			if len(rows) != k {
				t.Errorf("%s: a row was found twice: %v", name, got)
			}
		}
	}
}

// times is values by a factor.
func times(values []float32, factor float32) []float32 {
	for i := range values {
		values[i] *= factor
	}
	return values
}

// Whoever stops a search waits for some rows of a scan, not for all that are looked at together.
func TestAScanByFirstLinesStops(t *testing.T) {
	const n, dim, k = 9000, 16, 5
	base := gauss(65, n, dim)
	g, _ := buildCodes(t, L2, dim, base)
	var s Scratch
	s.begin(g.m0)
	sq := g.prepare(base[:dim], &s)
	s.lists.cands.reset(codeRank(k, k))
	s.top.Reset(k + glanceMore)
	rows := make([]uint32, n)
	for i := range rows {
		rows[i] = uint32(i)
	}
	var stop atomic.Bool
	stop.Store(true)
	s.Stop = &stop
	g.glance(&sq, rows, k, 0.05, &s)
	wantSorted(t, g.collected(base[:dim], &sq, k, &s), nil)
	if st := s.Stats(); !st.Stopped || st.Distances < glanceChunk || st.Distances > n/2 {
		t.Errorf("%+v", st)
	}
	if got := scanned(g, base[:dim], k, 0.05, nil, &s); len(got) > 0 || !s.Stats().Stopped {
		t.Errorf("%+v of a scan that was stopped before it began: %+v", got, s.Stats())
	}
}
