package main

import (
	"context"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// aggregation is what a query asks about groups of rows.
type aggregation struct {
	by    []string
	funcs []function
}

// function is one aggregate of a field; field "*" = of rows.
type function struct{ name, field string }

func (fn function) String() string { return fn.name + "(" + fn.field + ")" }

// aggregation draws what is asked.
func (s *spec) aggregation(r *rand.Rand) aggregation {
	var a aggregation
	for range r.IntN(3) {
		f := s.pick(r, (*field).single)
		if f != nil && !slices.Contains(a.by, f.name) {
			a.by = append(a.by, f.name)
		}
	}
	for range 1 + r.IntN(3) {
		fn := function{"count", "*"}
		name := []string{"count", "min", "max", "sum", "avg"}[r.IntN(5)]
		f := s.pick(r, func(f *field) bool {
			number := f.integer() || f.floating()
			if f.ends && f.floating() && (name == "sum" || name == "avg") {
				return false // what is added first decides
			}
			return number || name == "count" || (name == "min" || name == "max") && f.single() && f.typ != qnpb.DataType_DATA_TYPE_BOOL
		})
		if f != nil {
			fn = function{name, f.name}
		}
		if !slices.Contains(a.funcs, fn) {
			a.funcs = append(a.funcs, fn)
		}
	}
	return a
}

// tooLarge is a sum of integers that is none of 64 bits.
type tooLarge struct{}

// of computes one aggregate of rows. Sums of the model's numbers are exact.
func (fn function) of(s *spec, rows []*row) any {
	if fn.field == "*" {
		return int64(len(rows))
	}
	at := slices.IndexFunc(s.fields, func(f field) bool { return f.name == fn.field })
	var values []any
	for _, x := range rows {
		if v := x.values[at]; v != nil {
			values = append(values, v)
		}
	}
	if fn.name == "count" {
		return int64(len(values))
	}
	if len(values) == 0 {
		return nil
	}
	switch {
	case fn.name == "min":
		return slices.MinFunc(values, order)
	case fn.name == "max":
		return slices.MaxFunc(values, order)
	case s.fields[at].integer():
		sum := new(big.Int)
		for _, v := range values {
			sum.Add(sum, big.NewInt(v.(int64)))
		}
		if fn.name == "avg" {
			mean, _ := new(big.Rat).SetFrac(sum, big.NewInt(int64(len(values)))).Float64()
			return mean
		}
		if !sum.IsInt64() {
			return tooLarge{}
		}
		return sum.Int64()
	}
	sum := 0.0
	for _, v := range values {
		sum += number(v)
	}
	return pick(fn.name == "avg", sum/float64(len(values)), sum)
}

// groups lists the combinations of values that there are, in their order, and
// what is asked of each.
func (a aggregation) groups(s *spec, rows []*row) (out []shown) {
	var groups [][]*row
	var at []int
	var orders []*qnpb.OrderBy
	for _, name := range a.by {
		at = append(at, slices.IndexFunc(s.fields, func(f field) bool { return f.name == name }))
		orders = append(orders, &qnpb.OrderBy{Field: name})
	}
	rows = slices.Clone(rows)
	s.sort(rows, orders)
	same := func(x, y *row) bool {
		return !slices.ContainsFunc(at, func(i int) bool {
			a, b := x.values[i], y.values[i]
			return (a == nil) != (b == nil) || a != nil && order(a, b) != 0
		})
	}
	for _, x := range rows {
		if n := len(groups); n == 0 || !same(groups[n-1][0], x) {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], x)
	}
	if len(a.by) == 0 && len(groups) == 0 {
		groups = append(groups, nil) // there is one group of all, even of nothing
	}
	for _, g := range groups {
		one := shown{}
		for i, name := range a.by {
			one[name] = g[0].values[at[i]]
		}
		for _, fn := range a.funcs {
			one[fn.String()] = fn.of(s, g)
		}
		out = append(out, one)
	}
	return out
}

func (l *lane) aggregate(ctx context.Context, a *asking, req *qnpb.QueryRequest) error {
	ag := a.m.spec.aggregation(a.r)
	if len(ag.by) == 0 && len(ag.funcs) == 1 && ag.funcs[0].field == "*" {
		return errNotAsked // that is a count
	}
	names := slices.Clone(ag.by)
	for _, fn := range ag.funcs {
		names = append(names, fn.String())
	}
	req.GroupByFields, req.OutputFields = ag.by, names
	if len(ag.by) > 0 && a.r.IntN(4) == 0 {
		req.OutputFields, names = ag.by, ag.by // distinct values
		ag.funcs = nil
	}
	if len(ag.by) > 0 {
		req.Limit, req.Offset = int64(a.K), int64(a.Offset)
	}
	if a.r.IntN(3) == 0 && len(ag.by) > 0 {
		req.OrderBy = []*qnpb.OrderBy{{Field: names[a.r.IntN(len(names))], Descending: a.r.IntN(2) == 0, NullsFirst: a.r.IntN(2) == 0}}
	}
	got, err := l.ask(ctx, a.op, req)
	rows := a.m.see(a.q)
	want := ag.groups(a.m.spec, rows)
	large := slices.ContainsFunc(want, func(g shown) bool { return slices.Contains(slices.Collect(maps.Values(g)), any(tooLarge{})) })
	if large && a.m.loaded && !a.m.unclear(a.q) {
		switch {
		case a.m.mayRefuse(a.f, time.Now()):
			return err
		case status.Code(err) == codes.InvalidArgument:
			return nil
		case a.whole(rows):
			return a.differs("%v of %v %v: a sum does not fit into 64 bits, and the query ends with %v", names, ag.by, &a.q, err)
		}
	}
	if sums := slices.ContainsFunc(ag.funcs, func(fn function) bool { return fn.name == "sum" }); sums && status.Code(err) == codes.InvalidArgument &&
		(a.m.unclear(a.q) || !a.whole(rows)) && !a.m.mayRefuse(a.f, time.Now()) {
		return nil // of the rows that are there one may be too large
	}
	if err != nil || !a.m.loaded || a.m.unclear(a.q) || !a.whole(rows) {
		return err
	}
	slices.SortStableFunc(want, func(x, y shown) int {
		for _, by := range req.GetOrderBy() {
			if c := inOrder(by, x[by.GetField()], y[by.GetField()]); c != 0 {
				return c
			}
		}
		return 0
	})
	if len(ag.by) > 0 {
		want = cut(want, a.Offset, a.K)
	}
	if len(got.rows) != len(want) {
		return a.differs("%v of %v %v: %d groups, want %d: %v, want %v", names, ag.by, &a.q, len(got.rows), len(want), got.rows, want)
	}
	for i, w := range want {
		for _, name := range names {
			g, w := got.rows[i][name], w[name]
			x, float := g.(float64)
			if y, ok := w.(float64); ok && float && math.Abs(x-y) <= 1e-12*math.Abs(y) {
				continue // a quotient
			}
			if !alike(g, w) {
				return a.differs("%v of %v %v: group %d, %s is %#v, want %#v", names, ag.by, &a.q, i, name, g, w)
			}
		}
	}
	return nil
}
