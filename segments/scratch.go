package segments

import (
	"context"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/sparse"
	"github.com/querynode/querynode/internal/vec"
)

// scanBlock is the number of rows whose distances are computed at once: their
// results stay in the first-level cache.
const scanBlock = 512

// nearestQuery is one query vector against one field.
type nearestQuery struct {
	ctx     context.Context
	stop    *atomic.Bool // set when ctx ends
	fieldID int64
	vector  []float32    // of a field of float32
	raw     []byte       // of one of other numbers, or bits
	sparse  sparseVector // of a sparse one
	k       int
	effort  Effort
	metric  index.Metric
	exact   bool         // scan even if there is an index
	from    int          // first row that counts; used with exact
	far     float32      // score: only rows that are no nearer than it count; used with exact
	bounded bool         // far is set
	limit   float32      // rows at a larger distance are not wanted; they may be found
	limited bool         // limit is set
	worst   *worst       // limits of the queries of a batch; nil = limit is
	number  int          // of the first of them there
	scores  *sparse.BM25 // of a search for words; else nil
}

// limitOf returns the limit of query i of a batch; false = it has none.
func (q *nearestQuery) limitOf(i int) (float32, bool) {
	if q.worst != nil {
		return q.worst.of(q.number + i)
	}
	return q.limit, q.limited
}

// cut is the error of a search that stop has ended: that of its context, which may not
// have one yet.
func (q *nearestQuery) cut() error {
	err := q.ctx.Err()
	if err == nil {
		err = context.Canceled
	}
	return errors.Wrap(err, "search")
}

// vectors is the memory of one vector field of a segment.
type vectors struct {
	base []float32   // row after row
	raw  []byte      // the same, of vectors that are not float32
	typ  schema.Type // of raw
	inv  []float32   // inverse norm of each row, for Cosine; nil = computed when needed
	dim  int
}

// scratch is what one task of a search needs for itself. It is reused.
type scratch struct {
	query   nearestQuery // of the task; it goes through interfaces
	ask     index.Query  // what an index is asked for it
	index   index.Scratch
	kernels vec.Kernels
	top     vec.TopK
	out     []float32
	ids     []uint32
	allowed bitset.Set // a prefix of the rows
	rows    bitset.Set // the filter's result
	present bitset.Set // rows whose vector is not null
	rest    []index.Neighbor
	merged  []index.Neighbor

	coded    listScratch
	batch    batchScratch
	scans    scanScratch
	distance vec.Distance // of the vectors at hand, if they are not float32
	wide     []float32    // the query, for an index of these
	lists    sparse.Searcher
	terms    []sparse.Term
	ends     []uint64 // of the rows of terms, if they are texts
	bm25     sparse.BM25

	work *work // what is done is noted here; nil = nobody asked
}

func newScratch() *scratch {
	return &scratch{kernels: vec.Detect(), out: make([]float32, scanBlock)}
}

// forget drops what belongs to a search, which the scratch outlives.
func (sc *scratch) forget() { sc.query, sc.ask = nearestQuery{}, index.Query{} }

// scan finds the nearest rows in [from, n) exactly. The result is valid until the next scan.
func (sc *scratch) scan(v vectors, from, n int, q *nearestQuery, allowed *bitset.Set) ([]index.Neighbor, error) {
	sc.top.Reset(q.k)
	inv, err := sc.prepare(&v, q)
	if err != nil {
		return nil, err
	}
	for at := from; at < n; {
		if q.stop != nil && q.stop.Load() {
			return nil, q.cut()
		}
		if allowed == nil {
			end := min(at+scanBlock, n)
			out := sc.out[:end-at]
			sc.rowDistances(q, inv, v, at, out)
			sc.keepRun(&sc.top, q, uint32(at), out)
			sc.work.note(wayScan, len(out), 0)
			at = end
			continue
		}
		at = sc.nextIDs(allowed, at, n)
		out := sc.out[:len(sc.ids)]
		sc.idDistances(q, inv, v, out)
		sc.keepIDs(&sc.top, q, out)
		sc.work.note(wayScanMatches, len(out), 0)
	}
	sc.rest = sc.top.AppendSorted(sc.rest[:0])
	return sc.rest, nil
}

