package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// asking is a read under way.
type asking struct {
	*op
	m *model
	q read
	f *qnpb.Freshness
	r *rand.Rand // of its form
}

func (l *lane) read(ctx context.Context, o *op) error {
	m := l.model
	for _, p := range o.Parts {
		if !slices.Contains(m.parts, p) {
			return nil
		}
	}
	if o.Do == opPage {
		return l.page(ctx, o)
	}
	f, err := m.freshness(ctx, o)
	if f == nil || err != nil {
		return err
	}
	a := &asking{op: o, m: m, f: f, r: rand.New(rand.NewPCG(o.Seed, 0xa54)),
		q: read{at: o.At, parts: o.Parts, filter: m.spec.newFilter(o.Filter), timestamp: f.GetReadTimestamp()}}
	return m.judge(o, f, func() error {
		switch o.Do {
		case opSearch:
			return l.search(ctx, a)
		case opHybrid:
			return l.hybrid(ctx, a)
		case opGet:
			return l.get(ctx, a)
		}
		return l.query(ctx, a)
	})
}

// freshness is the moment that a read asks for; nil = there is no such moment any more.
func (m *model) freshness(ctx context.Context, o *op) (*qnpb.Freshness, error) {
	switch {
	case o.At != 0:
		at, ok := m.marks[o.At]
		if !ok {
			return nil, nil
		}
		return &qnpb.Freshness{ReadTimestamp: at}, nil
	case m.spec.ttl > 0:
		now, err := m.now(ctx)
		return &qnpb.Freshness{ReadTimestamp: now}, err
	case o.Level == levelBounded:
		return &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_BOUNDED}, nil
	case o.Level == levelEventually:
		return &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_EVENTUALLY}, nil
	case o.ID%2 == 0:
		return &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: m.last}, nil
	}
	return &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}, nil
}

// errNotAsked says that a read was not run: the model has no answer to it.
var errNotAsked = errors.New("not asked")

// judge runs a read. One of a collection that is released has to be refused, one
// of a moment that is not retained too.
func (m *model) judge(o *op, f *qnpb.Freshness, run func() error) error {
	began := time.Now()
	err := run()
	refused := status.Code(err) == codes.InvalidArgument && m.mayRefuse(f, time.Now())
	switch {
	case errors.Is(err, errNotAsked):
		return nil
	case !m.loaded && (refused || status.Code(err) == codes.FailedPrecondition):
		return nil
	case !m.loaded:
		return o.differs("the collection is released, a read of it ends with %v", err)
	case refused:
		return nil
	case err == nil && m.mustRefuse(f, began):
		return o.differs("the read of %s ago is answered, the collection retains %v", time.Until(time.UnixMilli(int64(f.GetReadTimestamp()>>18))), m.spec.retain)
	}
	return err
}

// mayRefuse reports whether a read that ended then may have been refused for its age.
func (m *model) mayRefuse(f *qnpb.Freshness, end time.Time) bool {
	at := f.GetReadTimestamp()
	return at != 0 && at < hybrid(end.Add(time.Millisecond-m.spec.retain-slack/4))
}

// mustRefuse reports whether a read that began then must have been.
func (m *model) mustRefuse(f *qnpb.Freshness, began time.Time) bool {
	at := f.GetReadTimestamp()
	return at != 0 && at < hybrid(began.Add(-time.Millisecond-m.spec.retain-slack/4))
}

func (q *read) text() string {
	if q.filter == nil {
		return ""
	}
	return q.filter.text
}

func (q *read) values() map[string]*qnpb.Value {
	if q.filter == nil {
		return nil
	}
	return q.filter.values
}

// String says what was asked for, in differences.
func (q *read) String() string {
	out := fmt.Sprintf("where %q in %v at %d", q.text(), q.parts, q.at)
	for k, v := range q.values() {
		out += fmt.Sprintf(", %s = %v", k, v)
	}
	return out
}

// answer is a query's answer.
type answer struct {
	rows []shown
	last *qnpb.QueryResponse
}

// ask sends a query.
func (l *lane) ask(ctx context.Context, o *op, req *qnpb.QueryRequest) (*answer, error) {
	st, err := l.rig.query.Query(ctx, req)
	if err != nil {
		return nil, err
	}
	a := &answer{}
	for {
		r, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil, o.differs("the stream ended without its last piece")
		}
		if err != nil {
			return nil, err
		}
		if r.GetStats() != nil {
			a.last = r
			return a, nil
		}
		a.rows = append(a.rows, l.model.spec.shownRows(r.GetFields(), int(r.GetRows()))...)
	}
}

