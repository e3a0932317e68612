package expr

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/schema"
)

// The model: a second evaluator, row by row, on Go values, with exact numbers
// (math/big), encoding/json and regexp. It shares no code with the plan.

const modelSchema = `
id Int64 pk
i Int64 nullable
j Int8
d Double nullable
f Float
s VarChar nullable
b Bool nullable
meta JSON nullable
ai Array:Int64 nullable
as Array:VarChar
at Timestamptz nullable
v FloatVector
dynamic`

// term is a condition as text and as the model sees it.
type term struct {
	text string
	eval func(row int) tri
}

// model draws rows and conditions.
type model struct {
	r    *rand.Rand
	s    *schema.Schema
	cols table
	n    int
}

func newModel(t testing.TB, seed uint64, n int) *model {
	m := &model{r: rand.New(rand.NewPCG(seed, 1)), s: parseSchema(t, modelSchema), cols: table{}, n: n}
	for _, f := range m.s.Columns() {
		c := schema.NewColumn(f, n)
		nulls := f.Nullable && m.r.IntN(4) > 0
		for range n {
			valid := !nulls || m.r.IntN(4) > 0
			if nulls {
				c.Valid = append(c.Valid, valid)
			}
			m.addCell(c, f, valid)
		}
		m.cols[f.ID] = c
	}
	return m
}

func (m *model) addCell(c *schema.Column, f schema.Field, valid bool) {
	switch {
	case f.Type == schema.Bool:
		c.Bool = append(c.Bool, valid && m.r.IntN(2) == 0)
	case f.Type == schema.Int8:
		c.Int = append(c.Int, int64(m.r.IntN(9)-4))
	case f.Type == schema.Array:
		for range m.r.IntN(4) * int(b2i(valid)) {
			if f.Element == schema.VarChar {
				c.Str = append(c.Str, pickOf(m, words))
			} else {
				c.Int = append(c.Int, pickOf(m, ints))
			}
		}
		c.Offsets = append(c.Offsets, len(c.Int)+len(c.Str))
	case f.Type == schema.Timestamptz:
		c.Int = append(c.Int, pickOf(m, times)*b2i(valid))
	case f.Type.IsInt():
		c.Int = append(c.Int, pickOf(m, ints)*b2i(valid))
	case f.Type == schema.Float:
		c.Float = append(c.Float, float32(pickOf(m, floats)))
	case f.Type == schema.Double:
		c.Double = append(c.Double, pickOf(m, append(floats, math.NaN(), math.Inf(1)))*float64(b2i(valid)))
	case f.Type == schema.VarChar:
		c.Str = append(c.Str, strings.Repeat(pickOf(m, words), int(b2i(valid))))
	case f.Type == schema.JSON:
		c.Str = append(c.Str, strings.Repeat(m.document(), int(b2i(valid))))
	default:
		c.Float = append(c.Float, 0, 0)
	}
}

var (
	ints = []int64{
		0, 1, 2, 3, -1, -2, 5, 7, 100, 1000, 1 << 40, 1<<53 + 1, -1<<53 - 1,
		math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1,
	}
	times  = []int64{0, 1, -1, 999_999, 1_767_323_045_000_000, 1_767_323_045_000_001, -62_135_596_800_000_000}
	floats = []float64{
		0, math.Copysign(0, -1), 1, 1.5, 2, -1, -2.5, 0.1, 1.1, 3, 100, 1 << 53, 1<<53 + 2, 1e18, 9.2e18, two63, -two63, 1e-9,
	}
	words = []string{"", "a", "ab", "abc", "b", "ba", "red", "blue", "grün", "üb", "a%b", "a_b", `a\b`, "aab", "aabaab", "é", "\n"}
	keys  = []string{"a", "b", "c", `q"k`, "é", "0"}
)

func pickOf[T any](m *model, from []T) T { return from[m.r.IntN(len(from))] }

// document draws a JSON object as text, with escapes and spaces here and there.
func (m *model) document() string {
	var b bytes.Buffer
	raw, err := json.Marshal(m.jsonObject(2))
	if err != nil {
		panic(err)
	}
	if m.r.IntN(2) == 0 {
		raw = []byte(strings.NewReplacer("é", `\u00e9`, "ü", `\u00fc`, `"b"`, `"\u0062"`).Replace(string(raw)))
	}
	if m.r.IntN(2) == 0 {
		if err := json.Indent(&b, raw, " ", "\t"); err != nil {
			panic(err)
		}
		return b.String()
	}
	return string(raw)
}

