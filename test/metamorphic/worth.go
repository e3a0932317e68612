package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// What an index finds does not tell whether a node looks at ef, nprobe, reorder_k and recall: mostly it finds
// nearly all by itself. What it does for it does. In crowds searches are asked twice now and then, with little and with much
// of one of these, and much has to be more work.

// worthMark marks these in what is told of crowds. What one segment counts there is worthOf, so that some are enough, and
// all of one with fewer rows than worthFrom may be looked at in any case.
const (
	worthMark = ", more work"
	worthOf   = recallEnough / 20
	worthFrom = 1_000
)

// lever is a parameter that says how much work an index does, and how it is asked for little and much of it.
type lever struct {
	name string
	set  func(req *qnpb.SearchRequest, much bool)
}

// levers are those that the index of a field knows, for ten rows.
func (v *vector) levers() (all []lever) {
	is := func(kinds ...string) bool { return slices.Contains(kinds, v.index) }
	all = []lever{{"ef", func(req *qnpb.SearchRequest, much bool) { req.Ef = pick[int32](much, 5_000, 10) }},
		{"recall", func(req *qnpb.SearchRequest, much bool) { req.Recall = pick[float32](much, 0.99, 0.5) }}}
	if v.typ != float32s {
		return all
	}
	if is("IVF_FLAT", "IVF_SQ8", "SCANN") {
		all = append(all, lever{"nprobe", func(req *qnpb.SearchRequest, much bool) { req.Nprobe = pick[int32](much, 65_536, 1) }})
	}
	if is("SCANN") {
		all = append(all, lever{"reorder_k", func(req *qnpb.SearchRequest, much bool) { req.ReorderK = pick[int32](much, 4_000, 10) }})
	}
	return all
}

// worth asks a crowd for the ten rows nearest to a vector with little and with much of one parameter, and counts the
// segments in which an index did the little.
func (l *lane) worth(ctx context.Context, a *asking, v *vector, r *rand.Rand) error {
	all := v.levers()
	by, query := all[r.IntN(len(all))], v.random(r)
	ask := func(much bool) ([]*qnpb.SegmentRead, error) {
		form := v.query([][]float64{query}, true)
		req := &qnpb.SearchRequest{Collection: a.m.spec.called(a.Seed), Field: v.name, TopK: 10, Vectors: form.floats, ByteVectors: form.bytes,
			Freshness: a.f, IgnoreGrowing: true, Explain: true}
		by.set(req, much)
		res, err := l.rig.query.Search(ctx, req)
		return res.GetStats().GetSegments(), err
	}
	little, err := ask(false)
	if err != nil {
		return err
	}
	much, err := ask(true)
	if err != nil {
		return err
	}
	work := func(s *qnpb.SegmentRead) int64 { return s.GetDistances() + s.GetHops() }
	c := l.crowd.of(by.name + worthMark)
	for _, s := range little {
		i := slices.IndexFunc(much, func(m *qnpb.SegmentRead) bool { return m.GetSegmentId() == s.GetSegmentId() })
		scanned := len(s.GetStrategies()) == 0 || slices.ContainsFunc(s.GetStrategies(), func(how string) bool { return strings.Contains(how, "scan") })
		if i < 0 || scanned || s.GetMatched() < worthFrom {
			continue
		}
		c.Wanted += worthOf
		if work(much[i]) > work(s) { // a few are not: each that is makes up for one of them
			c.Found = min(c.Wanted, c.Found+2*worthOf)
		}
	}
	return nil
}
