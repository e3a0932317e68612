package server

import (
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
)

// TestJSONIsRefusedOnlyWhereItIsTooDeep for filters to read: in arrays, in objects, and in both, but not for what stands in its texts or
// side by side.
func TestJSONIsRefusedOnlyWhereItIsTooDeep(t *testing.T) {
	const most = expr.MaxJSONDepth
	nested := func(open, inner, shut string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	f := schema.Field{ID: 200, Name: "doc", Type: schema.JSON}
	for what, c := range map[string]struct {
		text string
		deep bool
	}{
		"arrays, as deep as they may be":            {nested("[", "", "]", most), false},
		"arrays, deeper by one":                     {nested("[", "", "]", most+1), true},
		"arrays, much deeper":                       {nested("[", "", "]", 100_000), true},
		"objects, as deep as they may be":           {nested(`{"a":`, "1", "}", most), false},
		"objects, deeper by one":                    {nested(`{"a":`, "1", "}", most+1), true},
		"arrays in objects, as deep as they may be": {nested(`{"a":[`, "1", "]}", most/2), false},
		"arrays in objects, deeper by one":          {nested(`{"a":[`, "[]", "]}", most/2), true},
		"side by side":                              {"[" + strings.TrimSuffix(strings.Repeat(`[],{},`, 2*most), ",") + "]", false},
		"brackets in a text":                        {`{"a":"` + strings.Repeat(`[{`, 2*most) + `"}`, false},
		"brackets behind a quote in a text":         {`{"a":"\"` + strings.Repeat(`[{`, 2*most) + `"}`, false},
		"behind a text that ends in a slash":        {`["\\",` + nested("[", "", "]", most) + "]", true},
	} {
		col := schema.NewColumn(f, 1)
		col.Str = append(col.Str, c.text)
		err := checkJSON(f, col)
		if c.deep {
			if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "levels deep") {
				t.Errorf("%s: %v", what, err)
			}
		} else if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
