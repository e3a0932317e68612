package segments

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// seen lists what the model shows, by key.
func (r *rig) seen(at uint64, keep func(modelRow) bool) []modelRow {
	var out []modelRow
	for _, row := range r.visible(at) {
		if keep(row) {
			out = append(out, row)
		}
	}
	slices.SortFunc(out, func(a, b modelRow) int { return cmp.Compare(a.key, b.key) })
	return out
}

// cut is limit and offset.
func cut[T any](all []T, offset, limit int) []T {
	all = all[min(offset, len(all)):]
	if limit > 0 {
		all = all[:min(limit, len(all))]
	}
	return all
}

// TestOrdersAndAggregatesAgainstTheModel, of random rows at random timestamps.
func TestOrdersAndAggregatesAgainstTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, rigOptions{})
		defer r.close()
		r.steps(rt, 12)
		for range 6 {
			at := rapid.Uint64Range(1000, r.now).Draw(rt, "at")
			p := rapid.SampledFrom(plans).Draw(rt, "filter")
			q := QueryRequest{Read: Read{ReadTimestamp: at, Plan: r.plan(p.text)}, Limit: rapid.IntRange(0, 12).Draw(rt, "limit"),
				Offset: rapid.IntRange(0, 5).Draw(rt, "offset"), BatchRows: rapid.IntRange(0, 9).Draw(rt, "piece")}
			rows := r.seen(at, p.keep)
			r.compareOrder(rt, q, rows)
			r.compareAggregates(rt, q, rows)
			r.comparePages(rt, q.Read, rows)
		}
	})
}

