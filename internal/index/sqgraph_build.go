package index

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// sqBuilder builds an sqGraph. Lists of level 0 have more room than they will
// have in the end: a full one is cut once for every slack links that come to it,
// not for each.
type sqBuilder struct {
	g       *sqGraph  // its links0 are the wide ones, m0 apart, until finish
	keep    int       // links of level 0 in the end
	order   []uint32  // rows in the order in which they enter the graph
	told    *progress // who hears of rows that are linked
	weights []int8    // each row as a query: the halves of its weights
	lengths []float32 // by what a row's length makes it nearer to a shorter one, see lengthPart; IP only
	terms   []float32 // and its scale and what is to be added
	locks   []sync.Mutex
	regions []region // what is not part of the graph
	held    []uint32 // rows that enter it last, and stand for queries in the end
}

// slackOf is the room for links above what is kept.
func slackOf(keep int) int { return keep / 2 }

// sqEfConstruction is the default: with 200, a build takes a third longer, and of the data
// sets measured one finds more at a recall of 0.99, none at 0.95.
const sqEfConstruction = 140

// sqDefaults fills in what a Spec leaves open. KindHNSW has the defaults of a graph on vectors.
func sqDefaults(spec Spec) Spec {
	if spec.EfConstruction == 0 && spec.Kind == KindHNSWSQ {
		spec.EfConstruction = sqEfConstruction
	}
	o := HNSWOptions{M: spec.M, EfConstruction: spec.EfConstruction}
	o.EnsureDefaults()
	spec.M, spec.EfConstruction = o.M, o.EfConstruction
	return spec
}

