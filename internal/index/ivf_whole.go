package index

import (
	"math"
	"math/bits"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// Of filters that allow so few rows that codes of all of them are read.
const (
	// wholeMost is how many rows these are at most: their 4-bit codes mostly stay in the second cache. wholeBytes is
	// how large their codes of a byte may be, which are put together while a filter is learnt.
	wholeMost, wholeBytes = 1 << 14, 4 << 20
	// wholeStep is how many blocks are read before what is found bounds the rest.
	wholeStep = 16
	// wholeProofs is how many rows of the index are asked for their wholeNear nearest to see how far codes err, and
	// wholeFinds the part of these that has to be found.
	wholeProofs, wholeNear, wholeFinds = 40, 10, 0.97
	// wholeFew is how many of the best by codes tell the spread of errors, as in a search.
	wholeFew = 2*wholeNear + 3*weighStep
	// wholeRank is how many candidates there may be for ten rows: if more are needed, lists are
	// sooner read. wholeMore is how many times those are kept that nine of ten proofs need.
	wholeRank, wholeMore = 600, 1.25
	// wholeSure is how many times the doubt is had that proofs need.
	wholeSure = 1.15
	// wholeTries is how many positions are drawn for one that has a row.
	wholeTries = 64
	// wholeAsk is after how many rows, or blocks of them, it is asked whether to stop.
	wholeAsk = 64
	// wholeGrid is into how many parts values are divided to look up the nearest point of two.
	wholeGrid = 32
)

// whole are the codes of the rows themselves that a filter allows, not of what these are off the
// centres of their lists. They err by more, but a search reads them one behind the other and
// compares no centre.
type whole struct {
	rowCodes
	doubt float64 // see weighDoubt
	rank  int     // candidates for wholeNear rows
}

// wholes says whether the codes of so many allowed rows are all read.
func (x *ivf) wholes(selected int) bool {
	return x.packs(selected) && x.bytes != nil && x.lists.short != nil && selected >= marksLeast &&
		selected <= wholeMost && selected*4*x.bytes.quads <= wholeBytes
}

// packWhole packs codes of allowed rows as centres have them; nil if these err too far, or if it is stopped.
func (x *ivf) packWhole(m *marks, stop func() bool) *whole {
	w := &whole{rowCodes: newRowCodes(m.selected, x.lists.short.blockBytes())}
	panels := x.gather(m, &w.rowCodes, stop)
	x.encodeWhole(w, panels, stop)
	if stop() || !x.proveWhole(w, panels, m.crowd, stop) {
		return nil
	}
	return w
}

// gather puts the codes of a byte of allowed rows together, and their positions in c.
func (x *ivf) gather(m *marks, c *rowCodes, stop func() bool) (panels []byte) {
	size := x.bytes.panelBytes()
	panels = make([]byte, numPanels(m.selected)*size)
	for b, mask := range m.masks {
		if b%wholeAsk == 0 && stop() {
			return panels
		}
		for ; mask != 0; mask &= mask - 1 {
			lane, n := bits.TrailingZeros32(mask), len(c.at)
			copyLane(panels[n/vec.PanelRows*size:][:size], n%vec.PanelRows, x.bytes.panels[b*size:][:size], lane)
			c.at = append(c.at, uint32(b*vec.PanelRows+lane))
		}
	}
	return panels
}

// encodeWhole makes codes of what rows in panels stand for. Each value is near enough to the middle of a part of its
// range that the point nearest to that will do.
func (x *ivf) encodeWhole(w *whole, panels []byte, stop func() bool) {
	pq, b := x.lists.short.pq, x.bytes
	size, width := b.panelBytes(), x.lists.short.blockBytes()
	near, squares := make([]byte, pq.parts*wholeGrid*wholeGrid), make([]float32, pq.parts*pqCodes)
	const wide = (vec.PanelMax + 1) / wholeGrid
	middle := func(d, cell int) float32 {
		if d >= b.dim {
			return 0
		}
		return b.lo[d] + b.step[d]*(float32(wide*cell)+float32(wide-1)/2)
	}
	for p := range pq.parts {
		if stop() {
			return
		}
		points := pq.points[p*pqDims*pqCodes:][:pqDims*pqCodes]
		for c := range pqCodes {
			squares[p*pqCodes+c] = points[c]*points[c] + points[pqCodes+c]*points[pqCodes+c]
		}
		for cell := range wholeGrid * wholeGrid {
			near[p*wholeGrid*wholeGrid+cell] = byte(nearestPoint(points, middle(2*p, cell/wholeGrid), middle(2*p+1, cell%wholeGrid)))
		}
	}
	code := make([]byte, pq.parts)
	for n := range w.at {
		if n%wholeAsk == 0 && stop() {
			return
		}
		lane := panels[n/vec.PanelRows*size:][:size][4*(n%vec.PanelRows):]
		sum := float32(0)
		for p := range code {
			// Two parts are in the four bytes that a vector has in a row of its panel; they are 0 behind the last value.
			at := p / 2 * 4 * vec.PanelRows
			pair := lane[at+p%2*2:][:2]
			c := near[(p*wholeGrid+int(pair[0])/wide)*wholeGrid+int(pair[1])/wide]
			code[p], sum = c, sum+squares[p*pqCodes+int(c)]
		}
		vec.PutFastScan(w.blocks[n/vec.FastScanBlock*width:], n%vec.FastScanBlock, code)
		if x.metric == L2 {
			w.bias[n] = sum
		}
	}
}

// decode writes what codes of a byte of a lane of a panel stand for to v.
func (b *byteCodes) decode(v []float32, panel, lane int) {
	from := b.panels[panel*b.panelBytes():][:b.panelBytes()]
	for d := range v {
		v[d] = b.lo[d] + b.step[d]*float32(from[d/4*4*vec.PanelRows+4*lane+d%4])
	}
}

// wholeProof is what a search for a row of the index shows.
type wholeProof struct {
	about  []float32 // distances of allowed rows by whole codes
	near   []uint64  // keys of the nearest by codes of a byte
	bound  float64   // distance of the last of them
	spread float64   // of the errors of the best
}

// proveWhole finds out how far a search has to go to find the nearest rows, by asking for those of some of the
// index, and of some that are allowed where these are near one another: queries with such a filter are often amid them, where codes tell least.
// It reports whether it is worth it: it is not if it is stopped.
func (x *ivf) proveWhole(w *whole, panels []byte, crowd float64, stop func() bool) bool {
	l := lot(1)
	if !x.proveBy(w, panels, func() int { return x.positionByLot(&l) }, stop) {
		return false
	}
	if crowd <= crowdNone {
		return true
	}
	amid := whole{rowCodes: w.rowCodes}
	if !x.proveBy(&amid, panels, func() int { return int(w.at[l.below(len(w.at))]) }, stop) {
		return false
	}
	w.doubt, w.rank = max(w.doubt, amid.doubt), max(w.rank, amid.rank)
	return true
}

// proveBy is proveWhole by rows at positions that are drawn.
func (x *ivf) proveBy(w *whole, panels []byte, draw func() int, stop func() bool) bool {
	var s Scratch
	s.ivf.sums, s.dist = make([]int32, queriesRoom*len(w.bias)), make([]float32, len(w.at))
	proofs, doubts := make([]wholeProof, wholeProofs), make([]float64, 0, wholeProofs*wholeNear)
	for i := range proofs {
		o := &proofs[i]
		if stop() || !x.proveOne(w, panels, draw(), o, &s) {
			return false
		}
		for _, key := range o.near {
			doubts = append(doubts, (float64(o.about[uint32(key)])-o.bound)/o.spread)
		}
	}
	slices.Sort(doubts)
	w.doubt = wholeSure * max(doubts[int(wholeFinds*float64(len(doubts)))], 0)
	counts := make([]int, wholeProofs)
	for i := range proofs {
		o := &proofs[i]
		limit := float32(o.bound + w.doubt*o.spread)
		for _, d := range o.about {
			if d <= limit {
				counts[i]++
			}
		}
	}
	slices.Sort(counts)
	w.rank = max(int(wholeMore*float64(counts[wholeProofs*9/10])), wholeFew)
	return w.rank <= wholeRank
}

// positionByLot draws the position of a row. A damaged image may have none.
func (x *ivf) positionByLot(l *lot) (at int) {
	for range wholeTries {
		if at = l.below(len(x.ids)); int(x.ids[at]) < x.n {
			break
		}
	}
	return at
}

// proveOne looks for the row at a position among allowed rows, by both codes. It reports whether there are numbers to
// tell by.
func (x *ivf) proveOne(w *whole, panels []byte, at int, o *wholeProof, s *Scratch) bool {
	v, n := &s.ivf, len(w.at)
	v.unit = grown(v.unit, x.width()+1)
	v.unit[x.width()] = 0
	v.unit = v.unit[:x.width()]
	x.bytes.decode(v.unit, at/vec.PanelRows, at%vec.PanelRows)
	v.rows, v.dist = grown(v.rows, len(w.bias)), grown(v.dist, len(w.bias))
	v.near = grown(v.near, n)

	v.z = grown(v.z, queriesRoom*4*x.bytes.quads)
	aff := x.bytes.prepare(x.kern, v.z[:4*x.bytes.quads], v.unit, x.metric)
	x.kern.Panels(v.z, 1, x.bytes.quads, panels, numPanels(n), v.sums)
	exact := s.dist[:n]
	for i, at := range w.at {
		exact[i], v.rows[i] = float32(v.sums[i])*aff.Scale+aff.Base+x.bytes.bias[at], uint32(i)
	}
	few := func(values []float32, n int) []uint64 {
		x.kern.Keys(values, v.rows, 0, v.near)
		partition(x.kern, v.near, n)
		return v.near[:n]
	}
	o.near = slices.Clone(few(exact, wholeNear))
	o.bound = float64(vec.Unkey(slices.Max(o.near)).Distance)

	tables, quads := x.wholeTables(s), vec.FastScanQuads(x.lists.short.pq.parts)
	if x.kern.FastScanBelow(w.blocks, quads, numPanels(n), v.lut, w.bias, nil, tables, math.MaxFloat32, v.rows, v.dist) != n {
		return false // numbers too large
	}
	o.about = slices.Clone(v.dist[:n])
	sum, squares := 0.0, 0.0
	for _, key := range few(o.about, wholeFew) {
		e := float64(exact[uint32(key)] - vec.Unkey(key).Distance)
		sum, squares = sum+e, squares+e*e
	}
	mean := sum / wholeFew
	o.bound -= min(mean, 0)
	o.spread = math.Sqrt(max(squares/wholeFew-mean*mean, 0))
	return o.spread > 0 // false for what is not a number
}

// wholeTables makes the tables of the query for whole codes.
func (x *ivf) wholeTables(s *Scratch) vec.Affine {
	aff := x.tables(x.lists.short.pq, x.factor(), s)
	switch v := &s.ivf; x.metric {
	case L2:
		aff.Base += x.kern.Dot(v.unit, v.unit) + v.tail
	case Cosine:
		aff.Base++
	}
	return aff
}

// readWhole makes what whole codes promise candidates.
func (x *ivf) readWhole(w *whole, p *plan, s *Scratch) {
	v, quads := &s.ivf, vec.FastScanQuads(x.lists.short.pq.parts)
	v.rows, v.dist = grown(v.rows, wholeStep*vec.FastScanBlock), grown(v.dist, wholeStep*vec.FastScanBlock)
	more := p.more * max(float64(p.k)/wholeNear, 1)
	p.rank = min(max(int(more*float64(w.rank)), p.k+weighStep), len(w.at))
	p.doubt *= p.more * w.doubt / weighDoubt
	v.cands.reset(p.rank)
	aff := x.wholeTables(s)
	blocks, size := len(w.bias)/vec.FastScanBlock, x.lists.short.blockBytes()
	for from := 0; from < blocks && !s.stopped(); from += wholeStep {
		n := min(wholeStep, blocks-from)
		hits := x.kern.FastScanBelow(w.blocks[from*size:], quads, n, v.lut, w.bias[from*vec.FastScanBlock:], nil, aff, v.cands.limit, v.rows, v.dist)
		w.take(x.kern, v, from, hits)
	}
	w.place(v.cands.keys)
	s.stats.Codes += len(w.at)
}
