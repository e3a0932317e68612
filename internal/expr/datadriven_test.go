package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// TestDataDriven runs the stories in testdata. Commands:
//
//	schema           a field a line
//	rows             a JSON object a line
//	match [x=..]     a filter a line -> the numbers of the rows that match, or
//	                 the error with its caret; x=.. gives {x} a value
//	normal           a filter a line -> its normal form
//	plan             a filter a line -> the fields it reads, or all/none
func TestDataDriven(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		var s *schema.Schema
		var tab table
		n := 0
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "schema":
				s = parseSchema(t, d.Input)
				if err := s.Validate(); err != nil {
					return err.Error() + "\n"
				}
				return "ok\n"
			case "rows":
				tab, n = parseRows(t, s, d.Input)
				return fmt.Sprintf("%d rows\n", n)
			}
			vars := map[string]any{}
			for _, a := range d.CmdArgs {
				vars[a.Key] = variable(a.Vals)
			}
			var b strings.Builder
			for filter := range strings.Lines(d.Input) {
				b.WriteString(story(t, d.Cmd, strings.TrimRight(filter, "\n"), s, tab, n, vars))
			}
			return b.String()
		})
	})
}

func story(t *testing.T, cmd, filter string, s *schema.Schema, tab table, n int, vars map[string]any) string {
	t.Helper()
	p, err := Compile(filter, s, vars, "")
	if err != nil {
		return explain(t, err, filter)
	}
	if again := mustCompile(t, s, p.String(), nil); again.String() != p.String() {
		t.Fatalf("normal form of %s: %s becomes %s", filter, p, again)
	}
	switch cmd {
	case "normal":
		return p.String() + "\n"
	case "plan":
		return fmt.Sprintf("fields %v all %v none %v\n", p.Fields(), p.All(), p.None())
	}
	sameRows(t, tab, n, p, mustCompile(t, s, p.String(), nil))
	return lines(matching(t, p, tab, n))
}

// explain checks and shows an error of Compile.
func explain(t *testing.T, err error, filter string) string {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("%s: %v is not of class Invalid with an *Error", filter, err)
	}
	return err.Error() + "\n" + e.Caret(filter) + "\n"
}

// variable reads a value: 1, 1.5, true, or words; several make a list.
func variable(vals []string) any {
	one := func(s string) any {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
		if b, err := strconv.ParseBool(s); err == nil {
			return b
		}
		return s
	}
	if len(vals) == 1 {
		return one(vals[0])
	}
	list := []any{}
	for _, v := range vals {
		list = append(list, one(v))
	}
	return list
}
