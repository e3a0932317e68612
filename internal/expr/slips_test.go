package expr

import (
	"errors"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

// TestSlips: what is right in other languages is told with its place and what to write
// instead.
func TestSlips(t *testing.T) {
	s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "i", Type: schema.Int64},
		{ID: 101, Name: "s", Type: schema.VarChar, MaxLength: 9}, {ID: 102, Name: "j", Type: schema.JSON}}}
	for _, c := range []struct {
		filter  string
		column  int
		instead string
	}{
		{`i in (1, 2)`, 8, "a list in [ ]"}, {`j.a.b == 2`, 2, `j["a"]["b"]`}, {`i <> 1`, 4, `"!="`},
		{`i between 1 and 3`, 3, "1 <= a <= 3"}, {`s ilike "a%"`, 3, `=~ "(?i)`}, {`i isnull`, 3, `"is null"`}, {`i ISNULL`, 3, `"is null"`},
		{`s contains "x"`, 3, `like "%x%"`}, {"i \u2265 1", 3, `">="`}, {"i \u2260 1", 3, `"!="`}, {"s == \u201cabc\u201d", 6, "straight"},
		{"i\u00a0== 1", 2, "plain space"}, {`i > 1;`, 6, "the end"}, {`s == "\q"`, 7, `r"..."`}, {`i = 1`, 3, `"=="`},
	} {
		_, err := Compile(c.filter, s, nil, "")
		var e *Error
		if !errors.As(err, &e) || e.Column != c.column || !strings.Contains(strings.Join(e.Expected, " "), c.instead) {
			t.Errorf("%s: %v, want column %d and %s", c.filter, err, c.column, c.instead)
		}
	}
}
