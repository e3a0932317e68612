package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// grouping is what rows are grouped by: a field, a path into a document, or a key of what has no field.
type grouping struct {
	name string
	of   func(*row) any
}

// grouping draws one; nil if there is none.
func (s *spec) grouping(r *rand.Rand) *grouping {
	f := s.pick(r, func(f *field) bool { return f.single() && !f.floating() || f.typ == qnpb.DataType_DATA_TYPE_JSON })
	if f == nil {
		return nil
	}
	at := s.at(f)
	if f.single() {
		return &grouping{f.name, func(x *row) any { return x.values[at] }}
	}
	path, of := []string{"n"}, (*document).numText
	switch r.IntN(4) {
	case 0:
		path, of = []string{"w"}, func(d *document) any {
			if d.word == nil {
				return nil
			}
			return strconv.Quote(*d.word)
		}
	case 1:
		path, of = []string{"s", "b"}, func(d *document) any {
			if d.sub == nil {
				return nil
			}
			return fmt.Sprint(*d.sub)
		}
	case 2:
		path, of = []string{[]string{"l", "s", "nothing"}[r.IntN(3)]}, func(*document) any { return nil } // no scalar
	}
	g := &grouping{name: f.name, of: func(x *row) any {
		d, ok := x.values[at].(*document)
		if !ok {
			return nil
		}
		return of(d)
	}}
	if f.dynamic() && len(path) == 1 && r.IntN(2) == 0 {
		g.name = path[0]
		return g
	}
	for _, k := range path {
		g.name += fmt.Sprintf("[%q]", k)
	}
	return g
}

// numText is what a document is grouped by at "n".
func (d *document) numText() any {
	if d.num == nil || d.num == (jsonNull{}) {
		return nil
	}
	return scalarText(d.num)
}

// said is the value of a group in an answer, which has nothing else.
func (g *grouping) said(x shown) any {
	for _, v := range x {
		return v
	}
	return nil
}

// group draws the groups of a hybrid search.
func (h *fusion) group(r *rand.Rand, req *qnpb.HybridSearchRequest) {
	if r.IntN(3) > 0 {
		return
	}
	if h.by = h.m.spec.grouping(r); h.by == nil {
		return
	}
	h.size, h.strict, h.scorer = 1+r.IntN(4), r.IntN(2) == 0, []string{"", "max", "sum", "avg"}[r.IntN(4)]
	req.GroupByField, req.GroupSize, req.StrictGroupSize, req.RankGroupScorer = h.by.name, int64(h.size), h.strict, h.scorer
}

// leaders are the nearest rows of the nearest groups, as many as depth says, which a search ranks whatever
// else is nearer. One is not among them if another may be in its place.
func (h *fusion) leaders(v *vector, hits []scored, depth int) map[*row]bool {
	var first []scored
	all := groups(hits, h.by)
	for _, g := range all {
		first = append(first, g.rows[0])
	}
	out := map[*row]bool{}
	for i, g := range all {
		_, last := ties(v, first, i)
		if _, alone := ties(v, g.rows, 0); last < depth && alone == 0 {
			out[g.rows[0].row] = true
		}
	}
	return out
}

// fused is a group of a hybrid search.
type fused struct {
	rows []*points
	sure []*points // of them
	seen bool      // it is in the answer
}

// scores is what a group is ordered by, if its rows have these points.
func (h *fusion) scores(rows []float64) float64 {
	sum := 0.0
	for _, x := range rows {
		sum += x
	}
	switch h.scorer {
	case "sum":
		return sum
	case "avg":
		return sum / float64(len(rows))
	}
	return slices.Max(rows)
}

// most is what a group of these rows has at least, or at most, of which any may be in it.
func (h *fusion) most(rows []*points, of func(*points) float64) float64 {
	var all []float64
	for _, p := range rows {
		all = append(all, of(p))
	}
	slices.SortFunc(all, func(a, b float64) int { return -order(a, b) })
	return h.scores(all[:min(h.size, len(all))])
}