// colorOrder is the model's order of nullable text.
func colorOrder(o Order, a, b string) int {
	if a == "" || b == "" {
		c := cmp.Compare(b2i(a == ""), b2i(b == ""))
		if o.NullsFirst {
			return -c
		}
		return c
	}
	if o.Descending {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

func (r *rig) compareOrder(rt *rapid.T, q QueryRequest, rows []modelRow) {
	color := Order{FieldID: colorField, Descending: rapid.Bool().Draw(rt, "desc"), NullsFirst: rapid.Bool().Draw(rt, "nulls first")}
	price := Order{FieldID: priceField, Descending: rapid.Bool().Draw(rt, "desc")}
	q.OrderBy = rapid.SampledFrom([][]Order{{color}, {price}, {color, price}, {price, color}}).Draw(rt, "order")
	want := slices.Clone(rows)
	slices.SortStableFunc(want, func(a, b modelRow) int {
		for _, o := range q.OrderBy {
			c := colorOrder(o, a.color, b.color)
			if o.FieldID == priceField {
				if c = cmp.Compare(a.price, b.price); o.Descending {
					c = -c
				}
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	var keys []int64
	for _, row := range cut(want, q.Offset, q.Limit) {
		keys = append(keys, row.key)
	}
	if got, _ := r.prices(q); !slices.Equal(got, keys) {
		rt.Fatalf("order %+v: %v, want %v", q.OrderBy, got, keys)
	}
}

// table runs a query with aggregates and prints its rows.
func (r *rig) table(rt rapid.TB, q QueryRequest) (out []string) {
	_, err := r.coll.Query(r.t.Context(), &q, func(b *schema.Batch, _ uint64) error {
		for i := range b.Rows {
			line := ""
			for _, c := range b.Columns {
				switch {
				case c.Null(i):
					line += "null "
				case c.Type == schema.VarChar:
					line += c.Str[i] + " "
				case c.Type == schema.Double:
					line += fmt.Sprintf("%.6f ", c.Double[i])
				default:
					line += fmt.Sprint(c.Int[i], " ")
				}
			}
			out = append(out, line)
		}
		return nil
	})
	if err != nil {
		rt.Fatalf("%+v", err)
	}
	return out
}

func (r *rig) compareAggregates(rt *rapid.T, q QueryRequest, rows []modelRow) {
	q.Aggregates = []Aggregate{{Func: Count}, {Count, colorField}, {Min, priceField}, {Max, priceField}, {Sum, priceField}, {Avg, priceField}, {Min, colorField}}
	by := rapid.SampledFrom([]string{"", "color", "color, id%2 price"}).Draw(rt, "by")
	group := func(modelRow) string { return "" }
	switch by {
	case "color":
		q.GroupBy = []int64{colorField}
		group = func(row modelRow) string { return textOr(row.color) + " " }
	case "color, id%2 price":
		q.GroupBy = []int64{colorField, priceField}
		group = func(row modelRow) string { return fmt.Sprint(textOr(row.color), " ", row.price, " ") }
	}
	// The default order is that of the groups, nulls last.
	slices.SortStableFunc(rows, func(a, b modelRow) int {
		return cmp.Or(colorOrder(Order{}, a.color, b.color), cmp.Compare(a.price, b.price))
	})
	var names []string
	groups := map[string][]modelRow{}
	if by == "" {
		names = []string{""}
	}
	for _, row := range rows {
		name := group(row)
		if len(groups[name]) == 0 && by != "" {
			names = append(names, name)
		}
		groups[name] = append(groups[name], row)
	}
	var want []string
	for _, name := range names {
		want = append(want, name+aggregatesOf(groups[name]))
	}
	if got := r.table(rt, q); !slices.Equal(got, cut(want, q.Offset, q.Limit)) {
		rt.Fatalf("by %q: %q, want %q", by, got, cut(want, q.Offset, q.Limit))
	}
	if by == "color" {
		q.Aggregates = nil // distinct values
		var distinct []string
		distinct = append(distinct, names...)
		if got := r.table(rt, q); !slices.Equal(got, cut(distinct, q.Offset, q.Limit)) {
			rt.Fatalf("distinct: %q, want %q", got, distinct)
		}
	}
}

func textOr(s string) string {
	if s == "" {
		return "null"
	}
	return s
}

func aggregatesOf(rows []modelRow) string {
	if len(rows) == 0 {
		return "0 0 null null null null null "
	}
	colored, sum, lo, hi, first := 0, int64(0), int64(math.MaxInt64), int64(0), ""
	for _, row := range rows {
		sum += row.price
		lo, hi = min(lo, row.price), max(hi, row.price)
		if row.color != "" {
			colored++
			if first == "" || row.color < first {
				first = row.color
			}
		}
	}
	return fmt.Sprintf("%d %d %d %d %d %.6f %s ", len(rows), colored, lo, hi, sum, float64(sum)/float64(len(rows)), textOr(first))
}

// comparePages walks a query page by page.
func (r *rig) comparePages(rt *rapid.T, read Read, rows []modelRow) {
	slices.SortFunc(rows, func(a, b modelRow) int { return cmp.Compare(a.key, b.key) })
	read.OutputFields = []int64{idField}
	q := QueryRequest{Read: read, Page: true, Limit: rapid.IntRange(1, 20).Draw(rt, "page")}
	var got []int64
	for {
		n := 0
		res, err := r.coll.Query(r.t.Context(), &q, func(b *schema.Batch, _ uint64) error {
			got = append(got, b.Columns[0].Int...)
			n += b.Rows
			return nil
		})
		must(r.t, err)
		if n > q.Limit || res.More && n < q.Limit {
			rt.Fatalf("a page of %d rows, want %d, more %t", n, q.Limit, res.More)
		}
		if !res.More {
			break
		}
		q.After = res.Last
	}
	var want []int64
	for _, row := range rows {
		want = append(want, row.key)
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("pages of %d: %v, want %v", q.Limit, got, want)
	}
}

// TestPagesOfASearchAgainstTheModel: all rows in order of distance, once each,
// while the segments they are in are handed off, deleted from and added to.
func TestPagesOfASearchAgainstTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.L2, index.IP, index.Cosine}).Draw(rt, "metric")
		kind := rapid.SampledFrom([]string{"FLAT", "HNSW"}).Draw(rt, "index")
		r := newRig(t, rigOptions{index: VectorIndex{Type: kind, Metric: metric}})
		defer r.close()
		for s := range int64(4) {
			r.insertNew(s+1, seq(s*20, s*20+20))
		}
		r.upsert(5, 3, seq(10, 50)...) // many keys in several segments
		r.delete(2, 22, 42)
		at := r.now
		p := rapid.SampledFrom(plans).Draw(rt, "filter")
		query := vectorOf(rapid.Int64Range(0, 120).Draw(rt, "query"), 77)
		read := Read{ReadTimestamp: at, Plan: r.plan(p.text), OutputFields: []int64{priceField}}
		q := SearchRequest{Read: read, Vectors: query, TopK: rapid.IntRange(1, 25).Draw(rt, "page"), Page: &Paging{Request: rapid.Uint64Range(0, 1).Draw(rt, "kept")}}
		want := r.nearest(query, math.MaxInt, at, func(row modelRow, _ float32) bool { return p.keep(row) })
		handOff := rapid.Permutation([]int64{1, 2, 3, 4, 5}).Draw(rt, "hand-offs")[:2] // a build and a load each
		for n := 0; ; {
			res := r.found(q)
			for i, k := range res.Keys.Int {
				if n == len(want) || k != want[n].key || res.Fields[0].Int[i] != want[n].price {
					rt.Fatalf("row %d: key %d, want %+v", n, k, want[min(n, len(want)-1)])
				}
				n++
			}
			if !res.More {
				if n != len(want) {
					rt.Fatalf("%d rows, want %d", n, len(want))
				}
				break
			}
			if len(res.Keys.Int) != q.TopK {
				rt.Fatalf("a page of %d rows, want %d", len(res.Keys.Int), q.TopK)
			}
			q.Page.After = res.Last
			if rapid.IntRange(0, 9).Draw(rt, "forgotten") == 0 {
				r.set.pages.sweep(time.Now())
			}
			if len(handOff) > 0 && rapid.Bool().Draw(rt, "change") {
				r.handOff(handOff[0])
				handOff = handOff[1:]
				r.insert(100, 1000+int64(n))
				r.delete(int64(n))
			}
		}
	})
}

// TestAKeyInSeveralSegmentsCountsOnce, with its newest row: an insert does not
// replace what other segments have.
func TestAKeyInSeveralSegmentsCountsOnce(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.put(1, seq(0, 50), 0, false)
	r.put(2, seq(25, 75), 4, false)
	r.handOff(2)
	r.put(3, seq(40, 60), 6, false)
	r.put(4, seq(100, 110), 0, false) // a range of its own
	all := func(modelRow) bool { return true }
	rows := r.seen(r.now, all)
	if n := r.count(r.now); n != int64(len(rows)) {
		t.Errorf("count %d, want %d", n, len(rows))
	}
	sum := int64(0)
	for _, row := range rows {
		sum += row.price
	}
	if got := r.table(t, QueryRequest{Aggregates: []Aggregate{{Sum, priceField}, {Func: Count}}}); got[0] != fmt.Sprint(sum, " ", len(rows), " ") {
		t.Errorf("%q, want a sum of %d over %d rows", got, sum, len(rows))
	}
	slices.SortFunc(rows, func(a, b modelRow) int { return cmp.Compare(b.price, a.price) })
	keys, prices := r.prices(QueryRequest{OrderBy: []Order{{FieldID: priceField, Descending: true}}})
	for i, row := range rows {
		if i >= len(keys) || keys[i] != row.key || prices[i] != row.price {
			t.Fatalf("row %d in order of price: %v", i, keys)
		}
	}
	query := vectorOf(500, 1)
	want := r.nearest(query, math.MaxInt, r.now, nil)
	q := SearchRequest{Vectors: query, TopK: 9, Page: &Paging{Request: 1}, Read: Read{OutputFields: []int64{priceField}, ReadTimestamp: r.now}}
	for n := 0; ; {
		res := r.found(q)
		for i, k := range res.Keys.Int {
			if n >= len(want) || k != want[n].key || res.Fields[0].Int[i] != want[n].price {
				t.Fatalf("row %d: key %d", n, k)
			}
			n++
		}
		if q.Page.After = res.Last; !res.More {
			if n != len(want) {
				t.Fatalf("%d rows, want %d", n, len(want))
			}
			break
		}
	}
}

// TestRowsEquallyNearComeByKey, page by page, also if their keys are text.
func TestRowsEquallyNearComeByKey(t *testing.T) {
	s := items()
	s.Fields[0].Type = schema.VarChar
	r := newRig(t, rigOptions{schema: s})
	b := &schema.Batch{Rows: 300}
	for _, f := range s.Columns() {
		c := schema.NewColumn(f, b.Rows)
		for k := range b.Rows {
			switch f.ID {
			case idField:
				c.Str = append(c.Str, fmt.Sprintf("k%03d", (k*7)%300))
			case priceField:
				c.Int = append(c.Int, 1)
			case colorField:
				c.Str = append(c.Str, "red")
			case vectorField:
				c.Float = append(c.Float, make([]float32, dim)...)
			}
		}
		b.Columns = append(b.Columns, c)
	}
	at := r.tick()
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
	q := SearchRequest{Vectors: vectorOf(1, 1), TopK: 7, Page: &Paging{}}
	var got []string
	for {
		res := r.found(q)
		got = append(got, res.Keys.Str...)
		if !res.More {
			break
		}
		q.Page.After = res.Last
	}
	if len(got) != 300 || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != 300 {
		t.Fatalf("%d keys: %v", len(got), got)
	}
}

// TestADistanceIsTheSameWhereverTheRowIs, to the last bit: pages go by it.
func TestADistanceIsTheSameWhereverTheRowIs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	sc := newScratch()
	for _, d := range []int{1, 3, 8, 17, 100, 128, 768} {
		base := make([]float32, 100*d)
		for i := range base {
			base[i] = float32(rnd.NormFloat64())
		}
		query := base[:d]
		for _, m := range []index.Metric{index.L2, index.IP, index.Cosine} {
			q := nearestQuery{ctx: t.Context(), metric: m, vector: query}
			var all []float32
			must(t, sc.distances(vectors{base: base, dim: d}, 100, &q, nil, func(_ []uint32, out []float32) error {
				all = append(all, out...)
				return nil
			}))
			for row := range 100 {
				q.from = row
				n := row + 1 + rnd.IntN(100-row)
				must(t, sc.distances(vectors{base: base, dim: d}, n, &q, nil, func(rows []uint32, out []float32) error {
					for i, r := range rows {
						if out[i] != all[r] {
							t.Fatalf("%s, dimension %d: row %d is at %v among %d rows and at %v among all", m, d, r, out[i], len(rows), all[r])
						}
					}
					return nil
				}))
			}
		}
	}
}

