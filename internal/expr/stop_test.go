package expr

import (
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

type oneColumn struct{ c *schema.Column }

func (o oneColumn) Column(int64) *schema.Column { return o.c }

// TestAFilterEndsWhenItIsTold within a few rows, whatever it looks at.
func TestAFilterEndsWhenItIsTold(t *testing.T) {
	long := strings.Repeat("a ", 4<<10)
	texts := make([]string, 60)
	docs := make([]string, len(texts))
	for i := range texts {
		texts[i], docs[i] = long, `{"x": "`+long+`"}`
	}
	s := &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "t", Type: schema.VarChar, MaxLength: 65535, Analyzer: "standard"}, {ID: 101, Name: "j", Type: schema.JSON},
		{ID: 102, Name: "a", Type: schema.Array, Element: schema.VarChar, MaxLength: 65535, MaxCapacity: 100}}}
	a := schema.NewColumn(s.Fields[2], len(texts))
	for range texts {
		a.AppendRow(oneArray(long), 0)
	}
	enough := errors.New("enough")
	for filter, c := range map[string]*schema.Column{
		`t like "%_b"`:                {FieldID: 100, Type: schema.VarChar, Str: texts},
		`not (t =~ "(a| )*b")`:        {FieldID: 100, Type: schema.VarChar, Str: texts},
		`text_match(t, "b")`:          {FieldID: 100, Type: schema.VarChar, Str: texts},
		`phrase_match(t, "b a")`:      {FieldID: 100, Type: schema.VarChar, Str: texts},
		`j["x"] like "%_b"`:           {FieldID: 101, Type: schema.JSON, Str: docs},
		`match_any(a, $ like "%_b")`:  a,
		`t like "%c" or t like "%_b"`: {FieldID: 100, Type: schema.VarChar, Str: texts},
	} {
		p := mustCompile(t, s, filter, nil)
		var out bitset.Set
		asked, calls := 0, 0
		err := p.Eval(oneColumn{c}, len(texts), nil, func() error {
			calls++
			if asked++; asked < 5 {
				return nil
			}
			return enough
		}, &out)
		if !errors.Is(err, enough) || calls != 5 {
			t.Errorf("%s: %v, asked %d times", filter, err, calls)
		}
		if err := p.Eval(oneColumn{c}, len(texts), nil, nil, &out); err != nil || filter[0] != 'n' && out.Count() != 0 {
			t.Errorf("%s: %v afterwards, %d rows", filter, err, out.Count())
		}
	}
}

func oneArray(s string) *schema.Column {
	return &schema.Column{FieldID: 102, Type: schema.Array, Element: schema.VarChar, Offsets: []int{0, 1}, Str: []string{s}}
}

// TestRegularExpressionsAreBounded: repetitions make a few characters a long program.
func TestRegularExpressionsAreBounded(t *testing.T) {
	s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "t", Type: schema.VarChar, MaxLength: 65535}, {ID: 101, Name: "j", Type: schema.JSON}}}
	mustCompile(t, s, `t =~ "^[a-z]{1,200}@(x|y)+\\.[a-z]{2,10}$"`, nil)
	for _, f := range []string{`t =~ "(a?){999}(a?){999}b"`, `j["x"] !~ "(((a?){10}){10}){9}(b{10}){99}"`} {
		if _, err := Compile(f, s, nil, ""); !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "at most 2000") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// TestLikeSkipsWhatMayBeAnything rather than try it at each place.
func TestLikeSkipsWhatMayBeAnything(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"%___b%", "aab", false}, {"%___b%", "aaab", true}, {"%___b%", "béébab", true}, {"%__%", "é", false}, {"%__%", "éx", true},
		{"%b__%", "abc", false}, {"%b__%", "abcb", true}, {"%_a_b_%", "xaxb", false}, {"%_a_b_%", "axaéby", true}, {"%_%_%", "a", false},
		{"%_b_%b%", "abxb", true}, {"%_b_%b%", "abb", false}, {"%_é_%", "aéx", true},
	} {
		if got := compileLike(c.pattern).match(c.text); got != c.want {
			t.Errorf("%s like %s: %v", c.text, c.pattern, got)
		}
	}
	q := compileLike("%" + strings.Repeat("_", 4000) + "b" + strings.Repeat("_", 40) + "%").pieces[0]
	if q.text != "b" || q.wild != nil || q.before != 4000 || q.after != 40 {
		t.Errorf("%d, %q, %d", q.before, q.text, q.after)
	}
}
