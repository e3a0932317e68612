package index

import (
	"context"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// shortCentres are four bits for each two dimensions of centres: a search for one
// vector reads them to find the centres that are worth a product, a tenth of
// the bytes of the centres themselves.
type shortCentres struct {
	pq     *products
	blocks []byte // for fast-scan
	// bias is what an estimate by codes gets added, as that of byteCodes; +Inf
	// where a block has no centre.
	bias  []float32
	exact []float32 // as bias, of the centres themselves; n
}

// blockBytes is the size of a block of codes.
func (c *shortCentres) blockBytes() int { return vec.FastScanQuads(c.pq.parts) * vec.FastScanQuad }

// Of short codes of centres.
const (
	// shortLeast is the number of centres from which on they have short codes.
	shortLeast = 512
	// shortMore and shortSlack say how many centres are looked at for a number
	// wanted: that one, a part of it, and some.
	shortMore, shortSlack = 2, 24
	// shortSaves is how many times the bytes of the lists the centres have to be for short codes to pay.
	shortSaves = 2
)

// hasShort says whether so many centres have short codes.
func hasShort(kind Kind, dim, lists int) bool {
	return hasCodes(kind, dim) && lists >= shortLeast
}

// reachShare is the part of a list's reach, the root of its mean squared distance
// to the centre, by which its centre counts as nearer, for products of vectors of
// length 1: of two lists whose centres have the same product with a query, the one
// with the wider spread is likelier to have the rows with the largest ones. It
// saves a quarter of the rows that are read on word vectors.
const reachShare = 0.3

// reach returns how much nearer each list is than its centre.
func (b *ivfBuilder) reach() ([]float32, error) {
	reach := make([]float32, b.lists.n)
	if b.metric == L2 {
		return reach, nil // measured: nothing gained
	}
	err := parallel(b.ctx, b.o.Workers, b.lists.n, 1, func() func(from, to int) error {
		v, w := make([]float32, b.width()), b.newTurned()
		return func(from, to int) error {
			for l := from; l < to; l++ {
				sum, n := 0.0, 0
				for _, row := range b.ids[b.first[l]*vec.PanelRows : b.first[l+1]*vec.PanelRows] {
					if row != noRow {
						b.unit(v, row, w)
						sum, n = sum+float64(b.kern.L2(v, b.lists.vectors[l*b.width():][:b.width()])), n+1
					}
				}
				reach[l] = reachShare * float32(math.Sqrt(sum/float64(max(n, 1))))
			}
			return nil
		}
	})
	return reach, err
}

// pack makes the codes by which centres are compared with queries.
func (b *ivfBuilder) packLists() error {
	c := b.lists
	reach, err := b.reach()
	if err != nil {
		return err
	}
	c.pack(b.metric)
	for l, r := range reach {
		c.codes.bias[l] -= r
	}
	if hasShort(b.kind, b.width(), c.n) {
		c.short, err = newShortCentres(b.ctx, b.o.Workers, c, b.metric, reach)
	}
	return err
}

func newShortCentres(ctx context.Context, workers int, c *centres, metric Metric, reach []float32) (*shortCentres, error) {
	pq := newProducts(c.dim, pqDims)
	if err := pq.train(ctx, workers, c.vectors); err != nil {
		return nil, err
	}
	blocks := numPanels(c.n)
	size := vec.FastScanQuads(pq.parts) * vec.FastScanQuad
	s := &shortCentres{
		pq: pq, blocks: make([]byte, blocks*size), bias: make([]float32, blocks*vec.FastScanBlock), exact: make([]float32, c.n),
	}
	e, zero, code := newPQEncoder(pq, L2), make([]float32, c.dim), make([]byte, pq.parts)
	for i := range s.bias {
		if i >= c.n {
			s.bias[i] = float32(math.Inf(1))
			continue
		}
		v := c.vectors[i*c.dim:][:c.dim]
		about := e.encode(code, v, v, zero)
		vec.PutFastScan(s.blocks[i/vec.FastScanBlock*size:], i%vec.FastScanBlock, code)
		s.bias[i], s.exact[i] = -reach[i], -reach[i]
		if metric == L2 {
			s.bias[i] += about
			for _, x := range v {
				s.exact[i] += x * x
			}
		}
	}
	return s, nil
}

// queriesRoom is what Panels wants room for, where there is one query.
const queriesRoom = 16

// listOrder is how the lists in s.ivf.near are put in order.
type listOrder struct {
	known bool // keys are of numbers in ids and dots; else of lists
	ids   []uint32
	dots  []float32 // products with their centres
}

// listStep is how many lists are put in order at once where it is not known how many
// will be read.
const listStep = 64

// roomForLists makes room for what finding lists and reading them needs.
func (x *ivf) roomForLists(s *Scratch) {
	v, c := &s.ivf, x.lists.codes
	all := len(c.bias)
	v.lists, v.dots, v.order.known = v.lists[:0], v.dots[:0], false
	v.z = grown(v.z, queriesRoom*4*max(c.quads, x.quads()))
	v.sums = grown(v.sums, queriesRoom*max(all, chunkPanels*vec.PanelRows))
	v.rows = grown(v.rows, max(all, chunkPanels*vec.PanelRows))
	v.dist = grown(v.dist, len(v.rows))
}

// nearestLists leaves the lists to read in s.ivf.near, for order.
func (x *ivf) nearestLists(p *plan, s *Scratch) {
	x.roomForLists(s)
	if want := p.lists + p.lists/shortMore + shortSlack; x.shortFirst(p.lists) && want <= x.lists.n/2 {
		x.nearestByShort(p.lists, want, s)
		return
	}
	sums, aff := x.allLists(s)
	x.selectLists(sums, x.lists.codes.bias, aff, p.lists, s)
}

// shortFirst reports whether short codes of the centres are read first to find so many lists. They confuse lists that are about as near: of word
// vectors of 50 values twice as many have to be read, of 100 a tenth more. It is sooner to compare all centres by a byte for each value unless these are many
// more bytes than the lists.
func (x *ivf) shortFirst(lists int) bool {
	if x.lists.short == nil {
		return false
	}
	block := vec.PanelRows * x.width()
	if x.pq != nil {
		block = x.blockBytes()
	}
	return len(x.lists.codes.panels) > shortSaves*lists*x.size()*block/vec.PanelRows
}

// allLists compares the query with all centres by codes of a byte.
func (x *ivf) allLists(s *Scratch) ([]int32, vec.Affine) {
	v, c := &s.ivf, x.lists.codes
	aff := c.prepare(x.kern, v.z[:4*c.quads], v.unit, x.metric)
	x.kern.Panels(v.z, 1, c.quads, c.panels, len(c.bias)/vec.PanelRows, v.sums)
	return v.sums[:len(c.bias)], x.forLists(aff, v.length)
}

// order appends the next of the nearest lists, n of them at most, to s.ivf.lists, and
// products with their centres to s.ivf.dots.
func (x *ivf) order(n int, s *Scratch) {
	v := &s.ivf
	from := len(v.lists)
	keys := v.near[from:]
	if n = min(n, len(keys)); n == 0 {
		return
	}
	if n < len(keys) {
		partition(x.kern, keys, n)
		keys = keys[:n]
	}
	x.kern.Sort(keys)
	x.appendLists(keys, s)
}

// orderRest appends all other lists in s.ivf.near as they come.
func (x *ivf) orderRest(s *Scratch) { x.appendLists(s.ivf.near[len(s.ivf.lists):], s) }

// appendLists appends the lists of keys to s.ivf.lists, and products with their centres to s.ivf.dots.
func (x *ivf) appendLists(keys []uint64, s *Scratch) {
	v := &s.ivf
	from, n := len(v.lists), len(keys)
	if v.order.known {
		for _, key := range keys {
			at := uint32(key)
			v.lists, v.dots = append(v.lists, v.order.ids[at]), append(v.dots, v.order.dots[at])
		}
		return
	}
	for _, key := range keys {
		v.lists = append(v.lists, uint32(key))
	}
	if x.pq != nil {
		v.dots = slices.Grow(v.dots, n)[:from+n]
		x.kern.DotIDs(v.unit, x.lists.vectors, x.width(), v.lists[from:], v.dots[from:])
	}
}

// listKeys makes keys of lists such of their numbers among the keys, by the products
// with their centres. It writes the lists to ids and the products to dots.
func (x *ivf) listKeys(keys []uint64, ids []uint32, dots []float32, s *Scratch) {
	v := &s.ivf
	for i, key := range keys {
		ids[i] = uint32(key)
	}
	x.kern.DotIDs(v.unit, x.lists.vectors, x.width(), ids, dots)
	scale := x.forLists(vec.Affine{Scale: x.factor()}, v.length).Scale
	for i, l := range ids {
		keys[i] = vec.Key(scale*dots[i]+x.lists.short.exact[l], uint32(i))
	}
}

// forLists makes an estimate one of a query of length 1: reach is for such.
func (x *ivf) forLists(aff vec.Affine, length float32) vec.Affine {
	if x.metric == IP && length > 0 {
		aff.Scale, aff.Base = aff.Scale/length, aff.Base/length
	}
	return aff
}

// nearestByShort finds n lists among the nearest ones by short codes.
func (x *ivf) nearestByShort(n, want int, s *Scratch) {
	v := &s.ivf
	x.estimateLists(want, n, s)
	v.order.ids, v.order.dots = grown(v.order.ids, len(v.near)), grown(v.order.dots, len(v.near))
	x.listKeys(v.near, v.order.ids, v.order.dots, s)
	if len(v.near) > n {
		partition(x.kern, v.near, n)
		v.near = v.near[:n]
	}
	v.order.known = true
}

// estimateLists leaves the want lists that are nearest by short codes in s.ivf.near, at
// least some of them. It returns what makes distances of sums.
func (x *ivf) estimateLists(want, least int, s *Scratch) vec.Affine {
	v, c := &s.ivf, x.lists.short
	quads := vec.FastScanQuads(c.pq.parts)
	aff := x.forLists(x.tables(c.pq, x.factor(), s), v.length)
	blocks := len(c.bias) / vec.FastScanBlock
	hits := x.kern.FastScanBelow(c.blocks, quads, blocks, v.lut, c.bias, nil, aff, x.shortLimit(want, c.blocks, c.bias, aff, s), v.rows, v.dist)
	if hits < least {
		hits = x.kern.FastScanBelow(c.blocks, quads, blocks, v.lut, c.bias, nil, aff, math.MaxFloat32, v.rows, v.dist)
	}
	x.keepLists(hits, want, s)
	return aff
}

// shortStep is one of how many blocks of short codes shortLimit looks at.
const shortStep = 8

// shortLimit guesses below which estimate there are a few more centres than wanted, of those with the
// short codes in blocks. It uses s.ivf.rows, dist and near.
func (x *ivf) shortLimit(want int, blocks []byte, bias []float32, aff vec.Affine, s *Scratch) float32 {
	v, c, seen := &s.ivf, x.lists.short, 0
	quads, size := vec.FastScanQuads(c.pq.parts), c.blockBytes()
	for b := 0; b < len(bias)/vec.FastScanBlock; b += shortStep {
		seen += x.kern.FastScanBelow(blocks[b*size:], quads, 1, v.lut, bias[b*vec.FastScanBlock:], nil, aff, math.MaxFloat32, v.rows[seen:], v.dist[seen:])
	}
	at := 2 + want/shortStep
	if at += at / 4; at+at/smallestMore >= seen {
		return math.MaxFloat32
	}
	return v.smallest(x.kern, v.dist[:seen], at)
}

// Of smallest.
const (
	// smallestFew is up to which number the smallest values are kept in order while the
	// others are looked at: nearly all of those are larger, which is quickly seen.
	smallestFew = 8
	// smallestMore is one of how many values there may be more than asked for.
	smallestMore = 8
)

// smallest returns about the n-th smallest of the values, up to an eighth more of which are
// not larger; they are more at least, and no NaN. It uses v.near, and v.rows, as long as
// values, where it does not matter what these are.
func (v *ivfScratch) smallest(kern vec.Kernels, values []float32, n int) float32 {
	most := n + n/smallestMore
	if most > smallestFew {
		v.near = grown(v.near, len(values))
		kern.Keys(values, v.rows, 0, v.near)
		most = partitionAbout(kern, v.near, n, most)
		return vec.Unkey(slices.Max(v.near[:most])).Distance
	}
	var few [smallestFew]float32
	first := few[:most]
	copy(first, values)
	slices.Sort(first)
	for _, d := range values[most:] {
		if d >= first[most-1] {
			continue
		}
		i := most - 1
		for ; i > 0 && first[i-1] > d; i-- {
			first[i] = first[i-1]
		}
		first[i] = d
	}
	return first[most-1]
}

// factor is by what a product with a query counts in a distance.
func (x *ivf) factor() float32 {
	if x.metric == L2 {
		return -2
	}
	return -1
}

// tables makes the tables of the query for fast-scan.
func (x *ivf) tables(pq *products, factor float32, s *Scratch) vec.Affine {
	v := &s.ivf
	v.lut = grown(v.lut, vec.FastScanQuads(pq.parts)*vec.FastScanQuad)
	clear(v.lut[pq.parts*pqCodes:])
	v.values = grown(v.values, pq.parts*pqCodes)
	if pq.each == pqDims {
		return x.kern.Tables(pq.points, v.unit[:2*pq.parts], factor, v.values, v.lut)
	}
	v.parts = grown(v.parts, pqDims*pq.parts)
	for i, u := range v.unit {
		v.parts[pqDims*i], v.parts[pqDims*i+1] = u, 0
	}
	return x.kern.Tables(pq.points, v.parts, factor, v.values, v.lut)
}

// listSample is one of how many panels of centres are looked at to guess how near the
// nearest are.
const listSample = 8

// selectLists leaves the n nearest lists in s.ivf.near, in no order.
func (x *ivf) selectLists(sums []int32, bias []float32, aff vec.Affine, n int, s *Scratch) {
	s.ivf.selectLists(x.kern, x.lists.n, sums, bias, aff, n)
}

// keepLists leaves the n nearest of the first lists in s.ivf.rows in s.ivf.near.
func (x *ivf) keepLists(hits, n int, s *Scratch) { s.ivf.keepLists(x.kern, x.lists.n, hits, n) }

// selectLists leaves the n nearest of so many lists in v.near, in no order.
func (v *ivfScratch) selectLists(kern vec.Kernels, lists int, sums []int32, bias []float32, aff vec.Affine, n int) {
	limit := float32(math.MaxFloat32)
	if n < lists/2 && lists > 16*listSample {
		// The bias has the squared norm, or little: it is no order of its own.
		seen := 0
		for i := 0; i < len(sums); i += listSample * vec.PanelRows {
			seen += kern.SumsBelow(sums[i:i+vec.PanelRows], bias[i:], aff, math.MaxFloat32, v.rows[seen:], v.dist[seen:])
		}
		if at := n/listSample + n/(2*listSample) + 4; at+at/smallestMore < seen {
			limit = v.smallest(kern, v.dist[:seen], at)
		}
	}
	hits := kern.SumsBelow(sums, bias, aff, limit, v.rows, v.dist)
	if hits < n && limit < math.MaxFloat32 {
		hits = kern.SumsBelow(sums, bias, aff, math.MaxFloat32, v.rows, v.dist)
	}
	v.keepLists(kern, lists, hits, n)
}

// keepLists leaves the n nearest of the first of v.rows, below a number of lists, in v.near.
func (v *ivfScratch) keepLists(kern vec.Kernels, lists, hits, n int) {
	// What fills the last panel is only near in a damaged image.
	for hits > 0 && int(v.rows[hits-1]) >= lists {
		hits--
	}
	v.near = grown(v.near, hits)
	kern.Keys(v.dist[:hits], v.rows, 0, v.near)
	if len(v.near) > n {
		partition(kern, v.near, n)
		v.near = v.near[:n]
	}
}
