package segments

import (
	"cmp"
	"context"
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
)

// GroupScorer says by what of its rows, those that are answered, a group of a hybrid search
// has its place.
type GroupScorer uint8

// The scorers; the zero value is MostPoints.
const (
	MostPoints GroupScorer = iota // of a row
	SumOfPoints
	MeanOfPoints
)

// of returns what a group is ordered by. It has rows, the best first.
func (s GroupScorer) of(rows []fused) float64 {
	if s == MostPoints {
		return rows[0].points
	}
	sum := 0.0
	for _, f := range rows {
		sum += f.points
	}
	if s == MeanOfPoints {
		sum /= float64(len(rows))
	}
	return sum
}

// fusedGroup is a group of fused rows.
type fusedGroup struct {
	of   value
	rows []fused // the best first
}

// most is how many rows the answer to one query has at most.
func (h *hybrid) most() int {
	if h.req.Group == nil {
		return h.req.TopK
	}
	return h.req.TopK * h.groupSize()
}

func (h *hybrid) groupSize() int { return max(h.req.Group.Size, 1) }

// best returns the rows of the answer to query q, of all, which are in order: those between
// Offset and TopK, or in such groups.
func (h *hybrid) best(ctx context.Context, q int, all []fused, res *SearchResult) ([]fused, error) {
	if h.req.Group == nil {
		best := all[min(h.req.Offset, len(all)):]
		return best[:min(h.req.TopK, len(best))], nil
	}
	groups, err := h.groupsOf(ctx, all)
	if err != nil {
		return nil, err
	}
	if h.only != nil {
		groups = slices.DeleteFunc(groups, func(g fusedGroup) bool { return !h.only[q][g.of] })
	}
	best := make([]fused, 0, len(all))
	for _, g := range h.wanted(groups)[min(h.req.Offset, len(groups)):] {
		best = append(best, g.rows...)
		res.GroupCounts = append(res.GroupCounts, int64(len(g.rows)))
	}
	return best, nil
}

// wanted cuts groups behind the last one that the answer has.
func (h *hybrid) wanted(groups []fusedGroup) []fusedGroup {
	return groups[:min(h.req.Offset+h.req.TopK, len(groups))]
}

// groupsOf returns the groups of rows, in order.
func (h *hybrid) groupsOf(ctx context.Context, all []fused) ([]fusedGroup, error) {
	hits := make([]hit, len(all))
	for i := range all {
		hits[i] = all[i].hit
	}
	col, err := h.groupValues(ctx, hits)
	if err != nil {
		return nil, err
	}
	var groups []fusedGroup
	at := map[value]int{}
	for i, f := range all {
		of := valueOf(col, i)
		k, ok := at[of]
		if !ok {
			k = len(groups)
			at[of], groups = k, append(groups, fusedGroup{of: of})
		}
		if g := &groups[k]; len(g.rows) < h.groupSize() {
			g.rows = append(g.rows, f)
		}
	}
	if s := h.req.Scorer; s != MostPoints { // which they are in order of
		slices.SortStableFunc(groups, func(a, b fusedGroup) int { return cmp.Compare(s.of(b.rows), s.of(a.rows)) })
	}
	return groups, nil
}

// groupValues returns what the hits are grouped by.
func (h *hybrid) groupValues(ctx context.Context, hits []hit) (*schema.Column, error) {
	cols, err := h.gather(ctx, []int64{h.req.Group.FieldID}, hits)
	if err != nil {
		return nil, err
	}
	return h.req.Group.picked(cols[0]), nil
}

// complete adds what the searches have not ranked and groups need: further groups, and, if
// they are to be full, further rows of those that come into the answer.
func (h *hybrid) complete(ctx context.Context, ranks []ranking) error {
	stage := h.stage()
	defer stage.end(&h.stats.Wall)
	for i := range ranks {
		if want := h.req.Searches[i].Groups; want > 0 {
			if err := h.widen(ctx, h.subs[i], &ranks[i], want); err != nil {
				return err
			}
		}
	}
	if h.req.Group.Strict && h.groupSize() > 1 {
		return h.fill(ctx, ranks)
	}
	return nil
}

