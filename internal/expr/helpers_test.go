package expr

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
)

// table is a batch as Columns.
type table map[int64]*schema.Column

func (t table) Column(id int64) *schema.Column { return t[id] }

// parseSchema reads lines such as "age Int64 nullable", "id Int64 pk", "dynamic".
func parseSchema(t testing.TB, text string) *schema.Schema {
	t.Helper()
	s := &schema.Schema{Version: 1}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		w := strings.Fields(line)
		if w[0] == "dynamic" {
			s.Dynamic = true
			continue
		}
		f := schema.Field{ID: schema.FirstFieldID + int64(i), Name: w[0]}
		name, element, _ := strings.Cut(w[1], ":") // Array:Int64
		if err := f.Type.UnmarshalText([]byte(name)); err != nil {
			t.Fatal(err)
		}
		if element != "" {
			if err := f.Element.UnmarshalText([]byte(element)); err != nil {
				t.Fatal(err)
			}
		}
		if f.Type == schema.FloatVector {
			f.Dim = 2
		}
		for _, o := range w[2:] {
			f.PrimaryKey = f.PrimaryKey || o == "pk"
			f.Nullable = f.Nullable || o == "nullable"
			if kind, ok := strings.CutPrefix(o, "analyzer="); ok {
				f.Analyzer = kind
			}
		}
		s.Fields = append(s.Fields, f)
	}
	return s
}

// parseRows reads a JSON object a line into columns; a missing field is null,
// keys that are no field go to $meta.
func parseRows(t testing.TB, s *schema.Schema, text string) (table, int) {
	t.Helper()
	tab := table{}
	for _, f := range s.Columns() {
		tab[f.ID] = schema.NewColumn(f, 0)
	}
	n := 0
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		row := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("row %q: %v", line, err)
		}
		for _, f := range s.Fields {
			appendCell(t, tab[f.ID], row[f.Name])
			delete(row, f.Name)
		}
		if s.Dynamic {
			meta, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			appendCell(t, tab[schema.DynamicFieldID], meta)
		}
		n++
	}
	return tab, n
}

func appendCell(t testing.TB, c *schema.Column, raw json.RawMessage) {
	t.Helper()
	null := raw == nil && !c.Type.IsVector() || string(raw) == "null"
	if null && c.Valid == nil {
		for range c.Rows() {
			c.Valid = append(c.Valid, true)
		}
	}
	if null || c.Valid != nil {
		c.Valid = append(c.Valid, !null)
	}
	var err error
	get := func(p any) {
		if !null {
			err = json.Unmarshal(raw, p)
		}
	}
	switch {
	case c.Type == schema.Array:
		var v []json.RawMessage
		get(&v)
		element := &schema.Column{Type: c.Element, Bool: c.Bool, Int: c.Int, Float: c.Float, Double: c.Double, Str: c.Str}
		for _, e := range v {
			appendCell(t, element, e)
		}
		c.Bool, c.Int, c.Float, c.Double, c.Str = element.Bool, element.Int, element.Float, element.Double, element.Str
		c.Offsets = append(c.Offsets, element.Rows())
	case c.Type == schema.Timestamptz:
		var v time.Time
		get(&v)
		if null {
			v = time.UnixMicro(0)
		}
		c.Int = append(c.Int, v.UnixMicro())
	case c.Type == schema.Bool:
		var v bool
		get(&v)
		c.Bool = append(c.Bool, v)
	case c.Type.IsInt():
		var v int64
		get(&v)
		c.Int = append(c.Int, v)
	case c.Type == schema.Float:
		var v float32
		get(&v)
		c.Float = append(c.Float, v)
	case c.Type == schema.Double:
		var v float64
		get(&v)
		c.Double = append(c.Double, v)
	case c.Type == schema.VarChar:
		var v string
		get(&v)
		c.Str = append(c.Str, v)
	case c.Type == schema.JSON:
		var v string
		if !null {
			v = string(raw)
			var text string // "raw:..." holds text that is no JSON
			if json.Unmarshal(raw, &text) == nil && strings.HasPrefix(text, "raw:") {
				v = text[len("raw:"):]
			}
		}
		c.Str = append(c.Str, v)
	default:
		c.Float = append(c.Float, 0, 0)
	}
	if err != nil {
		t.Fatalf("field %d: %s: %v", c.FieldID, raw, err)
	}
}

// mustCompile compiles a filter that has no errors.
func mustCompile(t testing.TB, s *schema.Schema, filter string, vars map[string]any) *Plan {
	t.Helper()
	p, err := Compile(filter, s, vars, "")
	if err != nil {
		t.Fatalf("%s: %v", clip(filter), err)
	}
	return p
}

// failer is what *testing.T, testing.TB and *rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// matching returns the numbers of the rows that match.
func matching(t failer, p *Plan, cols Columns, n int) []uint32 {
	t.Helper()
	var out bitset.Set
	if err := p.Eval(cols, n, nil, nil, &out); err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	if out.Len() != n {
		t.Fatalf("%s: the set is over %d rows, want %d", p, out.Len(), n)
	}
	rows := out.AppendTo(nil)
	if len(rows) > 0 && int(rows[len(rows)-1]) >= n {
		t.Fatalf("%s: row %d is beyond %d", p, rows[len(rows)-1], n)
	}
	return rows
}

// sameRows fails when two filters do not match the same rows.
func sameRows(t testing.TB, cols Columns, n int, a, b *Plan) {
	t.Helper()
	if x, y := matching(t, a, cols, n), matching(t, b, cols, n); !slices.Equal(x, y) {
		t.Fatalf("%s matches %v,\n%s matches %v", a, x, b, y)
	}
}

func lines(rows []uint32) string {
	if len(rows) == 0 {
		return "none\n"
	}
	return strings.Trim(fmt.Sprint(rows), "[]") + "\n"
}
