package segments

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/index"
)

// borders tell which lists may have a row within a distance of a query. The border between two
// lists is where their middles are equally far. A query lies on the side of its nearest middle, its
// home, and a row x of another list beyond the border with that one, which is
//
//	h = (|q-c|² - |q-home|²) / (2 |c-home|)
//
// away. How much of the way to a near row leads straight to a border that it lies beyond is learnt from
// rows, as a share of the way: it hardly depends on how long the way is, so what rows that are few tell
// holds of more. A list beyond a border at h has nothing nearer than h divided by that share. IP has
// no borders: a longer row is nearer wherever it lies.
type borders struct {
	all    int       // middles, with those that a panel has room for
	halves []float32 // of each two middles: 1 / (2 |c-home|), 0 of a middle and itself
	far    []float32 // of each home: |c-home| of the farthest middle
	leans  []float32 // shares of ways to near rows, ascending; never empty
}

const (
	// leanLeast is the part of the ways learnt that a search with the least effort covers, leanMost
	// that of others. Rows that are nearer than the last one wanted are covered better.
	leanLeast, leanMost = 0.8, 0.99
	// effortLeast is how many candidates for a row wanted are the least effort, and effortMost how
	// many are none that is spared.
	effortLeast, effortMost = 2, 6
)

// bordersOf measures the distances between the middles of c as they are rounded, out of what was. The ways are learnt after.
func (v *growingVectors) bordersOf(c *centres, middles []float32) *borders {
	all := len(c.bias)
	b := &borders{all: all, halves: make([]float32, all*all), far: make([]float32, all)}
	square, middles := make([]float32, c.n), slices.Clone(middles)
	c.codes.round(middles)
	for i := range c.n {
		v.kernels.L2Rows(middles[i*v.dim:][:v.dim], middles, v.dim, square)
		for j, s := range square {
			if s > 0 && i != j {
				d := float32(math.Sqrt(float64(s)))
				b.halves[i*all+j], b.far[i] = 1/(2*d), max(b.far[i], d)
			}
		}
	}
	return b
}

// learn takes the ways to near rows; see way.
func (b *borders) learn(ways []float32) {
	slices.Sort(ways)
	b.leans = ways
}

// way is how much of the way to a row, whose square is given, leads straight to the border of its list, which is beyond
// by squares. It is nothing if the row is in the home itself.
func (b *borders) way(home, list int, beyond, square float32) float32 {
	if !(square > 0) {
		return 0
	}
	return max(beyond, 0) * b.halves[home*b.all+list] / float32(math.Sqrt(float64(square)))
}

// lean is the share that a search of so much effort goes by; at least a little, so that a list
// just beyond a border is read.
func (b *borders) lean(q *nearestQuery) float32 {
	part := float64(leanMost)
	switch ef := float64(q.effort.EF) / float64(max(q.k, 1)); {
	case q.effort.Recall > 0:
		part = min(max(float64(q.effort.Recall), leanLeast), leanMost)
	case ef > 0:
		part = leanLeast + (leanMost-leanLeast)*min(max((ef-effortLeast)/(effortMost-effortLeast), 0), 1)
	}
	return max(b.leans[int(part*float64(len(b.leans)-1))], 0.01)
}

// bytes is the memory of b; nil has none.
func (b *borders) bytes() int64 {
	if b == nil {
		return 0
	}
	return int64(4 * (len(b.halves) + len(b.far) + len(b.leans)))
}

// beyond tells of one query what is beyond borders.
type beyond struct {
	halves  []float32 // of the query's home
	nearest float32   // the square of the distance from home
	doubt   float32   // borders may be so much nearer than they seem
	reach   float32   // a border that is as far away, or farther, has nothing behind it; +Inf = any may have
	square  float32   // where no middle is far enough to have such a border
	inverse float32   // 1 / the share, squared, in the metric's terms
}

// from returns what is beyond the borders of a home for a search of rows nearer than limit, where borders seem off by doubt.
func (b *borders) from(home int, nearest, limit, lean, doubt float32, m index.Metric) beyond {
	out := beyond{halves: b.halves[home*b.all:][:b.all], nearest: nearest, doubt: doubt, inverse: 1 / (lean * lean)}
	if m == index.Cosine {
		limit, out.inverse = 2*limit, out.inverse/2
	}
	out.reach = lean * float32(math.Sqrt(float64(max(limit, 0))))
	// A little more: distances may have been added up in another order.
	out.square = nearest + 2*(out.reach+doubt)*b.far[home] + 1e-5*float32(math.Abs(float64(nearest))) + math.SmallestNonzeroFloat32
	if !(b.far[home] > 0) || !(out.square > nearest) {
		out.square = float32(math.Inf(1)) // all middles are one, or too far for such sums
	}
	return out
}

// least is how far what is in a list is at least from the query, whose distance from the middle has the given square;
// false = it is out of reach.
func (b *beyond) least(list uint32, square float32) (float32, bool) {
	h := max((square-b.nearest)*b.halves[list]-b.doubt, 0)
	if h > b.reach {
		return 0, false
	}
	return h * h * b.inverse, true
}
