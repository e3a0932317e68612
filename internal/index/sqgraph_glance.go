package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// Of scans that look at no more than the first line of most records.
const (
	// glanceMost is how many rows are looked at together, and glanceLeast at least: of fewer, whole records cost as little.
	glanceMost, glanceLeast = 16384, 384
	// glanceChunk is how many between two looks at Stop.
	glanceChunk = 2048
	// glanceParts is of how many parts the nearest row each tells how near so many rows are, at least.
	glanceParts = 128
	// glanceFew, and glanceEach for each row wanted, is how many of the nearest by their first lines are compared first.
	glanceFew, glanceEach = 48, 2
	// glanceMore is how many more rows than those wanted have to be nearer by their records for a row not to be compared: the
	// k nearest by these are ranked among more.
	glanceMore = rankMore
	// Deviations of what first lines say too much that a row has to be behind not to be compared: glanceSurer for each power of
	// ten of what a search may miss, less glanceLess, and glanceSure at least. Rows that are nearest have more that first lines do not say
	// than those that are nearest by them.
	glanceSure, glanceSurer, glanceLess = 2, 4, 1.5
	// glanceMissing is what a search may miss for which first lines are looked at: for less, so many rows would be compared that
	// comparing all is as cheap.
	glanceMissing = 0.003
	// glanceTold is from how many rows on it is told how much more first lines say.
	glanceTold = 16
)

// glanceScratch is what such a scan works in.
type glanceScratch struct {
	line   [vec.FirstLineQueryLen]int8
	scale  float32
	dist   []float32 // by first lines
	places []uint32  // of rows that are compared
	least  []float32 // of parts of these
	keys   []uint64
	off    offset // of distances by records from those by first lines
}

func (f *glanceScratch) bytes() int {
	return 4*(cap(f.dist)+cap(f.places)+cap(f.least)) + 8*cap(f.keys)
}

// glances reports whether first lines tell which of so many rows are compared, if no more than a part of the k nearest may be
// missing (0: it is not known).
func (g *sqGraph) glances(rows, k int, missing float64) bool {
	return g.glanced && missing >= glanceMissing && g.kern.FirstLinesFast() && rows >= max(glanceLeast, 4*glanceWant(k))
}

// glanceDeviations is how many deviations rows are followed if no more than a part of the nearest may be missing.
func glanceDeviations(missing float64) float64 {
	return max(glanceSurer*math.Log10(1/missing)-glanceLess, glanceSure)
}

// glanceWant is how many of the nearest by their first lines are compared first.
func glanceWant(k int) int { return glanceFew + glanceEach*k }

// glance is collect for those of rows that may be among the k nearest of all by what the first lines of their records say, if
// no more than a part of these may be missing. How much more a first line says than its record is learnt from the
// nearest by it: these are all compared, and then those that are no further behind the bound than is likely. s.top has the nearest of
// the rows before.
func (g *sqGraph) glance(sq *sqQuery, rows []uint32, k int, missing float64, s *Scratch) {
	f := &s.lists.glance
	f.scale = vec.SetFirstLine(f.line[:], sq.halves, sq.scale, g.code.mixed())
	f.dist, f.places = grown(f.dist, len(rows)), grown(f.places, len(rows)+vec.PlacesRoom)
	for from := 0; from < len(rows); from += glanceChunk {
		to := min(from+glanceChunk, len(rows))
		g.kern.SQFirstLines(f.line[:], f.scale, g.records, g.code.stride, rows[from:to], f.dist[from:to])
		if s.stopped() {
			rows = rows[:to]
		}
	}
	f.dist = f.dist[:len(rows)]
	s.stats.Distances += len(rows)
	near := f.nearer(g.kern, glanceWant(k))
	g.compareBelow(sq, rows, float32(math.Inf(-1)), near, true, s)
	if !(near <= math.MaxFloat32) {
		return // all were: numbers are too large
	}
	limit := float32(math.Inf(1))
	if s.top.Full() && f.off.n >= glanceTold {
		limit = s.top.Bound() + f.off.most(float32(glanceDeviations(missing)))
	}
	if !(limit <= near) {
		g.compareBelow(sq, rows, near, limit, false, s)
	}
}

// nearer returns a distance that about so many are less than; +Inf if they are not to be told apart.
func (f *glanceScratch) nearer(kern vec.Kernels, want int) float32 {
	parts := glanceParts
	for parts < 2*want {
		parts *= 2
	}
	f.least, f.keys = grown(f.least, parts), grown(f.keys, parts)
	kern.Minima(f.dist, f.least)
	for i, d := range f.least {
		f.keys[i] = vec.Key(d, 0)
	}
	// Of some parts two or more are among the nearest.
	at := int(float64(parts) * (1 - math.Exp(-float64(want)/float64(parts))))
	partition(kern, f.keys, at)
	return vec.Unkey(slices.Max(f.keys[:at])).Distance
}

// compareBelow compares the rows whose distances by first lines are from one on and below another, or all from one on if the other
// is none. It learns from them how much more first lines say if it is to.
func (g *sqGraph) compareBelow(sq *sqQuery, rows []uint32, from, to float32, learn bool, s *Scratch) {
	f := &s.lists.glance
	if learn {
		f.off = offset{}
	}
	for part := range slices.Chunk(f.below(g.kern, f.dist, to), scanChunk) {
		n := 0
		for _, i := range part {
			if d := f.dist[i]; !(d < from) {
				s.ids[n], s.dist2[n] = rows[i], d
				n++
			}
		}
		if out := g.compare(sq, s.ids[:n], s); learn {
			f.off.learn(out, s.dist2[:n])
		}
	}
}

// below returns the places of distances below a limit; all if it is none.
func (f *glanceScratch) below(kern vec.Kernels, dist []float32, limit float32) []uint32 {
	if limit <= math.MaxFloat32 {
		return f.places[:kern.PlacesBelow(dist, limit, f.places)]
	}
	places := f.places[:len(dist)]
	for i := range places {
		places[i] = uint32(i)
	}
	return places
}

// compare is collect for at most scanChunk rows, which does not move them and tells s.top, too. It returns their distances.
func (g *sqGraph) compare(sq *sqQuery, rows []uint32, s *Scratch) []float32 {
	c, dist := &s.lists.cands, s.dist[:len(rows)]
	g.code.distances(sq, g.records, rows, dist)
	s.stats.Distances += len(rows)
	for i, row := range rows {
		if dist[i] >= c.limit && c.limit <= math.MaxFloat32 {
			continue
		}
		key := vec.Key(dist[i], row)
		c.keys = append(c.keys, key)
		if key < s.top.BoundKey() {
			s.top.PushKey(key)
		}
	}
	c.trim(g.kern)
	return dist
}
