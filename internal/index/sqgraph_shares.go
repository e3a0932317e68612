package index

import (
	"math"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// shareTable says how many lists a search has to read to find as much as a walk of some
// effort: three numbers for each of sharesMeasured, the rows wanted, the effort and the
// lists, 0 if that is not known. More effort means as many lists or more.
type shareTable []uint32

// Of a shareTable.
const (
	sharePoint = 3
	maxShares  = 64 * sharePoint
)

// shareWanted is for how many rows wanted something is known.
const shareWanted = 100

// sharesMeasured are the rows wanted and the efforts that are measured.
var sharesMeasured = [...]struct{ k, ef int }{
	{10, 10}, {10, 16}, {10, 25}, {10, 40}, {10, 64}, {10, 100}, {10, 160}, {10, 256}, {10, 512},
	{shareWanted, 100}, {shareWanted, 160}, {shareWanted, 256}, {shareWanted, 512},
}

// check looks whether a table is of the kind that find reads.
func (t shareTable) check(l *sqLists) error {
	k, ef, lists := uint32(1), uint32(0), uint32(0)
	for i := 0; i < len(t); i += sharePoint {
		if t[i] != k {
			ef, lists = 0, 0
		}
		if t[i] < k || t[i] > maxRows || t[i+1] <= ef || t[i+1] > maxRows || t[i+2] < lists && t[i+2] != 0 || int(t[i+2]) > l.n {
			return errclass.New(errclass.Corrupt, "HNSW_SQ image: an effort of %d for %d rows is worth %d of %d lists, one of %d for %d is worth %d",
				t[i+1], t[i], t[i+2], l.n, ef, k, lists)
		}
		k, ef, lists = t[i], t[i+1], t[i+2]
	}
	return nil
}

// find returns how many lists find as much of the k nearest rows as a walk of an effort; 0: it
// is not known.
func (t shareTable) find(k, ef int) int {
	below, lists := 0, 0.0 // rows wanted that a part of t is for, and what it says
	for len(t) > 0 {
		n := sharePoint
		for n < len(t) && t[n] == t[0] {
			n += sharePoint
		}
		of := int(t[0])
		by := t[:n].worth(ef)
		t = t[n:]
		if by == 0 {
			return 0
		}
		if of >= k {
			return int(math.Ceil(between(below, lists, of, by, k)))
		}
		below, lists = of, by
	}
	return 0 // for more rows nothing is known
}

// between is what is said of x, given what is said of a and b, a < x <= b, on logarithmic
// scales. Nothing is said of an a of 0.
func between(a int, of float64, b int, by float64, x int) float64 {
	if a == 0 {
		return by
	}
	part := math.Log(float64(x)/float64(a)) / math.Log(float64(b)/float64(a))
	return of * math.Pow(by/of, part)
}

// worth is find in a part of a table for one number of rows wanted.
func (t shareTable) worth(ef int) float64 {
	below, lists := 0, 0.0
	for ; len(t) > 0; t = t[sharePoint:] {
		at, by := int(t[1]), float64(t[2])
		if by == 0 {
			return 0
		}
		if at >= ef {
			return between(below, lists, at, by, ef)
		}
		below, lists = at, by
	}
	return 0
}

// listsFor returns how many lists n queries read in place of walks; 0: they walk.
func (t shareTable) listsFor(n, k, ef int, g *sqGraph) int {
	if len(t) == 0 || k <= 0 || g.lists == nil || n < batchLeast || g.kern.Level() != vec.AVX512 || g.scans(ef) {
		return 0
	}
	lists := t.find(k, ef)
	if lists == 0 || !g.sharedFaster(min(n, sharedMost(k)), lists, ef) {
		return 0
	}
	return lists
}