func (a *asking) queryRequest() *qnpb.QueryRequest {
	return &qnpb.QueryRequest{Collection: a.m.spec.called(a.Seed), Partitions: a.Parts, Filter: a.q.text(), FilterValues: a.q.values(),
		Freshness: a.f, IgnoreGrowing: a.Sealed, Explain: a.r.IntN(8) == 0}
}

func (l *lane) query(ctx context.Context, a *asking) error {
	req := a.queryRequest()
	switch {
	case a.Do == opCount:
		req.OutputFields = []string{"count(*)"}
		var share float64
		if a.Form == formSample {
			req.Filter, share = a.sample()
		}
		got, err := l.ask(ctx, a.op, req)
		if err != nil || !a.m.loaded || a.m.unclear(a.q) {
			return err
		}
		want, n := a.m.see(a.q), got.last.GetCount()
		if a.Form == formSample {
			return a.plausible(int(n), len(want), share)
		}
		if least := len(a.surelySealed(want)); n > int64(len(want)) || n < int64(len(want)) && (!a.Sealed || n < int64(least)) {
			return a.differs("count(*) %v is %d, want %d, of which %d are surely sealed; ignore_growing: %v", &a.q, n, len(want), least, a.Sealed)
		}
		return nil
	case a.Form == formAggregate:
		return l.aggregate(ctx, a, req)
	case a.Form == formPages:
		return l.firstRows(ctx, a, req)
	case a.Form == formSample:
		return l.sampled(ctx, a, req)
	}
	req.OutputFields, req.Limit, req.Offset = a.m.spec.outputs(a.r), int64(a.K), int64(a.Offset)
	if a.Form == formOrder {
		req.OrderBy = a.m.spec.orders(a.r)
	}
	got, err := l.ask(ctx, a.op, req)
	if err != nil || !a.m.loaded || a.m.unclear(a.q) {
		return err
	}
	if a.Level != "" && a.m.spec.ttl == 0 {
		return a.compareSometime(got.rows, req.OutputFields)
	}
	want := a.m.see(a.q)
	if !a.whole(want) {
		return a.compareSealed(got.rows, want, req.OutputFields)
	}
	a.m.spec.sort(want, req.OrderBy)
	return a.compare(got.rows, cut(want, a.Offset, a.K), req.OutputFields)
}

func (l *lane) get(ctx context.Context, a *asking) error {
	out := a.m.spec.outputs(a.r)
	r, err := l.rig.query.Get(ctx, &qnpb.GetRequest{Collection: a.m.spec.called(a.Seed), Ids: a.m.idsOf(a.Keys), OutputFields: out, Freshness: a.f})
	if err != nil || !a.m.loaded || a.m.unclear(a.q) {
		return err
	}
	want := slices.DeleteFunc(a.m.see(a.q), func(x *row) bool { return !slices.Contains(a.Keys, x.key) })
	if len(out) == 0 {
		out = []string{"*"} // of a Get, none means all
	}
	return a.compare(a.m.spec.shownRows(r.GetFields(), int(r.GetRows())), want, out)
}

// keyOf is the key of a row as answers show it.
func (m *model) keyOf(x *row) any {
	if m.spec.text {
		return x.name
	}
	return x.id
}

func keys(m *model, rows []*row) (out []any) {
	for _, x := range rows {
		out = append(out, m.keyOf(x))
	}
	return out
}

func shownKeys(rows []shown) (out []any) {
	for _, g := range rows {
		out = append(out, g["id"])
	}
	return out
}

// compare compares rows in their order.
func (a *asking) compare(got []shown, want []*row, outputs []string) error {
	have, wish := shownKeys(got), keys(a.m, want)
	if !slices.Equal(have, wish) {
		return a.differs("%v: got keys %v, want %v%s", &a.q, have, wish, lists(have, wish))
	}
	for i, w := range want {
		if err := a.m.compareRow(a.op, got[i], w, outputs); err != nil {
			return err
		}
	}
	return nil
}