// buildGraph builds a graph on codes, or one on the vectors themselves if no
// codes tell their neighbours apart, or, of KindHNSW, if a record of codes is no shorter.
func buildGraph(ctx context.Context, spec Spec, base []float32, o BuildOptions, why string) (Built, error) {
	if spec.Kind == KindHNSW && spec.Dim < fineLeast {
		return buildHNSW(ctx, spec, base, o, why)
	}
	t, err := trainCoder(ctx, base, spec.Dim, spec.Metric, o)
	if err != nil {
		return nil, err
	}
	if why != "" {
		why += ": "
	}
	why += t.why
	if !t.ok {
		spec.Kind = KindHNSW
		return buildHNSW(ctx, spec, base, o, why)
	}
	b, err := buildSQ(ctx, spec, base, t, o, why)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// buildSQ builds a graph with the given codes.
func buildSQ(ctx context.Context, spec Spec, base []float32, t trained, o BuildOptions, why string) (_ *sqBuilt, err error) {
	spec = sqDefaults(spec)
	check := HNSWOptions{Dim: spec.Dim, Metric: spec.Metric, M: spec.M, EfConstruction: spec.EfConstruction, Capacity: len(base) / spec.Dim}
	check.EnsureDefaults()
	if err := check.Validate(); err != nil {
		return nil, err
	}
	b := &sqBuilder{keep: 2 * spec.M, locks: make([]sync.Mutex, lockStripes)}
	b.g = &sqGraph{
		space: space{kern: *o.Kernels, metric: spec.Metric, dim: spec.Dim, base: base},
		code:  t.coder, exact: spec.Kind == KindHNSW, m: spec.M, m0: b.keep + slackOf(b.keep), ef: spec.EfConstruction,
		rows: check.Capacity, why: why,
	}
	defer func() {
		for i := range b.regions {
			err = errors.CombineErrors(err, b.regions[i].close())
		}
	}()
	if err := b.reserve(); err != nil {
		return nil, err
	}
	if err := b.encode(ctx, o.Workers); err != nil {
		return nil, err
	}
	b.findTwins()
	b.told = &progress{tell: o.Progress, total: check.Capacity}
	b.told.add(check.Capacity - len(b.order))
	if err := b.insertAll(ctx, o.Workers); err != nil {
		return nil, err
	}
	return b.finish(ctx, o.Workers, t.small)
}

// region returns n bytes that are given back when the build ends.
func (b *sqBuilder) region(n int) ([]byte, error) {
	r, err := newRegion(n)
	if err == nil {
		b.regions = append(b.regions, r)
	}
	return r.bytes, err
}

// reserve gets the memory of the build and draws the levels.
func (b *sqBuilder) reserve() error {
	g := b.g
	var err error
	get := func(n int) []byte {
		if err != nil {
			return nil
		}
		var r []byte
		r, err = b.region(n)
		return r
	}
	g.records = get(g.rows * g.code.stride)
	g.links0 = as[uint32](get(4 * g.rows * g.m0))
	b.weights = as[int8](get(g.rows * 2 * g.code.stride))
	b.terms = as[float32](get(8 * g.rows))
	if err != nil {
		return err
	}
	g.upperOff = make([]uint32, g.rows+1)
	blocks := uint32(0)
	for row := range g.rows {
		blocks += uint32(levelOf(uint32(row), g.seed, g.m))
		g.upperOff[row+1] = blocks
	}
	g.upper = make([]uint32, int(blocks)*g.m)
	if g.metric == Cosine {
		g.inv = make([]float32, g.rows)
	}
	if g.metric == IP {
		b.lengths = make([]float32, g.rows)
	}
	return nil
}

// encode writes the record of each row, and the row as a query.
func (b *sqBuilder) encode(ctx context.Context, workers int) error {
	g := b.g
	stride := g.code.stride
	return parallel(ctx, workers, g.rows, 256, func() func(from, to int) error {
		w := g.code.newCoded()
		return func(from, to int) error {
			for row := from; row < to; row++ {
				v := g.vector(uint32(row))
				if i := notFinite(v); i >= 0 {
					return errclass.New(errclass.Invalid, "build index: row %d: value %d is %v", row, i, v[i])
				}
				if b.lengths != nil {
					b.lengths[row] = lengthPart * g.kern.Dot(v, v)
				}
				if g.inv != nil {
					g.inv[row] = g.kern.InvNorm(v)
				}
				record := g.records[row*stride:][:stride]
				g.code.record(v, w, record)
				b.terms[2*row], b.terms[2*row+1] = g.code.rowQuery(record, w, b.weights[row*2*stride:][:2*stride])
			}
			return nil
		}
	})
}

// insertAll links the rows: the first ones one after the other, so that many
// goroutines do not all link to the same few.
func (b *sqBuilder) insertAll(ctx context.Context, workers int) error {
	first := min(serialRows, len(b.order))
	insert := func(rows []uint32) func() func(from, to int) error {
		return func() func(from, to int) error {
			s := &Scratch{}
			return func(from, to int) error {
				for _, row := range rows[from:to] {
					b.insert(row, s)
				}
				b.told.add(to - from)
				return nil
			}
		}
	}
	if err := parallel(ctx, 1, first, buildStep, insert(b.order[:first])); err != nil {
		return err
	}
	// Rows of the upper levels, then the others place by place.
	upper := first
	for upper < len(b.order) && b.g.level(b.order[upper]) > 0 {
		upper++
	}
	if err := parallel(ctx, workers, upper-first, buildStep, insert(b.order[first:upper])); err != nil {
		return err
	}
	rest := b.holdBack(b.order[upper:])
	if err := b.sortByPlace(ctx, workers, rest); err != nil {
		return err
	}
	if err := parallel(ctx, workers, len(rest), placeStep, insert(rest)); err != nil {
		return err
	}
	return parallel(ctx, workers, len(b.held), buildStep, insert(b.held))
}

// placeStep is how many rows, near to one another, a builder takes at a time.
const placeStep = 512

// sortByPlace puts rows that are on level 0 only in an order in which near ones follow
// one another: what one leads to is then in the processor's caches when the next one comes.
func (b *sqBuilder) sortByPlace(ctx context.Context, workers int, rows []uint32) error {
	g := b.g
	type place struct {
		cell uint64 // the nearest rows of the levels 2 and 1
		row  uint32
	}
	places := make([]place, len(rows))
	err := parallel(ctx, workers, len(rows), buildStep, func() func(from, to int) error {
		s := &Scratch{}
		s.begin(g.m0 + 1)
		return func(from, to int) error {
			for i, row := range rows[from:to] {
				q := b.query(row)
				far, _ := g.descend(&q, 1, s)
				near, _ := g.descend(&q, 0, s)
				places[from+i] = place{uint64(far)<<32 | uint64(near), row}
			}
			return nil
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(places, func(x, y place) int { return cmp.Or(cmp.Compare(x.cell, y.cell), cmp.Compare(x.row, y.row)) })
	for i, p := range places {
		rows[i] = p.row
	}
	return nil
}

// query is a row as a query.
func (b *sqBuilder) query(row uint32) sqQuery {
	n := 2 * b.g.code.stride
	return sqQuery{halves: b.weights[int(row)*n:][:n], scale: b.terms[2*row], add: b.terms[2*row+1]}
}

// insert links a row on all its levels.
func (b *sqBuilder) insert(row uint32, s *Scratch) {
	g := b.g
	if row == g.start {
		return
	}
	q, level := b.query(row), min(g.level(row), g.top)
	s.begin(g.m0 + 1)
	for len(s.chosen) <= level {
		s.chosen = append(s.chosen, nil)
	}
	near, d := g.descend(&q, level, s)
	w := &s.walk
	w.pool = append(w.pool[:0], poolKey(d, near))
	for l := level; l >= 0; l-- {
		w.again(g, q, g.ef, l)
		w.seen.add(row)
		for w.next(g) {
			w.score(g)
		}
		s.keys = s.keys[:0]
		for _, key := range w.pool {
			s.keys = append(s.keys, vec.Key(poolDistance(key), poolRow(key)))
		}
		b.selectLinks(row, &q, g.m, s)
		s.chosen[l] = append(s.chosen[l][:0], s.kept...)
		links := g.list(row, l)
		for i, to := range s.chosen[l] {
			atomic.StoreUint32(&links[i], to+1)
		}
	}
	// All own lists come before the first link to row.
	for l := level; l >= 0; l-- {
		for _, to := range s.chosen[l] {
			b.link(to, row, l, s)
		}
	}
}

// link adds row to the links of `to` on a level. If they are full, the best of
// all stay.
func (b *sqBuilder) link(to, row uint32, level int, s *Scratch) {
	mu := &b.locks[to%lockStripes]
	mu.Lock()
	defer mu.Unlock()
	links := b.g.list(to, level)
	for i := range links {
		if atomic.LoadUint32(&links[i]) == 0 {
			atomic.StoreUint32(&links[i], row+1)
			return
		}
	}
	most := b.keep
	if level > 0 {
		most = b.g.m
	}
	b.cut(to, links, row+1, most, s)
}

// cut replaces the links of a row by the best of them and one more (0: none).
func (b *sqBuilder) cut(row uint32, links []uint32, more uint32, most int, s *Scratch) {
	ids := s.ids[:0]
	for i := range links {
		if link := atomic.LoadUint32(&links[i]); link != 0 {
			ids = append(ids, link-1)
		}
	}
	if more != 0 {
		ids = append(ids, more-1)
	}
	q := b.query(row)
	b.g.code.distances(&q, b.g.records, ids, s.dist)
	s.keys = s.keys[:0]
	for i, id := range ids {
		s.keys = append(s.keys, vec.Key(s.dist[i], id))
	}
	slices.Sort(s.keys)
	b.selectLinks(row, &q, most, s)
	for i := range links {
		link := uint32(0)
		if i < len(s.kept) {
			link = s.kept[i] + 1
		}
		atomic.StoreUint32(&links[i], link)
	}
}

// selectLinks picks at most m of the rows in s.keys, which are sorted by their
// distance to the row that is to be linked, and leaves them in s.kept; see
// HNSW.selectLinks.
func (b *sqBuilder) selectLinks(row uint32, q *sqQuery, m int, s *Scratch) {
	s.kept = s.kept[:0]
	s.keptDist = grown(s.keptDist, max(m, 16))
	for _, key := range s.keys {
		if len(s.kept) == m {
			return
		}
		c := vec.Unkey(key)
		if !b.shadowed(c.Row, c.Distance+q.add+b.length(row), s.kept, s.keptDist) {
			s.kept = append(s.kept, c.Row)
		}
	}
}

// lengthPart is what part of its square a row's length counts for where links are
// chosen by dot products. With none of it, long rows shadow all others: rows link to
// a few of them only, and of the others half are led to by one row at most. With
// half of the square, the distance is Euclidean but for the length of the row
// asked, and links between long rows, where the answers are, get fewer. Measured on 200,000
// rows of rank 32, lengths 1.8 to 9.2: 0.15 to 0.33 are about as good.
const lengthPart = 0.25

func (b *sqBuilder) length(row uint32) float32 {
	if b.lengths == nil {
		return 0
	}
	return b.lengths[row]
}

// shadowed reports whether row is nearer to one of the kept rows than distance.
func (b *sqBuilder) shadowed(row uint32, distance float32, kept []uint32, dist []float32) bool {
	const batch = 8
	q := b.query(row)
	for len(kept) > 0 {
		n := min(batch, len(kept))
		b.g.code.distances(&q, b.g.records, kept[:n], dist)
		for i, d := range dist[:n] {
			if d+q.add+b.length(kept[i]) < distance {
				return true
			}
		}
		kept = kept[n:]
	}
	return false
}

// cutAll cuts the lists of level 0 that have more links than will be kept.
func (b *sqBuilder) cutAll(ctx context.Context, workers int) error {
	return parallel(ctx, workers, b.g.rows, 1024, func() func(from, to int) error {
		s := &Scratch{}
		s.begin(b.g.m0 + 1)
		return func(from, to int) error {
			for row := from; row < to; row++ {
				if links := b.g.list(uint32(row), 0); links[b.keep] != 0 {
					b.cut(uint32(row), links, 0, b.keep, s)
				}
			}
			return nil
		}
	})
}

// finish cuts all lists to their size in the end, and moves the graph to the
// memory that is its image.
func (b *sqBuilder) finish(ctx context.Context, workers int, small *coder) (*sqBuilt, error) {
	wide := b.g
	err := b.cutAll(ctx, workers)
	if err != nil {
		return nil, err
	}
	if err := b.repair(ctx, workers); err != nil {
		return nil, err
	}
	if err := b.linkStrays(ctx, workers); err != nil {
		return nil, err
	}
	codes := wide.code
	if small != nil {
		codes = small
	}
	if wide.lists, err = b.lists(ctx, workers, codes); err != nil {
		return nil, err
	}
	out, err := wide.image(b.keep, small)
	if err != nil {
		return nil, err
	}
	if small == nil {
		copy(out.g.records, wide.records)
	}
	err = parallel(ctx, workers, wide.rows, 256, func() func(from, to int) error {
		w := wide.code.newCoded()
		if small != nil {
			w = small.newCoded()
		}
		flat := make([]float32, wide.dim)
		return func(from, to int) error {
			for row := from; row < to; row++ {
				v := wide.vector(uint32(row))
				if small != nil {
					small.record(v, w, out.g.records[row*small.stride:][:small.stride])
				}
				if out.g.fine.exists() {
					out.g.fine.put(uint32(row), v, flat)
				}
			}
			return nil
		}
	})
	if err == nil {
		err = out.learnEnding(ctx, workers)
	}
	if err == nil {
		err = out.learnSeeds(ctx, workers)
	}
	if err == nil {
		err = out.g.measureShares(ctx, workers, b.held)
	}
	if err == nil {
		err = out.learnGlance(ctx, workers)
	}
	if err != nil {
		return nil, errors.CombineErrors(err, out.Close())
	}
	return out, nil
}
