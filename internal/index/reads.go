package index

import "github.com/querynode/querynode/internal/vec"

// Reads are reads of one kind that searches made: so many, of so many bytes each,
// at places that nothing tells beforehand.
type Reads struct {
	What  string // "codes", "links", "centres", "lists", "fine codes" or "vectors"
	Count int
	Size  int   // bytes of one, the mean for lists
	Area  int64 // bytes of all there are of the kind
}

// Add adds what another search did.
func (t *Stats) Add(s Stats) {
	t.Distances, t.Ranked, t.Hops = t.Distances+s.Distances, t.Ranked+s.Ranked, t.Hops+s.Hops
	t.Codes, t.Exact, t.Lists = t.Codes+s.Codes, t.Exact+s.Exact, t.Lists+s.Lists
	t.Scanned, t.Stopped = t.Scanned || s.Scanned, t.Stopped || s.Stopped
}

// ReadsOf says what so many searches read of an index, one query each and without a
// filter, given their Stats in sum: what they cannot do without, not what they
// read beside. It is nil for an index that does not tell.
func ReadsOf(x Searcher, searches int, t Stats) []Reads {
	var all []Reads
	switch x := x.(type) {
	case *flatSearcher:
		all = []Reads{x.f.vectorReads(t.Distances)}
	case *hnswSearcher:
		all = []Reads{
			{What: "links", Count: t.Hops, Size: 4 * x.h.m0, Area: 4 * int64(x.h.m0) * int64(x.h.Len())},
			x.h.vectorReads(t.Distances),
		}
	case *sqGraph:
		all = append([]Reads{
			{What: "codes", Count: t.Distances, Size: x.code.stride, Area: int64(len(x.records))},
			{What: "links", Count: t.Hops, Size: 4 * x.m0, Area: 4 * int64(len(x.links0))},
		}, x.fine.reads(&x.space, t)...)
	case *ivf:
		all = x.reads(searches, t)
	}
	kept := all[:0]
	for _, r := range all {
		if r.Count > 0 && r.Size > 0 {
			kept = append(kept, r)
		}
	}
	return kept
}

func (sp *space) vectorReads(n int) Reads {
	return Reads{What: "vectors", Count: n, Size: 4 * sp.dim, Area: 4 * int64(len(sp.base))}
}

// reads is what ranking reads.
func (f *fine) reads(sp *space, t Stats) []Reads {
	fine := t.Ranked
	if !f.exists() {
		fine = 0
	}
	return []Reads{{What: "fine codes", Count: fine, Size: f.stride, Area: int64(len(f.bytes))}, sp.vectorReads(t.Exact)}
}

func (x *ivf) reads(searches int, t Stats) []Reads {
	c := x.lists.codes
	centres := Reads{What: "centres", Count: searches, Size: len(c.panels) + 4*len(c.bias)}
	if s := x.lists.short; t.Hops < searches*x.lists.n/2 && x.shortFirst(t.Hops/max(searches, 1)) { // as nearestLists decides, or nearly
		centres.Size = len(s.blocks) + 4*len(s.bias)
	}
	centres.Area = int64(centres.Size)
	lists := Reads{What: "lists", Count: t.Hops}
	switch {
	case x.pq != nil:
		block := x.blockBytes() + 4*vec.FastScanBlock
		lists.Size, lists.Area = t.Codes/vec.FastScanBlock*block/max(t.Hops, 1), int64(block)*int64(x.numBlocks())
	case x.bytes != nil:
		panel := x.bytes.panelBytes() + 4*vec.PanelRows
		lists.Size, lists.Area = t.Codes/vec.PanelRows*panel/max(t.Hops, 1), int64(panel)*int64(x.numBlocks())
	default:
		return []Reads{centres, x.vectorReads(t.Distances)}
	}
	return append([]Reads{centres, lists}, x.fine.reads(&x.space, t)...)
}