// widen adds the nearest groups of a search, for the queries that have found fewer than want
// although there may be more: groups of many rows that are near hide the others.
func (h *hybrid) widen(ctx context.Context, s *searching, r *ranking, want int) error {
	var lacks []bool // by query; nil = none does
	from := 0
	for q := range h.req.NQ {
		hits := r.hits[from : from+int(r.counts[q])]
		from += len(hits)
		if len(hits) < s.want() {
			continue // there is nothing else
		}
		col, err := h.groupValues(ctx, hits)
		if err != nil {
			return err
		}
		groups := map[value]bool{}
		for i := range hits {
			groups[valueOf(col, i)] = true
		}
		if len(groups) >= want {
			continue
		}
		if lacks == nil {
			lacks = make([]bool, h.req.NQ)
		}
		lacks[q] = true
	}
	if lacks == nil {
		return nil
	}
	g, err := h.grouping(s, want)
	if err != nil {
		return err
	}
	err = g.each(ctx, func(ctx context.Context, i int, t *target) error {
		return g.eachQuery(ctx, i, t, func(at int, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
			if !lacks[at] {
				return nil
			}
			return g.findFor(i, t, at, q, n, allowed, sc)
		})
	})
	if err != nil {
		return err
	}
	chosen := make([][]group, h.req.NQ)
	err = guard("choose groups", func() error {
		for q := range chosen {
			if lacks[q] {
				chosen[q] = g.choose(q)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if h.req.Group.Strict && g.size > 1 { // a row that was met on the way may be farther than one that was not
		if err := g.fillAll(ctx, chosen); err != nil {
			return err
		}
	}
	return guard("add groups", func() error { return r.add(ctx, s, chosen) })
}

// fill adds the nearest rows by each search of the groups that come into the answer and are not full.
func (h *hybrid) fill(ctx context.Context, ranks []ranking) error {
	lacking := make([][]group, h.req.NQ)
	some := false
	h.only = make([]map[value]bool, h.req.NQ)
	err := guard("choose groups", func() error {
		return h.eachFused(ctx, ranks, func(q int, all []fused) error {
			groups, err := h.groupsOf(ctx, all)
			if err != nil {
				return err
			}
			groups = h.wanted(groups)
			h.only[q] = make(map[value]bool, len(groups))
			for _, g := range groups {
				h.only[q][g.of] = true
				if len(g.rows) < h.groupSize() {
					some, lacking[q] = true, append(lacking[q], group{of: g.of})
				}
			}
			return nil
		})
	})
	if err != nil || !some {
		return err
	}
	for i, s := range h.subs {
		chosen := make([][]group, h.req.NQ)
		for q := range chosen {
			chosen[q] = slices.Clone(lacking[q])
		}
		g, err := h.grouping(s, h.req.TopK+h.req.Offset)
		if err != nil {
			return err
		}
		if err := g.fillAll(ctx, chosen); err != nil {
			return err
		}
		if err := guard("add rows of groups", func() error { return ranks[i].add(ctx, s, chosen) }); err != nil {
			return err
		}
	}
	return nil
}

// grouping is a search for groups like s. Its tasks are those of the whole, and it has looked at nothing.
func (h *hybrid) grouping(s *searching, want int) (*grouping, error) {
	by, ok := h.info.Schema.FieldByID(h.req.Group.FieldID)
	if !ok {
		return nil, goneField(h.info.Schema, h.req.Group.FieldID)
	}
	req := *s.req
	req.TopK, req.Offset, req.Group = want, 0, h.req.Group
	hits := int64(req.NQ) * int64(want) * int64(h.groupSize())
	if err := h.takes(hits * int64(len(h.targets)+1) * 64); err != nil {
		return nil, err
	}
	s.share()
	g := &grouping{searching: &searching{reader: s.reader, req: &req, shared: s.shared, skip: s.skip}, by: by, size: h.groupSize(),
		parts: make([]groupPart, len(h.targets)*req.NQ)}
	g.each = func(ctx context.Context, fn func(context.Context, int, *target) error) error {
		return h.waves(ctx, req.FieldID, s.skip, func(skip []bool) error { return h.eachOf(ctx, skip, fn) })
	}
	return g, nil
}

// add adds the rows of groups, by query, in the order of their distance.
func (r *ranking) add(ctx context.Context, s *searching, groups [][]group) error {
	var all ranking
	from := 0
	for q, n := range r.counts {
		if err := ended(ctx, "add rows of groups"); err != nil {
			return err
		}
		first := len(all.hits)
		all.hits = append(all.hits, r.hits[from:from+int(n)]...)
		from += int(n)
		if len(groups[q]) > 0 {
			have := make(map[value]bool, n)
			for _, h := range all.hits[first:] {
				have[keyOf(&s.targets[h.target], h.row)] = true
			}
			for _, g := range groups[q] {
				for _, h := range g.hits {
					if key := keyOf(&s.targets[h.target], h.row); !have[key] {
						have[key] = true
						all.hits = append(all.hits, h.hit)
					}
				}
			}
			slices.SortStableFunc(all.hits[first:], func(a, b hit) int { return cmp.Compare(a.distance, b.distance) })
		}
		all.counts = append(all.counts, int64(len(all.hits)-first))
	}
	for _, h := range all.hits {
		all.scores = append(all.scores, s.req.Metric.Score(h.distance))
	}
	*r = all
	return nil
}
