package segments

import (
	"context"
	"sort"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/sparse"
	"github.com/querynode/querynode/internal/vec"
)

// MaxTopK is the most rows that one query vector may ask for, its offset included.
const MaxTopK = 16_384

// Effort is how much work a search does. What is 0 is chosen by the index.
type Effort struct {
	EF      int // candidates of a graph; of other indexes, lists, if Lists is 0
	Lists   int // that are read of an inverted file
	Reorder int // rows compared exactly at least; SCANN
	// Refine is how many times the rows wanted are ranked by their vectors, so that
	// scores are exact where an index ranks by codes. 0 = as the index ranks.
	Refine float32
	// Recall is the share of the nearest rows that is wanted, at most 1, which has every
	// row looked at. An index does as much work as found it among its own rows.
	Recall float32
}

// SearchRequest asks for the nearest rows to each of a number of vectors. The
// caller has checked dimension, metric and limits.
//
// Radius and RangeFilter bound the score, the far and the near side: with L2 it
// is RangeFilter <= score < Radius, with IP and COSINE Radius < score <=
// RangeFilter.
type SearchRequest struct {
	Read
	FieldID     int64
	Vectors     []float32      // NQ vectors of the field's dimension; of a field of float32
	Queries     *schema.Column // the same, of another vector field and of its type; BM25: how often words are in the queries
	NQ          int
	TopK        int
	Offset      int
	Metric      index.Metric
	Effort      Effort
	Radius      *float32  // nil = unbounded
	RangeFilter *float32  // nil = unbounded
	Group       *Grouping // nil = no groups
	Page        *Paging   // nil = the nearest rows

	scores *sparse.BM25 // of a search by BM25: once Queries are weighed
}

// vector sets query i of the request in q.
func (r *SearchRequest) vector(i int, q *nearestQuery) {
	switch c := r.Queries; {
	case c == nil:
		dim := len(r.Vectors) / r.NQ
		q.vector = r.Vectors[i*dim : (i+1)*dim]
	case c.Type == schema.SparseFloatVector:
		q.sparse.indices, q.sparse.values = c.Sparse(i)
	case c.Type == schema.FloatVector:
		q.vector = c.Vector(i)
	default:
		w := c.RowBytes()
		q.raw = c.Raw[i*w : (i+1)*w]
	}
}

// dim is how much work the distance of a row is: its values.
func (r *SearchRequest) dim() int64 {
	switch c := r.Queries; {
	case c == nil:
		return int64(len(r.Vectors) / r.NQ)
	case c.Type == schema.SparseFloatVector:
		return 16 // most rows are not looked at
	default:
		return int64(c.RowBytes()+3) / 4
	}
}

// SearchResult is columnar: the hits of query 0, then those of query 1, and so on.
type SearchResult struct {
	Counts        []int64
	Keys          *schema.Column
	Scores        []float32
	Fields        []*schema.Column // as asked for
	ReadTimestamp uint64
	Stats         ReadStats
	GroupValues   *schema.Column // of each hit; nil without a Grouping
	GroupCounts   []int64        // rows of each group, in the order of the hits
	Last          *Cursor        // with Paging, where the page ended; nil = it is empty
	More          bool           // with Paging, there is another page
}

// Search answers r from the segments of this node. The goroutine that calls it
// merges; one task per segment, or per slice of the vectors, runs on the pool.
//
// No key is in the answer of one vector twice. Of rows of the same key in one
// segment the newest counts; of those that different segments have found, the
// newest of them.
func (c *Collection) Search(ctx context.Context, r *SearchRequest) (*SearchResult, error) {
	if err := r.checkPaging(); err != nil {
		return nil, err
	}
	s := c.set.reads.Get().(*searching)
	res, err := s.answer(ctx, c, r)
	if err == nil && !s.own.left {
		*s = searching{} // every task has ended, and the answer has nothing of it
		c.set.reads.Put(s)
	}
	return res, err
}

