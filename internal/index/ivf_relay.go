package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// Of batches in which hardly two queries want the same list. Nothing is saved by reading lists together then, and codes of
// a byte are four times what a search for one query reads. What a batch saves are centres, which are compared with
// many queries at once, and waiting: while a query is ranked, the lists of another are on their way.
const (
	// relayTakers is how many queries want a list at most, on average. Up to that many the bytes of a byte for each value
	// cost more than is saved, the more so where several batches share the memory's bandwidth.
	relayTakers = 0.6
	// relayAsk is how many bytes of the lists of the next query are asked for at most.
	relayAsk = 64 << 10
)

// relayScratch is what such a batch works in.
type relayScratch struct {
	near   []uint64   // keys of the lists of each query of a run
	counts []int      // how many these are
	tails  []float32  // what each query has beside its unit, squared
	lens   []float32  // of queries if the metric is IP
	cands  candidates // of the query whose lists were read last
	ids    []uint32   // lists that are asked for
}

func (r *relayScratch) bytes() int {
	return 8*(cap(r.near)+cap(r.counts)+cap(r.cands.keys)) + 4*(cap(r.tails)+cap(r.lens)+cap(r.ids))
}

// relays reports whether n queries are searched for one behind the other, rather than by reading lists together.
func (x *ivf) relays(n int, p *plan) bool {
	// Where so few lists have too few rows each search begins anew, and that is not what this is for.
	return x.pq != nil && p.allowed == nil && n >= batchLeast && p.lists*x.size() >= p.enough && float64(n*p.lists) <= relayTakers*float64(x.lists.n)
}

// relay searches for each of the vectors.
func (x *ivf) relay(vectors []float32, p *plan, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	n := len(vectors) / x.dim
	p.ahead = max(1, relayAsk/(x.size()/vec.FastScanBlock*x.blockBytes()+1))
	for from := 0; from < n; from += batchRun {
		if s.stopped() {
			notFound(from, n, found)
			return
		}
		to := min(from+batchRun, n)
		x.relayRun(vectors[from*x.dim:to*x.dim], p, q, s, func(i int, rows []Neighbor) { found(from+i, rows) })
	}
}

// relayRun does so for a run of them.
func (x *ivf) relayRun(vectors []float32, p *plan, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	v, r, run := &s.ivf, &s.ivf.batch.relay, len(vectors)/x.dim
	x.relayLists(vectors, p, s)
	x.relayAsk(0, p, s)
	var before begun
	for i := range run + 1 {
		var next begun
		if i < run {
			if i+1 < run {
				x.relayAsk(i+1, p, s)
			}
			x.relayQuery(i, p, s)
			v.cands.reset(p.rank)
			next.found = x.readProducts(p, s)
			next.rank = x.rankFirst(p, &v.cands, s)
		}
		// What is before is where a search has its candidates: it may have to be searched for once more.
		v.cands, r.cands = r.cands, v.cands
		if i > 0 {
			vector := vectors[(i-1)*x.dim:][:x.dim]
			if before.found >= p.enough || p.lists == x.lists.n || s.stats.Stopped {
				found(i-1, q.within(x.rankRest(vector, p, &v.cands, before.rank, s)))
			} else {
				found(i-1, x.Search(vector, q, s)) // it reads more lists
			}
		}
		before = next
	}
}

// begun is a search whose lists are read.
type begun struct {
	found int
	rank  ranking
}

// relayLists finds the lists of a run of queries.
func (x *ivf) relayLists(vectors []float32, p *plan, s *Scratch) {
	x.roomForLists(s)
	v, b, c := &s.ivf, &s.ivf.batch, x.lists.codes
	r, run, all := &b.relay, len(vectors)/x.dim, len(c.bias)
	b.units, b.aff = grown(b.units, run*x.width()), grown(b.aff, run)
	r.near, r.counts = grown(r.near, run*p.lists), grown(r.counts, run)
	r.tails, r.lens = grown(r.tails, run), grown(r.lens, run)
	v.z, v.sums = grown(v.z, (batchRun+queriesRoom)*4*c.quads), grown(v.sums, batchRun*all)
	w := x.turnRoom(&v.turned)
	for i := range run {
		unit, vector := b.units[i*x.width():][:x.width()], vectors[i*x.dim:][:x.dim]
		r.tails[i], r.lens[i] = x.shorten(unit, vector, w), 1
		if x.metric == IP {
			r.lens[i] = float32(math.Sqrt(float64(x.kern.Dot(vector, vector))))
		}
		b.aff[i] = x.forLists(c.prepare(x.kern, v.z[i*4*c.quads:][:4*c.quads], unit, x.metric), r.lens[i])
	}
	x.kern.Panels(v.z, run, c.quads, c.panels, all/vec.PanelRows, v.sums)
	for i := range run {
		x.selectLists(v.sums[i*all:][:all], c.bias, b.aff[i], p.lists, s)
		r.counts[i] = copy(r.near[i*p.lists:][:p.lists], v.near)
	}
}

// relayAsk asks for what is read of the first lists of a query.
func (x *ivf) relayAsk(i int, p *plan, s *Scratch) {
	r := &s.ivf.batch.relay
	keys := r.near[i*p.lists:][:r.counts[i]]
	if p.ahead < len(keys) {
		partition(x.kern, keys, p.ahead)
		keys = keys[:p.ahead]
	}
	r.ids = grown(r.ids, len(keys))
	for j, key := range keys {
		r.ids[j] = uint32(key)
		x.ask(uint32(key), nil)
	}
	x.kern.PrefetchRows(raw(x.lists.vectors), 4*x.width(), (4*x.width()+63)/64, r.ids, 0)
}

// relayQuery puts a query and its lists where a search has them.
func (x *ivf) relayQuery(i int, p *plan, s *Scratch) {
	v, b := &s.ivf, &s.ivf.batch
	v.unit = grown(v.unit, x.width()+1)
	v.unit[x.width()] = 0
	v.unit = v.unit[:x.width()]
	copy(v.unit, b.units[i*x.width():])
	v.tail, v.length = b.relay.tails[i], b.relay.lens[i]
	v.near = append(v.near[:0], b.relay.near[i*p.lists:][:b.relay.counts[i]]...)
	v.lists, v.dots, v.order.known = v.lists[:0], v.dots[:0], false
}
