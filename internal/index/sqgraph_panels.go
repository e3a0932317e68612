package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// Of batches that are compared with all rows that a filter allows.
const (
	// panelRun is how many rows are put together before all queries are compared
	// with them: their codes fit the second cache.
	panelRun = 4096
	// panelMost is how many queries are compared in one go, and panelKeys bounds the
	// candidates of all of them.
	panelMost, panelKeys = 1024, 1 << 18
	// panelLeast is how many queries rows are put together for at least.
	panelLeast = 8
)

// What comparing a query of a batch with a row costs in nanoseconds, for each quad
// of its codes and whatever they are, and what putting a line of a row's record into a panel does; and a
// search for one query, for each row that a walk of its effort keeps and whatever
// that is.
const (
	panelQuadCost, panelRowCost, panelPackCost = 0.004, 0.15, 20
	aloneKeptCost, aloneCost                   = 600, 6000
)

// panelOrder is where the codes of a record go in a panel. Bytes of a record stay
// where they are, wide codes without their last bit, narrow ones without
// the code in the upper half; those follow behind.
type panelOrder struct {
	wide   int // codes of a byte
	words  int // of four bytes in a record
	first  int // word from which on there are narrow codes
	quads  int
	narrow bool
}

func (c *coder) panelOrder() panelOrder {
	o := panelOrder{wide: c.wide, words: (c.head + 3) / 4, narrow: c.mixed()}
	if quads := o.words; o.narrow {
		o.words = (c.stride - vec.SQ8Bias) / 4
		o.first = c.wide / 4
		quads = 2*o.words - o.first
		o.quads = vec.PanelQuads(4 * quads)
	} else {
		o.quads = vec.PanelQuads(4 * quads)
	}
	return o
}

// parts appends to parts what becomes of the words of a record.
func (o *panelOrder) parts(parts []vec.RecordPart) []vec.RecordPart {
	// In the first word with narrow codes there may be wide ones.
	mask := uint32(1)<<(8*(o.wide-4*o.first)) - 1
	for i := range o.words {
		if !o.narrow || i < o.first {
			parts = append(parts, vec.RecordPart{Halved: 0x7f7f7f7f})
			continue
		}
		parts = append(parts, vec.RecordPart{
			Halved: 0x7f7f7f7f & mask, Whole: 0x0f0f0f0f &^ mask, High: 0x0f0f0f0f &^ mask, Above: vec.RecordAbove(o.words - o.first),
		})
		mask = 0
	}
	return parts
}

// weigh writes what the weights of a query are in the order of a panel.
func (o *panelOrder) weigh(weights, to []float32) {
	clear(to)
	for i, w := range weights[:min(o.wide, len(weights))] {
		to[i] = 2 * w
	}
	if !o.narrow {
		return
	}
	half := 4*o.words - o.wide
	copy(to[o.wide:], weights[o.wide:o.wide+half])
	copy(to[4*(o.words-o.first)+o.wide:], weights[o.wide+half:])
}

// panelScratch is what such a batch works in.
type panelScratch struct {
	order   panelOrder
	parts   []vec.RecordPart
	panels  []byte
	bias    []float32
	rows    []uint32 // in the panels
	next    []uint32 // those of the list behind, where lists are read
	queries []sqQuery
	halves  []int8 // of all queries
	z       []int8
	aff     []vec.Affine
	ones    []float32
	weights []float32
	sums    []int32
	places  []uint32
	dist    []float32
	cands   []candidates
	keys    []uint64 // of all candidates
}

func (p *panelScratch) bytes() int {
	n := cap(p.panels) + 16*cap(p.parts) + 4*cap(p.next) + cap(p.halves) + cap(p.z) + 48*cap(p.queries) + 8*cap(p.aff) +
		4*(cap(p.bias)+cap(p.rows)+cap(p.ones)+cap(p.weights)+cap(p.sums)+cap(p.places)+cap(p.dist))
	return n + 8*cap(p.keys) + 40*cap(p.cands)
}

