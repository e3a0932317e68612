package expr

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// operand is a value as text and in the model; typed says what it may be compared with.
type operand struct {
	text string
	typ  string // num, str, bool, json
	f32  bool
	get  func(row int) any
}

// element is an element of an array, or the number of them.
func (m *model) element() operand {
	name, typ := "ai", "num"
	if m.r.IntN(3) == 0 {
		name, typ = "as", "str"
	}
	k := m.r.IntN(4)
	if k == 3 {
		return operand{"array_length(" + name + ")", "num", false, func(row int) any {
			if list, ok := m.cellOf(name, row).([]any); ok {
				return int64(len(list))
			}
			return nil
		}}
	}
	return operand{name + "[" + strconv.Itoa(k) + "]", typ, false, func(row int) any {
		if list, ok := m.cellOf(name, row).([]any); ok && k < len(list) {
			return list[k]
		}
		return nil
	}}
}

// arrayLeaf asks an array for members, or for all of it.
func (m *model) arrayLeaf() term {
	name, typ := "ai", "num"
	if m.r.IntN(2) == 0 {
		name, typ = "as", "str"
	}
	want := []any{}
	for range m.r.IntN(7) {
		want = append(want, m.constant(typ))
	}
	mode := m.r.IntN(4)
	if mode == 0 && len(want) == 0 {
		mode = 1
	}
	text := [...]string{"array_contains(", "array_contains_any(", "json_contains_all("}
	if mode == 0 {
		want = want[:1]
	}
	eval := func(row int) tri {
		have, ok := m.cellOf(name, row).([]any)
		if !ok {
			return unknown
		}
		if mode == 3 {
			return not(compareModel("==", have, want))
		}
		found := 0
		for _, w := range want {
			for _, h := range have {
				if compareModel("==", h, w) == yes {
					found++
					break
				}
			}
		}
		return triOf(found > 0 && mode < 2 || mode == 2 && found == len(want))
	}
	switch mode {
	case 0:
		return term{text[0] + name + ", " + literal(want[0]) + ")", eval}
	case 3:
		return term{name + " != " + literal(want), eval}
	}
	return term{text[mode] + name + ", " + literal(want) + ")", eval}
}

// timeLeaf compares a time with a constant, moved by an interval or not.
func (m *model) timeLeaf() term {
	c, span := pickOf(m, times), int64(m.r.IntN(3))*500_000
	op := pickOf(m, cmpTexts)
	left := "at"
	if span > 0 {
		left = "at - " + value{k: kSpan, i: span}.String()
	}
	return term{left + " " + op + " " + value{k: kTime, i: c}.String(), func(row int) tri {
		if x, ok := m.cellOf("at", row).(int64); ok {
			return compareModel(op, x-span, c)
		}
		return unknown
	}}
}

func (m *model) field() operand {
	if m.r.IntN(5) == 0 {
		return m.element()
	}
	name := pickOf(m, []string{"id", "i", "j", "d", "f", "s", "b"})
	typ := map[string]string{"s": "str", "b": "bool"}[name]
	if typ == "" {
		typ = "num"
	}
	return operand{name, typ, name == "f", func(row int) any { return m.cellOf(name, row) }}
}

func (m *model) path() operand {
	name := pickOf(m, []string{"meta", "$meta"})
	text := name
	path := []any{}
	for range 1 + m.r.IntN(2) {
		var s any = pickOf(m, keys)
		if m.r.IntN(4) == 0 {
			s = int64(m.r.IntN(3))
		}
		path = append(path, s)
		text += "[" + literal(s) + "]"
	}
	if k, ok := path[0].(string); ok && name == "$meta" && len(path) == 1 && (k == "a" || k == "c") { // names of no field
		text = k
	}
	return operand{text, "json", false, func(row int) any {
		doc, ok := m.cellOf(name, row).(string)
		if !ok {
			return nil
		}
		return at(doc, path)
	}}
}

func (m *model) constant(typ string) any {
	switch typ {
	case "num":
		if m.r.IntN(2) == 0 {
			return pickOf(m, floats)
		}
		return pickOf(m, ints)
	case "str":
		return pickOf(m, words)
	case "bool":
		return m.r.IntN(2) == 0
	}
	return m.constant(pickOf(m, []string{"num", "num", "str", "bool"}))
}

func (m *model) any() operand {
	if m.r.IntN(3) == 0 {
		return m.path()
	}
	return m.field()
}

