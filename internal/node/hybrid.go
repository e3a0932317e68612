package node

import (
	"context"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// MaxSearches is how many searches a hybrid one has at most.
const MaxSearches = 16

// DefaultRRF is the k of reciprocal rank fusion if none is chosen.
const DefaultRRF = 60

// Hybrid asks for the best rows by several searches together. Of Select, the
// filter is not used: each search has its own.
type Hybrid struct {
	Select
	Searches []Search // Filter and Values of their Select; TopK 0 = TopK and Offset of the whole
	TopK     int64
	Offset   int64
	Ranker   segments.Ranker // RRF 0 without Weights = DefaultRRF

	GroupBy     string // "" = no groups; else TopK and Offset count groups, in Searches too
	GroupSize   int64  // rows per group; 0 = 1
	StrictGroup bool   // groups are filled if there are rows to fill them
	GroupScorer string // "max" or "" = groups come in order of their best row; "sum", "avg" = of the points of their rows
}

// HybridSearch answers q.
func (n *Node) HybridSearch(ctx context.Context, q *Hybrid) (*Found, error) {
	r, err := n.readable(ctx, q.Collection)
	if err != nil {
		return nil, err
	}
	if err := checkHybrid(q); err != nil {
		return nil, err
	}
	req := &segments.HybridRequest{TopK: int(q.TopK), Offset: int(q.Offset), Ranker: q.Ranker}
	if req.Ranker.Weights == nil && req.Ranker.RRF == 0 {
		req.Ranker.RRF = DefaultRRF
	}
	by, err := r.hybridGroups(q, req)
	if err != nil {
		return nil, err
	}
	for i := range q.Searches {
		s := q.Searches[i]
		if s.TopK == 0 {
			s.TopK = q.TopK + q.Offset
		}
		sub, nq, err := r.subSearch(&s)
		if err != nil {
			return nil, errclass.Wrap(err, errclass.Of(err), "searches[%d]", i)
		}
		if i == 0 {
			req.NQ = nq
		} else if nq != req.NQ {
			return nil, errclass.New(errclass.Invalid, "searches[%d] has %d vectors, the first has %d", i, nq, req.NQ)
		}
		if req.Group != nil {
			size := max(q.GroupSize, 1)
			if s.TopK*size > segments.MaxTopK {
				return nil, errclass.New(errclass.Invalid, "searches[%d]: top_k * group_size is %d * %d, at most %d", i, s.TopK, size, segments.MaxTopK)
			}
			// Rows that share a group are usually near one another: a few times as many rows are of as many groups.
			sub.Groups, sub.TopK = sub.TopK, min(4*sub.TopK*int(size), segments.MaxTopK)
		}
		req.Searches = append(req.Searches, *sub)
	}
	var out []schema.Field
	if req.Read, out, err = n.read(ctx, r.coll, &q.Select, false); err != nil {
		return nil, err
	}
	req.Channels = r.must
	lacking := n.gated(r.coll, r.served, &req.Read)
	res, err := r.served.HybridSearch(ctx, req)
	if err != nil {
		return nil, err
	}
	lacking.addTo(&res.Stats)
	pickMembers(out, res.Fields)
	return &Found{SearchResult: res, Output: out, GroupBy: by}, nil
}

// groupScorer returns what groups are ordered by, as Milvus calls it.
func groupScorer(name string) (segments.GroupScorer, error) {
	switch name {
	case "", "max":
		return segments.MostPoints, nil
	case "sum":
		return segments.SumOfPoints, nil
	case "avg":
		return segments.MeanOfPoints, nil
	}
	return 0, errclass.New(errclass.Invalid, "rank_group_scorer %q: want max, sum or avg", name)
}

// hybridGroups sets the groups that q asks for, if any.
func (r *readable) hybridGroups(q *Hybrid, req *segments.HybridRequest) (by schema.Field, err error) {
	if q.GroupBy == "" && q.GroupSize == 0 && !q.StrictGroup && q.GroupScorer == "" {
		return by, nil
	}
	if req.Scorer, err = groupScorer(q.GroupScorer); err != nil {
		return by, err
	}
	req.Group = &segments.Grouping{Size: int(q.GroupSize), Strict: q.StrictGroup}
	by, req.Group.Path, err = groupField(&r.coll.Schema, &Search{TopK: q.TopK, Offset: q.Offset, GroupBy: q.GroupBy, GroupSize: q.GroupSize})
	req.Group.FieldID = by.ID
	return by, err
}

func checkHybrid(q *Hybrid) error {
	switch n := len(q.Searches); {
	case n < 1 || n > MaxSearches:
		return errclass.New(errclass.Invalid, "%d searches, want 1 to %d", n, MaxSearches)
	case q.Ranker.Weights != nil && len(q.Ranker.Weights) != n:
		return errclass.New(errclass.Invalid, "%d weights for %d searches: want one for each", len(q.Ranker.Weights), n)
	case !(q.Ranker.RRF >= 0 && q.Ranker.RRF < 16_384):
		return errclass.New(errclass.Invalid, "rrf: k is %v, want more than 0 and less than 16384", q.Ranker.RRF)
	}
	for i, w := range q.Ranker.Weights {
		if !(w >= 0 && w <= 1) {
			return errclass.New(errclass.Invalid, "weights[%d] is %v, want 0 to 1", i, w)
		}
	}
	return checkTopK(q.TopK, q.Offset)
}

// subSearch checks a search and resolves its names.
func (r *readable) subSearch(q *Search) (s *segments.SubSearch, nq int, err error) {
	field, err := vectorField(&r.coll.Schema, q.Field)
	if err != nil {
		return nil, 0, err
	}
	nq, other, err := checkSearch(&r.coll.Schema, q, field)
	if err != nil {
		return nil, 0, err
	}
	s = &segments.SubSearch{FieldID: field.ID, Vectors: q.Vectors, Queries: other, TopK: int(q.TopK), Radius: q.Radius, RangeFilter: q.RangeFilter}
	if s.Metric, err = metricOf(r.served.Info(), field, q.Metric); err != nil {
		return nil, 0, err
	}
	if s.Effort, err = effortOf(r.served.Info(), field, q); err != nil {
		return nil, 0, err
	}
	if err := checkRange(q, s.Metric); err != nil {
		return nil, 0, err
	}
	if q.Filter != "" {
		s.Plan, err = expr.Compile(q.Filter, &r.coll.Schema, q.Values, r.coll.Properties[PropertyTimezone])
	}
	return s, nq, err
}
