package segments

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
	"github.com/querynode/querynode/pool"
)

// MaxTopK is the most rows that one query vector may ask for, its offset included.
const MaxTopK = 16_384

// SearchRequest asks for the nearest rows to each of a number of vectors. The
// caller has checked dimension, metric and limits.
//
// Radius and RangeFilter bound the score, the far and the near side: with L2 it
// is RangeFilter <= score < Radius, with IP and COSINE Radius < score <=
// RangeFilter. With a RangeFilter the search is exact.
type SearchRequest struct {
	Read
	FieldID     int64
	Vectors     []float32 // NQ vectors of the field's dimension
	NQ          int
	TopK        int
	Offset      int
	Metric      index.Metric
	EF          int      // HNSW candidate list; 0 = chosen by the index
	Radius      *float32 // nil = unbounded
	RangeFilter *float32 // nil = unbounded
}

// SearchResult is columnar: the hits of query 0, then those of query 1, and so on.
type SearchResult struct {
	Counts        []int64
	Keys          *schema.Column
	Scores        []float32
	Fields        []*schema.Column // as asked for
	ReadTimestamp uint64
	Stats         ReadStats
}

// Search answers r from the segments of this node. The goroutine that calls it
// merges; one task per segment, or per slice of the vectors, runs on the pool.
//
// No key is in the answer of one vector twice. Of rows of the same key in one
// segment the newest counts; of those that different segments have found, the
// newest of them.
func (c *Collection) Search(ctx context.Context, r *SearchRequest) (*SearchResult, error) {
	x, err := c.open(ctx, &r.Read)
	if err != nil {
		return nil, err
	}
	defer x.close()
	s := &searching{reader: x, req: r, merger: c.set.merges.Get().(*merger)}
	defer s.recycle()
	defer context.AfterFunc(ctx, func() { s.stop.Store(true) })()
	if err := x.takes(s.estimate()); err != nil {
		return nil, err
	}
	if err := s.searchSegments(ctx); err != nil {
		return nil, err
	}
	res := &SearchResult{ReadTimestamp: x.at, Counts: make([]int64, 0, r.NQ)}
	if err := guard("merge search", func() error { s.merge(res); return nil }); err != nil {
		return nil, err
	}
	fields := append([]int64{x.info.Schema.Primary().ID}, r.OutputFields...)
	cols, err := x.gather(fields, s.merger.hits)
	if err != nil {
		return nil, err
	}
	res.Keys, res.Fields = cols[0], cols[1:]
	res.Stats = x.finish()
	return res, nil
}

// searching is a search under way.
type searching struct {
	*reader
	req    *SearchRequest
	merger *merger
	shared []sharedRows // by target, if a target has several parts; else nil
	stop   atomic.Bool  // the index polls it: a search past its deadline is cut
}

// part is what one task finds: the hits of queries [from, to) in one target.
type part struct {
	target   int32
	from, to int
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
	perHit := 40 + s.rowBytes(s.req.OutputFields)
	return int64(s.req.NQ) * (8*found + perHit*min(found, int64(s.want())))
}

func (s *searching) searchSegments(ctx context.Context) error {
	m := s.merger
	per := s.queriesPerTask()
	if per < s.req.NQ {
		s.shared = make([]sharedRows, len(s.targets))
	}
	for i := range s.targets {
		for from := 0; from < s.req.NQ; from += per {
			m.addPart(int32(i), from, min(from+per, s.req.NQ))
		}
	}
	m.tasks, m.of = m.tasks[:0], m.of[:0]
	for i := range m.parts {
		p := &m.parts[i]
		m.of = append(m.of, p.target)
		m.tasks = append(m.tasks, pool.Task{
			Name: s.targets[p.target].task,
			Cost: s.cost(p),
			Run:  func(ctx context.Context) error { return s.searchPart(ctx, p) },
		})
	}
	return s.run(ctx, m.tasks, m.of)
}

// queriesPerTask splits a batch of vectors so that all workers have something to
// do even when there are fewer segments than workers.
func (s *searching) queriesPerTask() int {
	if len(s.targets) == 0 {
		return max(s.req.NQ, 1)
	}
	pieces := max(1, min(workers()/len(s.targets), s.req.NQ))
	return max(1, (s.req.NQ+pieces-1)/pieces)
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
	defer s.coll.set.scratch.Put(sc)
	t := &s.targets[p.target]
	n, allowed, err := s.rowsOf(ctx, p, sc)
	if err != nil {
		return err
	}
	dim := len(s.req.Vectors) / s.req.NQ
	q := nearestQuery{ctx: ctx, stop: &s.stop, fieldID: s.req.FieldID, k: s.want(), ef: s.req.EF, metric: s.req.Metric}
	if s.req.RangeFilter != nil {
		q.exact, q.bounded, q.far = true, true, *s.req.RangeFilter
	}
	for i := p.from; i < p.to; i++ {
		q.vector = s.req.Vectors[i*dim : (i+1)*dim]
		found, err := t.nearest(&q, n, allowed, sc)
		if err != nil {
			return err
		}
		p.found = append(p.found, s.withinRadius(found)...)
		p.ends = append(p.ends, int32(len(p.found)))
	}
	return nil
}

// rowsOf returns the rows of the part's target that the read may see.
func (s *searching) rowsOf(ctx context.Context, p *part, sc *scratch) (int, *bitset.Set, error) {
	t := &s.targets[p.target]
	if s.shared == nil {
		return s.allowed(ctx, t, &sc.rows)
	}
	sh := &s.shared[p.target]
	sh.once.Do(func() {
		sh.err = errclass.New(errclass.Internal, "filter of segment %d ended without a result", t.Meta().ID)
		sh.n, sh.rows, sh.err = s.allowed(ctx, t, &sh.set)
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