func (m *model) leaf() term {
	switch m.r.IntN(14) {
	case 13:
		return m.elementLeaf()
	case 11:
		return m.arrayLeaf()
	case 12:
		return m.timeLeaf()
	case 0, 1, 2:
		return m.compareConstant()
	case 3:
		return m.chained()
	case 4:
		return m.inList()
	case 5:
		return m.likeLeaf()
	case 6:
		return m.nullLeaf()
	case 7:
		return m.containsLeaf()
	case 8, 9:
		return m.arithLeaf()
	}
	return m.compareOperands()
}

func (m *model) compareConstant() term {
	o := m.any()
	c := m.constant(o.typ)
	op := pickOf(m, cmpTexts)
	if _, ok := c.(bool); ok {
		op = pickOf(m, cmpTexts[:2])
	}
	if o.typ == "json" && m.r.IntN(6) == 0 {
		c, op = []any{m.constant("num"), m.constant("json")}[:m.r.IntN(3)], pickOf(m, cmpTexts[:2])
	}
	rounded := round32(o, c)
	eval := func(row int) tri { return compareModel(op, o.get(row), rounded) }
	if m.r.IntN(3) == 0 {
		flip := map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}
		if f, ok := flip[op]; ok {
			return term{literal(c) + f + o.text, eval}
		}
	}
	return term{o.text + " " + op + " " + literal(c), eval}
}

// round32 rounds a constant to 32 bits when it meets a Float field.
func round32(o operand, c any) any {
	if f, ok := exact(c); ok && o.f32 {
		x, _ := f.Float64()
		return float32(x)
	}
	return c
}

func (m *model) chained() term {
	o := m.any()
	for o.typ == "bool" {
		o = m.any()
	}
	typ := o.typ
	if typ == "json" {
		typ = "num"
	}
	lo, hi := m.constant(typ), m.constant(typ)
	op1, op2 := pickOf(m, cmpTexts[2:4]), pickOf(m, cmpTexts[2:4])
	flip := map[string]string{"<": ">", "<=": ">="}
	lo2, hi2 := round32(o, lo), round32(o, hi)
	return term{literal(lo) + op1 + o.text + op2 + literal(hi), func(row int) tri {
		v := o.get(row)
		return and(compareModel(flip[op1], v, lo2), compareModel(op2, v, hi2))
	}}
}

func (m *model) inList() term {
	o := m.any()
	list := []any{}
	for range m.r.IntN(12) {
		list = append(list, m.constant(o.typ))
	}
	if o.typ == "json" && m.r.IntN(4) == 0 {
		list = append(list, []any{m.constant("num")})
	}
	not := pickOf(m, []string{"", "not "})
	return term{o.text + " " + not + "in " + literal(list), func(row int) tri {
		t := m.memberOf(o, row, list)
		if t != unknown && not != "" {
			t = 1 - t
		}
		return t
	}}
}

func (m *model) memberOf(o operand, row int, list []any) tri {
	if len(list) == 0 {
		return no
	}
	v := o.get(row)
	result := unknown
	for _, c := range list {
		switch compareModel("==", v, round32(o, c)) {
		case yes:
			return yes
		case no:
			result = no
		}
	}
	return result
}

func (m *model) likeLeaf() term {
	o := pickOf(m, []operand{m.path(), {"s", "str", false, func(row int) any { return m.cellOf("s", row) }}})
	var pattern, re strings.Builder
	re.WriteString("(?s)^")
	for range m.r.IntN(5) {
		switch m.r.IntN(5) {
		case 0, 1:
			pattern.WriteByte('%')
			re.WriteString(".*")
		case 2:
			pattern.WriteByte('_')
			re.WriteByte('.')
		default:
			w := pickOf(m, words)
			pattern.WriteString(strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(w))
			re.WriteString(regexp.QuoteMeta(w))
		}
	}
	re.WriteByte('$')
	x := regexp.MustCompile(re.String())
	return term{o.text + " like " + literal(pattern.String()), func(row int) tri {
		v, ok := o.get(row).(string)
		if !ok {
			return unknown
		}
		return triOf(x.MatchString(v))
	}}
}

func (m *model) nullLeaf() term {
	if m.r.IntN(2) == 0 {
		o := m.field()
		return term{o.text + " is null", func(row int) tri { return triOf(o.get(row) == nil) }}
	}
	o := m.path()
	if m.r.IntN(2) == 0 {
		return term{o.text + " is not null", func(row int) tri { return triOf(solid(o.get(row))) }}
	}
	column := "meta"
	if !strings.HasPrefix(o.text, "meta[") {
		column = "$meta"
	}
	return term{"exists " + o.text, func(row int) tri {
		if m.cellOf(column, row) == nil {
			return unknown
		}
		return triOf(solid(o.get(row)))
	}}
}

