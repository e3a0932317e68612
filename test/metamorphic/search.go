package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// aim draws vectors to search for: of rows, or any.
func (a *asking) aim(r *rand.Rand, v *vector, n int, rows []*row) (out [][]float64) {
	near := r.IntN(2) == 0
	for range n {
		x := v.random(r)
		if i := r.IntN(1 << 20); near && len(rows) > 0 {
			if there := a.m.vectorOf(v, rows[i%len(rows)]); there != nil {
				x = there
			}
		}
		out = append(out, x)
	}
	return out
}

// limits draws a range.
func (v *vector) limits(r *rand.Rand) limits {
	score := func() float32 {
		switch v.metric {
		case "COSINE":
			return float32(r.IntN(200)-100)/100 + 0.003
		case "JACCARD":
			return float32(r.IntN(100))/100 + 0.003
		case "HAMMING":
			return float32(r.IntN(v.dim))
		case "BM25":
			return float32(r.IntN(800))/100 + 0.003
		}
		return float32(r.IntN(200)-60) * pick[float32](v.typ == int8s, 128, 1)
	}
	a, b := score(), score()
	for a == b {
		b = score()
	}
	if v.better(float64(a), float64(b)) {
		a, b = b, a // the radius is the farther one
	}
	switch r.IntN(3) {
	case 0:
		return limits{radius: &a, filter: &b}
	case 1:
		return limits{filter: &b}
	}
	return limits{radius: &a}
}

func (l *lane) search(ctx context.Context, a *asking) error {
	m, r := a.m, a.r
	v := &m.spec.vectors[r.IntN(len(m.spec.vectors))]
	rows := m.see(a.q)
	queries := a.aim(r, v, a.NQ, rows)
	form := v.query(queries, r.IntN(2) == 0)
	req := &qnpb.SearchRequest{Collection: m.spec.called(a.Seed), Partitions: a.Parts, Field: v.name, TopK: int64(a.K), Offset: int64(a.Offset),
		Filter: a.q.text(), FilterValues: a.q.values(), OutputFields: m.spec.outputs(r), Freshness: a.f, IgnoreGrowing: a.Sealed,
		Vectors: form.floats, ByteVectors: form.bytes, SparseVectors: form.sparse, Texts: form.texts, Explain: r.IntN(8) == 0}
	if r.IntN(2) == 0 {
		req.Metric = v.metric
	}
	if a.Form == formSample {
		req.Filter, _ = a.sample()
	}
	f := &found{asking: a, v: v, outputs: req.OutputFields, some: a.Form == formSample || !a.whole(rows)}
	if r.IntN(10) == 0 && a.Form != formPages {
		f.round = new(int32)
		*f.round = r.Int32N(4)
		req.RoundDecimal = f.round
	}
	if !v.exact() && v.index != "FLAT" && a.Form != formPages && r.IntN(5) == 0 {
		req.Recall, f.every = 1, true
	}
	if a.Form != formPages && !f.every && r.IntN(3) == 0 {
		f.effort = v.effort(r, a.K+a.Offset)
		f.effort.search(req)
		f.v = f.effort.scores(v)
	}
	if a.Form == formRange || a.Form == formGroups && r.IntN(3) == 0 {
		f.limits = v.limits(r)
		req.Radius, req.RangeFilter = f.limits.radius, f.limits.filter
	}
	switch a.Form {
	case formPages:
		return l.firstHits(ctx, a, v, queries[0], req)
	case formGroups:
		if f.by = m.spec.grouping(r); f.by != nil {
			f.size, f.strict = 1+r.IntN(4), r.IntN(2) == 0
			req.GroupByField, req.GroupSize, req.StrictGroupSize = f.by.name, int64(f.size), f.strict
		}
	}
	res, err := l.rig.query.Search(ctx, req)
	if err != nil || !m.loaded || m.unclear(a.q) {
		return err
	}
	if err := f.compare(l, queries, rows, res); err != nil {
		return err
	}
	if m.crowd == crowdServed && v == &m.spec.vectors[0] && !v.exact() && v.index != "FLAT" && a.At == 0 && r.IntN(2) == 0 {
		return l.worth(ctx, a, v, r)
	}
	return nil
}

