package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

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
	last   bool // nothing can be joined to its end
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
	elements := d.r.IntN(8) == 0
	if elements {
		c, elements = d.withElements(c)
	}
	return &filter{text: c.text, values: d.values, of: c.of, last: elements}
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
		return d.onText(f.name, f.ends, get)
	case qnpb.DataType_DATA_TYPE_TIMESTAMPTZ:
		return d.onTime(&f, get)
	case qnpb.DataType_DATA_TYPE_JSON:
		return d.onDocument(&f, get)
	case qnpb.DataType_DATA_TYPE_ARRAY:
		return d.onArray(&f, get)
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return d.onNumber(&f, 4, get)
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return d.onNumber(&f, 8, get)
	}
	return d.onInteger(f.name, 20, f.ends, get)
}

// one draws one of some spellings.
func (d *draft) one(of ...string) string { return of[d.r.IntN(len(of))] }

// order says which of two values of a kind comes first: -1, 0 or 1. Numbers of all types are one kind, false comes before true.
func order(a, b any) int {
	if x, ok := a.(string); ok {
		y, _ := b.(string)
		return strings.Compare(x, y)
	}
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	}
	if x, y := number(a), number(b); math.Abs(x) < 1<<53 && math.Abs(y) < 1<<53 { // so they are not rounded
		return cmp.Compare(x, y)
	}
	return exact(a).Cmp(exact(b))
}

// number is a value as a float64, the nearest one.
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
		get := func(x *row) any { return x.name }
		draw := func() any { return d.s.textOf(d.r.Int64N(keySpace)) }
		if d.s.ends && d.r.IntN(2) == 0 {
			draw = func() any { return d.s.textOf(d.r.Int64N(int64(len(textEnds)))) }
		}
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
	return d.onInteger("id", keySpace, d.s.ends, func(x *row) any { return x.id })
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
			c := calculate(x.values[at], sum, x.values[other])
			if c == nil {
				return unknown
			}
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

func (d *draft) onInteger(name string, space int64, ends bool, get func(*row) any) condition {
	r := d.r
	draw := func() any { return r.Int64N(2*space+1) - space }
	if name == "id" {
		draw = func() any { return r.Int64N(space) }
	}
	if near := draw; ends {
		draw = func() any {
			if r.IntN(2) == 0 {
				return near()
			}
			return integerEnds[r.IntN(len(integerEnds))]
		}
	}
	switch r.IntN(8) {
	case 0:
		a, b := draw().(int64), draw().(int64)
		return d.between(name, get, min(a, b), max(a, b))
	case 1, 2:
		return d.among(name, get, draw)
	case 3:
		return d.calculated(name, get, draw().(int64))
	case 4:
		return d.against(name, get, func() any {
			if ends && r.IntN(2) == 0 {
				return doubleEnds[r.IntN(len(doubleEnds))]
			}
			return float64(r.Int64N(2*space)-space) + 0.5
		})
	}
	return d.against(name, get, draw)
}

// calculated makes a condition with arithmetic on integers.
func (d *draft) calculated(name string, get func(*row) any, limit int64) condition {
	a, op := 1+d.r.Int64N(5), d.one(operators...)
	test := func(text string, result func(v any) any) condition {
		return given(fmt.Sprintf("%s %s %s", text, op, d.literal(limit)), func(x *row) any {
			if v := get(x); v != nil {
				return result(v)
			}
			return nil
		}, func(v any) bool { return holds(op, order(v, limit)) })
	}
	switch d.r.IntN(8) {
	case 0:
		limit = d.r.Int64N(3)
		return test(fmt.Sprintf("%s %% %d", name, a+1), func(v any) any { return calculate(v, "%", a+1) })
	case 1:
		return test(fmt.Sprintf("%s * 2 + %d", name, a), func(v any) any { return calculate(calculate(v, "*", int64(2)), "+", a) })
	case 2:
		return test(fmt.Sprintf("%d - %s", a, name), func(v any) any { return calculate(a, "-", v) })
	case 3:
		limit /= 4
		return test(fmt.Sprintf("%s / %d", name, a), func(v any) any { return calculate(v, "/", a) })
	case 4:
		return test(fmt.Sprintf("%s ** 2", name), func(v any) any { return number(v) * number(v) })
	case 5:
		limit = d.r.Int64N(8)
		return test(fmt.Sprintf("%s & %d", name, a), func(v any) any { return v.(int64) & a })
	case 6:
		return test(fmt.Sprintf("(%s | %d)", name, a), func(v any) any { return v.(int64) | a })
	}
	return test(fmt.Sprintf("%s ^ %d", name, a), func(v any) any { return v.(int64) ^ a })
}

func (d *draft) onNumber(f *field, parts int, get func(*row) any) condition {
	name := f.name
	draw := func() any {
		if f.ends && d.r.IntN(2) == 0 {
			return rounded(f, doubleEnds[d.r.IntN(len(doubleEnds))])
		}
		return float64(d.r.IntN(81)-40) / float64(parts)
	}
	switch d.r.IntN(6) {
	case 0:
		a, b := draw(), draw()
		return d.between(name, get, pick(order(a, b) < 0, a, b), pick(order(a, b) < 0, b, a))
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
