package main

import (
	"context"
	"math"
	"slices"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// pages is a search or query that is read page by page, whatever happens in between.
type pages struct {
	*asking
	search *qnpb.SearchRequest // or
	query  *qnpb.QueryRequest
	v      *vector
	limits limits
	left   []scored // what has not been returned; of a query without scores
}

// firstRows asks for the first page of a query.
func (l *lane) firstRows(ctx context.Context, a *asking, req *qnpb.QueryRequest) error {
	req.OutputFields, req.Limit, req.Iterate = a.m.spec.outputs(a.r), int64(a.K), true
	p := &pages{asking: a, query: req}
	rows := a.m.see(a.q)
	if !a.whole(rows) {
		return errNotAsked
	}
	for _, x := range rows {
		p.left = append(p.left, scored{row: x})
	}
	return l.begin(ctx, p)
}

// firstHits asks for the first page of a search.
func (l *lane) firstHits(ctx context.Context, a *asking, v *vector, query []float64, req *qnpb.SearchRequest) error {
	req.Iterate = true
	p := &pages{asking: a, search: req, v: v}
	if a.r.IntN(3) == 0 {
		p.limits = v.limits(a.r)
		req.Radius, req.RangeFilter = p.limits.radius, p.limits.filter
	}
	var clear bool
	rows := a.m.see(a.q)
	if p.left, clear = v.within(p.limits, a.m.nearest(a.q, v, query, rows)); !clear || !a.whole(rows) {
		return errNotAsked
	}
	return l.begin(ctx, p)
}

func (l *lane) begin(ctx context.Context, p *pages) error {
	m := p.m
	if m.spec.ttl > 0 {
		return errNotAsked // rows go while the pages are turned
	}
	at, token, err := l.turn(ctx, p, p.K)
	if err != nil || !m.loaded || token == "" {
		return err
	}
	p.f = &qnpb.Freshness{ReadTimestamp: at}
	m.pages[p.ID] = p
	l.open = append(l.open, p.ID)
	if len(l.open) > 12 {
		delete(m.pages, l.open[0])
		l.open = slices.Delete(l.open, 0, 1)
	}
	return nil
}

// page asks for the next page of one of them.
func (l *lane) page(ctx context.Context, o *op) error {
	p := l.model.pages[o.At]
	if p == nil {
		return nil
	}
	a := *p.asking
	a.op = o
	p.asking = &a // differences are of the page
	return p.m.judge(o, p.f, func() error {
		at, token, err := l.turn(ctx, p, o.K)
		if err != nil || !p.m.loaded {
			return err
		}
		if at != p.f.GetReadTimestamp() {
			return o.differs("the page is of %d, the first of %d", at, p.f.GetReadTimestamp())
		}
		if token == "" {
			delete(p.m.pages, o.At)
			l.open = slices.DeleteFunc(l.open, func(id int) bool { return id == o.At })
		}
		return nil
	})
}

// turn asks for a page of n rows and compares it.
func (l *lane) turn(ctx context.Context, p *pages, n int) (at uint64, token string, err error) {
	var got []shown
	var scores []float32
	var outputs []string
	if p.search != nil {
		p.search.Collection = p.m.spec.called(uint64(n))
		p.search.TopK, outputs = int64(n), p.search.OutputFields
		res, err := l.rig.query.Search(ctx, p.search)
		if err != nil {
			return 0, "", err
		}
		got = p.m.spec.shownRows(append([]*qnpb.FieldData{idData(res.GetIds())}, res.GetFields()...), len(res.GetScores()))
		scores, at, token = res.GetScores(), res.GetReadTimestamp(), res.GetNextToken()
		p.search.Token = token
	} else {
		p.query.Collection = p.m.spec.called(uint64(n))
		p.query.Limit, outputs = int64(n), p.query.OutputFields
		res, err := l.ask(ctx, p.op, p.query)
		if err != nil {
			return 0, "", err
		}
		got, at, token = res.rows, res.last.GetReadTimestamp(), res.last.GetNextToken()
		p.query.Token = token
	}
	if !p.m.loaded {
		return at, token, nil
	}
	want := cut(p.left, 0, n)
	if len(got) != len(want) || token == "" && len(want) < len(p.left) {
		return 0, "", p.differs("%v %v: a page of %d rows, want %d of %d; the next token is %q", &p.q, p.v, len(got), len(want), len(p.left), token)
	}
	for i, g := range got {
		if err := p.compareOne(i, g, scores, outputs); err != nil {
			return 0, "", err
		}
	}
	return at, token, nil
}

// compareOne compares the first row that is left with one of a page. Rows come in
// order of their scores, equal ones by key; what differs by less than a score
// may be off can come the other way round.
func (p *pages) compareOne(i int, got shown, scores []float32, outputs []string) error {
	first := p.left[0]
	at := 0
	if p.v != nil && p.v.slack() > 0 {
		at = slices.IndexFunc(p.left, func(s scored) bool { return p.m.keyOf(s.row) == got["id"] })
		at = max(0, at)
		if math.Abs(p.left[at].score-first.score) > 2*p.v.slack() {
			at = 0
		}
	}
	want := p.left[at]
	if got["id"] != p.m.keyOf(want.row) {
		return p.differs("%v %v: row %d of the page is %v, want %v", &p.q, p.v, i, got["id"], p.m.keyOf(want.row))
	}
	if p.v != nil && math.Abs(float64(scores[i])-want.score) > p.v.slack() {
		return p.differs("%v %v: row %v has the score %v, want %v", &p.q, p.v, got["id"], scores[i], want.score)
	}
	p.left = slices.Delete(p.left, at, at+1)
	return p.m.compareRow(p.op, got, want.row, outputs)
}
