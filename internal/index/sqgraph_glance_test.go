package index

import (
	"bytes"
	"encoding/binary"
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
			g.glanced = true // so few rows are not measured
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

// oneOfMany are rows of noise, which the first line of a record is full of, and behind it one large value of many: rows that have the same
// are near to one another, and no first line says so.
func oneOfMany(n, noise, groups int, seed uint64) []float32 {
	r, dim := rng(seed), noise+groups
	base := gauss(seed+1, n, dim)
	for i := range n {
		v := base[i*dim:][:dim]
		for d := noise; d < dim; d++ {
			v[d] *= 0.3
		}
		v[noise+r.IntN(groups)] += 8
	}
	return base
}

// byTurns puts the first 20 of each 125 rows in the place of those of others.
func byTurns(rows, first []float32, dim int) []float32 {
	for i := range len(rows) / dim {
		if i%125 < 20 {
			copy(rows[i*dim:][:dim], first[i*dim:][:dim])
		}
	}
	return rows
}

// Scans go by first lines where these were found to tell, and only there, also once the graph is opened.
func TestScansGoByFirstLinesWhereTheseTell(t *testing.T) {
	const n, asked, k = 8000, 40, 10
	for name, c := range map[string]struct {
		base    []float32
		dim     int
		metrics []Metric
		tell    bool
	}{
		"few directions": {flattish(rng(68), n+asked, 200, 60), 200, []Metric{L2, Cosine}, true},
		"one of many":    {oneOfMany(n+asked, 80, 150, 69), 230, []Metric{L2, Cosine}, false},
		"by turns":       {byTurns(oneOfMany(n+asked, 80, 150, 70), flattish(rng(71), n+asked, 230, 60), 230), 230, []Metric{Cosine}, false},
	} {
		for _, m := range c.metrics {
			base, queries := c.base[:n*c.dim], c.base[n*c.dim:]
			built, b := buildCodes(t, m, c.dim, base)
			var out bytes.Buffer
			if _, err := b.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			image := alignedCopy(out.Bytes())
			x, err := Open(image, base)
			if err != nil {
				t.Fatal(err)
			}
			g := x.(*sqGraph)
			if want := c.tell && g.kern.FirstLinesFast(); built.glanced != want || g.glanced != want {
				t.Fatalf("%s, %s: by first lines %v, opened %v", name, m, built.glanced, g.glanced)
			}
			f := newFlat(t, c.dim, m, base)
			for shape, allowed := range selections(f, 0.2) {
				var s, exact Scratch
				found := 0.0
				for v := range slices.Chunk(queries, c.dim) {
					found += recall(scanned(g, v, k, 0.05, nonNil(allowed.Words()), &s), f.Search(v, k, allowed, &exact)) / asked
				}
				if found < 0.95 {
					t.Errorf("%s, %s, %s: %.3f", name, m, shape, found)
				}
			}
			binary.LittleEndian.PutUint32(image[120:], 0) // of a build that did not look
			if x, err := Open(withChecksum(image), base); err != nil || x.(*sqGraph).glanced {
				t.Errorf("%s, %s: an image that nobody measured: %v", name, m, err)
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
		g.glanced = true
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