// TestAggregatesOfExtremes: sums are exact or refused, NaN is the largest number.
func TestAggregatesOfExtremes(t *testing.T) {
	var a acc
	for _, v := range []int64{math.MaxInt64, 5, math.MinInt64, -7} {
		a.n++
		a.plusInt(v>>63, uint64(v))
	}
	if v, err := a.result(Sum, schema.Int64); err != nil || v.i != -3 {
		t.Errorf("sum %d, %v, want -3", v.i, err)
	}
	if v, _ := a.result(Avg, schema.Int64); math.Float64frombits(uint64(v.i)) != -0.75 {
		t.Errorf("avg %v, want -0.75", math.Float64frombits(uint64(v.i)))
	}
	a = acc{}
	for range 3 {
		a.n++
		a.plusInt(0, math.MaxInt64)
	}
	_, err := a.result(Sum, schema.Int64)
	wantClass(t, err, errclass.Invalid)
	if v, _ := a.result(Avg, schema.Int64); math.Float64frombits(uint64(v.i)) != math.MaxInt64 {
		t.Errorf("avg %v, want %v", math.Float64frombits(uint64(v.i)), float64(math.MaxInt64))
	}
	for _, v := range []int64{-1<<53 - 1, 1<<53 + 1, math.MinInt64, math.MaxInt64 - 511} { // what they round to, not what their sum does
		a = acc{}
		for range 3 {
			a.n++
			a.plusInt(v>>63, uint64(v))
		}
		if mean, _ := a.result(Avg, schema.Int64); math.Float64frombits(uint64(mean.i)) != float64(v) {
			t.Errorf("avg of %d is %f, want %f", v, math.Float64frombits(uint64(mean.i)), float64(v))
		}
	}
	a = acc{}
	for _, v := range []float64{1e100, 1, -1e100, 1} {
		a.n++
		a.plus(v)
	}
	if a.total() != 2 {
		t.Errorf("sum of floating-point numbers %v, want 2", a.total())
	}
	nan, one := floatValue(math.NaN()), floatValue(1)
	if compareIn(schema.Double, nan, one) <= 0 || compareIn(schema.Double, nan, nan) != 0 || compareIn(schema.Double, value{null: true}, nan) <= 0 {
		t.Error("want numbers before NaN before null")
	}
	if floatValue(math.Copysign(0, -1)) != floatValue(0) {
		t.Error("-0 and 0 are two values")
	}
}

