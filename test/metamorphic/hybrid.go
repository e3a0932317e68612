package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// points are what a row may get from several searches. They are not one number
// where rows are at the same distance, since any of these may come first.
type points struct {
	row      *row
	lo, hi   float64
	surely   bool // ranked by one of them
	possibly bool
}

// fusion is a hybrid search.
type fusion struct {
	*asking
	outputs  []string
	round    *int32
	k        float64 // of reciprocal rank fusion
	weights  []float32
	weighted bool
	normal   bool // scores are brought between 0 and 1

	by     *grouping // nil = no groups
	size   int       // of a group
	strict bool
	scorer string
}

// String says what was asked for, in differences.
func (h *fusion) String() string {
	out := fmt.Sprintf("hybrid search, k %d, offset %d", h.K, h.Offset)
	if h.weighted {
		out += fmt.Sprintf(", weights %v, normal %v", h.weights, h.normal)
	} else {
		out += fmt.Sprintf(", rrf %v", h.k)
	}
	if h.by != nil {
		out += fmt.Sprintf(", groups of %d by %s, strict %v, scorer %q", h.size, h.by.name, h.strict, h.scorer)
	}
	return out + ", " + h.q.String()
}

func (l *lane) hybrid(ctx context.Context, a *asking) error {
	m, r := a.m, a.r
	req := &qnpb.HybridSearchRequest{Collection: m.spec.called(a.Seed), Partitions: a.Parts, TopK: int64(a.K), Offset: int64(a.Offset),
		OutputFields: m.spec.outputs(r), Freshness: a.f, IgnoreGrowing: a.Sealed, Explain: r.IntN(8) == 0}
	h := &fusion{asking: a, outputs: req.OutputFields, k: 60, normal: r.IntN(2) == 0, weighted: r.IntN(2) == 0}
	exact := a.whole(m.see(read{at: a.q.at, parts: a.q.parts, timestamp: a.q.timestamp}))
	n := 1 + r.IntN(3)
	for range n {
		h.weights = append(h.weights, float32(r.IntN(5))/4)
	}
	switch k := []float32{0, 1, 60}[r.IntN(3)]; {
	case h.weighted:
		req.Ranker = &qnpb.HybridSearchRequest_Weighted{Weighted: &qnpb.WeightedRanker{Weights: h.weights, NormScore: h.normal}}
	case k != 0 || r.IntN(2) == 0:
		h.k = float64(pick(k == 0, 60, k))
		req.Ranker = &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{K: k}}
	}
	if r.IntN(5) == 0 {
		h.round = new(int32)
		*h.round = 3 + r.Int32N(4)
		req.RoundDecimal = h.round
	}
	h.group(r, req)
	all := make([]map[*row]*points, a.NQ) // by query
	for i := range n {
		v := &m.spec.vectors[r.IntN(len(m.spec.vectors))]
		exact = exact && v.exact()
		q := a.q
		if i > 0 {
			q.filter = m.spec.newFilter([]uint64{0, 1 + r.Uint64N(1<<32)}[r.IntN(2)])
		}
		sub, hits, clear := a.sub(r, v, q)
		exact = exact && clear
		req.Searches = append(req.Searches, sub)
		depth := int(sub.GetTopK())
		if depth == 0 {
			depth = a.K + a.Offset
		}
		for at := range all {
			if all[at] == nil {
				all[at] = map[*row]*points{}
			}
			h.rank(all[at], i, v, hits[at], depth)
		}
	}
	res, err := l.rig.query.HybridSearch(ctx, req)
	if err != nil || !m.loaded || m.unclear(a.q) || !exact {
		return err
	}
	return h.compare(all, res)
}

// rank gives points to what search i has found, of which it ranks the first, as many as depth says.
func (h *fusion) rank(all map[*row]*points, i int, v *vector, hits []scored, depth int) {
	rows, leads := depth, map[*row]bool(nil)
	if h.by != nil {
		rows, leads = 4*depth*h.size, h.leaders(v, hits, depth)
	}
	for j, s := range hits {
		first, last := ties(v, hits, j)
		p := all[s.row]
		if p == nil {
			p = &points{row: s.row}
			all[s.row] = p
		}
		surely := last < rows || leads[s.row]
		possibly := first < rows || h.by != nil // rows of groups come behind the others
		p.surely, p.possibly = p.surely || surely, p.possibly || possibly
		best, worst := 1/(h.k+float64(min(first, rows)+1)), 1/(h.k+float64(last+1))
		if h.weighted {
			best = float64(h.weights[i]) * weigh(v, s.score, h.normal)
			worst = best
		}
		switch {
		case !possibly:
			best, worst = 0, 0
		case !surely:
			best, worst = max(0, best), min(0, worst)
		}
		p.lo, p.hi = p.lo+min(best, worst), p.hi+max(best, worst)
	}
}

