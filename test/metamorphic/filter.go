package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
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

// filter is a condition: as text for the node, and as a function for the model.
type filter struct {
	text string
	of   func(*row) truth
}

// newFilter makes the filter of a seed; nil for seed 0.
func (s *spec) newFilter(seed uint64) *filter {
	if seed == 0 {
		return nil
	}
	f := s.condition(rand.New(rand.NewPCG(seed, 0xf17e)), 3)
	return &f
}

func (s *spec) condition(r *rand.Rand, depth int) filter {
	if depth > 0 {
		switch r.IntN(6) {
		case 0:
			a, b := s.condition(r, depth-1), s.condition(r, depth-1)
			return filter{"(" + a.text + []string{" and ", " && "}[r.IntN(2)] + b.text + ")", func(x *row) truth { return and(a.of(x), b.of(x)) }}
		case 1:
			a, b := s.condition(r, depth-1), s.condition(r, depth-1)
			return filter{"(" + a.text + []string{" or ", " || "}[r.IntN(2)] + b.text + ")", func(x *row) truth { return not(and(not(a.of(x)), not(b.of(x)))) }}
		case 2:
			a := s.condition(r, depth-1)
			return filter{"not (" + a.text + ")", func(x *row) truth { return not(a.of(x)) }}
		}
	}
	at := r.IntN(len(s.fields) + 1)
	if at == len(s.fields) {
		return s.onKey(r)
	}
	f := s.fields[at]
	get := func(x *row) any { return x.values[at] }
	if f.nullable && r.IntN(6) == 0 {
		if r.IntN(2) == 0 {
			return filter{f.name + " is null", func(x *row) truth { return of(get(x) == nil) }}
		}
		return filter{f.name + " is not null", func(x *row) truth { return of(get(x) != nil) }}
	}
	switch f.typ {
	case qnpb.DataType_DATA_TYPE_BOOL:
		want := r.IntN(2) == 0
		return filter{fmt.Sprintf("%s == %v", f.name, want), func(x *row) truth {
			if get(x) == nil {
				return unknown
			}
			return of(get(x) == want)
		}}
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		return onText(r, f.name, func(x *row) (string, bool) { v, ok := get(x).(string); return v, ok })
	case qnpb.DataType_DATA_TYPE_JSON:
		return onDocument(r, f.name, func(x *row) *document { d, _ := get(x).(*document); return d })
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return onNumber(r, f.name, 4, func(x *row) (float64, bool) { v, ok := get(x).(float32); return float64(v), ok })
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return onNumber(r, f.name, 8, func(x *row) (float64, bool) { v, ok := get(x).(float64); return v, ok })
	default:
		return onInteger(r, f.name, 20, func(x *row) (int64, bool) { v, ok := get(x).(int64); return v, ok })
	}
}