// nextIDs sets ids to the next rows of a set in [at, n), a block of them at most,
// and returns where to go on.
func (sc *scratch) nextIDs(set *bitset.Set, at, n int) int {
	sc.ids = sc.ids[:0]
	for len(sc.ids) < scanBlock {
		r := set.Next(at)
		if r < 0 || r >= n {
			return n
		}
		sc.ids = append(sc.ids, uint32(r))
		at = r + 1
	}
	return at
}

// keepRun offers rows first, first+1, ... to top.
func (sc *scratch) keepRun(top *vec.TopK, q *nearestQuery, first uint32, out []float32) {
	if !q.bounded {
		top.PushRun(first, out)
		return
	}
	for i, d := range out {
		if q.keeps(d) {
			top.Push(first+uint32(i), d)
		}
	}
}

// keepIDs offers rows sc.ids to top.
func (sc *scratch) keepIDs(top *vec.TopK, q *nearestQuery, out []float32) {
	if !q.bounded {
		top.PushAll(sc.ids, out)
		return
	}
	for i, d := range out {
		if q.keeps(d) {
			top.Push(sc.ids[i], d)
		}
	}
}

// keeps reports whether a distance is no nearer than the far side. Scores are
// compared, since they are what users give and see.
func (q *nearestQuery) keeps(distance float32) bool {
	return !q.metric.Better(q.metric.Score(distance), q.far)
}

// rowDistances fills out for rows [at, at+len(out)).
func (sc *scratch) rowDistances(q *nearestQuery, inv float32, v vectors, at int, out []float32) {
	if v.raw != nil {
		sc.rawRows(q, inv, v, at, out)
		return
	}
	rows := v.base[at*v.dim : (at+len(out))*v.dim]
	switch q.metric {
	case index.L2:
		sc.kernels.L2Rows(q.vector, rows, v.dim, out)
	case index.IP:
		sc.kernels.DotRows(q.vector, rows, v.dim, out)
		for i := range out {
			out[i] = -out[i]
		}
	case index.Cosine:
		sc.kernels.DotRows(q.vector, rows, v.dim, out)
		for i := range out {
			out[i] = 1 - out[i]*inv*sc.invNorm(v, at+i)
		}
	}
}

// idDistances fills out for rows sc.ids.
func (sc *scratch) idDistances(q *nearestQuery, inv float32, v vectors, out []float32) {
	if v.raw != nil {
		sc.rawIDs(q, inv, v, out)
		return
	}
	switch q.metric {
	case index.L2:
		sc.kernels.L2IDs(q.vector, v.base, v.dim, sc.ids, out)
	case index.IP:
		sc.kernels.DotIDs(q.vector, v.base, v.dim, sc.ids, out)
		for i := range out {
			out[i] = -out[i]
		}
	case index.Cosine:
		sc.kernels.DotIDs(q.vector, v.base, v.dim, sc.ids, out)
		for i := range out {
			out[i] = 1 - out[i]*inv*sc.invNorm(v, int(sc.ids[i]))
		}
	}
}

func (sc *scratch) invNorm(v vectors, row int) float32 {
	if v.inv != nil {
		return v.inv[row]
	}
	if v.raw != nil {
		w := sc.distance.RowBytes()
		return inverse(sc.distance.Norm(v.raw[row*w : (row+1)*w]))
	}
	return sc.kernels.InvNorm(v.base[row*v.dim : (row+1)*v.dim])
}

// ask is what q asks of an index of a kind.
func (q *nearestQuery) ask(kind index.Kind, allowed *bitset.Set) index.Query {
	ask := index.Query{K: max(q.k, q.refined(kind)), Effort: q.effort.EF, Recall: q.effort.Recall, Allowed: allowed}
	switch kind {
	case index.KindScaNN:
		ask.K = max(ask.K, q.effort.Reorder) // it compares exactly what it returns, and more
		fallthrough
	case index.KindIVFFlat, index.KindIVFSQ8:
		if q.effort.Lists > 0 {
			ask.Effort = q.effort.Lists
		}
	}
	return ask
}

