package segments

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

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
type SearchRequest struct {
	Read
	FieldID     int64
	Vectors     []float32 // NQ vectors of the field's dimension
	NQ          int
	TopK        int
	Offset      int
	Metric      index.Metric
	EF          int      // HNSW candidate list; 0 = chosen by the index
	Radius      *float32 // near side, in the metric's score
	RangeFilter *float32 // far side, in the metric's score
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

// hit is one row of an answer.
type hit struct {
	target   int32
	row      uint32
	distance float32
}

type columns []*schema.Column

// Search answers r from the segments of this node. The goroutine that calls it
// merges; one task per segment, or per slice of the vectors, runs on the pool.
func (c *Collection) Search(ctx context.Context, r *SearchRequest) (*SearchResult, error) {
	x, err := c.open(ctx, &r.Read)
	if err != nil {
		return nil, err
	}
	s := &searching{reader: x, req: r}
	defer context.AfterFunc(ctx, func() { s.stop.Store(true) })()
	// The snapshot is released on every path: by run when it fails, else here.
	hits, counts, err := s.hits(ctx)
	if err != nil {
		return nil, err
	}
	defer x.snap.Release()
	res := &SearchResult{Counts: counts, ReadTimestamp: x.at, Scores: make([]float32, len(hits))}
	for i, h := range hits {
		res.Scores[i] = r.Metric.Score(h.distance)
	}
	cols, err := x.output(append([]int64{c.Info().Schema.Primary().ID}, r.OutputFields...), hits)
	if err != nil {
		return nil, err
	}
	res.Keys, res.Fields = cols[0], cols[1:]
	x.stats.Search = time.Duration(x.nanos.Load())
	res.Stats = x.stats
	return res, nil
}

// searching is a search under way.
type searching struct {
	*reader
	req  *SearchRequest
	stop atomic.Bool // the index polls it: a search past its deadline is cut
}

// slice is what one task finds: the hits of queries [from, to) in one target.
type slice struct {
	target   int
	from, to int
	ends     []int32 // end of each query's hits in found
	found    []vec.Neighbor
	full     bool // some query got as many hits as it asked for
}

// hits searches until each query has its rows: rows of the same key count once,
// so that a segment full of old versions may have to be asked for more.
func (s *searching) hits(ctx context.Context) ([]hit, []int64, error) {
	want := s.req.TopK + s.req.Offset
	for k := want; ; k *= 2 {
		slices, dead, err := s.searchSegments(ctx, k)
		if err != nil {
			return nil, nil, err
		}
		m := merger{searching: s, slices: slices, dead: dead, want: want}
		hits, counts, short := m.merge()
		if !short || k >= 2*MaxTopK {
			return hits, counts, nil
		}
	}
}

func (s *searching) searchSegments(ctx context.Context, k int) ([]*slice, map[int]bool, error) {
	var parts []*slice
	var tasks []pool.Task
	var of []int
	per := s.queriesPerTask()
	for i := range s.targets {
		for from := 0; from < s.req.NQ; from += per {
			p := &slice{target: i, from: from, to: min(from+per, s.req.NQ)}
			parts = append(parts, p)
			of = append(of, i)
			t := s.targets[i]
			tasks = append(tasks, pool.Task{
				Name: "search segment " + strconv.FormatInt(t.Meta().ID, 10),
				Cost: s.cost(p, k),
				Run:  func(ctx context.Context) error { return s.searchSlice(ctx, p, k) },
			})
		}
	}
	if len(tasks) == 0 {
		return nil, nil, nil
	}
	dead, err := s.run(ctx, tasks, of)
	return parts, dead, err
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
func (s *searching) cost(p *slice, k int) int64 {
	n := min(int64(k), int64(s.targets[p.target].visible(Latest)))
	return 1 + int64(p.to-p.from)*n*8
}

func (s *searching) searchSlice(ctx context.Context, p *slice, k int) error {
	start := time.Now()
	defer func() { s.nanos.Add(int64(time.Since(start))) }()
	sc := s.coll.set.scratch.Get().(*scratch)
	defer s.coll.set.scratch.Put(sc)
	t := s.targets[p.target]
	n, allowed, err := s.allowed(t, &sc.rows)
	if err != nil {
		return err
	}
	dim := len(s.req.Vectors) / s.req.NQ
	q := nearestQuery{ctx: ctx, stop: &s.stop, fieldID: s.req.FieldID, k: k, ef: s.req.EF, metric: s.req.Metric}
	if s.req.RangeFilter != nil {
		q.exact, q.bounded, q.beyond = true, true, distanceOf(s.req.Metric, *s.req.RangeFilter)
	}
	p.ends = make([]int32, 0, p.to-p.from)
	for i := p.from; i < p.to; i++ {
		q.vector = s.req.Vectors[i*dim : (i+1)*dim]
		found, err := t.nearest(q, n, allowed, sc)
		if err != nil {
			return err
		}
		p.full = p.full || len(found) >= k
		p.found = append(p.found, s.withinRadius(found)...)
		p.ends = append(p.ends, int32(len(p.found)))
	}
	return nil
}

func (s *searching) withinRadius(found []vec.Neighbor) []vec.Neighbor {
	if s.req.Radius == nil {
		return found
	}
	limit := distanceOf(s.req.Metric, *s.req.Radius)
	end, _ := slices.BinarySearchFunc(found, limit, func(n vec.Neighbor, limit float32) int {
		if n.Distance < limit {
			return -1
		}
		return 1
	})
	return found[:end]
}

// merger merges the slices of all segments query by query.
type merger struct {
	*searching
	slices []*slice
	dead   map[int]bool
	want   int

	heads   vec.Merger
	lists   [][]vec.Neighbor
	targets []int32 // of lists
	hits    []hit
	ints    map[int64]int
	strs    map[string]int
}

// merge returns the hits of all queries in order, how many each has, and whether
// a query lacks hits that a wider search might find.
func (m *merger) merge() (hits []hit, counts []int64, short bool) {
	dedup := m.needsDedup()
	if dedup {
		m.ints, m.strs = map[int64]int{}, map[string]int{}
	}
	counts = make([]int64, m.req.NQ)
	for q := range m.req.NQ {
		full := m.collect(q)
		first := len(m.hits)
		dropped := m.mergeQuery(dedup)
		got := len(m.hits) - first
		short = short || (got < m.want && dropped && full)
		skip := min(m.req.Offset, got)
		m.hits = append(m.hits[:first], m.hits[first+skip:]...)
		counts[q] = int64(got - skip)
	}
	return m.hits, counts, short
}

// needsDedup is false when no key can be in the answer twice.
func (m *merger) needsDedup() bool {
	ts := m.searching.targets
	return len(ts) > 1 || (len(ts) == 1 && !ts[0].uniqueKeys())
}

// collect gathers the sorted lists of query q.
func (m *merger) collect(q int) (full bool) {
	m.lists, m.targets = m.lists[:0], m.targets[:0]
	for _, p := range m.slices {
		if q < p.from || q >= p.to || m.dead[p.target] {
			continue
		}
		begin := int32(0)
		if i := q - p.from; i > 0 {
			begin = p.ends[i-1]
		}
		m.lists = append(m.lists, p.found[begin:p.ends[q-p.from]])
		m.targets = append(m.targets, int32(p.target))
		full = full || p.full
	}
	return full
}

// mergeQuery appends the nearest hits of the collected lists; of rows with the
// same key, the newest. It reports whether it dropped any.
func (m *merger) mergeQuery(dedup bool) (dropped bool) {
	first := len(m.hits)
	m.heads.Reset(m.lists)
	clear(m.ints)
	clear(m.strs)
	resort := false
	for len(m.hits)-first < m.want {
		list, n, ok := m.heads.Next()
		if !ok {
			break
		}
		h := hit{target: m.targets[list], row: n.Row, distance: n.Distance}
		if !dedup {
			m.hits = append(m.hits, h)
			continue
		}
		at, seen := m.seen(h)
		if !seen {
			m.hits = append(m.hits, h)
			continue
		}
		dropped = true
		if m.newer(h, m.hits[at]) {
			m.hits[at], resort = h, true
		}
	}
	if resort {
		slices.SortStableFunc(m.hits[first:], func(a, b hit) int {
			switch {
			case a.distance < b.distance:
				return -1
			case a.distance > b.distance:
				return 1
			}
			return 0
		})
	}
	return dropped
}

// seen looks up the key of h among the hits of this query, and remembers it.
func (m *merger) seen(h hit) (at int, ok bool) {
	ikey, skey := m.searching.targets[h.target].key(h.row)
	if m.coll.Info().Schema.Primary().Type == schema.VarChar {
		if at, ok = m.strs[skey]; !ok {
			m.strs[skey] = len(m.hits)
		}
		return at, ok
	}
	if at, ok = m.ints[ikey]; !ok {
		m.ints[ikey] = len(m.hits)
	}
	return at, ok
}

func (m *merger) newer(a, b hit) bool {
	at, bt := m.searching.targets[a.target].timestamp(a.row), m.searching.targets[b.target].timestamp(b.row)
	return at > bt || (at == bt && a.target == b.target && a.row > b.row)
}

// gather copies fields of hits out of the segments.
func (x *reader) gather(fields []int64, hits []hit) (columns, error) {
	out := make(columns, 0, len(fields))
	var rows []uint32
	for _, id := range fields {
		f, ok := x.coll.Info().Schema.FieldByID(id)
		if !ok {
			return nil, errclass.New(errclass.Invalid, "no field with id %d", id)
		}
		col := schema.NewColumn(f, len(hits))
		for i := 0; i < len(hits); {
			t := hits[i].target
			rows = rows[:0]
			for ; i < len(hits) && hits[i].target == t; i++ {
				rows = append(rows, hits[i].row)
			}
			x.targets[t].gather(col, rows)
		}
		out = append(out, col)
	}
	return out, nil
}