func (s *spec) onKey(r *rand.Rand) filter {
	if s.text {
		want := textKey(r.Int64N(keySpace))
		op := []string{"<", ">=", "==", "!="}[r.IntN(4)]
		return filter{fmt.Sprintf("id %s %q", op, want), func(x *row) truth { return compare(op, strings.Compare(textKey(x.key), want)) }}
	}
	return onInteger(r, "id", keySpace, func(x *row) (int64, bool) { return x.key, true })
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

// compare says whether an operator holds for the outcome of a comparison.
func compare(op string, c int) truth {
	switch op {
	case "==":
		return of(c == 0)
	case "!=":
		return of(c != 0)
	case "<":
		return of(c < 0)
	case "<=":
		return of(c <= 0)
	case ">":
		return of(c > 0)
	}
	return of(c >= 0)
}

func order[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

var operators = []string{"==", "!=", "<", "<=", ">", ">="}

func onInteger(r *rand.Rand, name string, space int64, get func(*row) (int64, bool)) filter {
	draw := func() int64 { return r.Int64N(2*space+1) - space }
	if name == "id" {
		draw = func() int64 { return r.Int64N(space) }
	}
	given := func(test func(int64) truth) func(*row) truth {
		return func(x *row) truth {
			v, ok := get(x)
			if !ok {
				return unknown
			}
			return test(v)
		}
	}
	switch r.IntN(6) {
	case 0:
		lo, width := draw(), r.Int64N(space)
		return filter{fmt.Sprintf("%d < %s <= %d", lo, name, lo+width), given(func(v int64) truth { return of(lo < v && v <= lo+width) })}
	case 1:
		in := map[int64]bool{}
		var texts []string
		for range 1 + r.IntN(5) {
			v := draw()
			in[v] = true
			texts = append(texts, strconv.FormatInt(v, 10))
		}
		list := "[" + strings.Join(texts, ", ") + "]"
		if r.IntN(2) == 0 {
			return filter{name + " not in " + list, given(func(v int64) truth { return of(!in[v]) })}
		}
		return filter{name + " in " + list, given(func(v int64) truth { return of(in[v]) })}
	case 2:
		m, want := 2+r.Int64N(4), r.Int64N(3)
		return filter{fmt.Sprintf("%s %% %d == %d", name, m, want), given(func(v int64) truth { return of(v%m == want) })}
	case 3:
		add, op, limit := r.Int64N(9)-4, operators[r.IntN(6)], draw()
		return filter{fmt.Sprintf("%s * 2 + %d %s %d", name, add, op, limit), given(func(v int64) truth { return compare(op, order(v*2+add, limit)) })}
	}
	op, limit := operators[r.IntN(6)], draw()
	return filter{fmt.Sprintf("%s %s %d", name, op, limit), given(func(v int64) truth { return compare(op, order(v, limit)) })}
}

func onNumber(r *rand.Rand, name string, parts int, get func(*row) (float64, bool)) filter {
	draw := func() float64 { return float64(r.IntN(81)-40) / float64(parts) }
	op, limit := operators[r.IntN(6)], draw()
	if r.IntN(4) == 0 {
		hi := limit + float64(r.IntN(40))/float64(parts)
		return filter{fmt.Sprintf("%v <= %s < %v", limit, name, hi), func(x *row) truth {
			v, ok := get(x)
			if !ok {
				return unknown
			}
			return of(limit <= v && v < hi)
		}}
	}
	return filter{fmt.Sprintf("%s %s %v", name, op, limit), func(x *row) truth {
		v, ok := get(x)
		if !ok {
			return unknown
		}
		return compare(op, order(v, limit))
	}}
}

func onText(r *rand.Rand, name string, get func(*row) (string, bool)) filter {
	given := func(test func(string) bool) func(*row) truth {
		return func(x *row) truth {
			v, ok := get(x)
			if !ok {
				return unknown
			}
			return of(test(v))
		}
	}
	part := []string{"a", "b", "re", "gre", "e", "ue"}[r.IntN(6)]
	switch r.IntN(7) {
	case 0:
		return filter{fmt.Sprintf("%s like %q", name, part+"%"), given(func(v string) bool { return strings.HasPrefix(v, part) })}
	case 1:
		return filter{fmt.Sprintf("%s like %q", name, "%"+part), given(func(v string) bool { return strings.HasSuffix(v, part) })}
	case 2:
		return filter{fmt.Sprintf("%s like %q", name, "%"+part+"%"), given(func(v string) bool { return strings.Contains(v, part) })}
	case 3:
		a, b := randomWord(r), randomWord(r)
		return filter{fmt.Sprintf("%s in [%q, %q]", name, a, b), given(func(v string) bool { return v == a || v == b })}
	case 4:
		a, b := randomWord(r), randomWord(r)
		return filter{fmt.Sprintf("%s not in [%q, %q]", name, a, b), given(func(v string) bool { return v != a && v != b })}
	}
	op, want := operators[r.IntN(6)], randomWord(r)
	return filter{fmt.Sprintf("%s %s %q", name, op, want), given(func(v string) bool { return compare(op, strings.Compare(v, want)) == yes })}
}

func onDocument(r *rand.Rand, name string, get func(*row) *document) filter {
	given := func(test func(*document) truth) func(*row) truth {
		return func(x *row) truth {
			d := get(x)
			if d == nil {
				return unknown
			}
			return test(d)
		}
	}
	switch r.IntN(5) {
	case 0:
		op, limit := operators[r.IntN(6)], r.Int64N(21)-10
		return filter{fmt.Sprintf(`%s["n"] %s %d`, name, op, limit), given(func(d *document) truth {
			if d.num == nil {
				return unknown
			}
			return compare(op, order(*d.num, limit))
		})}
	case 1:
		want := []string{"a", "red"}[r.IntN(2)]
		return filter{fmt.Sprintf(`%s["w"] == %q`, name, want), given(func(d *document) truth {
			if d.word == nil {
				return unknown
			}
			return of(*d.word == want)
		})}
	case 2:
		want := r.Int64N(6)
		return filter{fmt.Sprintf(`json_contains(%s["l"], %d)`, name, want), given(func(d *document) truth {
			if d.list == nil {
				return unknown
			}
			for _, v := range d.list {
				if v == want {
					return yes
				}
			}
			return no
		})}
	case 3:
		return filter{fmt.Sprintf(`exists %s["n"]`, name), given(func(d *document) truth { return of(d.num != nil) })}
	}
	want := r.IntN(2) == 0
	return filter{fmt.Sprintf(`%s["s"]["b"] == %v`, name, want), given(func(d *document) truth {
		if d.sub == nil {
			return unknown
		}
		return of(*d.sub == want)
	})}
}
