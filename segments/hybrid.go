package segments

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/pool"
)

// HybridRequest asks for the best rows by several searches together. All of them
// read the same snapshot at the same timestamps.
type HybridRequest struct {
	Read     // without a Plan: each search has its own
	Searches []SubSearch
	NQ       int // of each search
	TopK     int
	Offset   int
	Ranker   Ranker
	// Group makes TopK and Offset count groups of the hits that the searches rank; the rows of one
	// stand together. Strict: of the rows that any search may find. nil = no groups.
	Group  *Grouping
	Scorer GroupScorer // what the groups are ordered by
}

// SubSearch is one of the searches of a HybridRequest; see SearchRequest.
type SubSearch struct {
	Plan        *expr.Plan
	FieldID     int64
	Vectors     []float32
	Queries     *schema.Column
	TopK        int // hits that are ranked
	Groups      int // with Group: as many groups are ranked, its nearest, if TopK hits are of fewer; 0 = what TopK hits are of
	Metric      index.Metric
	Effort      Effort
	Radius      *float32
	RangeFilter *float32
}

// Ranker says how hits of several searches are fused: those that get the most
// points come first.
//
// Without Weights it is reciprocal rank fusion (Cormack, Clarke and Büttcher,
// SIGIR 2009): number n of a search, counted from 1, gets 1/(RRF+n).
//
// With Weights a hit gets the weight of the search times its score. Distances,
// which are better the smaller they are, count as 1 - 2*atan(d)/pi. Normalize
// brings other scores between 0 and 1 too: COSINE by (1+s)/2, IP by 1/2 + atan(s)/pi,
// BM25 by 2*atan(s)/pi.
type Ranker struct {
	RRF       float32
	Weights   []float32 // one per search; nil = by rank
	Normalize bool
}

// points is what a hit gets for being number n, counted from 1, of search i.
func (r *Ranker) points(i, n int, m index.Metric, score float32) float64 {
	if r.Weights == nil {
		return 1 / (float64(r.RRF) + float64(n))
	}
	if r.Weights[i] == 0 {
		return 0
	}
	// An infinite score is finite: together with another, or none, it would be no number.
	s := min(max(float64(score), -math.MaxFloat32), math.MaxFloat32)
	switch {
	case m.Ascends():
		s = 1 - 2*math.Atan(s)/math.Pi
	case r.Normalize && m == index.BM25:
		s = 2 * math.Atan(s) / math.Pi
	case r.Normalize && m == index.IP:
		s = 0.5 + math.Atan(s)/math.Pi
	case r.Normalize:
		s = (1 + s) / 2
	}
	return float64(r.Weights[i]) * s
}

// hybrid is a hybrid search under way.
type hybrid struct {
	*reader
	req  *HybridRequest
	subs []*searching
	only []map[value]bool // by query, the groups that were filled; nil = any
}

// HybridSearch answers r: all searches run at once on the pool, the goroutine
// that calls it fuses their hits. Scores of the answer are points.
func (c *Collection) HybridSearch(ctx context.Context, r *HybridRequest) (*SearchResult, error) {
	x, err := c.open(ctx, &r.Read)
	if err != nil {
		return nil, err
	}
	defer x.close()
	h := &hybrid{reader: x, req: r}
	defer h.recycle()
	for i := range r.Searches {
		if err := h.add(ctx, i); err != nil {
			return nil, err
		}
	}
	most := r.TopK
	if r.Group != nil {
		most *= max(r.Group.Size, 1)
		if err := x.has(r.Group.FieldID); err != nil {
			return nil, err
		}
	}
	x.room = x.newAnswerSize(r.NQ, most)
	if err := h.checkSize(); err != nil {
		return nil, err
	}
	if err := h.run(ctx); err != nil {
		return nil, err
	}
	ranks, err := h.rank(ctx)
	if err != nil {
		return nil, err
	}
	if r.Group != nil {
		if err := h.complete(ctx, ranks); err != nil {
			h.halt()
			return nil, err
		}
	}
	res := &SearchResult{ReadTimestamp: x.at}
	var hits []hit
	stage := x.stage()
	if err := guard("fuse searches", func() (err error) { hits, err = h.fuse(ctx, ranks, res); return err }); err != nil {
		return nil, err
	}
	stage.end(&x.stats.Merge)
	if err := x.output(ctx, res, r.OutputFields, hits); err != nil {
		return nil, err
	}
	if r.Group != nil {
		if res.GroupValues, err = h.groupValues(ctx, hits); err != nil {
			return nil, err
		}
	}
	stage.end(&x.stats.Output)
	res.Stats = x.finish()
	return res, nil
}

// add makes search i one over the targets of the whole, but for those that its
// filter rules out.
func (h *hybrid) add(ctx context.Context, i int) (err error) {
	x, sub := h.reader, &h.req.Searches[i]
	if err := x.has(sub.FieldID); err != nil {
		return err
	}
	y := &reader{coll: x.coll, opened: x.opened, info: x.info, read: x.read, match: newMatch(sub.Plan, x.info.Schema), snap: x.snap,
		channels: x.channels, targets: x.targets, at: x.at, memory: x.memory, trace: x.trace, sub: i}
	s := &searching{reader: y, merger: x.coll.set.merges.Get().(*merger), req: &SearchRequest{
		Read: h.req.Read, FieldID: sub.FieldID, Vectors: sub.Vectors, Queries: sub.Queries, NQ: h.req.NQ, TopK: sub.TopK, Metric: sub.Metric,
		Effort: sub.Effort, Radius: sub.Radius, RangeFilter: sub.RangeFilter,
	}}
	s.skip = make([]bool, len(x.targets))
	for t := range x.targets {
		if y.match == nil {
			break
		}
		if why := x.targets[t].rulesOut(y.match); why != "" {
			s.skip[t] = true
			y.prune(x.targets[t].holder, int64(x.targets[t].visible(x.targets[t].ts)), why)
		}
	}
	h.subs = append(h.subs, s)
	if sub.Metric == index.BM25 {
		s.req, err = x.weighed(ctx, s.req)
	}
	return err
}

