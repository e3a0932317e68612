package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// Of batches.
const (
	// batchQueries is how many queries are searched together: enough that a list
	// has several, few enough that what each needs fits the cache.
	batchQueries = 1024
	// batchKeys bounds the candidates of all of them: 4 MiB.
	batchKeys = 1 << 19
	// batchRun is how many queries of a list are multiplied in one go.
	batchRun = 64
	// batchFirst is how many lists of each query, the nearest, are read before all
	// others, so that these find few candidates that do not stay.
	batchFirst = 2
	// batchLeast is how many queries lists are shared by at least.
	batchLeast = 8
	// batchTakers is how many queries share a list of which packed codes could be read instead, at least.
	batchTakers = 8
	// batchExtra is how many bytes of large codes are read in the time that a search for
	// one query takes longer than its share of a batch, by less precise codes that need
	// more ranking.
	batchExtra = 300 << 10
	// batchAsk is how many bytes of codes are asked for ahead at most: they are to stay in the
	// second cache.
	batchAsk = 64 << 10
)

// batchScratch is what a batch works in.
type batchScratch struct {
	units  []float32    // the queries, at length 1 if the metric is Cosine
	z      []int8       // what stands for them in products with codes of rows
	aff    []vec.Affine // what makes distances of those
	run    []int8       // those of a run
	cands  []candidates // of each query
	pairs  [2][]listUse // of the first lists, of all others
	order  []uint32     // queries in the order of the lists they want
	bias   []float32    // of some blocks, where there is a filter
	filter batchFilter
	relay  relayScratch
	start  []uint32 // of each list in order
}

// listUse says that a query wants a list.
type listUse struct{ list, query uint32 }

func (b *batchScratch) bytes() int {
	n := b.filter.bytes() + b.relay.bytes() + 4*(cap(b.units)+cap(b.order)+cap(b.start)+cap(b.bias)) + cap(b.z) + cap(b.run) + 8*(cap(b.aff)+cap(b.pairs[0])+cap(b.pairs[1]))
	for i := range b.cands {
		n += 8 * cap(b.cands[i].keys)
	}
	return n
}

// SearchBatch reads each list once for all vectors that want it, or compares all with
// every row that a filter allows, if these are few.
func (x *ivf) SearchBatch(vectors []float32, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	n := len(vectors) / x.dim
	s.begin(0)
	p := x.plan(q, s)
	if x.bytes == nil || x.kern.Level() != vec.AVX512 || p.k <= 0 {
		one(x, x.dim, vectors, q, s, found)
		return
	}
	step := batchStep(x.byteRank(p.k))
	gather := x.gathers(min(n, step), &p)
	if !gather && !p.scan && x.relays(n, &p) {
		x.relay(vectors, &p, q, s, found)
		return
	}
	if !gather && (p.scan || !x.shares(min(n, step), &p)) {
		x.oneByOne(vectors, p, q, s, found)
		return
	}
	p.rank, p.short = x.byteRank(p.k), false
	p.enough = min(p.enough, p.rank)
	p.target = max(p.target, p.enough)
	for from := 0; from < n; from += step {
		to := min(from+step, n)
		block := vectors[from*x.dim : to*x.dim]
		s.begin(0)
		if s.stopped() {
			notFound(from, n, found)
			return
		}
		if gather {
			s.stats.Scanned = true
			x.beginBatch(block, &p, s)
			x.compareAllowed(to-from, &p, s)
		} else {
			if p.allowed != nil {
				s.ivf.batch.filter.mark(x, &p, s)
			}
			if s.stats.Stopped {
				notFound(from, n, found)
				return
			}
			x.beginBatch(block, &p, s)
			x.findUses(&p, to-from, s)
			for _, uses := range s.ivf.batch.pairs {
				x.readShared(uses, &p, s)
			}
		}
		for i := range to - from {
			v, c := block[i*x.dim:][:x.dim], &s.ivf.batch.cands[i]
			if len(c.keys) < p.enough && p.lists < x.lists.n && !gather && !s.stats.Stopped {
				found(from+i, x.Search(v, q, s)) // it reads more lists
				continue
			}
			found(from+i, q.within(x.rank(v, &p, c, s)))
		}
	}
}

