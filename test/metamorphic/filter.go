package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// truth is the value of a condition.
type truth int8

const (
	no truth = iota
	yes
	unknown // about a null, or something that is not there
)

func of(b bool) truth {
	if b {
		return yes
	}
	return no
}

func and(a, b truth) truth {
	switch {
	case a == no || b == no:
		return no
	case a == unknown || b == unknown:
		return unknown
	}
	return yes
}

func not(a truth) truth {
	switch a {
	case yes:
		return no
	case no:
		return yes
	}
	return unknown
}

// filter is a condition: as text for the node, and as a function for the model.
type filter struct {
	text   string
	values map[string]*qnpb.Value // of the {names} in the text
	of     func(*row) truth
}

// condition is a filter without its values.
type condition struct {
	text string
	of   func(*row) truth
}

// draft is a filter in the making.
type draft struct {
	r      *rand.Rand
	s      *spec
	values map[string]*qnpb.Value
}

// newFilter makes the filter of a seed; nil for seed 0.
func (s *spec) newFilter(seed uint64) *filter {
	if seed == 0 {
		return nil
	}
	d := &draft{r: rand.New(rand.NewPCG(seed, 0xf17e)), s: s, values: map[string]*qnpb.Value{}}
	c := d.condition(3)
	return &filter{c.text, d.values, c.of}
}

func (d *draft) condition(depth int) condition {
	r := d.r
	if depth > 0 {
		switch r.IntN(6) {
		case 0:
			a, b := d.condition(depth-1), d.condition(depth-1)
			return condition{"(" + a.text + d.one(" and ", " && ", " AND ") + b.text + ")", func(x *row) truth { return and(a.of(x), b.of(x)) }}
		case 1:
			a, b := d.condition(depth-1), d.condition(depth-1)
			return condition{"(" + a.text + d.one(" or ", " || ") + b.text + ")", func(x *row) truth { return not(and(not(a.of(x)), not(b.of(x)))) }}
		case 2:
			a := d.condition(depth - 1)
			return condition{d.one("not (", "!(") + a.text + ")", func(x *row) truth { return not(a.of(x)) }}
		}
	}
	if at := slices.IndexFunc(d.s.vectors, func(v vector) bool { return v.of == "" && v.nullable }); at >= 0 && r.IntN(25) == 0 {
		negated := r.IntN(2) == 0
		return condition{d.s.vectors[at].name + pick(negated, " is not null", " is null"), func(x *row) truth { return of((x.vectors[at] == nil) != negated) }}
	}
	at := r.IntN(len(d.s.fields) + 1)
	if at == len(d.s.fields) {
		return d.onKey()
	}
	f := d.s.fields[at]
	get := func(x *row) any { return x.values[at] }
	if !f.dynamic() && r.IntN(10) == 0 {
		if r.IntN(2) == 0 {
			return condition{f.name + d.one(" is null", " IS NULL"), func(x *row) truth { return of(get(x) == nil) }}
		}
		return condition{f.name + " is not null", func(x *row) truth { return of(get(x) != nil) }}
	}
	if other := d.s.pick(r, func(g *field) bool { return comparable(&f, g) }); other != nil && r.IntN(12) == 0 {
		return d.onTwo(&f, at, other)
	}
	switch f.typ {
	case qnpb.DataType_DATA_TYPE_BOOL:
		return d.onBool(f.name, get)
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		if f.analyzer != "" && r.IntN(4) > 0 {
			return d.onWords(f.name, get)
		}
		return d.onText(f.name, get)
	case qnpb.DataType_DATA_TYPE_TIMESTAMPTZ:
		return d.onTime(f.name, get)
	case qnpb.DataType_DATA_TYPE_JSON:
		return d.onDocument(&f, get)
	case qnpb.DataType_DATA_TYPE_ARRAY:
		return d.onArray(&f, get)
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return d.onNumber(f.name, 4, get)
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return d.onNumber(f.name, 8, get)
	}
	return d.onInteger(f.name, 20, get)
}

// one draws one of some spellings.
func (d *draft) one(of ...string) string { return of[d.r.IntN(len(of))] }

