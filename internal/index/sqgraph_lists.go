package index

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Of the lists of an sqGraph.
const (
	// sqListDims is how many values of a vector's head say which list it is in: of
	// turned vectors, 32 find as much with as few rows as all do.
	sqListDims = 32
	// sqListMost is the dimension up to which vectors that are not turned are put in
	// lists, by all their values.
	sqListMost = 256
	// sqListLeast is how many rows have lists at least: fewer are scanned as fast.
	sqListLeast = 4096
)

// sqLists are the rows of an sqGraph in lists of rows near to one another, by the
// values that their codes keep most precisely. Where a filter leaves some of the
// rows, a search reads the lists near the query: it does not matter to
// these which other rows are allowed, as it does to a walk. They take five to seven bytes a row.
type sqLists struct {
	codes *byteCodes // of the lists' centres
	first []uint32   // list l is [first[l], first[l+1]) of links
	links []uint32   // row plus 1, as in the graph
	n     int        // how many lists there are
}

// listDims is how many values of the head tell lists apart; 0: there are no lists.
func (c *coder) listDims(rows int) int {
	switch {
	case rows < sqListLeast:
		return 0
	case c.basis != nil:
		return min(c.head, sqListDims)
	case c.head <= sqListMost:
		return c.head
	}
	return 0
}

// lists puts the rows into lists, for the codes that the graph is searched by.
func (b *sqBuilder) lists(ctx context.Context, workers int, c *coder) (*sqLists, error) {
	g, dims := b.g, c.listDims(b.g.rows)
	if dims == 0 {
		return nil, nil
	}
	short := *c
	if short.head, short.wide = dims, dims; c.basis != nil {
		short.basis = c.basis.prefix(dims)
	}
	heads, err := b.region(4 * dims * g.rows)
	if err != nil {
		return nil, err
	}
	flat := as[float32](heads)
	err = parallel(ctx, workers, g.rows, 256, func() func(from, to int) error {
		w := short.newCoded()
		return func(from, to int) error {
			for row := from; row < to; row++ {
				short.centre(g.vector(uint32(row)), w)
				short.turn(w.flat, w)
				copy(flat[row*dims:][:dims], w.head)
			}
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	return g.fillLists(ctx, workers, dims, flat)
}

// fillLists finds centres of the heads of rows and the rows nearest to each.
func (g *sqGraph) fillLists(ctx context.Context, workers, dims int, heads []float32) (*sqLists, error) {
	n := listsFor(g.rows)
	count := min(g.rows, max(kmeansSample*n, codeSample))
	sample, r := make([]float32, 0, count*dims), rand.New(rand.NewPCG(3, uint64(g.rows)))
	for i := range count {
		from, to := i*g.rows/count, (i+1)*g.rows/count
		sample = append(sample, heads[(from+r.IntN(max(to-from, 1)))*dims:][:dims]...)
	}
	c, err := kmeans(ctx, g.kern, workers, n, dims, sample, nil)
	if err != nil {
		return nil, err
	}
	of := make([]uint32, g.rows)
	err = parallel(ctx, workers, g.rows, assignBlock, func() func(from, to int) error {
		a := newAssigner(c, g.kern)
		return func(from, to int) error {
			a.assign(heads[from*dims:to*dims], func(i, centre int, _ []int32, _ vec.Affine) { of[from+i] = uint32(centre) })
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	l := &sqLists{codes: c.codes, first: make([]uint32, n+1), links: make([]uint32, g.rows), n: n}
	if g.metric == IP {
		l.reach(c, of, heads)
	}
	for _, at := range of {
		l.first[at+1]++
	}
	for i := range n {
		l.first[i+1] += l.first[i]
	}
	next := append([]uint32(nil), l.first...)
	for row, at := range of {
		l.links[next[at]] = uint32(row) + 1
		next[at]++
	}
	return l, nil
}

// reach makes lists whose rows are far from their centre count as nearer, where
// products are compared; see reachShare.
func (l *sqLists) reach(c *centres, of []uint32, heads []float32) {
	sum, count := make([]float64, l.n), make([]float64, l.n)
	for row, at := range of {
		centre := c.vectors[int(at)*c.dim:][:c.dim]
		for i, x := range heads[row*c.dim:][:c.dim] {
			sum[at] += float64(x-centre[i]) * float64(x-centre[i])
		}
		count[at]++
	}
	for i := range l.n {
		l.codes.bias[i] = -reachShare * float32(math.Sqrt(sum[i]/max(count[i], 1)))
	}
}

// Sizes of what an image has of lists, in bytes.
func listSections(rows, lists, dims uint64) (codes, links uint64) {
	if lists == 0 {
		return 0, 0
	}
	panels := (lists + vec.PanelRows - 1) / vec.PanelRows
	quads := uint64(vec.PanelQuads(int(dims)))
	return 4*2*dims + 4*panels*vec.PanelRows + 4*(lists+1) + panels*quads*4*vec.PanelRows, 4 * rows
}

// viewLists are the lists in an image; nil if it has none.
func viewLists(lists, dims int, codes, links []byte) *sqLists {
	if lists == 0 {
		return nil
	}
	cut := func(n int) []byte {
		part := codes[: 4*n : 4*n]
		codes = codes[4*n:]
		return part
	}
	b := &byteCodes{dim: dims, quads: vec.PanelQuads(dims)}
	l := &sqLists{codes: b, n: lists, links: as[uint32](links)}
	b.lo, b.step = as[float32](cut(dims)), as[float32](cut(dims))
	b.bias = as[float32](cut(numPanels(lists) * vec.PanelRows))
	l.first = as[uint32](cut(lists + 1))
	b.panels = codes
	return l
}

// copyTo writes the lists to those in an image.
func (l *sqLists) copyTo(to *sqLists) {
	copy(to.codes.lo, l.codes.lo)
	copy(to.codes.step, l.codes.step)
	copy(to.codes.bias, l.codes.bias)
	copy(to.codes.panels, l.codes.panels)
	copy(to.first, l.first)
	copy(to.links, l.links)
}

// check looks whether every row can be in one list only. Nil lists are right.
func (l *sqLists) check() error {
	if l == nil {
		return nil
	}
	last := uint32(0)
	for i, first := range l.first {
		if first < last || int(first) > len(l.links) {
			return errclass.New(errclass.Corrupt, "HNSW_SQ image: list %d starts at row %d, the one before at %d of %d", i, first, last, len(l.links))
		}
		last = first
	}
	return nil
}

// list returns the links of a list.
func (l *sqLists) list(i uint32) []uint32 { return l.links[l.first[i]:l.first[i+1]] }
