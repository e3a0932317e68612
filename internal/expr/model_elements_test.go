package expr

import "fmt"

// elementLeaf counts the elements of an array for which one condition holds, or two.
func (m *model) elementLeaf() term {
	name, typ := "ai", "num"
	get := func(row int) any { return m.cellOf(name, row) }
	switch m.r.IntN(4) {
	case 0:
		name, typ = "as", "str"
	case 1, 2:
		o := m.path()
		name, typ, get = o.text, "json", o.get
	}
	op, c := m.comparison(typ)
	op2, c2 := m.comparison(typ)
	text := "$ " + op + " " + literal(c)
	meets := func(e any) tri { return compareModel(op, e, c) }
	switch m.r.IntN(3) {
	case 0:
		text += " and not ($ " + op2 + " " + literal(c2) + ")"
		meets = func(e any) tri { return min3(compareModel(op, e, c), not(compareModel(op2, e, c2))) }
	case 1:
		text += " or $ " + op2 + " " + literal(c2)
		meets = func(e any) tri { return not(min3(not(compareModel(op, e, c)), not(compareModel(op2, e, c2)))) }
	}
	mode, k := m.r.IntN(len(matchNames)), m.r.IntN(3)+1
	text = matchNames[mode] + "(" + name + ", " + text
	if mode >= 2 {
		text += fmt.Sprintf(", threshold=%d", k)
	}
	return term{text + ")", func(row int) tri {
		have, ok := get(row).([]any)
		if !ok {
			return unknown
		}
		n := 0
		for _, e := range have {
			n += int(b2i(meets(e) == yes))
		}
		return triOf([]bool{n > 0, n == len(have), n >= k, n <= k, n == k}[mode])
	}}
}

// comparison returns an operator and a constant that it can compare with.
func (m *model) comparison(typ string) (string, any) {
	c := m.constant(typ)
	if _, ok := c.(bool); ok {
		return pickOf(m, cmpTexts[:2]), c
	}
	return pickOf(m, cmpTexts), c
}

// min3 is and of three-valued logic.
func min3(a, b tri) tri {
	switch {
	case a == no || b == no:
		return no
	case a == unknown || b == unknown:
		return unknown
	}
	return yes
}