func solid(v any) bool {
	switch x := v.(type) {
	case nil:
		return false
	case []any:
		for _, e := range x {
			if solid(e) {
				return true
			}
		}
		return false
	case map[string]any:
		for _, e := range x {
			if solid(e) {
				return true
			}
		}
		return false
	}
	return true
}

func (m *model) containsLeaf() term {
	o := m.path()
	list := []any{}
	for range m.r.IntN(8) {
		list = append(list, m.constant("json"))
	}
	has := func(a []any, c any) bool {
		for _, e := range a {
			if compareModel("==", e, c) == yes {
				return true
			}
		}
		return false
	}
	mode := m.r.IntN(3)
	var arg any = list
	if mode == 0 {
		arg = m.constant("json")
		list = []any{arg}
	}
	name := []string{"json_contains", "json_contains_any", "array_contains_all"}[mode]
	return term{name + "(" + o.text + ", " + literal(arg) + ")", func(row int) tri {
		a, ok := o.get(row).([]any)
		if !ok {
			return unknown
		}
		n := 0
		for _, c := range list {
			n += int(b2i(has(a, c)))
		}
		return triOf(mode < 2 && n > 0 || mode == 2 && n == len(list))
	}}
}

// arithLeaf is o <op> c compared with a constant.
func (m *model) arithLeaf() term {
	o := m.any()
	for o.typ != "num" && o.typ != "json" {
		o = m.any()
	}
	op := pickOf(m, []string{"+", "-", "*", "/", "%", "**"})
	var c any = pickOf(m, ints)
	if op == "%" && (o.text == "d" || o.text == "f") {
		op = "+"
	}
	if op != "%" && m.r.IntN(2) == 0 {
		c = pickOf(m, floats)
	}
	if f, _ := exact(c); f.Sign() == 0 && (op == "/" || op == "%") {
		c = int64(2)
	}
	second := operand{literal(c), "num", false, func(int) any { return c }}
	if m.r.IntN(3) == 0 {
		second = pickOf(m, []operand{m.path(), {"i", "num", false, func(row int) any { return m.cellOf("i", row) }}})
	}
	rhs, cmp := m.constant("num"), pickOf(m, cmpTexts)
	return term{o.text + " " + op + " " + second.text + cmp + literal(rhs), func(row int) tri {
		return compareModel(cmp, arithModel(op, o.get(row), second.get(row)), rhs)
	}}
}

func arithModel(op string, a, b any) any {
	x, ok1 := exact(a)
	y, ok2 := exact(b)
	if !ok1 || !ok2 {
		return nil
	}
	_, float1 := whole(a)
	_, float2 := whole(b)
	if !float1 && !float2 && op != "**" {
		i, _ := x.Int(nil)
		k, _ := y.Int(nil)
		if k.Sign() == 0 && (op == "/" || op == "%") {
			return nil
		}
		z := new(big.Int)
		switch op {
		case "+":
			z.Add(i, k)
		case "-":
			z.Sub(i, k)
		case "*":
			z.Mul(i, k)
		case "/":
			z.Quo(i, k)
		case "%":
			z.Rem(i, k)
		}
		if !z.IsInt64() {
			return nil
		}
		return z.Int64()
	}
	p, q := double(a), double(b)
	switch op {
	case "+":
		return p + q
	case "-":
		return p - q
	case "*":
		return p * q
	case "/":
		return p / q
	case "%":
		return nil
	}
	return math.Pow(p, q)
}

// whole reports whether a number is an integer by type.
func whole(v any) (i int64, float bool) {
	switch x := v.(type) {
	case int64:
		return x, false
	case json.Number:
		i, err := strconv.ParseInt(string(x), 10, 64)
		return i, err != nil
	}
	return 0, true
}

func double(v any) float64 {
	switch x := v.(type) {
	case int64:
		return float64(x)
	case float32:
		return float64(x)
	case json.Number:
		if i, float := whole(v); !float {
			return float64(i)
		}
		f, _ := x.Float64()
		return f
	}
	return v.(float64)
}

func (m *model) compareOperands() term {
	a, b := m.any(), m.any()
	for a.typ != b.typ && a.typ != "json" && b.typ != "json" {
		b = m.any()
	}
	op := pickOf(m, cmpTexts)
	if a.typ == "bool" || b.typ == "bool" {
		op = pickOf(m, cmpTexts[:2])
	}
	return term{a.text + " " + op + " " + b.text, func(row int) tri {
		x, y := a.get(row), b.get(row)
		if _, ok := x.([]any); ok {
			return unknown // two arrays from JSON are not compared
		}
		return compareModel(op, x, y)
	}}
}