// oneByOne searches for each of the vectors. A filter is compared with those that are known but once, if it is one of these, for that takes
// 1.5 us of a million rows.
func (x *ivf) oneByOne(vectors []float32, p plan, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	for i := range len(vectors) / x.dim {
		s.begin(0)
		if p.allowed != nil && p.marks == nil {
			p = x.plan(q, s) // it may be learnt, and what else is known of it is in the scratch
		}
		found(i, x.search(vectors[i*x.dim:][:x.dim], p, q, s))
	}
}

// batchStep is how many queries are searched together of which each has so many candidates.
func batchStep(rank int) int {
	c := candidates{want: rank}
	return min(batchQueries, max(batchLeast, batchKeys/(c.want+c.slack())))
}

// notFound tells that queries from one to another were not searched for: Stop came first.
func notFound(from, to int, found func(i int, rows []Neighbor)) {
	for i := from; i < to; i++ {
		found(i, nil)
	}
}

// shares reports whether n queries that read lists together, by codes of a byte, are
// faster than one by one.
func (x *ivf) shares(n int, p *plan) bool {
	if n < batchLeast || x.pq == nil {
		return n >= batchLeast
	}
	lists := p.lists
	if p.allowed != nil {
		lists = p.least
	}
	bytes := float64(lists * x.size() * 4 * x.bytes.quads)
	takers := max(1, float64(n*lists)/float64(x.lists.n))
	if p.packed() != nil && takers < batchTakers {
		return false
	}
	return bytes/takers <= bytes/4+batchExtra // the codes of one query are a quarter the size
}

// beginBatch prepares the queries.
func (x *ivf) beginBatch(vectors []float32, p *plan, s *Scratch) {
	v, b, c := &s.ivf, &s.ivf.batch, x.lists.codes
	n, width := len(vectors)/x.dim, 4*x.bytes.quads
	b.units = grown(b.units, n*x.width())
	b.z = grown(b.z, (n+queriesRoom)*width)
	b.aff = grown(b.aff, n)
	for len(b.cands) < n {
		b.cands = append(b.cands, candidates{})
	}
	v.sums = grown(v.sums, batchRun*max(len(c.bias), chunkPanels*vec.PanelRows))
	v.rows = grown(v.rows, max(len(c.bias), chunkPanels*vec.PanelRows))
	v.dist = grown(v.dist, len(v.rows))
	w := x.turnRoom(&v.turned)
	for q := range n {
		unit := b.units[q*x.width():][:x.width()]
		tail := x.shorten(unit, vectors[q*x.dim:][:x.dim], w)
		b.aff[q] = x.bytes.prepare(x.kern, b.z[q*width:][:width], unit, x.metric)
		if x.metric == L2 {
			b.aff[q].Base += tail
		}
		b.cands[q].reset(p.rank)
	}
}

// findUses finds the lists that n queries want.
func (x *ivf) findUses(p *plan, n int, s *Scratch) {
	v, b, c := &s.ivf, &s.ivf.batch, x.lists.codes
	all := len(c.bias)
	b.pairs = [2][]listUse{b.pairs[0][:0], b.pairs[1][:0]}
	b.run = grown(b.run, batchRun*4*x.bytes.quads)
	v.z = grown(v.z, batchRun*4*c.quads)
	var aff [batchRun]vec.Affine
	for from := 0; from < n && !s.stopped(); from += batchRun {
		run := min(batchRun, n-from)
		for i := range run {
			unit, length := b.units[(from+i)*x.width():][:x.width()], float32(1)
			if x.metric == IP {
				length = float32(math.Sqrt(float64(x.kern.Dot(unit, unit))))
			}
			aff[i] = x.forLists(c.prepare(x.kern, v.z[i*4*c.quads:][:4*c.quads], unit, x.metric), length)
		}
		x.kern.Panels(v.z, run, c.quads, c.panels, all/vec.PanelRows, v.sums)
		for i := range run {
			sums := v.sums[i*all:][:all]
			if p.allowed != nil {
				x.useNear(uint32(from+i), sums, aff[i], *p, s)
				continue
			}
			x.selectLists(sums, c.bias, aff[i], p.lists, s)
			b.use(uint32(from+i), s.ivf.near)
		}
	}
}

