package index

import (
	"math"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// share is what is known of walks of some effort for so many rows wanted.
type share struct {
	rows   uint32
	effort uint32
	lists  uint32 // a search that reads so many finds as much; 0: it is not known how many
	found  uint32 // what walks find of the nearest rows, in parts of shareAll; 0: it is not known
	half   uint32 // the same where a filter leaves half of the rows
}

// shareTable is what is known of walks: by rows wanted, then by effort. More effort is worth as many
// lists or more, and finds as much or more.
type shareTable []share

// Of a shareTable.
const (
	// sharePoint and sharePoint4 are the numbers of a share in an image, and in one of version 4, which does not know
	// what is found.
	sharePoint, sharePoint4 = 5, 3
	maxShares               = 64
	shareAll                = 1 << 20
)

// shareWanted is for how many rows wanted something is known.
const shareWanted = 100

// measuredShares are the rows wanted and the efforts that are measured, the last before walks end by distance and the first
// from which on they do among them: these find more.
func measuredShares() shareTable {
	var t shareTable
	for _, effort := range []uint32{10, 16, endFrom*calibrateK - 1, endFrom * calibrateK, 40, 64, 100, 160, 256, 512} {
		t = append(t, share{rows: calibrateK, effort: effort})
	}
	for _, effort := range []uint32{shareWanted, 160, endFrom*shareWanted - 1, endFrom * shareWanted, 512} {
		t = append(t, share{rows: shareWanted, effort: effort})
	}
	return t
}

// sharesOf is the table that a section of an image of some version is.
func sharesOf(section []byte, version uint32) shareTable {
	if version >= 5 {
		return as[share](section)
	}
	var t shareTable
	for x := as[uint32](section); len(x) >= sharePoint4; x = x[sharePoint4:] {
		t = append(t, share{rows: x[0], effort: x[1], lists: x[2]})
	}
	return t
}

// check looks whether a table is of the kind that is read.
func (t shareTable) check(l *sqLists) error {
	last := share{rows: 1}
	for _, p := range t {
		if p.rows > last.rows {
			last = share{rows: p.rows}
		}
		if p.rows < last.rows || p.rows > maxRows || p.effort <= last.effort || p.effort > maxRows ||
			p.lists < last.lists && p.lists != 0 || int64(p.lists) > int64(l.n) || p.found < last.found && p.found != 0 || p.found > shareAll || p.half < last.half && p.half != 0 || p.half > shareAll {
			return errclass.New(errclass.Corrupt, "HNSW_SQ image: shares %+v and %+v of %d lists", last, p, l.n)
		}
		last = p
	}
	return nil
}

// part cuts off what is known for the fewest rows wanted.
func (t shareTable) part() (part, rest shareTable) {
	n := 0
	for n < len(t) && t[n].rows == t[0].rows {
		n++
	}
	return t[:n], t[n:]
}

// find returns how many lists find as much of the k nearest rows as a walk of an effort; 0: it
// is not known.
func (t shareTable) find(k, ef int) int {
	below, lists := 0, 0.0 // rows wanted that a part of t is for, and what it says
	for len(t) > 0 {
		var part shareTable
		part, t = t.part()
		of, by := int(part[0].rows), part.worth(ef)
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
	for _, p := range t {
		at, by := int(p.effort), float64(p.lists)
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
	if lists == 0 || !g.sharedFaster(min(n, sharedMost(k, ef)), lists, ef) {
		return 0
	}
	return lists
}

// foundMargin is the part of what a search may miss that it is not to miss by what was measured: the
// rows that stood for queries are few, and rows.
const foundMargin = 0.25

// effort returns the least effort that finds a share of the k nearest rows. It is more than any that was measured where
// none of those does: as many times as less is to be missing. 0: nothing is known.
func (t shareTable) effort(k int, recall float64) int {
	missing := surelyMissing(recall)
	below, effort := 0, 0.0
	for len(t) > 0 {
		var part shareTable
		part, t = t.part()
		of, by := int(part[0].rows), part.misses(missing, share.all)
		if by == 0 {
			break
		}
		if of >= k {
			return int(math.Ceil(min(between(below, effort, of, by, k), maxRows)))
		}
		below, effort = of, by
	}
	if below == 0 {
		return 0
	}
	return int(math.Ceil(min(effort*float64(k)/float64(below), maxRows)))
}

// usualEffort is how many times the default effort a search makes that says nothing of effort or recall, without and
// with a filter: as many as find usualRecall by what was measured, usualMost at most. 0 is as good as 1.
type usualEffort struct{ all, some float64 }

// Of usualEffort. Rows of many directions of which all matter take ten times the effort of others.
const (
	usualRecall = 0.95
	usualMost   = 16
)

// usual is the usualEffort of a graph with this table.
func (t shareTable) usual() usualEffort {
	times := func(ef int) float64 { return min(float64(ef)/float64(DefaultEffort(calibrateK)), usualMost) }
	return usualEffort{all: times(t.effort(calibrateK, usualRecall)), some: times(t.filtered(calibrateK, usualRecall))}
}

// of is what becomes of the default effort ef.
func (u usualEffort) of(ef int, filtered bool) int {
	times := u.all
	if filtered {
		times = max(times, u.some)
	}
	return max(ef, int(math.Ceil(float64(ef)*times)))
}

// filtered is effort for a search with a filter: as many times as much as it takes where that leaves half of the rows.
func (t shareTable) filtered(k int, recall float64) int {
	e, missing := t.effort(k, recall), surelyMissing(recall)
	if e == 0 {
		return 0
	}
	part, _ := t.part()
	more := part.misses(missing, share.some) / part.misses(missing, share.all)
	return int(math.Ceil(min(float64(e)*max(more, 1), maxRows)))
}

// surelyMissing is what may be missing by what was measured, for a share of the nearest rows to be found.
func surelyMissing(recall float64) float64 { return max((1-recall)*(1-foundMargin), mostMissing) }

func (p share) all() uint32  { return p.found }
func (p share) some() uint32 { return p.half }

// misses is the effort that misses no more than a part of what is found of all or of some, by a part of a table for one number of
// rows wanted; 0: it is not known.
func (t shareTable) misses(most float64, of func(share) uint32) float64 {
	enough, least := 0.0, 1.0 // the least effort that misses least of those before, and how much
	last := 0.0               // the effort before
	for _, p := range t {
		found := of(p)
		if found == 0 {
			break
		}
		effort, missing := float64(p.effort), max(1-float64(found)/shareAll, mostMissing)
		if missing <= most {
			if last == 0 {
				return effort
			}
			return last * math.Pow(effort/last, math.Log(least/most)/math.Log(least/missing))
		}
		if missing < least {
			enough, least = effort, missing
		}
		last = effort
	}
	return enough * least / most
}

// wanted lists the efforts for some shares of the nearest rows, for who reads a manifest; nothing if they are not known.
func (t shareTable) wanted() string {
	var e efforts
	for i, recall := range wantedRecalls() {
		e[i] = uint32(t.effort(calibrateK, recall))
	}
	if e[0] == 0 {
		return ""
	}
	return e.String()
}