// sub makes one of the searches, and what it finds for each query. !clear = that is not known.
func (a *asking) sub(r *rand.Rand, v *vector, q read) (sub *qnpb.SubSearch, hits [][]scored, clear bool) {
	rows := a.m.see(q)
	queries := a.aim(r, v, a.NQ, rows)
	form := v.query(queries, r.IntN(2) == 0)
	sub = &qnpb.SubSearch{Field: v.name, Filter: q.text(), FilterValues: q.values(), Vectors: form.floats, ByteVectors: form.bytes, SparseVectors: form.sparse, Texts: form.texts}
	if r.IntN(3) > 0 {
		sub.TopK = 1 + r.Int64N(100)
		if r.IntN(2) == 0 {
			sub.TopK = 1 + r.Int64N(6)
		}
	}
	if r.IntN(2) == 0 {
		sub.Metric = v.metric
	}
	if r.IntN(4) == 0 {
		e := v.effort(r, pick(sub.TopK > 0, int(sub.TopK), a.K+a.Offset))
		e.sub(sub)
		v = e.scores(v)
	}
	var l limits
	if r.IntN(5) == 0 {
		l = v.limits(r)
		sub.Radius, sub.RangeFilter = l.radius, l.filter
	}
	clear = true
	for _, x := range queries {
		all, ok := v.within(l, a.m.nearest(q, v, x, rows))
		hits, clear = append(hits, all), clear && ok
	}
	return sub, hits, clear
}

// ties are the first and the last place that hit i can have.
func ties(v *vector, hits []scored, i int) (first, last int) {
	first, last = i, i
	near := func(j int) bool { return math.Abs(hits[j].score-hits[i].score) <= 2*v.slack() }
	for first > 0 && near(first-1) {
		first--
	}
	for last < len(hits)-1 && near(last+1) {
		last++
	}
	return first, last
}

// weigh brings a score into the form in which larger is better.
func weigh(v *vector, score float64, normalize bool) float64 {
	switch {
	case v.falling():
		return 1 - 2*math.Atan(score)/math.Pi
	case !normalize:
		return score
	case v.metric == "BM25":
		return 2 * math.Atan(score) / math.Pi
	case v.metric == "IP":
		return 0.5 + math.Atan(score)/math.Pi
	}
	return (1 + score) / 2
}

// slack is how far points may be off.
func (h *fusion) slack(x float64) float64 {
	out := 1e-5 * max(1, math.Abs(x))
	if h.round != nil {
		out += 0.5 * math.Pow(10, -float64(*h.round))
	}
	return out
}

// compare takes the hits of one query after the other.
func (h *fusion) compare(all []map[*row]*points, res *qnpb.HybridSearchResponse) error {
	if len(res.GetCounts()) != len(all) {
		return h.differs("%v: %d counts for %d queries", h, len(res.GetCounts()), len(all))
	}
	scores, groups := res.GetScores(), res.GetGroupCounts()
	hits := h.m.spec.shownRows(append([]*qnpb.FieldData{idData(res.GetIds())}, res.GetFields()...), len(scores))
	values := h.m.spec.shownRows([]*qnpb.FieldData{res.GetGroupValues()}, len(hits))
	for i, may := range all {
		n := int(res.GetCounts()[i])
		if n > len(hits) {
			return h.differs("%v: %d hits for query %d, %d are left", h, n, i, len(hits))
		}
		byKey := map[any]*points{}
		for _, p := range may {
			if p.possibly {
				byKey[h.m.keyOf(p.row)] = p
			}
		}
		err := h.compareHits(byKey, hits[:n], scores[:n])
		switch {
		case err != nil:
		case h.by != nil:
			groups, err = h.compareGroups(byKey, hits[:n], values[:n], scores[:n], groups)
		default:
			err = h.compareFused(byKey, hits[:n], scores[:n])
		}
		if err != nil {
			return err
		}
		hits, values, scores = hits[n:], values[n:], scores[n:]
	}
	return nil
}

// compareHits: each hit is a row that may be there, once, and has points that it can have.
func (h *fusion) compareHits(byKey map[any]*points, hits []shown, scores []float32) error {
	ids := shownKeys(hits)
	for i, hit := range hits {
		p, s := byKey[hit["id"]], float64(scores[i])
		switch {
		case p == nil || slices.Index(ids, hit["id"]) != i:
			return h.differs("%v: row %v must not be there, or not twice", h, hit["id"])
		case s < p.lo-h.slack(s) || s > p.hi+h.slack(s):
			return h.differs("%v: row %v has %v points, want %v to %v", h, hit["id"], s, p.lo, p.hi)
		}
		if err := h.m.compareRow(h.op, hit, p.row, h.outputs); err != nil {
			return err
		}
	}
	return nil
}

// compareFused: hits are in order; no other row has surely more points than the last of them.
func (h *fusion) compareFused(byKey map[any]*points, hits []shown, scores []float32) error {
	sure := 0
	for _, p := range byKey {
		if p.surely {
			sure++
		}
	}
	if n := len(hits); n < min(h.K, max(0, sure-h.Offset)) || n > min(h.K, max(0, len(byKey)-h.Offset)) {
		return h.differs("%v: %d hits, want up to %d after %d, of %d to %d", h, n, h.K, h.Offset, sure, len(byKey))
	}
	for i := 1; i < len(scores); i++ {
		if scores[i] > scores[i-1] {
			return h.differs("%v: points are not in order: %v", h, scores)
		}
	}
	// Of the rows that have surely more than the last hit, all but those left out at the front are there.
	if len(hits) == h.K {
		last, more, ids := float64(scores[len(scores)-1]), 0, shownKeys(hits)
		for key, p := range byKey {
			if p.surely && p.lo > last+2*h.slack(last) && !slices.Contains(ids, key) {
				more++
			}
		}
		if more > h.Offset {
			return h.differs("%v: %d rows have more points than the last hit, and are not there; %d were left out", h, more, h.Offset)
		}
	}
	return nil
}