// use notes that a query wants the lists in near.
func (b *batchScratch) use(query uint32, near []uint64) {
	first := min(batchFirst, len(near))
	for i := range first {
		for j := i + 1; j < len(near); j++ {
			if near[j] < near[i] {
				near[i], near[j] = near[j], near[i]
			}
		}
	}
	for i, key := range near {
		at := 0
		if i >= first {
			at = 1
		}
		b.pairs[at] = append(b.pairs[at], listUse{list: uint32(key), query: query})
	}
}

// byList leaves the queries of uses in b.order, by lists of which there are so many: those of
// list l end at b.start[l], where those of the next begin.
func (b *batchScratch) byList(uses []listUse, lists int) {
	b.start = grown(b.start, lists+1)
	clear(b.start)
	for _, u := range uses {
		b.start[u.list]++
	}
	sum := uint32(0)
	for l, n := range b.start {
		b.start[l] = sum
		sum += n
	}
	b.order = grown(b.order, len(uses))
	for _, u := range uses {
		b.order[b.start[u.list]] = u.query
		b.start[u.list]++ // it ends as the start of the next list
	}
}

// readShared reads the lists of uses, each once.
func (x *ivf) readShared(uses []listUse, p *plan, s *Scratch) {
	b := &s.ivf.batch
	b.byList(uses, x.lists.n)
	from := uint32(0)
	for l := range x.lists.n {
		to := b.start[l]
		if to == from {
			continue
		}
		next := l + 1
		for next < x.lists.n && b.start[next] == to {
			next++
		}
		for run := range slices.Chunk(b.order[from:to], batchRun) {
			if s.stopped() {
				return
			}
			x.readRun(l, next, run, p, s)
		}
		from = to
	}
}

// readRun adds what a list has for some queries to their candidates. What is multiplied next,
// here or in the list that is read after this one, is asked for meanwhile.
func (x *ivf) readRun(l, next int, queries []uint32, p *plan, s *Scratch) {
	v, b := &s.ivf, &s.ivf.batch
	quads, size := x.bytes.quads, x.bytes.panelBytes()
	width := 4 * quads
	for i, q := range queries {
		copy(b.run[i*width:][:width], b.z[int(q)*width:])
	}
	for from, to := int(x.first[l]), int(x.first[l+1]); from < to; from += chunkPanels {
		n := min(to-from, chunkPanels)
		rows := n * vec.PanelRows
		s.stats.Codes += rows
		x.kern.Panels(b.run, len(queries), quads, x.bytes.panels[from*size:], n, v.sums)
		if ahead, end := from+n, to; ahead < end || next < x.lists.n {
			if ahead == end {
				ahead, end = int(x.first[next]), int(x.first[next+1])
			}
			codes := x.bytes.panels[ahead*size : min(ahead+chunkPanels, end)*size]
			vec.PrefetchBytes(codes[:min(len(codes), batchAsk)])
		}
		bias := x.bytes.bias[from*vec.PanelRows:]
		if p.allowed != nil {
			b.bias = grown(b.bias, rows)
			b.filter.maskBias(b.bias, bias, from)
			bias = b.bias
		}
		for i, q := range queries {
			c := &b.cands[q]
			if hits := x.kern.SumsBelow(v.sums[i*rows:][:rows], bias, b.aff[q], c.limit, v.rows, v.dist); hits > 0 {
				x.take(c, from, hits, nil, s)
			}
		}
	}
	s.stats.Hops++
}