// run runs the searches: all together if the files that they need are on the local
// disk, else one after the other.
func (h *hybrid) run(ctx context.Context) error {
	for _, s := range h.subs {
		if err := h.takes(s.estimate()); err != nil {
			return err
		}
	}
	stage := h.stage()
	err := h.runSubs(ctx)
	if err != nil {
		h.halt()
		return err
	}
	stage.end(&h.stats.Wall)
	for _, s := range h.subs {
		h.nanos.Add(s.nanos.Load())
		h.missed += s.missed
		h.stats.Failures = append(h.stats.Failures, s.stats.Failures...)
	}
	return h.partial()
}

// halt ends tasks that still run.
func (h *hybrid) halt() {
	for _, s := range h.subs {
		s.stop.Store(true)
	}
}

func (h *hybrid) runSubs(ctx context.Context) error {
	here := true
	for _, s := range h.subs {
		here = here && h.hold(s.req.FieldID)
	}
	if here {
		err := h.runTasks(ctx, h.subs, func(s *searching) []bool { return s.skip })
		if !h.left {
			h.unhold()
		}
		return err
	}
	h.unhold()
	for _, s := range h.subs {
		err := h.waves(ctx, s.req.FieldID, s.skip, func(skip []bool) error {
			return h.runTasks(ctx, []*searching{s}, func(*searching) []bool { return skip })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// runTasks runs the tasks of some searches together.
func (h *hybrid) runTasks(ctx context.Context, subs []*searching, skip func(*searching) []bool) error {
	var tasks []pool.Task
	var of []func(error)
	for _, s := range subs {
		s.addParts(skip(s))
		s.addTasks()
		for i, t := range s.merger.tasks {
			tasks = append(tasks, t)
			of = append(of, func(err error) { s.failedTask(i, err) })
		}
	}
	if err := h.reader.run(ctx, tasks, func(task int, err error) { of[task](err) }); err != nil {
		return err
	}
	for _, s := range subs {
		s.failedParts()
	}
	return nil
}

// fused is a row with its points.
type fused struct {
	hit
	points float64
}

// ranking is what one of the searches ranks: the hits of query 0, nearest first, then those
// of query 1, and so on.
type ranking struct {
	hits   []hit
	scores []float32
	counts []int64
}

// rank merges what each search has found.
func (h *hybrid) rank(ctx context.Context) ([]ranking, error) {
	ranks := make([]ranking, len(h.subs))
	stage := h.stage()
	defer stage.end(&h.stats.Merge)
	return ranks, guard("merge searches", func() error {
		for i, s := range h.subs {
			one := SearchResult{Counts: make([]int64, 0, h.req.NQ)}
			if err := s.merge(ctx, &one); err != nil {
				return err
			}
			ranks[i] = ranking{s.merger.hits, one.Scores, one.Counts}
		}
		return nil
	})
}

// fuse makes one answer of what the searches rank, query by query.
func (h *hybrid) fuse(ctx context.Context, ranks []ranking, res *SearchResult) ([]hit, error) {
	ranked := 0
	for i := range ranks {
		ranked += len(ranks[i].hits)
	}
	most := min(ranked, h.req.NQ*h.most())
	out := make([]hit, 0, most)
	res.Scores, res.Counts = make([]float32, 0, most), make([]int64, 0, h.req.NQ)
	err := h.eachFused(ctx, ranks, func(q int, all []fused) error {
		best, err := h.best(ctx, q, all, res)
		if err != nil {
			return err
		}
		for _, f := range best {
			out = append(out, f.hit)
			res.Scores = append(res.Scores, float32(f.points))
		}
		res.Counts = append(res.Counts, int64(len(best)))
		return h.room.fits(len(out))
	})
	return out, err
}

// eachFused calls fn with the rows of each query, those with most points first; they are
// good until fn returns.
func (h *hybrid) eachFused(ctx context.Context, ranks []ranking, fn func(q int, all []fused) error) error {
	at := make([]int, len(ranks)) // where the hits of the query begin
	var all []fused
	number := map[value]int{}
	for q := range h.req.NQ {
		if err := ended(ctx, "fuse searches"); err != nil {
			return err
		}
		all = all[:0]
		clear(number)
		for i, s := range h.subs {
			r := &ranks[i]
			for n := range int(r.counts[q]) {
				found := r.hits[at[i]+n]
				points := h.req.Ranker.points(i, n+1, s.req.Metric, r.scores[at[i]+n])
				key := keyOf(&h.targets[found.target], found.row)
				k, ok := number[key]
				if !ok {
					number[key] = len(all)
					all = append(all, fused{found, points})
					continue
				}
				all[k].points += points
				if h.newer(found, all[k].hit) {
					all[k].hit = found
				}
			}
			at[i] += int(r.counts[q])
		}
		slices.SortStableFunc(all, func(a, b fused) int { return cmp.Compare(b.points, a.points) })
		if err := fn(q, all); err != nil {
			return err
		}
	}
	return nil
}

// recycle gives the mergers back, unless tasks still write to them.
func (h *hybrid) recycle() {
	for _, s := range h.subs {
		if !h.left && s.merger.reset() {
			h.coll.set.merges.Put(s.merger)
		}
	}
}