// found is what a search has to be compared with.
type found struct {
	*asking
	v       *vector
	outputs []string
	limits  limits
	round   *int32
	by      *grouping // nil = no groups
	size    int       // of a group
	strict  bool
	some    bool // which of the rows are found is not known
	every   bool // all rows are looked at, whatever the index
	effort  effort
}

// String says what was searched for, in differences.
func (f *found) String() string {
	out := fmt.Sprintf("search of %s by %s (%s), k %d, offset %d", f.v.name, f.v.metric, f.v.index, f.K, f.Offset)
	if f.limits.radius != nil {
		out += fmt.Sprintf(", radius %v", *f.limits.radius)
	}
	if f.limits.filter != nil {
		out += fmt.Sprintf(", range filter %v", *f.limits.filter)
	}
	if f.every {
		out += ", recall 1"
	}
	out += f.effort.String()
	if f.by != nil {
		out += fmt.Sprintf(", groups of %d by %s, strict %v", f.size, f.by.name, f.strict)
	}
	return out + ", " + f.q.String()
}

// slack is how far the score of a row may be off. What is rounded is a float32 too.
func (f *found) slack(score float64) float64 {
	if f.round != nil {
		return f.v.slack() + 0.5*math.Pow(10, -float64(*f.round)) + 1e-6*math.Abs(score)
	}
	return f.v.slack()
}

// exact reports whether it is known which scores are found.
func (f *found) exact() bool { return (f.v.exact() || f.every) && !f.some }

// compare takes the hits of one vector after the other.
func (f *found) compare(l *lane, queries [][]float64, rows []*row, res *qnpb.SearchResponse) error {
	if len(res.GetCounts()) != len(queries) {
		return f.differs("%v: %d counts for %d vectors", f, len(res.GetCounts()), len(queries))
	}
	hits := f.m.spec.shownRows(append([]*qnpb.FieldData{idData(res.GetIds())}, res.GetFields()...), len(res.GetScores()))
	scores, groups := res.GetScores(), res.GetGroupCounts()
	values := f.m.spec.shownRows([]*qnpb.FieldData{res.GetGroupValues()}, len(hits))
	for i, x := range queries {
		n := int(res.GetCounts()[i])
		if n > len(hits) {
			return f.differs("%v: %d hits for vector %d, %d are left", f, n, i, len(hits))
		}
		all, clear := f.v.within(f.limits, f.m.nearest(f.q, f.v, x, rows))
		if !clear {
			return nil
		}
		if err := f.compareHits(all, hits[:n], scores[:n]); err != nil {
			return err
		}
		var err error
		if f.by != nil {
			groups, err = f.compareGroups(all, hits[:n], values[:n], scores[:n], groups)
		} else {
			err = f.compareNearest(l, all, hits[:n], scores[:n])
		}
		if err != nil {
			return err
		}
		hits, scores, values = hits[n:], scores[n:], values[n:]
	}
	return nil
}

// compareHits: each hit is a row that may be there, once, with its own score and values.
func (f *found) compareHits(all []scored, hits []shown, scores []float32) error {
	byKey := map[any]scored{}
	for _, s := range all {
		byKey[f.m.keyOf(s.row)] = s
	}
	seen := map[any]bool{}
	for i, h := range hits {
		k := h["id"]
		s, ok := byKey[k]
		switch {
		case !ok:
			return f.differs("%v: row %v must not be in the answer", f, k)
		case seen[k]:
			return f.differs("%v: row %v is there twice", f, k)
		case math.Abs(float64(scores[i])-s.score) > f.slack(s.score):
			return f.differs("%v: row %v, version %d has the score %v, want %v", f, k, s.version, scores[i], s.score)
		case i > 0 && f.by == nil && f.v.better(float64(scores[i]), float64(scores[i-1])):
			return f.differs("%v: scores are not in order: %v", f, scores)
		}
		seen[k] = true
		if err := f.m.compareRow(f.op, h, s.row, f.outputs); err != nil {
			return err
		}
	}
	return nil
}