// searchIndex searches a sealed index of a kind for a vector, which is q's, among the rows allowed (nil = all). What
// it finds is ranked by exact, unless that is nil.
func (sc *scratch) searchIndex(x index.Searcher, kind index.Kind, vector []float32, q *nearestQuery, allowed *bitset.Set, exact *vectors) ([]index.Neighbor, error) {
	sc.ask = q.ask(kind, allowed)
	sc.index.Stop = q.stop
	found := x.Search(vector, &sc.ask, &sc.index)
	sc.index.Stop = nil // the scratch outlives the search
	if sc.work != nil {
		sc.noteIndex(string(kind), allowed != nil)
	}
	found, err := sc.refine(q, exact, found)
	if err != nil {
		return nil, err
	}
	return found[:min(q.k, len(found))], errors.Wrap(q.ctx.Err(), "search")
}

// searchIndexEach is searchIndex for each of the vectors, which lie one behind the
// other. What is found is left in sc.batch.
func (sc *scratch) searchIndexEach(x index.Searcher, kind index.Kind, vectors []float32, q *nearestQuery, allowed *bitset.Set, exact *vectors) error {
	sc.ask = q.ask(kind, allowed)
	sc.index.Stop = q.stop
	dim, one, failed := x.Info().Dim, *q, error(nil)
	x.SearchBatch(vectors, &sc.ask, &sc.index, func(i int, found []index.Neighbor) {
		one.vector = vectors[i*dim : (i+1)*dim]
		found, err := sc.refine(&one, exact, found)
		if err != nil {
			failed = err
		}
		sc.batch.add(i, found[:min(q.k, len(found))])
	})
	sc.index.Stop = nil // the scratch outlives the search
	if sc.work != nil {
		sc.noteIndex(string(kind), allowed != nil)
	}
	if failed != nil {
		return failed
	}
	return errors.Wrap(q.ctx.Err(), "search")
}

// batchScratch is what a batch of queries has found, in the order in which it was.
type batchScratch struct {
	found []index.Neighbor
	spans [][2]int // of each query in found
	again []int    // queries that are searched for once more
}

// reset readies b for n queries.
func (b *batchScratch) reset(n int) {
	b.found, b.spans = b.found[:0], grown(b.spans, n)
	clear(b.spans)
}

func (b *batchScratch) add(query int, found []index.Neighbor) {
	from := len(b.found)
	b.found = append(b.found, found...)
	b.spans[query] = [2]int{from, len(b.found)}
}

// of returns what was found for a query.
func (b *batchScratch) of(query int) []index.Neighbor {
	return b.found[b.spans[query][0]:b.spans[query][1]]
}

// noteIndex notes what a search of an index, called name, did.
func (sc *scratch) noteIndex(name string, filtered bool) {
	st := sc.index.Stats()
	if name == string(index.KindHNSW) {
		name = wayGraph
	}
	switch {
	case st.Scanned && st.Hops > 0:
		name = wayBoth
	case st.Scanned && filtered:
		name = wayScanMatches
	case st.Scanned:
		name = wayScan
	case st.Lists > 0:
		name = wayGraphLists
	case filtered && name == wayGraph:
		name = wayFiltered
	}
	sc.work.note(name, st.Distances, st.Hops)
}

// prefix returns the set of the first n rows.
func (sc *scratch) prefix(n int) *bitset.Set {
	sc.allowed.Reset(n)
	sc.allowed.Fill()
	return &sc.allowed
}

// merge returns the k nearest of two sorted lists.
func (sc *scratch) merge(a, b []index.Neighbor, k int) []index.Neighbor {
	sc.merged = vec.AppendMerged(sc.merged[:0], k, a, b)
	return sc.merged
}