// panelRank is how many of the rows nearest by panels are looked at by their records:
// a query has eight bits there.
func panelRank(k, ef int) int { return codeRank(k, ef) + 8 }

// comparesAll reports whether n queries are sooner compared with all c allowed rows
// than searched for one by one.
func (g *sqGraph) comparesAll(n, c, ef int) bool {
	if n < panelLeast || g.kern.Level() != vec.AVX512 || g.code.stride > vec.SQ8MaxStride {
		return false
	}
	order := g.code.panelOrder()
	row := panelRowCost + panelQuadCost*4*float64(order.quads) + panelPackCost*float64(g.code.stride/vec.SQ8Line)/float64(min(n, panelMost))
	return float64(c)*row <= aloneCost+aloneKeptCost*float64(ef)
}

// compareBatch compares all queries with all c allowed rows.
func (g *sqGraph) compareBatch(vectors []float32, q *Query, k, ef, c int, s *Scratch, found func(i int, rows []Neighbor)) {
	n, allowed := len(vectors)/g.dim, nonNil(q.Allowed.Words())
	most := min(panelMost, max(panelLeast, panelKeys/(2*panelRank(k, ef)+64)))
	var whole Stats // of the blocks before
	for from := 0; from < n; from += most {
		to := min(from+most, n)
		block := vectors[from*g.dim : to*g.dim]
		s.begin(g.m0)
		if s.stats = whole; s.stopped() {
			notFound(from, n, found)
			return
		}
		s.stats.Scanned = true
		g.panelQueries(block, k, ef, s)
		g.panelRows(to-from, allowed, s)
		for i := range to - from {
			s.out = s.out[:0]
			found(from+i, q.within(g.panelFound(block[i*g.dim:][:g.dim], i, k, ef, c, allowed, s)))
		}
		whole = s.stats
	}
}

// panelQueries prepares the queries.
func (g *sqGraph) panelQueries(vectors []float32, k, ef int, s *Scratch) {
	n := len(vectors) / g.dim
	g.panelRoom(n, panelRank(k, ef), s)
	for i := range n {
		g.panelQuery(i, vectors[i*g.dim:][:g.dim], s)
	}
}

// panelRoom makes room for n queries of so many candidates, and for rows.
func (g *sqGraph) panelRoom(n, rank int, s *Scratch) {
	p, size := &s.panels, g.code.queryLen()
	p.order = g.code.panelOrder()
	p.parts = p.order.parts(p.parts[:0])
	width := 4 * p.order.quads
	p.z, p.aff = grown(p.z, (n+queriesRoom)*width), grown(p.aff, n)
	p.halves, p.queries = grown(p.halves, n*size), grown(p.queries, n)
	p.weights, p.ones = grown(p.weights, width), grown(p.ones, width)
	for i := range p.ones {
		p.ones[i] = 1
	}
	// One piece of memory for all candidates: each has room for what is kept of it, and
	// for what the rows compared at once bring.
	room := 2*rank + 64 + chunkPanels*vec.PanelRows
	p.keys, p.cands = grown(p.keys, n*room), grown(p.cands, n)
	for i := range n {
		p.cands[i].keys = p.keys[i*room : i*room : (i+1)*room]
		p.cands[i].reset(rank)
	}
	p.panels = grown(p.panels, panelRun*width)
	clear(p.panels)
	p.bias, p.rows = grown(p.bias, panelRun), grown(p.rows, panelRun)
	p.sums = grown(p.sums, batchRun*chunkPanels*vec.PanelRows)
	p.places, p.dist = grown(p.places, chunkPanels*vec.PanelRows), grown(p.dist, chunkPanels*vec.PanelRows)
}