// compareGroups takes the groups of one query from the counts, and returns those that are left.
func (h *fusion) compareGroups(byKey map[any]*points, hits, values []shown, scores []float32, counts []int64) ([]int64, error) {
	all := map[any]*fused{}
	least := 0.0 // of all points
	for _, p := range byKey {
		value := h.by.of(p.row)
		g := all[value]
		if g == nil {
			g = &fused{}
			all[value] = g
		}
		g.rows = append(g.rows, p)
		if p.surely {
			g.sure = append(g.sure, p)
		}
		least = min(least, p.lo)
	}
	number, before, bar := 0, math.Inf(1), math.Inf(1)
	for ; len(hits) > 0; number++ {
		if number >= len(counts) || counts[number] < 1 || int(counts[number]) > min(h.size, len(hits)) {
			return nil, h.differs("%v: groups of %v rows for %d hits", h, counts, len(hits))
		}
		n := int(counts[number])
		value := h.by.of(byKey[hits[0]["id"]].row)
		g := all[value]
		if g.seen {
			return nil, h.differs("%v: the group of %v is there twice", h, value)
		}
		g.seen = true
		if err := h.compareGroup(g, value, byKey, hits[:n], values[:n], scores[:n]); err != nil {
			return nil, err
		}
		var got []float64
		for _, s := range scores[:n] {
			got = append(got, float64(s))
		}
		score := h.scores(got)
		if off := float64(h.size) * h.slack(score); score > before+2*off {
			return nil, h.differs("%v: the group of %v, with %v, comes behind one with %v", h, value, score, before)
		}
		before = score
		bar = min(bar, pick(h.strict, h.most(g.rows, func(p *points) float64 { return p.hi }), score))
		hits, values, scores = hits[n:], values[n:], scores[n:]
	}
	sure, more := 0, 0
	for _, g := range all {
		if len(g.sure) == 0 {
			continue
		}
		sure++
		// Before groups are filled, those that come into the answer have more than this one.
		known := h.scorer != "avg" && (h.scorer != "sum" || least >= 0)
		if !g.seen && known && h.most(g.sure, func(p *points) float64 { return p.lo }) > bar+2*float64(h.size)*h.slack(bar) {
			more++
		}
	}
	if number < min(h.K, max(0, sure-h.Offset)) || number > min(h.K, max(0, len(all)-h.Offset)) {
		return nil, h.differs("%v: %d groups, want up to %d after %d, of %d to %d", h, number, h.K, h.Offset, sure, len(all))
	}
	if number == h.K && more > h.Offset {
		return nil, h.differs("%v: %d groups have more points than the last one, and are not there; %d were left out", h, more, h.Offset)
	}
	return counts[number:], nil
}

// compareGroup: the rows of a group share its value and are its best, in order.
func (h *fusion) compareGroup(g *fused, value any, byKey map[any]*points, hits, values []shown, scores []float32) error {
	for i, hit := range hits {
		if v := h.by.of(byKey[hit["id"]].row); v != value || h.by.said(values[i]) != value {
			return h.differs("%v: row %v, of value %v, said to be %v, stands in the group of %v", h, hit["id"], v, h.by.said(values[i]), value)
		}
		if i > 0 && scores[i] > scores[i-1] {
			return h.differs("%v: points of the group of %v are not in order: %v", h, value, scores)
		}
	}
	least := min(h.size, pick(h.strict, len(g.rows), len(g.sure)))
	if n := len(hits); n < least || n > min(h.size, len(g.rows)) {
		return h.differs("%v: the group of %v has %d rows, want %d of %d", h, value, n, least, len(g.rows))
	}
	last, ids := float64(scores[len(scores)-1]), shownKeys(hits)
	for _, p := range g.sure {
		if p.lo > last+2*h.slack(last) && !slices.Contains(ids, h.m.keyOf(p.row)) {
			return h.differs("%v: row %v of the group of %v has more points than %v, and is not there: %v", h, h.m.keyOf(p.row), value, last, ids)
		}
	}
	return nil
}