// literal is a value in the text, or the name of one that goes beside it.
func (d *draft) literal(v any) string {
	if d.r.IntN(5) == 0 {
		name := fmt.Sprintf("x%d", len(d.values))
		d.values[name] = apiValue(v)
		return "{" + name + "}"
	}
	return text(v)
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float32:
		return text(float64(v))
	case float64:
		t := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(t, ".") {
			t += ".0"
		}
		return t
	case list:
		var out []string
		for _, e := range v {
			out = append(out, text(e))
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	return fmt.Sprint(v)
}

func apiValue(v any) *qnpb.Value {
	switch v := v.(type) {
	case bool:
		return &qnpb.Value{Kind: &qnpb.Value_BoolValue{BoolValue: v}}
	case int64:
		return &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: v}}
	case float32:
		return apiValue(float64(v))
	case float64:
		return &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: v}}
	case string:
		return &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: v}}
	}
	l, _ := v.(list)
	rows := make([]*row, len(l))
	for i, e := range l {
		if f, ok := e.(float32); ok {
			e = float64(f)
		}
		rows[i] = &row{values: []any{e}}
	}
	if len(l) == 0 {
		return &qnpb.Value{Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{}}}
	}
	if len(l)%2 == 0 || slices.ContainsFunc(l, func(e any) bool { return reflect.TypeOf(e) != reflect.TypeOf(l[0]) }) {
		if text, err := json.Marshal(l); err == nil {
			return &qnpb.Value{Kind: &qnpb.Value_Json{Json: string(text)}}
		}
	}
	switch l[0].(type) {
	case bool:
		return &qnpb.Value{Kind: &qnpb.Value_Bools{Bools: &qnpb.BoolArray{Values: column[bool](rows, 0)}}}
	case int64:
		return &qnpb.Value{Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{Values: column[int64](rows, 0)}}}
	case string:
		return &qnpb.Value{Kind: &qnpb.Value_Strings{Strings: &qnpb.StringArray{Values: column[string](rows, 0)}}}
	}
	return &qnpb.Value{Kind: &qnpb.Value_Doubles{Doubles: &qnpb.DoubleArray{Values: column[float64](rows, 0)}}}
}