// answer is Collection.Search for a search that is empty.
func (s *searching) answer(ctx context.Context, c *Collection, r *SearchRequest) (*SearchResult, error) {
	x := &s.own
	s.reader = x
	err := x.open(ctx, c, &r.Read)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if err := x.has(r.FieldID); err != nil {
		return nil, err
	}
	if r.Metric == index.BM25 {
		if r, err = x.weighed(ctx, r); err != nil {
			return nil, err
		}
	}
	s.req, s.merger = r, c.set.merges.Get().(*merger)
	defer s.recycle()
	x.room = x.newAnswerSize(r.NQ, r.TopK)
	if err := s.checkSize(); err != nil {
		return nil, err
	}
	if err := x.takes(s.estimate()); err != nil {
		return nil, err
	}
	res := &SearchResult{ReadTimestamp: x.at, Counts: make([]int64, 0, r.NQ)}
	switch {
	case r.Group != nil:
		err = s.searchGroups(ctx, res)
	case r.Page != nil:
		err = s.searchPage(ctx, res)
	default:
		err = s.searchRows(ctx, res)
	}
	if err != nil {
		return nil, err
	}
	stage := x.stage()
	if err := x.output(ctx, res, r.OutputFields, s.merger.hits); err != nil {
		return nil, err
	}
	stage.end(&x.stats.Output)
	res.Stats = x.finish()
	return res, nil
}

// searchRows answers a request without groups.
func (s *searching) searchRows(ctx context.Context, res *SearchResult) error {
	if s.bounded = len(s.targets) > 1; s.bounded {
		s.merger.worst.reset(s.req.NQ)
	}
	if err := s.searchSegments(ctx); err != nil {
		return err
	}
	stage := s.stage()
	defer stage.end(&s.stats.Merge)
	return guard("merge search", func() error { return s.merge(ctx, res) })
}

// output copies the keys and fields of hits into the answer.
func (x *reader) output(ctx context.Context, res *SearchResult, fields []int64, hits []hit) error {
	if err := x.room.add(4 * int64(len(hits))); err != nil {
		return err
	}
	cols, err := x.gather(ctx, append([]int64{x.info.Schema.Primary().ID}, fields...), hits)
	if err != nil {
		return err
	}
	res.Keys, res.Fields = cols[0], cols[1:]
	return nil
}

// searching is a search under way.
type searching struct {
	*reader
	own     reader // that it is, but for a search that is a part of another
	req     *SearchRequest
	merger  *merger
	asked   nearestQuery // without a vector
	bounded bool         // what one target has bounds what others look for: merger.worst
	shared  []sharedRows // by target, if a target has several parts; else nil
	skip    []bool       // by target, those that are not searched; nil = none
}

// part is what one task finds: the hits of queries [from, to) in one target.
type part struct {
	target   int32
	from, to int
	first    int     // with last: only rows [first, last) count
	last     int     // 0 = all rows
	work     int64   // values that are read, about
	err      error   // if the part failed and its task went on
	ends     []int32 // end of each query's hits in found
	found    []vec.Neighbor
}

// sharedRows are the rows of a target that the read may see, found out by the
// first of its parts.
type sharedRows struct {
	once sync.Once
	set  bitset.Set
	n    int
	rows *bitset.Set // nil = all
	err  error
}

// want is how many hits a query needs before its offset is cut.
func (s *searching) want() int { return s.req.TopK + s.req.Offset }

// estimate is the memory that the results take on their way.
func (s *searching) estimate() int64 {
	found := int64(0)
	for i := range s.targets {
		found += min(int64(s.want()), int64(s.targets[i].visible(Latest)))
	}
	// What is answered stands in memory twice: as columns, and encoded.
	perHit := 64 + 2*s.rowBytes(s.req.OutputFields)
	return s.sets() + int64(s.req.NQ)*(8*found+perHit*min(found, int64(s.want())))
}

