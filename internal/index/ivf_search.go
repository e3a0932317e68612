package index

import (
	"math"
	"math/bits"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// ivfScratch is what a search of an inverted file works in.
type ivfScratch struct {
	unit   []float32 // the query, at length 1 if the metric is Cosine; room for one more
	tail   float32   // squared length of the query that unit has not
	turned coded     // to make it by
	length float32   // of the query if the metric is IP, or 1
	z      []int8    // what stands for it in products with byteCodes
	sums   []int32
	near   []uint64 // keys of lists
	rows   []uint32 // places of hits in a list
	dist   []float32
	lists  []uint32        // nearest first, the first of those in near
	dots   []float32       // products with their centres
	found  []uint32        // allowed rows
	by     []float32       // distances of their lists
	counts []uint16        // of some of them, by list
	drawn  []uint16        // lists of rows drawn from those allowed
	within *[maxLists]byte // of each list, whether its rows are compared: 1 or 0
	kept   []uint32        // allowed rows of such lists
	places []uint32        // lists near the query
	order  listOrder
	masks  []uint32  // of packed codes, where they are read in one go
	bias   []float32 // of these
	parts  []float32 // the query as parts of one value have it, each with a 0 behind
	values []float32 // of tables
	lut    []byte
	cands  candidates
	look   looker
	batch  batchScratch
}

func (v *ivfScratch) bytes() int {
	return 4*(cap(v.unit)+cap(v.sums)+cap(v.rows)+cap(v.dist)+cap(v.lists)+cap(v.dots)+cap(v.parts)+cap(v.values)+cap(v.order.ids)+cap(v.order.dots)+cap(v.masks)+cap(v.bias)+cap(v.found)+cap(v.by)) + 2*(cap(v.counts)+cap(v.drawn)) + v.withinBytes() + 4*(cap(v.kept)+cap(v.places)) +
		cap(v.z) + cap(v.lut) + 8*(cap(v.near)+cap(v.cands.keys)) + 4*(cap(v.look.own[0])+cap(v.look.own[1])) + v.batch.bytes() + v.turned.size()
}

func (v *ivfScratch) withinBytes() int {
	if v.within == nil {
		return 0
	}
	return len(v.within)
}

// candidates are the best positions so far by an estimate.
type candidates struct {
	keys  []uint64 // vec.Key of estimate and position, in no order
	want  int
	limit float32 // what does not come below it is of no use
}

func (c *candidates) reset(want int) {
	c.keys, c.want, c.limit = c.keys[:0], want, float32(math.Inf(1))
}

// slack is how many more candidates than wanted are kept before the worst go.
func (c *candidates) slack() int { return c.want + 64 }

// trim lets go of all but about the wanted ones if there are many more.
func (c *candidates) trim(kern vec.Kernels) {
	if len(c.keys) > c.want+c.slack() {
		c.keep(partitionAbout(kern, c.keys, c.want, c.want+c.want/4))
	}
}

// cut lets go of all but the wanted ones.
func (c *candidates) cut(kern vec.Kernels) {
	if len(c.keys) > c.want {
		partition(kern, c.keys, c.want)
		c.keep(c.want)
	}
}

// keep lets go of all but the first n.
func (c *candidates) keep(n int) {
	c.keys = c.keys[:n]
	c.limit = vec.Unkey(slices.Max(c.keys)).Distance
}

// Search reads the lists nearest to the vector.
func (x *ivf) Search(vector []float32, q *Query, s *Scratch) []Neighbor {
	if len(vector) != x.dim {
		panic(errors.AssertionFailedf("query of %d values in an index of dimension %d", len(vector), x.dim))
	}
	s.begin(0)
	return x.search(vector, x.plan(q, s), q, s)
}

// search is Search by a plan, in a scratch in which nothing but that was done since begin.
func (x *ivf) search(vector []float32, p plan, q *Query, s *Scratch) []Neighbor {
	if p.k <= 0 || s.stats.Stopped {
		return s.out
	}
	if p.few || p.of != nil {
		x.fine.prepare(vector, &s.fine)
		p.few = p.few && s.fine.usable
	}
	if p.of != nil && s.fine.usable {
		x.normalise(vector, s)
		x.readAllowed(vector, &p, s)
		x.refined(vector, &p, s)
		return q.within(x.ranked(vector, &p, s))
	}
	if p.scan && !p.whole() { // codes of all rows allowed are read sooner than the rows
		return q.within(x.scanAll(vector, &p, s))
	}
	x.normalise(vector, s)
	if p.whole() {
		x.readWhole(p.marks.whole, &p, s)
		return q.within(x.rank(vector, &p, &s.ivf.cands, s))
	}
	for {
		if p.looks() && p.marks != nil {
			x.nearestMarked(&p, s)
		} else {
			x.nearestLists(&p, s)
		}
		s.ivf.cands.reset(p.rank)
		found := 0
		switch {
		case x.bytes == nil:
			found = x.readRows(vector, &p, s)
		case p.few:
			found = x.readFew(vector, &p, s)
		case x.pq != nil:
			found = x.readProducts(&p, s)
		default:
			found = x.readBytes(&p, s)
		}
		if found >= p.enough || p.lists == x.lists.n || s.stats.Stopped {
			break
		}
		p.lists = min(4*p.lists, x.lists.n)
		p.least = p.lists // the allowed rows are far from the query
		p.target = max(p.target, p.lists*p.selected/x.lists.n)
	}
	switch {
	case x.bytes == nil:
		return q.within(x.ranked(vector, &p, s))
	case p.few:
		x.refined(vector, &p, s)
		return q.within(x.ranked(vector, &p, s))
	}
	return q.within(x.rank(vector, &p, &s.ivf.cands, s))
}

// scanAll looks at every allowed row.
func (x *ivf) scanAll(vector []float32, p *plan, s *Scratch) []Neighbor {
	s.stats.Scanned = true
	if p.allowed != nil && x.fine.exists() {
		if x.fine.prepare(vector, &s.fine); s.fine.usable {
			return x.scanFine(vector, p, s)
		}
	}
	s.top.Reset(p.k)
	x.scan(vector, x.scale(vector), x.n, p.allowed, nil, s)
	s.out = s.top.AppendSorted(s.out[:0])
	return s.out
}

// scanFine looks at every allowed row by the upper half of its fine code, or a code of half a byte, and at
// the best by all of it.
func (x *ivf) scanFine(vector []float32, p *plan, s *Scratch) []Neighbor {
	s.ivf.cands.reset(p.coarseRows(&s.fine))
	words := p.allowed[:min((x.n+63)/64, len(p.allowed))]
	for first := 0; first < len(words) && !s.stopped(); first += scanWords {
		some := words[first:min(first+scanWords, len(words))]
		x.coarsest(vector, x.rowsOf(some, first, x.kern.CountBits(some), s), p, s)
	}
	x.refined(vector, p, s)
	s.out = s.top.AppendSorted(s.out[:0])
	return s.out
}

// refined leaves the best of the candidates, which are rows, in s.top, by all of their fine codes.
func (x *ivf) refined(vector []float32, p *plan, s *Scratch) {
	scale := x.scale(vector)
	s.top.Reset(p.k)
	s.ivf.cands.cut(x.kern)
	for keys := s.ivf.cands.keys; len(keys) > 0; {
		ids := s.ids[:0]
		for ; len(keys) > 0 && len(ids) < scanChunk; keys = keys[1:] {
			ids = append(ids, uint32(keys[0]))
		}
		x.fine.refine(&x.space, vector, scale, ids, s.dist, s)
		s.stats.Ranked += len(ids)
		s.top.PushAll(ids, s.dist[:len(ids)])
	}
}

// readFew adds the allowed rows of lists to the candidates by codes of half a byte, or the upper halves of their fine
// codes, and returns how many these are.
func (x *ivf) readFew(vector []float32, p *plan, s *Scratch) (found int) {
	s.ivf.cands.reset(p.coarseRows(&s.fine))
	ids, look, halves := s.ids[:0], &s.ivf.look, p.halvesFor(&s.fine)
	look.begin(x, p, s)
	for i := 0; ; i++ {
		masks, ok := look.wants(i, s)
		if !ok {
			break
		}
		first, asked := x.first[s.ivf.lists[i]], len(ids)
		for b, mask := range masks {
			if len(ids) > scanChunk-vec.PanelRows {
				x.coarsest(vector, ids, p, s)
				found, ids, asked = found+len(ids), ids[:0], 0
			}
			for ; mask != 0; mask &= mask - 1 {
				if row := x.ids[(int(first)+b)*vec.PanelRows+bits.TrailingZeros32(mask)]; int(row) < x.n {
					ids = append(ids, row)
				}
			}
		}
		if halves != nil { // they are on their way while the next list is looked at
			x.kern.PrefetchHalves(halves, ids[asked:])
		}
		if s.stats.Hops++; s.stopped() {
			break
		}
	}
	x.coarsest(vector, ids, p, s)
	return found + len(ids)
}

// normalise writes the query to s.ivf.unit.
func (x *ivf) normalise(vector []float32, s *Scratch) {
	v := &s.ivf
	v.unit = grown(v.unit, x.width()+1) // tables take whole parts
	v.unit[x.width()] = 0
	v.unit = v.unit[:x.width()]
	v.length = 1
	v.tail = x.shorten(v.unit, vector, x.turnRoom(&v.turned))
	if x.metric == IP {
		v.length = float32(math.Sqrt(float64(x.kern.Dot(vector, vector))))
	}
}

func (x *ivf) quads() int {
	if x.bytes == nil {
		return 0
	}
	return x.bytes.quads
}

// chunkPanels is how many panels are multiplied in one go.
const chunkPanels = 8

// readProducts adds what the codes of the lists promise to the candidates, and
// returns how many these are.
func (x *ivf) readProducts(p *plan, s *Scratch) (found int) {
	v := &s.ivf
	quads, factor, base := vec.FastScanQuads(x.pq.parts), x.factor(), float32(0)
	switch x.metric {
	case L2:
		base = x.kern.Dot(v.unit, v.unit) + v.tail
	case Cosine:
		base = 1
	}
	aff := x.tables(x.pq, factor, s)
	aff.Base += base
	var unmasked []uint64 // what hits are looked up in
	if p.dense {
		unmasked = p.allowed
	}
	size, look, few := x.blockBytes(), &v.look, p.packed()
	if few.spreads(p.marks) {
		x.readSpread(few, aff, p, s)
		return len(v.cands.keys)
	}
	blocks, bias := x.blocks, x.pqBias
	if few != nil {
		blocks, bias = few.blocks, few.bias
	}
	look.begin(x, p, s)
	for i := 0; ; i++ {
		masks, ok := look.wants(i, s)
		if !ok {
			break
		}
		l := v.lists[i]
		from, to := int(x.first[l]), int(x.first[l+1])
		switch {
		case masks != nil && len(masks) == 0:
			to = from
		case few != nil:
			from, to, masks = few.span(l, look.own[0])
			look.own[0] = masks
		}
		own := vec.Affine{Scale: aff.Scale, Base: aff.Base + factor*v.dots[i]}
		for from < to {
			n := min(to-from, len(v.rows)/vec.FastScanBlock)
			s.stats.Codes += n * vec.FastScanBlock
			hits := x.kern.FastScanBelow(blocks[from*size:], quads, n, v.lut, bias[from*vec.FastScanBlock:], masks, own, v.cands.limit, v.rows, v.dist)
			if few != nil {
				few.take(x.kern, v, from, hits)
			} else {
				x.take(&v.cands, from, hits, unmasked, s)
			}
			if from += n; masks != nil {
				masks = masks[n:]
			}
		}
		if s.stats.Hops++; s.stopped() {
			break
		}
	}
	if few != nil {
		few.place(v.cands.keys)
	}
	return len(v.cands.keys)
}

// readBytes does so for codes of a byte.
func (x *ivf) readBytes(p *plan, s *Scratch) (found int) {
	v, size := &s.ivf, x.bytes.panelBytes()
	aff := x.bytes.prepare(x.kern, v.z[:4*x.bytes.quads], v.unit, x.metric)
	if x.metric == L2 {
		aff.Base += v.tail
	}
	look := &v.look
	look.begin(x, p, s)
	for i := 0; ; i++ {
		masks, ok := look.wants(i, s)
		if !ok {
			break
		}
		if masks != nil && len(masks) == 0 {
			continue
		}
		l := v.lists[i]
		from, to := int(x.first[l]), int(x.first[l+1])
		for from < to {
			n := min(to-from, chunkPanels)
			s.stats.Codes += n * vec.PanelRows
			x.kern.Panels(v.z, 1, x.bytes.quads, x.bytes.panels[from*size:], n, v.sums)
			sums := v.sums[:n*vec.PanelRows]
			hits := x.kern.SumsBelow(sums, x.bytes.bias[from*vec.PanelRows:], aff, v.cands.limit, v.rows, v.dist)
			x.take(&v.cands, from, hits, p.allowed, s)
			from += n
		}
		if s.stats.Hops++; s.stopped() {
			break
		}
	}
	return len(v.cands.keys)
}

// take adds the hits in the blocks from one on that are allowed.
func (x *ivf) take(c *candidates, block, hits int, allowed []uint64, s *Scratch) {
	v := &s.ivf
	first := uint32(block * vec.PanelRows)
	n := len(c.keys)
	c.keys = slices.Grow(c.keys, hits)[:n+hits]
	if allowed == nil {
		x.kern.Keys(v.dist[:hits], v.rows, first, c.keys[n:])
	} else {
		for i, r := range v.rows[:hits] { // without a branch on what is random
			row := x.ids[first+r]
			if int(row>>6) >= len(allowed) {
				continue
			}
			c.keys[n] = vec.Key(v.dist[i], first+r)
			n += int(allowed[row>>6] >> (row & 63) & 1)
		}
		c.keys = c.keys[:n]
	}
	c.trim(x.kern)
}

// readRows looks at the rows of the lists themselves, and returns how many it
// found, p.enough for as many as wanted.
func (x *ivf) readRows(vector []float32, p *plan, s *Scratch) int {
	v := &s.ivf
	scale := x.scale(vector)
	s.top.Reset(p.k)
	ids := s.ids[:0]
	flush := func() {
		x.byID(vector, scale, ids, s.dist)
		s.top.PushAll(ids, s.dist[:len(ids)])
		s.stats.Distances += len(ids)
		ids = ids[:0]
	}
	look := &v.look
	look.begin(x, p, s)
	for i := 0; ; i++ {
		masks, ok := look.wants(i, s)
		if !ok {
			break
		}
		if masks != nil && len(masks) == 0 {
			continue
		}
		l := v.lists[i]
		for _, row := range x.ids[x.first[l]*vec.PanelRows : x.first[l+1]*vec.PanelRows] {
			if int(row) < x.n && (p.allowed == nil || has(p.allowed, row)) {
				ids = append(ids, row)
			}
			if len(ids) == scanChunk {
				flush()
			}
		}
		if s.stats.Hops++; s.stopped() {
			break
		}
	}
	flush()
	if s.top.Full() {
		return p.enough
	}
	return 0
}

// ranked returns what s.top holds, or the result of a scan if that is too little.
func (x *ivf) ranked(vector []float32, p *plan, s *Scratch) []Neighbor {
	if s.top.Len() < p.k && !s.stats.Stopped {
		return x.scanAll(vector, p, s)
	}
	s.out = s.top.AppendSorted(s.out[:0])
	return s.out
}
