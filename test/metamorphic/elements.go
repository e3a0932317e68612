package main

import (
	"fmt"
	"slices"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// onElements makes a condition on how many elements of an array are so.
func (d *draft) onElements(name string, get func(*row) any, draw func() any) condition {
	c, holds := d.onElement(draw)
	fn, n := d.one("any", "all", "least", "most", "exact"), 1+d.r.IntN(3)
	text := fmt.Sprintf("match_%s(%s, %s)", fn, name, c.text)
	if fn != "any" && fn != "all" {
		text = fmt.Sprintf("%s(%s, %s, threshold=%d)", d.one("match_", "MATCH_")+fn, name, c.text, n)
	}
	return given(text, get, func(v any) bool {
		l, count := v.(list), 0
		for _, e := range l {
			if holds(e) {
				count++
			}
		}
		switch fn {
		case "any":
			return count > 0
		case "all":
			return count == len(l)
		case "least":
			return count >= n
		case "most":
			return count <= n
		}
		return count == n
	})
}

// onElement makes a condition on an element, $, and says whether it holds for one.
func (d *draft) onElement(draw func() any) (c condition, holds func(e any) bool) {
	var one any // the element that is looked at
	element := func(*row) any { return one }
	switch want := draw().(type) {
	case bool:
		c = given(fmt.Sprintf("$ == %v", want), element, func(v any) bool { return v == want })
	case string:
		c = d.onText("$", false, element)
	default:
		switch d.r.IntN(3) {
		case 0:
			c = d.among("$", element, draw)
		case 1:
			c = d.between("$", element, int64(1), want)
		default:
			c = d.against("$", element, draw)
		}
	}
	return c, func(e any) bool {
		one = e
		return c.of(nil) == yes
	}
}

// withElements joins a condition on the elements of an array to the end of another one; !ok = there is no array.
func (d *draft) withElements(c condition) (joined condition, ok bool) {
	f := d.s.pick(d.r, func(f *field) bool { return f.typ == qnpb.DataType_DATA_TYPE_ARRAY })
	if f == nil {
		return c, false
	}
	at := d.s.at(f)
	e, holds := d.onElement(func() any { return f.element(d.r) })
	last := given(fmt.Sprintf("%s(%s, %s)", d.one("element_filter", "ELEMENT_FILTER"), f.name, e.text), func(x *row) any { return x.values[at] },
		func(v any) bool { return slices.ContainsFunc(v.(list), holds) })
	if d.r.IntN(4) == 0 {
		return last, true
	}
	return condition{"(" + c.text + ")" + d.one(" and ", " && ") + last.text, func(x *row) truth { return and(c.of(x), last.of(x)) }}, true
}