// panelQuery prepares the i-th query.
func (g *sqGraph) panelQuery(i int, vector []float32, s *Scratch) {
	p, size, width := &s.panels, g.code.queryLen(), 4*s.panels.order.quads
	sq := g.prepare(vector, s)
	halves := p.halves[i*size:][:size]
	copy(halves, sq.halves)
	sq.halves = halves
	p.queries[i] = sq
	p.order.weigh(s.sq.coded.weights, p.weights)
	z := p.z[i*width:][:width]
	t := g.kern.Quantize(p.weights, p.ones, z) / 127
	if !(t > 0 && t <= math.MaxFloat32) {
		clear(z)
		t = 0
	}
	p.aff[i] = vec.Affine{Scale: t}
}

// panelRows compares n queries with the allowed rows.
func (g *sqGraph) panelRows(n int, allowed []uint64, s *Scratch) {
	rows := s.panels.rows[:0]
	for w := range min((g.rows+63)/64, len(allowed)) {
		at := len(rows)
		rows = appendRows(rows, w, allowed[w]&wordMask(g.rows, w))
		g.fetch(rows[at:])
		if len(rows) > panelRun-64 {
			if g.comparePanels(n, rows, s); s.stopped() {
				return
			}
			rows = rows[:0]
		}
	}
	g.comparePanels(n, rows, s)
}

// fillPanels puts the records of rows, panelRun at most, into the panels, and returns how many
// panels that are.
func (g *sqGraph) fillPanels(rows []uint32, s *Scratch) int {
	p, size, panels := &s.panels, 4*vec.PanelRows*s.panels.order.quads, numPanels(len(rows))
	for i := range panels {
		at := i * vec.PanelRows
		some := rows[at:min(at+vec.PanelRows, len(rows))]
		g.kern.PanelRecords(g.records, g.code.stride, some, p.parts, p.panels[i*size:][:size], p.bias[at:])
	}
	for i := len(rows); i < panels*vec.PanelRows; i++ {
		p.bias[i] = float32(math.Inf(1))
	}
	return panels
}

// comparePanels compares n queries with rows.
func (g *sqGraph) comparePanels(n int, rows []uint32, s *Scratch) {
	p := &s.panels
	width, size, panels := 4*p.order.quads, 4*vec.PanelRows*p.order.quads, g.fillPanels(rows, s)
	for q := 0; q < n && !s.stopped(); q += batchRun {
		run := min(batchRun, n-q)
		s.stats.Distances += len(rows) * run
		for from := 0; from < panels; from += chunkPanels {
			m := min(panels-from, chunkPanels)
			g.kern.Panels(p.z[q*width:], run, p.order.quads, p.panels[from*size:], m, p.sums)
			bias := p.bias[from*vec.PanelRows:]
			for i := range run {
				c := &p.cands[q+i]
				hits := g.kern.SumsBelow(p.sums[i*m*vec.PanelRows:][:m*vec.PanelRows], bias, p.aff[q+i], c.limit, p.places, p.dist)
				if hits == 0 {
					continue
				}
				for j, place := range p.places[:hits] {
					c.keys = append(c.keys, vec.Key(p.dist[j], rows[from*vec.PanelRows+int(place)]))
				}
				c.trim(g.kern)
			}
		}
	}
}

// panelFound ranks what was found for the i-th query, by its records first.
func (g *sqGraph) panelFound(vector []float32, i, k, ef, c int, allowed []uint64, s *Scratch) []Neighbor {
	p := &s.panels
	sq, near := &p.queries[i], &p.cands[i]
	near.cut(g.kern)
	if len(near.keys) < min(k, c) && !s.stats.Stopped {
		return g.scanCodes(vector, sq, k, ef, allowed, s) // numbers too large for codes
	}
	s.lists.cands.reset(codeRank(k, ef))
	for keys := near.keys; len(keys) > 0; {
		ids := s.ids[:0]
		for ; len(keys) > 0 && len(ids) < scanChunk; keys = keys[1:] {
			ids = append(ids, uint32(keys[0]))
		}
		g.fetch(ids)
		g.collect(sq, ids, s)
	}
	return g.collected(vector, sq, k, s)
}
