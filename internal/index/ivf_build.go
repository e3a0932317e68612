package index

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// sqTail is the part of the values of a dimension, at each end, that codes of a
// byte cut off.
const sqTail = 0.0005

// codeSample is how many rows codes are trained on.
const codeSample = 16384

// Of the number of lists.
const (
	// listRows is how many rows a list has at least, on average.
	listRows = 64
	// listFactor times the root of the rows is the number of lists. Many short
	// lists need fewer rows read for a recall than few long ones, of 340,000 word
	// vectors 15,600 in 4,100 lists, 20,700 in 1,900 and 24,600 in 1,200, but more
	// time to build.
	listFactor = 5
)

// listsFor is the number of lists for n rows.
func listsFor(n int) int {
	return max(1, min(int(listFactor*math.Sqrt(float64(n))), n/listRows, maxLists))
}

// ivfBuilder carries what the steps of a build share.
type ivfBuilder struct {
	*ivf
	ctx  context.Context
	o    BuildOptions
	prog *progress
	list []uint32 // of each row
}

// buildIVF builds an inverted file of the kind in spec.
func buildIVF(ctx context.Context, spec Spec, base []float32, o BuildOptions) (*ivf, error) {
	n := len(base) / spec.Dim
	lists := spec.Lists
	if lists == 0 {
		lists = listsFor(n)
	}
	if lists < 1 || lists > maxLists {
		return nil, errclass.New(errclass.Invalid, "index: %d lists: want 1 to %d", lists, maxLists)
	}
	lists = max(1, min(lists, n))
	b := &ivfBuilder{
		ivf: &ivf{
			space: space{kern: *o.Kernels, metric: spec.Metric, dim: spec.Dim, base: base},
			kind:  spec.Kind, n: n, marks: newFilterCache[marks](marksKept),
		},
		ctx: ctx, o: o,
		prog: &progress{tell: o.Progress, total: 3 * n},
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	for _, step := range []func(lists int) error{b.shortenRows, b.cluster, b.assign, b.encode, b.refine, b.prove} {
		if err := step(lists); err != nil {
			return nil, err
		}
	}
	if err := b.calibrate(); err != nil {
		return nil, err
	}
	return b.ivf, nil
}

// check looks for values that are not finite, and measures the rows.
func (b *ivfBuilder) check() error {
	if b.metric == Cosine {
		b.inv = make([]float32, b.n)
	}
	return parallel(b.ctx, b.o.Workers, b.n, 1024, func() func(from, to int) error {
		return func(from, to int) error {
			for row := from; row < to; row++ {
				v := b.vector(uint32(row))
				if i := notFinite(v); i >= 0 {
					return errclass.New(errclass.Invalid, "index row %d: value %d is %v", row, i, v[i])
				}
				if b.metric == Cosine {
					b.inv[row] = b.kern.InvNorm(v)
				}
			}
			return nil
		}
	})
}

// unit writes what codes of a row are of to dst, and returns by how much it is shorter
// than the row; see shorten.
func (b *ivfBuilder) unit(dst []float32, row uint32, w *coded) (tail float32) {
	if b.turn != nil {
		return b.shorten(dst, b.vector(row), w)
	}
	b.whole(dst, row)
	return 0
}

// whole writes a row to dst, at length 1 if the metric is Cosine.
func (b *ivfBuilder) whole(dst []float32, row uint32) {
	v := b.vector(row)
	if b.metric != Cosine {
		copy(dst, v)
		return
	}
	inv := b.inv[row]
	for d, x := range v {
		dst[d] = x * inv
	}
}

// sample returns what codes are of, for count rows picked by lot.
func (b *ivfBuilder) sample(count int, seed uint64) []float32 {
	out, w := make([]float32, count*b.width()), b.newTurned()
	b.pick(count, seed, func(i int, row uint32) { b.unit(out[i*b.width():][:b.width()], row, w) })
	return out
}

// codeSample is sample for what codes are trained on. Of products those with the longest rows are the largest, and an error
// counts for as much in a long row as in a short one: half of the rows are taken as often as the squares of their lengths say. Of factors of
// which one in a hundred is twelve times as long as most, codes trained on most rows did not tell the long ones apart, whatever was read.
func (b *ivfBuilder) codeSample(count int) ([]float32, error) {
	if b.metric != IP || b.kind != KindScaNN {
		return b.sample(count, 2), nil
	}
	squares := make([]float32, b.n)
	err := parallel(b.ctx, b.o.Workers, b.n, 1024, func() func(from, to int) error {
		return func(from, to int) error {
			for row := from; row < to; row++ {
				v := b.vector(uint32(row))
				squares[row] = b.kern.Dot(v, v)
			}
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	total := 0.0
	for _, x := range squares {
		total += float64(x)
	}
	if !(total > 0 && total <= math.MaxFloat64) {
		return b.sample(count, 2), nil
	}
	usual, all, width, w := (count+1)/2, make([]float32, 0, count*b.width()), b.width(), b.newTurned()
	add := func(row uint32) {
		all = all[:len(all)+width]
		b.unit(all[len(all)-width:], row, w)
	}
	b.pick(usual, 2, func(_ int, row uint32) { add(row) })
	passed, step := 0.0, total/float64(max(count-usual, 1))
	for row, x := range squares {
		for passed += float64(x); len(all) < cap(all) && passed > step*(float64(len(all)/width-usual)+0.5); {
			add(uint32(row))
		}
	}
	return all, nil
}

// pick picks count rows by lot.
func (b *ivfBuilder) pick(count int, seed uint64, take func(i int, row uint32)) {
	r := rand.New(rand.NewPCG(seed, uint64(b.n)))
	// One of each run of rows: no row twice, and close to any order they are in.
	for i := range count {
		from, to := i*b.n/count, (i+1)*b.n/count
		take(i, uint32(from+r.IntN(max(to-from, 1))))
	}
}

// shortenRows decides what codes are of.
func (b *ivfBuilder) shortenRows(int) (err error) {
	b.turn, err = b.turning(b.ctx)
	return err
}

// cluster finds the centres of the lists.
func (b *ivfBuilder) cluster(lists int) error {
	if b.n == 0 {
		b.lists = &centres{dim: b.width(), n: 1, vectors: make([]float32, b.width())}
		b.lists.pack(b.metric)
		return nil
	}
	count, err := kmeansRows(b.n, lists), error(nil)
	sample := b.base[:b.n*b.dim]
	if count < b.n || b.turn != nil || b.metric == Cosine { // else it would be a copy of all rows as they are
		sample = b.sample(count, 1)
	}
	b.lists, err = kmeans(b.ctx, b.kern, b.o.Workers, lists, b.width(), sample, func() { b.prog.add(b.n / kmeansRounds) })
	return err
}

// assign puts every row into the list of its nearest centre.
func (b *ivfBuilder) assign(int) error {
	b.list = make([]uint32, b.n)
	err := parallel(b.ctx, b.o.Workers, b.n, assignBlock, func() func(from, to int) error {
		a := newAssigner(b.lists, b.kern)
		vectors, w := make([]float32, assignBlock*b.width()), b.newTurned()
		return func(from, to int) error {
			for row := from; row < to; row++ {
				b.unit(vectors[(row-from)*b.width():][:b.width()], uint32(row), w)
			}
			a.assign(vectors[:(to-from)*b.width()], func(i, centre int, _ []int32, _ vec.Affine) {
				b.list[from+i] = uint32(centre)
			})
			b.prog.add(to - from)
			return nil
		}
	})
	if err != nil {
		return err
	}
	b.layOut()
	return b.packLists() // from here on centres are compared with queries
}

// layOut gives every row its position.
func (b *ivfBuilder) layOut() {
	count := make([]int, b.lists.n+1)
	for _, l := range b.list {
		count[l]++
	}
	b.first = make([]uint32, b.lists.n+1)
	for l := range b.lists.n {
		b.first[l+1] = b.first[l] + uint32(numPanels(count[l]))
	}
	b.ids = make([]uint32, int(b.first[b.lists.n])*vec.PanelRows)
	for i := range b.ids {
		b.ids[i] = noRow
	}
	next := make([]uint32, b.lists.n)
	for l := range next {
		next[l] = b.first[l] * vec.PanelRows
	}
	for row, l := range b.list {
		b.ids[next[l]] = uint32(row)
		next[l]++
	}
}

// encode makes the codes.
func (b *ivfBuilder) encode(int) error {
	if !hasCodes(b.kind, b.dim) || b.n == 0 {
		return nil
	}
	sample, err := b.codeSample(min(b.n, codeSample))
	if err != nil {
		return err
	}
	b.bytes = trainBytes(b.width(), sample, sqTail)
	if b.metric == IP {
		if err := b.widen(b.bytes); err != nil {
			return err
		}
	}
	b.bytes.panels = make([]byte, b.numBlocks()*b.bytes.panelBytes())
	b.bytes.bias = make([]float32, len(b.ids))
	if b.kind == KindScaNN {
		b.residuals(sample)
		b.pq = newProducts(b.width(), partDims(b.width()))
		if err := b.pq.train(b.ctx, b.o.Workers, sample); err != nil {
			return err
		}
		b.blocks = make([]byte, b.numBlocks()*b.blockBytes())
		b.pqBias = b.bytes.bias // where a norm is no part of a distance
		if b.metric == L2 {
			b.pqBias = make([]float32, len(b.ids))
		}
	}
	return parallel(b.ctx, b.o.Workers, b.lists.n, 1, func() func(from, to int) error {
		e := b.newListEncoder()
		return func(from, to int) error {
			for l := from; l < to; l++ {
				b.prog.add(e.encode(l))
			}
			return nil
		}
	})
}

// widen makes codes cover the values of all rows. Of rows whose lengths differ the longest
// have the largest products, and of what a tail cuts off most is theirs.
func (b *ivfBuilder) widen(c *byteCodes) error {
	var mu sync.Mutex
	none := func() (lo, hi []float32) {
		return slices.Repeat([]float32{math.MaxFloat32}, c.dim), slices.Repeat([]float32{-math.MaxFloat32}, c.dim)
	}
	lo, hi := none()
	err := parallel(b.ctx, b.o.Workers, b.n, 1024, func() func(from, to int) error {
		v, w := make([]float32, c.dim), b.newTurned()
		least, most := none()
		return func(from, to int) error {
			for row := from; row < to; row++ {
				b.unit(v, uint32(row), w)
				for d, x := range v {
					least[d], most[d] = min(least[d], x), max(most[d], x)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for d := range lo {
				lo[d], hi[d] = min(lo[d], least[d]), max(hi[d], most[d])
			}
			return nil
		}
	})
	for d := range c.lo {
		c.lo[d], c.step[d] = lo[d], (hi[d]-lo[d])/vec.PanelMax
	}
	return err
}

// refine makes the fine codes.
func (b *ivfBuilder) refine(int) error {
	bits := fineBits(b.dim)
	if b.bytes == nil || bits == 0 {
		return nil
	}
	mean, v, count := make([]float32, b.dim), make([]float32, b.dim), min(b.n, codeSample)
	b.pick(count, 3, func(_ int, row uint32) {
		b.whole(v, row)
		for d, x := range v {
			mean[d] += x / float32(count)
		}
	})
	b.fine = newFine(&b.space, mean, bits, make([]byte, b.n*fineStride(b.dim, bits)))
	return parallel(b.ctx, b.o.Workers, b.n, 1024, func() func(from, to int) error {
		flat := make([]float32, b.dim)
		return func(from, to int) error {
			for row := from; row < to; row++ {
				b.fine.put(uint32(row), b.vector(uint32(row)), flat)
			}
			return nil
		}
	})
}

// residuals subtracts from each vector its nearest centre.
func (b *ivfBuilder) residuals(vectors []float32) {
	a := newAssigner(b.lists, b.kern)
	for len(vectors) > 0 {
		block := vectors[:min(len(vectors), assignBlock*b.width())]
		a.assign(block, func(i, centre int, _ []int32, _ vec.Affine) {
			c := b.lists.vectors[centre*b.width():][:b.width()]
			for d := range c {
				block[i*b.width()+d] -= c[d]
			}
		})
		vectors = vectors[len(block):]
	}
}

// listEncoder encodes the rows of lists. It belongs to one goroutine.
type listEncoder struct {
	b    *ivfBuilder
	pq   *pqEncoder
	v, r []float32
	w    *coded
	code []byte
}

func (b *ivfBuilder) newListEncoder() *listEncoder {
	width := b.width()
	e := &listEncoder{b: b, v: make([]float32, width), r: make([]float32, width), w: b.newTurned(), code: make([]byte, width+1)}
	if b.pq != nil {
		e.pq = newPQEncoder(b.pq, b.metric)
	}
	return e
}

// encode encodes list l and returns how many rows it has.
func (e *listEncoder) encode(l int) (rows int) {
	b := e.b
	centre := b.lists.vectors[l*b.width():][:b.width()]
	for pos := int(b.first[l]) * vec.PanelRows; pos < int(b.first[l+1])*vec.PanelRows; pos++ {
		block, lane := pos/vec.PanelRows, pos%vec.PanelRows
		row := b.ids[pos]
		if row == noRow {
			b.bytes.bias[pos] = float32(math.Inf(1))
			if b.pq != nil {
				b.pqBias[pos] = float32(math.Inf(1))
			}
			continue
		}
		rows++
		tail := b.unit(e.v, row, e.w)
		code := e.code[:b.width()]
		if sq := b.bytes.encode(code, e.v); b.metric == L2 {
			b.bytes.bias[pos] = sq + tail
		}
		vec.PutPanel(b.bytes.panels[block*b.bytes.panelBytes():], lane, code)
		if b.pq == nil {
			continue
		}
		for d, x := range e.v {
			e.r[d] = x - centre[d]
		}
		code = e.code[:b.pq.parts]
		if sq := e.pq.encode(code, e.r, e.v, centre); b.metric == L2 {
			b.pqBias[pos] = sq + tail
		}
		vec.PutFastScan(b.blocks[block*b.blockBytes():], lane, code)
	}
	return rows
}