// sets is what the sets of rows take that tasks have for themselves, or share: a
// filter's, those that deletes leave, those that have a vector.
func (s *searching) sets() int64 {
	most, all := 0, 0
	for i := range s.targets {
		n := s.targets[i].visible(Latest)
		most, all = max(most, n), all+n
	}
	return min(int64(all), int64(most)*int64(workers())) * 3 / 8
}

// cost estimates the memory a task's result takes, in bytes, which also grows
// with the work it does.
func (s *searching) cost(p *part) int64 {
	n := min(int64(s.want()), int64(s.targets[p.target].visible(Latest)))
	return 1 + int64(p.to-p.from)*n*8
}

func (s *searching) searchPart(ctx context.Context, p *part) error {
	start := time.Now()
	defer func() { s.nanos.Add(int64(time.Since(start))) }()
	sc := s.coll.set.scratch.Get().(*scratch)
	defer func() { sc.forget(); s.coll.set.scratch.Put(sc) }()
	t := &s.targets[p.target]
	n, allowed, err := s.rowsOf(ctx, p.target, sc)
	if err != nil {
		return err
	}
	if s.trace != nil {
		defer s.traced(t, sc)()
	}
	sc.query = s.query()
	q := &sc.query
	q.ctx = ctx
	if p.last > 0 {
		q.exact, q.from, n = true, p.first, min(n, p.last)
	}
	if err := s.searchEach(t, p, q, n, allowed, sc); err != nil {
		return err
	}
	if s.bounded && s.shared == nil { // a part of several may be in vain: others of them may fail
		s.bound(p)
	}
	return nil
}

// bound tells other targets what a whole target has found.
func (s *searching) bound(p *part) {
	begin := int32(0)
	for i, end := range p.ends {
		if int(end-begin) >= s.want() {
			s.merger.worst.lower(p.from+i, p.found[end-1].Distance)
		}
		begin = end
	}
}

// withinBound cuts what is farther for query i than as many rows as are wanted, which another
// target has: where nothing is left there is nothing to merge.
func (s *searching) withinBound(i int, found []vec.Neighbor) []vec.Neighbor {
	if !s.bounded {
		return found
	}
	far, ok := s.merger.worst.of(i)
	for ok && len(found) > 0 && found[len(found)-1].Distance > far {
		found = found[:len(found)-1]
	}
	return found
}

// query is what is asked of each segment, without a vector.
func (s *searching) query() nearestQuery {
	q := nearestQuery{stop: &s.stop, fieldID: s.req.FieldID, k: s.want(), effort: s.req.Effort, exact: s.req.Effort.Recall >= 1, metric: s.req.Metric, scores: s.req.scores}
	if s.req.RangeFilter != nil {
		q.bounded, q.far = true, *s.req.RangeFilter
	}
	return q
}

// rowsOf returns the rows of a target that the read may see.
func (s *searching) rowsOf(ctx context.Context, number int32, sc *scratch) (int, *bitset.Set, error) {
	t := &s.targets[number]
	if s.shared == nil {
		return s.seen(ctx, t, &sc.rows)
	}
	sh := &s.shared[number]
	sh.once.Do(func() {
		sh.err = errclass.New(errclass.Internal, "filter of segment %d ended without a result", t.Meta().ID)
		sh.n, sh.rows, sh.err = s.seen(ctx, t, &sh.set)
	})
	return sh.n, sh.rows, sh.err
}

// withinRadius cuts what is not nearer than the radius. Scores are compared,
// since they are what users give and see.
func (s *searching) withinRadius(found []vec.Neighbor) []vec.Neighbor {
	if s.req.Radius == nil {
		return found
	}
	m := s.req.Metric
	end := sort.Search(len(found), func(i int) bool { return !m.Better(m.Score(found[i].Distance), *s.req.Radius) })
	return found[:end]
}

// recycle gives the merger back, unless tasks still write to it.
func (s *searching) recycle() {
	if !s.left && s.merger.reset() {
		s.coll.set.merges.Put(s.merger)
	}
}
