package expr

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// FuzzCompile compiles any text: no panic, positions within the text, a normal
// form that is its own normal form and matches the same rows.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f.Add(strings.TrimSpace(line))
		}
	}
	for _, filter := range documented {
		f.Add(filter)
	}
	m := newModel(f, 7, 100)
	vars := map[string]any{"x": int64(1), "y": []any{int64(1), "a", 2.5}, "z": "a%"}
	f.Fuzz(func(t *testing.T, text string) {
		checkFilter(t, m, text, vars)
		if _, p, err := ParsePath(text, m.s); err == nil {
			if _, again, err := ParsePath(p.String(), m.s); err != nil || again.String() != p.String() {
				t.Fatalf("%q: path %s becomes %v (%v)", text, p, again, err)
			}
		}
	})
}

// FuzzValues compiles a filter with any JSON text for its list: no panic, and what
// is taken has a normal form that means the same.
func FuzzValues(f *testing.F) {
	for _, text := range []string{`[1, 2.5, "a", true]`, `[[1], []]`, `-1e-3`, `null`, `{"a": [1]}`, `[1,`, `"\ud800"`, `[9223372036854775807]`} {
		f.Add(text)
	}
	m := newModel(f, 7, 100)
	f.Fuzz(func(t *testing.T, text string) {
		checkFilter(t, m, `meta["a"] in {x}`, map[string]any{"x": json.RawMessage(text)})
		checkFilter(t, m, `json_contains_any(meta["a"], {x})`, map[string]any{"x": json.RawMessage(text)})
	})
}

// checkFilter compiles any text over the rows of m; false if it is no filter.
func checkFilter(t *testing.T, m *model, text string, vars map[string]any) bool {
	t.Helper()
	p, err := Compile(text, m.s, vars, "")
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || !errclass.Is(err, errclass.Invalid) {
			t.Fatalf("%q: %v", text, err)
		}
		if e.Pos < 0 || e.Pos > len(text) || e.Line < 1 || e.Column < 1 || e.Column > len(text)+1 {
			t.Fatalf("%q: %+v", text, e)
		}
		e.Caret(text)
		return false
	}
	again := mustCompile(t, m.s, p.String(), nil)
	if again.String() != p.String() {
		t.Fatalf("%q: normal form %q becomes %q", text, p, again)
	}
	if strings.Contains(p.String(), "random_sample") {
		return true
	}
	sameRows(t, m.cols, m.n, p, again)
	if !p.MayMatch(m.stats) && len(matching(t, p, m.cols, m.n)) > 0 {
		t.Fatalf("%q: MayMatch denies rows that match", text)
	}
	p.PrimaryKeys(m.s.Primary())
	return true
}