// TestQueriesThatMakeNoSense are refused.
func TestQueriesThatMakeNoSense(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1)
	for _, q := range []QueryRequest{
		{Aggregates: []Aggregate{{Sum, colorField}}}, {Aggregates: []Aggregate{{Max, vectorField}}}, {Aggregates: []Aggregate{{Min, 999}}},
		{GroupBy: []int64{vectorField}}, {OrderBy: []Order{{FieldID: vectorField}}}, {OrderBy: []Order{{FieldID: 999}}},
	} {
		_, err := r.coll.Query(t.Context(), &q, func(*schema.Batch, uint64) error { return nil })
		wantClass(t, err, errclass.Invalid)
	}
}

// TestOrdersAndGroupsTakeMemoryFromTheLedger: a query that would hold more than
// there is, is refused; one with a limit is not.
func TestOrdersAndGroupsTakeMemoryFromTheLedger(t *testing.T) {
	r := newRig(t, rigOptions{memory: 24 << 20})
	for s := range int64(10) {
		r.insert(s+1, seq(s*10_000, s*10_000+10_000)...)
	}
	used := r.set.Ledger().Total()
	fill, err := r.set.Ledger().Reserve(KindScratch, r.set.Ledger().Limit()-used)
	must(t, err)
	defer fill.Release()
	none := func(*schema.Batch, uint64) error { return nil }
	order := QueryRequest{OrderBy: []Order{{FieldID: priceField, Descending: true}}}
	_, err = r.coll.Query(t.Context(), &order, none)
	wantClass(t, err, errclass.Exhausted)
	groups := QueryRequest{GroupBy: []int64{priceField}}
	_, err = r.coll.Query(t.Context(), &groups, none)
	wantClass(t, err, errclass.Exhausted)
	few := QueryRequest{GroupBy: []int64{colorField}, Aggregates: []Aggregate{{Func: Count}}}
	p, err := expr.Compile("id < 5000", r.o.schema, nil, "")
	must(t, err)
	few.Plan = p
	if got := r.table(t, few); len(got) != 4 {
		t.Fatalf("%q", got)
	}
}