func (m *model) jsonObject(depth int) map[string]any {
	o := map[string]any{}
	for range m.r.IntN(5) {
		o[pickOf(m, keys)] = m.jsonValue(depth)
	}
	return o
}

func (m *model) jsonValue(depth int) any {
	k := m.r.IntN(10)
	switch {
	case k < 3:
		return pickOf(m, ints)
	case k < 5:
		return pickOf(m, floats)
	case k < 7:
		return pickOf(m, words)
	case k == 7:
		return []any{true, false, nil}[m.r.IntN(3)]
	case depth == 0:
		return nil
	case k == 8:
		return m.jsonObject(depth - 1)
	}
	a := []any{}
	for range m.r.IntN(4) {
		a = append(a, m.jsonValue(depth-1))
	}
	return a
}

// at decodes the document and follows the path; nil when there is nothing.
func at(doc string, path []any) any {
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil
	}
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			v = x[fmt.Sprint(p)]
		case []any:
			i, err := strconv.Atoi(fmt.Sprint(p))
			if err != nil || i >= len(x) || strconv.Itoa(i) != fmt.Sprint(p) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// exact turns a number into a big.Float, or a NaN into nil with ok.
func exact(v any) (f *big.Float, ok bool) {
	switch x := v.(type) {
	case int64:
		return new(big.Float).SetPrec(200).SetInt64(x), true
	case float32:
		return exact(float64(x))
	case float64:
		if math.IsNaN(x) {
			return nil, true
		}
		return new(big.Float).SetPrec(200).SetFloat64(x), true
	case json.Number:
		if i, err := strconv.ParseInt(string(x), 10, 64); err == nil {
			return exact(i)
		}
		y, _ := x.Float64()
		return exact(y)
	}
	return nil, false
}

// compareModel compares Go values by the rules of the package.
func compareModel(op string, a, b any) tri {
	if x, ok := exact(a); ok {
		y, ok := exact(b)
		if !ok {
			return unknown
		}
		if x == nil || y == nil {
			return triOf(op == "!=")
		}
		return ordered(op, x.Cmp(y))
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return ordered(op, strings.Compare(x, y))
		}
	case bool:
		if y, ok := b.(bool); ok && (op == "==" || op == "!=") {
			return triOf((x == y) == (op == "=="))
		}
	case []any:
		if y, ok := b.([]any); ok && (op == "==" || op == "!=") {
			return triOf(equalModel(x, y) == (op == "=="))
		}
	}
	return unknown
}

func equalModel(x, y []any) bool {
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if compareModel("==", x[i], y[i]) != yes {
			return false
		}
	}
	return true
}

func ordered(op string, c int) tri {
	return triOf(map[string]bool{
		"==": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0,
	}[op])
}

var cmpTexts = []string{"==", "!=", "<", "<=", ">", ">="}

