package main

import (
	"context"
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
	surely   bool // found by one of them
	possibly bool
}

func (l *lane) hybrid(ctx context.Context, a *asking) error {
	m, r := a.m, a.r
	req := &qnpb.HybridSearchRequest{Collection: m.spec.name, Partitions: a.Parts, TopK: int64(a.K), Offset: int64(a.Offset),
		OutputFields: m.spec.outputs(r), Freshness: a.f, IgnoreGrowing: a.Sealed, Explain: r.IntN(8) == 0}
	all := map[*row]*points{}
	exact := a.whole(m.see(read{at: a.q.at, parts: a.q.parts, timestamp: a.q.timestamp}))
	var weights []float32
	normalize, weighted := r.IntN(2) == 0, r.IntN(2) == 0
	n := 1 + r.IntN(3)
	for range n {
		weights = append(weights, float32(r.IntN(5))/4)
	}
	k := []float32{0, 1, 60}[r.IntN(3)]
	for i := range n {
		v := &m.spec.vectors[r.IntN(len(m.spec.vectors))]
		exact = exact && v.exact()
		q := a.q
		if i > 0 {
			q.filter = m.spec.newFilter([]uint64{0, 1 + r.Uint64N(1<<32)}[r.IntN(2)])
		}
		rows := m.see(q)
		sub, hits := a.sub(r, v, q, rows)
		req.Searches = append(req.Searches, sub)
		depth := int(sub.GetTopK())
		if depth == 0 {
			depth = a.K + a.Offset
		}
		for j, s := range hits {
			first, last := ties(v, hits, j)
			p := all[s.row]
			if p == nil {
				p = &points{row: s.row}
				all[s.row] = p
			}
			p.surely = p.surely || last < depth
			p.possibly = p.possibly || first < depth
			best, worst := 1/(float64(pick(k == 0, 60, k))+float64(first+1)), 1/(float64(pick(k == 0, 60, k))+float64(last+1))
			if weighted {
				best = float64(weights[i]) * weigh(v, s.score, normalize)
				worst = best
			}
			switch {
			case first >= depth:
				best, worst = 0, 0
			case last >= depth: // it may not have been found
				best, worst = max(0, best), min(0, worst)
			}
			p.lo, p.hi = p.lo+min(best, worst), p.hi+max(best, worst)
		}
	}
	if weighted {
		req.Ranker = &qnpb.HybridSearchRequest_Weighted{Weighted: &qnpb.WeightedRanker{Weights: weights, NormScore: normalize}}
	} else if r.IntN(2) == 0 || k != 0 {
		req.Ranker = &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{K: k}}
	}
	res, err := l.rig.query.HybridSearch(ctx, req)
	if err != nil || !m.loaded || m.unclear(a.q) || !exact {
		return err
	}
	return a.compareFused(all, req.OutputFields, res)
}

// sub makes one of the searches, and what it finds.
func (a *asking) sub(r *rand.Rand, v *vector, q read, rows []*row) (*qnpb.SubSearch, []scored) {
	query := a.aim(r, v, 1, rows)
	form := v.query(query, r.IntN(2) == 0)
	s := &qnpb.SubSearch{Field: v.name, Filter: q.text(), FilterValues: q.values(), Vectors: form.floats, ByteVectors: form.bytes, SparseVectors: form.sparse, Texts: form.texts}
	if r.IntN(3) > 0 {
		s.TopK = 1 + r.Int64N(100)
	}
	return s, a.m.nearest(q, v, query[0], rows)
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

// compareFused: each hit has points that it can have, in order; no other row has
// surely more than the last of them.
func (a *asking) compareFused(all map[*row]*points, outputs []string, res *qnpb.HybridSearchResponse) error {
	scores := res.GetScores()
	hits := a.m.spec.shownRows(append([]*qnpb.FieldData{idData(res.GetIds())}, res.GetFields()...), len(scores))
	byKey := map[any]*points{}
	sure, possible := 0, 0
	for _, p := range all {
		if p.possibly {
			byKey[a.m.keyOf(p.row)] = p
			possible++
		}
		if p.surely {
			sure++
		}
	}
	ids := shownKeys(hits)
	if n := len(hits); n < min(a.K, max(0, sure-a.Offset)) || n > min(a.K, max(0, possible-a.Offset)) {
		return a.differs("%v: %d hits, want up to %d after %d, of %d to %d", &a.q, n, a.K, a.Offset, sure, possible)
	}
	slack := func(x float64) float64 { return 1e-5 * max(1, math.Abs(x)) }
	for i, h := range hits {
		p, s := byKey[h["id"]], float64(scores[i])
		switch {
		case p == nil || slices.Index(ids, h["id"]) != i:
			return a.differs("%v: row %v must not be there, or not twice", &a.q, h["id"])
		case s < p.lo-slack(s) || s > p.hi+slack(s):
			return a.differs("%v: row %v has %v points, want %v to %v", &a.q, h["id"], s, p.lo, p.hi)
		case i > 0 && scores[i] > scores[i-1]:
			return a.differs("%v: points are not in order: %v", &a.q, scores)
		}
		if err := a.m.compareRow(a.op, h, p.row, outputs); err != nil {
			return err
		}
	}
	// Of the rows that have surely more than the last hit, all but those left out at the front are there.
	if len(hits) == a.K {
		last, more := float64(scores[len(scores)-1]), 0
		for _, p := range all {
			if p.surely && p.lo > last+2*slack(last) && !slices.Contains(ids, a.m.keyOf(p.row)) {
				more++
			}
		}
		if more > a.Offset {
			return a.differs("%v: %d rows have more points than the last hit, and are not there; %d were left out", &a.q, more, a.Offset)
		}
	}
	return nil
}