// order says which of two values of a kind comes first: -1, 0 or 1. Numbers of all
// types are one kind, false comes before true.
func order(a, b any) int {
	if x, ok := a.(string); ok {
		y, _ := b.(string)
		return strings.Compare(x, y)
	}
	switch x, y := number(a), number(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// number is a value as a float64: the model's are small.
func number(v any) float64 {
	switch v := v.(type) {
	case bool:
		if v {
			return 1
		}
	case int64:
		return float64(v)
	case float32:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

var operators = []string{"==", "!=", "<", "<=", ">", ">="}

// holds says whether an operator holds for the outcome of a comparison.
func holds(op string, c int) bool {
	switch op {
	case "==":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// given makes a condition of a test of values that are not null.
func given(text string, get func(*row) any, test func(any) bool) condition {
	return condition{text, func(x *row) truth {
		v := get(x)
		if v == nil {
			return unknown
		}
		return of(test(v))
	}}
}

// among makes "in" or "not in".
func (d *draft) among(name string, get func(*row) any, draw func() any) condition {
	var l list
	for range d.r.IntN(6) {
		l = append(l, draw())
	}
	is := func(v any) bool {
		for _, e := range l {
			if order(v, e) == 0 {
				return true
			}
		}
		return false
	}
	negated := d.r.IntN(2) == 0
	if len(l) == 0 { // does not look at the value
		return condition{name + pick(negated, " not in []", " in []"), func(*row) truth { return of(negated) }}
	}
	if negated {
		return given(name+" not in "+d.literal(l), get, func(v any) bool { return !is(v) })
	}
	return given(name+d.one(" in ", " IN ")+d.literal(l), get, is)
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// against makes a comparison with a literal, on either side.
func (d *draft) against(name string, get func(*row) any, draw func() any) condition {
	op, want := d.one(operators...), draw()
	if d.r.IntN(6) == 0 {
		return given(d.literal(want)+" "+op+" "+name, get, func(v any) bool { return holds(op, order(want, v)) })
	}
	return given(name+" "+op+" "+d.literal(want), get, func(v any) bool { return holds(op, order(v, want)) })
}

// between makes a range.
func (d *draft) between(name string, get func(*row) any, a, b any) condition {
	lo, hi := d.one("<", "<="), d.one("<", "<=")
	if d.r.IntN(2) == 0 {
		return given(d.literal(a)+" "+lo+" "+name+" "+hi+" "+d.literal(b), get,
			func(v any) bool { return holds(lo, order(a, v)) && holds(hi, order(v, b)) })
	}
	lo, hi = strings.ReplaceAll(lo, "<", ">"), strings.ReplaceAll(hi, "<", ">")
	return given(d.literal(b)+" "+hi+" "+name+" "+lo+" "+d.literal(a), get,
		func(v any) bool { return holds(hi, order(b, v)) && holds(lo, order(v, a)) })
}

func (d *draft) onKey() condition {
	if d.s.text {
		get := func(x *row) any { return textKey(x.key) }
		draw := func() any { return textKey(d.r.Int64N(keySpace)) }
		if d.r.IntN(3) == 0 {
			return d.among("id", get, draw)
		}
		return d.against("id", get, draw)
	}
	if d.s.auto { // which numbers there are is not known
		n := 2 + d.r.Int64N(6)
		op, limit := d.one(operators...), d.r.Int64N(n)
		return given(fmt.Sprintf("id %% %d %s %s", n, op, d.literal(limit)), func(x *row) any { return x.id }, func(v any) bool { return holds(op, order(v.(int64)%n, limit)) })
	}
	return d.onInteger("id", keySpace, func(x *row) any { return x.id })
}

// comparable reports whether two fields can stand on the two sides of a comparison.
func comparable(f, g *field) bool {
	numbers := func(f *field) bool { return f.integer() || f.floating() }
	return f.name != g.name && f.single() && (numbers(f) && numbers(g) || f.typ == g.typ && f.typ == qnpb.DataType_DATA_TYPE_VARCHAR)
}

func (d *draft) onTwo(f *field, at int, g *field) condition {
	op, other := d.one(operators...), d.s.at(g)
	if f.typ != qnpb.DataType_DATA_TYPE_VARCHAR && d.r.IntN(2) == 0 {
		sum, limit := d.one("+", "-", "*"), d.r.Int64N(41)-20
		return condition{fmt.Sprintf("%s %s %s %s %s", f.name, sum, g.name, op, d.literal(limit)), func(x *row) truth {
			if x.values[at] == nil || x.values[other] == nil {
				return unknown
			}
			a, b := number(x.values[at]), number(x.values[other])
			c := map[string]float64{"+": a + b, "-": a - b, "*": a * b}[sum]
			return of(holds(op, order(c, limit)))
		}}
	}
	return condition{f.name + " " + op + " " + g.name, func(x *row) truth {
		a, b := x.values[at], x.values[other]
		if a == nil || b == nil {
			return unknown
		}
		return of(holds(op, order(a, b)))
	}}
}

func (d *draft) onBool(name string, get func(*row) any) condition {
	want := d.r.IntN(2) == 0
	switch d.r.IntN(3) {
	case 0:
		return given(name, get, func(v any) bool { return v == true })
	case 1:
		return given(name+" != "+d.literal(want), get, func(v any) bool { return v != want })
	}
	return given(name+" == "+d.literal(want), get, func(v any) bool { return v == want })
}

func (d *draft) onInteger(name string, space int64, get func(*row) any) condition {
	r := d.r
	draw := func() any { return r.Int64N(2*space+1) - space }
	if name == "id" {
		draw = func() any { return r.Int64N(space) }
	}
	switch r.IntN(8) {
	case 0:
		a := draw().(int64)
		return d.between(name, get, a, a+r.Int64N(space))
	case 1, 2:
		return d.among(name, get, draw)
	case 3:
		return d.calculated(name, get, draw().(int64))
	case 4:
		return d.against(name, get, func() any { return float64(r.Int64N(2*space)-space) + 0.5 })
	}
	return d.against(name, get, draw)
}

// calculated makes a condition with arithmetic on integers.
func (d *draft) calculated(name string, get func(*row) any, limit int64) condition {
	a, op := 1+d.r.Int64N(5), d.one(operators...)
	test := func(text string, calculate func(int64) int64) condition {
		return given(fmt.Sprintf("%s %s %s", text, op, d.literal(limit)), get, func(v any) bool { return holds(op, order(calculate(v.(int64)), limit)) })
	}
	switch d.r.IntN(8) {
	case 0:
		limit = d.r.Int64N(3)
		return test(fmt.Sprintf("%s %% %d", name, a+1), func(v int64) int64 { return v % (a + 1) })
	case 1:
		return test(fmt.Sprintf("%s * 2 + %d", name, a), func(v int64) int64 { return v*2 + a })
	case 2:
		return test(fmt.Sprintf("%d - %s", a, name), func(v int64) int64 { return a - v })
	case 3:
		limit /= 4
		return test(fmt.Sprintf("%s / %d", name, a), func(v int64) int64 { return v / a })
	case 4:
		return test(fmt.Sprintf("%s ** 2", name), func(v int64) int64 { return v * v })
	case 5:
		limit = d.r.Int64N(8)
		return test(fmt.Sprintf("%s & %d", name, a), func(v int64) int64 { return v & a })
	case 6:
		return test(fmt.Sprintf("(%s | %d)", name, a), func(v int64) int64 { return v | a })
	}
	return test(fmt.Sprintf("%s ^ %d", name, a), func(v int64) int64 { return v ^ a })
}

func (d *draft) onNumber(name string, parts int, get func(*row) any) condition {
	draw := func() any { return float64(d.r.IntN(81)-40) / float64(parts) }
	switch d.r.IntN(6) {
	case 0:
		a := draw().(float64)
		return d.between(name, get, a, a+float64(d.r.IntN(40))/float64(parts))
	case 1:
		return d.among(name, get, draw)
	case 2:
		op, limit := d.one(operators...), draw()
		return given(fmt.Sprintf("%s * 2 - 1 %s %s", name, op, d.literal(limit)), get, func(v any) bool { return holds(op, order(number(v)*2-1, limit)) })
	case 3:
		return d.against(name, get, func() any { return d.r.Int64N(11) - 5 })
	}
	return d.against(name, get, draw)
}

func (d *draft) onTime(name string, get func(*row) any) condition {
	moment := func() (string, int64) {
		at := epoch.Add(time.Duration(d.r.IntN(41)-20) * time.Hour)
		zone := time.FixedZone("", (d.r.IntN(5)-2)*5400)
		if d.r.IntN(2) == 0 {
			return at.Format(time.RFC3339), at.UnixMicro()
		}
		return at.In(zone).Format(time.RFC3339), at.UnixMicro()
	}
	at, want := moment()
	op := d.one(operators...)
	switch d.r.IntN(4) {
	case 0:
		n := d.r.Int64N(30)
		add := d.r.IntN(2) == 0
		shift := time.Duration(n) * time.Hour
		return given(fmt.Sprintf("%s %s INTERVAL \"PT%dH\" %s ISO %q", name, pick(add, "+", "-"), n, op, at), get, func(v any) bool {
			return holds(op, order(v.(int64)+pick(add, 1, int64(-1))*shift.Microseconds(), want))
		})
	case 1:
		until, last := moment()
		return given(fmt.Sprintf("ISO %q <= %s and %s < ISO %q", at, name, name, until), get, func(v any) bool { return want <= v.(int64) && v.(int64) < last })
	case 2:
		return given(fmt.Sprintf("%s %s %q", name, op, at), get, func(v any) bool { return holds(op, order(v, want)) })
	}
	return given(fmt.Sprintf("%s %s ISO %q", name, op, at), get, func(v any) bool { return holds(op, order(v, want)) })
}