// literal writes a Go value in the language.
func literal(v any) string {
	switch x := v.(type) {
	case int64:
		return strconv.FormatInt(x, 10)
	case float64:
		return formatFloat(x)
	case string:
		if strings.ContainsAny(x, "\\\n\"'") {
			return strings.ReplaceAll(strconv.Quote(x), `\'`, `'`)
		}
		return "'" + x + "'"
	case []any:
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = literal(x[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// cellOf is the value of a field in a row; nil for null.
func (m *model) cellOf(name string, row int) any {
	f, _ := m.s.Field(name)
	c := m.cols[f.ID]
	switch {
	case c.Null(row):
		return nil
	case f.Type == schema.Array:
		from, to := c.List(row)
		list := []any{}
		for i := from; i < to; i++ {
			if f.Element == schema.VarChar {
				list = append(list, c.Str[i])
			} else {
				list = append(list, c.Int[i])
			}
		}
		return list
	case f.Type == schema.Bool:
		return c.Bool[row]
	case f.Type.IsInt():
		return c.Int[row]
	case f.Type == schema.Float:
		return c.Float[row]
	case f.Type == schema.Double:
		return c.Double[row]
	}
	return c.Str[row]
}

func and(a, b tri) tri {
	if a == no || b == no {
		return no
	}
	if a == unknown || b == unknown {
		return unknown
	}
	return yes
}

func not(a tri) tri {
	if a == unknown {
		return a
	}
	return 1 - a
}

// condition draws a tree.
func (m *model) condition(depth int) term {
	if depth == 0 || m.r.IntN(4) == 0 {
		return m.leaf()
	}
	if m.r.IntN(4) == 0 {
		t := m.condition(depth - 1)
		return term{pickOf(m, []string{"not (", "!("}) + t.text + ")", func(row int) tri { return not(t.eval(row)) }}
	}
	all := make([]term, 2+m.r.IntN(3))
	texts := make([]string, len(all))
	for i := range all {
		all[i] = m.condition(depth - 1)
		texts[i] = "(" + all[i].text + ")"
	}
	if m.r.IntN(2) == 0 {
		return term{strings.Join(texts, " and "), func(row int) tri {
			r := yes
			for _, t := range all {
				r = and(r, t.eval(row))
			}
			return r
		}}
	}
	return term{strings.Join(texts, " || "), func(row int) tri {
		r := yes // a or b is not (not a and not b)
		for _, t := range all {
			r = and(r, not(t.eval(row)))
		}
		return not(r)
	}}
}

// TestPlanAgreesWithRowByRowModel compares random filters on random rows.
func TestPlanAgreesWithRowByRowModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(0, 150).Draw(rt, "rows"))
		for range 10 {
			m.check(rt, m.condition(rapid.IntRange(0, 3).Draw(rt, "depth")))
		}
	})
}

func (m *model) check(rt *rapid.T, c term) {
	if !utf8.ValidString(c.text) {
		rt.Fatalf("the model wrote %q", c.text)
	}
	p, err := Compile(c.text, m.s, nil, "")
	if err != nil {
		rt.Fatalf("%s: %v", c.text, err)
	}
	again, err := Compile(p.String(), m.s, nil, "")
	if err != nil || again.String() != p.String() {
		rt.Fatalf("%s\nin normal form %s\nbecomes %s, %v", c.text, p, again, err)
	}
	got := map[uint32]bool{}
	for _, r := range matching(rt, p, m.cols, m.n) {
		got[r] = true
	}
	for row := range m.n {
		if want := c.eval(row) == yes; got[uint32(row)] != want {
			rt.Fatalf("%s\nrow %d: got %v, want %v\n%s", c.text, row, got[uint32(row)], want, m.show(row))
		}
	}
	m.checkPruning(rt, p, len(got))
}

func (m *model) show(row int) string {
	var b strings.Builder
	for _, f := range m.s.Columns() {
		if !f.Type.IsVector() {
			fmt.Fprintf(&b, "%s=%v ", f.Name, m.cellOf(f.Name, row))
		}
	}
	return b.String()
}

// checkPruning verifies that MayMatch never excludes rows that match.
func (m *model) checkPruning(rt *rapid.T, p *Plan, matches int) {
	may := p.MayMatch(m.stats)
	if !may && matches > 0 {
		rt.Fatalf("%s matches %d rows, but MayMatch says none", p, matches)
	}
	if pk := m.s.Primary(); matches > 0 {
		if keys, ok := p.PrimaryKeys(pk); ok {
			for _, r := range matching(rt, p, m.cols, m.n) {
				id := m.cols[pk.ID].Int[r]
				if !containsInt(keys.Int, id) {
					rt.Fatalf("%s matches key %d, which is not in %v", p, id, keys.Int)
				}
			}
		}
	}
}

func containsInt(list []int64, x int64) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// stats gives the exact bounds of a column.
func (m *model) stats(id int64) (lo, hi any, nulls, rows int64, ok bool) {
	f, _ := m.s.FieldByID(id)
	for row := range m.n {
		v := m.cellOf(f.Name, row)
		if v == nil {
			nulls++
			continue
		}
		if x, num := exact(v); num && x == nil || f.Type == schema.JSON {
			continue
		}
		if lo == nil || less(v, lo) {
			lo = v
		}
		if hi == nil || less(hi, v) {
			hi = v
		}
	}
	return lo, hi, nulls, int64(m.n), true
}

func less(a, b any) bool {
	if x, ok := a.(bool); ok {
		return !x && b.(bool)
	}
	return compareModel("<", a, b) == yes
}