// compareNearest: an exact search has the nearest rows; of rows at the same
// distance any will do. What others found is counted.
func (f *found) compareNearest(l *lane, all []scored, hits []shown, scores []float32) error {
	want := cut(all, f.Offset, f.K)
	switch {
	case f.some:
		return f.compareSealedHits(all, hits, scores)
	case !f.exact():
		kind := f.v.index
		if f.v.typ != float32s {
			kind += narrowMark
		}
		counts := []*recall{&l.recall, l.crowd.of(kind)}[:1+min(1, f.m.spec.crowd)]
		if f.effort.asked() {
			counts = nil
			if f.effort.much() && f.m.spec.crowd > 0 {
				counts = []*recall{l.crowd.of(kind + muchMark)}
			}
		} else if f.K >= wideFrom { // else a few of them would be most of what is wanted
			counts = []*recall{l.crowd.of(kind + wideMark)}
		}
		for _, c := range counts {
			c.Wanted += int64(len(want))
		}
		for _, s := range scores[:min(len(scores), len(want))] {
			// What is as near as the last that is wanted counts.
			if last := want[len(want)-1].score; math.Abs(float64(s)-last) <= f.slack(last) || f.v.better(float64(s), last) {
				for _, c := range counts {
					c.Found++
				}
			}
		}
		return nil
	case len(scores) != len(want):
		return f.differs("%v: %d hits, want %d", f, len(scores), len(want))
	}
	for i, w := range want {
		if math.Abs(float64(scores[i])-w.score) > f.slack(w.score) {
			return f.differs("%v: hit %d has the score %v, want %v (row %v): got %v", f, i, scores[i], w.score, f.m.keyOf(w.row), scores)
		}
	}
	return nil
}

// compareGroups takes the groups of one vector from the counts, and returns those
// that are left.
func (f *found) compareGroups(all []scored, hits, values []shown, scores []float32, counts []int64) ([]int64, error) {
	want := cut(groups(all, f.by), f.Offset, f.K)
	of := map[any]group{}
	for _, g := range groups(all, f.by) {
		of[g.value] = g
	}
	byKey := map[any]scored{}
	for _, s := range all {
		byKey[f.m.keyOf(s.row)] = s
	}
	seen := map[any]bool{}
	number := 0
	for ; len(hits) > 0; number++ {
		if number >= len(counts) || counts[number] < 1 || int(counts[number]) > min(f.size, len(hits)) {
			return nil, f.differs("%v: groups of %v rows for %d hits", f, counts, len(hits))
		}
		n := int(counts[number])
		value := f.by.of(byKey[hits[0]["id"]].row)
		g := of[value]
		if seen[value] {
			return nil, f.differs("%v: the group of %v is there twice", f, value)
		}
		seen[value] = true
		if f.strict && f.exact() && n != min(f.size, len(g.rows)) {
			return nil, f.differs("%v: the group of %v has %d rows, want %d", f, value, n, min(f.size, len(g.rows)))
		}
		for i := range n {
			if v := f.by.of(byKey[hits[i]["id"]].row); v != value || f.by.said(values[i]) != value {
				return nil, f.differs("%v: row %v, of value %v, said to be %v, stands in the group of %v", f, hits[i]["id"], v, f.by.said(values[i]), value)
			}
			if (f.strict || i == 0) && f.exact() && math.Abs(float64(scores[i])-g.rows[i].score) > f.slack(g.rows[i].score) {
				return nil, f.differs("%v: row %d of the group of %v has the score %v, want %v", f, i, value, scores[i], g.rows[i].score)
			}
		}
		if f.exact() && number < len(want) && math.Abs(float64(scores[0])-want[number].rows[0].score) > f.slack(want[number].rows[0].score) {
			return nil, f.differs("%v: group %d begins with the score %v, want %v", f, number, scores[0], want[number].rows[0].score)
		}
		hits, values, scores = hits[n:], values[n:], scores[n:]
	}
	if f.exact() && number != len(want) || number > len(want) {
		return nil, f.differs("%v: %d groups, want %d", f, number, len(want))
	}
	return counts[number:], nil
}