// compareSome compares rows of which some may not be there.
func (a *asking) compareSome(got []shown, want []*row, outputs []string) error {
	at := map[any]*row{}
	for _, w := range want {
		at[a.m.keyOf(w)] = w
	}
	have := shownKeys(got)
	for i, g := range got {
		w := at[g["id"]]
		if w == nil || slices.Index(have, g["id"]) != i {
			return a.differs("%v: row %v must not be there, or not twice: got keys %v, of %v", &a.q, g["id"], have, keys(a.m, want))
		}
		if err := a.m.compareRow(a.op, g, w, outputs); err != nil {
			return err
		}
	}
	return nil
}

// compareSometime compares what a read shows that need not see the latest with
// every moment there was. Of several shards each may be at another one.
func (a *asking) compareSometime(got []shown, outputs []string) error {
	if a.m.spec.shards > 1 {
		return nil
	}
	have := shownKeys(got)
	for at := a.ID; at >= a.m.born; at-- {
		q := a.q
		q.at = at
		if want := a.m.see(q); slices.Equal(have, keys(a.m, want)) && a.compare(got, want, outputs) == nil {
			return nil
		}
	}
	return a.differs("%v, %s: these are the rows of no moment: %v", &a.q, a.Level, have)
}

// lists says what is in one list and not in the other.
func lists(have, wish []any) string {
	out := ""
	for _, k := range wish {
		if !slices.Contains(have, k) {
			out += fmt.Sprintf("; %v is missing", k)
		}
	}
	for i, k := range have {
		if !slices.Contains(wish, k) {
			out += fmt.Sprintf("; %v is too many", k)
		}
		if slices.Index(have, k) != i {
			out += fmt.Sprintf("; %v is there twice", k)
		}
	}
	return out
}

// compareRow compares the fields that were asked for.
func (m *model) compareRow(o *op, got shown, want *row, outputs []string) error {
	asked := func(name string) bool { return slices.Contains(outputs, name) || slices.Contains(outputs, "*") }
	differs := func(name string, g, w any) error {
		return o.differs("row %v, version %d, field %s is %#v, want %#v", m.keyOf(want), want.version, name, g, w)
	}
	for i, f := range m.spec.fields {
		if g, w := got[f.name], wanted(want.values[i]); asked(f.name) && !same(g, w) {
			return differs(f.name, g, w)
		}
	}
	for _, k := range []string{"n", "w", "l", "s"} {
		if !slices.Contains(outputs, k) && !slices.Contains(outputs, fmt.Sprintf("%s[%q]", dynamicField, k)) {
			continue
		}
		at := slices.IndexFunc(m.spec.fields, func(f field) bool { return f.dynamic() })
		doc, _ := want.values[at].(*document)
		if g, w := got[k], doc.member(k); g != w && (w != "null" || g != nil) {
			return differs(k, g, w)
		}
	}
	for i, v := range m.spec.vectors {
		if !asked(v.name) {
			continue
		}
		var w any
		if want.vectors[i] != nil {
			w = vectorText(want.vectors[i])
		}
		if g := got[v.name]; g != w {
			return differs(v.name, g, w)
		}
	}
	return nil
}

// orders draws what rows are ordered by.
func (s *spec) orders(r *rand.Rand) (out []*qnpb.OrderBy) {
	for range 1 + r.IntN(3) {
		if f := s.pick(r, (*field).single); f != nil {
			out = append(out, &qnpb.OrderBy{Field: f.name, Descending: r.IntN(2) == 0, NullsFirst: r.IntN(2) == 0})
		}
	}
	return out
}

// inOrder compares two values in an order.
func inOrder(by *qnpb.OrderBy, a, b any) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return pick(by.GetNullsFirst(), -1, 1)
	case b == nil:
		return pick(by.GetNullsFirst(), 1, -1)
	}
	return pick(by.GetDescending(), -1, 1) * order(a, b)
}

// sort puts rows that are in order of their keys into another one.
func (s *spec) sort(rows []*row, orders []*qnpb.OrderBy) {
	slices.SortStableFunc(rows, func(a, b *row) int {
		for _, by := range orders {
			at := slices.IndexFunc(s.fields, func(f field) bool { return f.name == by.GetField() })
			if c := inOrder(by, a.values[at], b.values[at]); c != 0 {
				return c
			}
		}
		return 0
	})
}
