package expr

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutator makes filters of parts of the filters in testdata, over fields of the model.
type mutator struct {
	r     *rand.Rand
	seeds [][]string // tokens
}

func newMutator(t *testing.T, seed uint64) *mutator {
	t.Helper()
	m := &mutator{r: rand.New(rand.NewPCG(seed, 3))}
	token := regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[A-Za-z_$][A-Za-z0-9_]*|[0-9.]+|\s+|.`)
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	lines := slices.Clone(documented)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '{' {
				lines = append(lines, line)
			}
		}
	}
	for _, line := range lines {
		m.seeds = append(m.seeds, token.FindAllString(line, -1))
	}
	return m
}

// next returns a text that may be a filter.
func (m *mutator) next() string {
	fields := []string{"i", "j", "d", "f", "s", "b", "meta", "ai", "as", "at", "id", "color", "$", "$meta"}
	a := slices.Clone(pickFrom(m.r, m.seeds))
	for i, tok := range a {
		if len(tok) < 6 && isLetter(tok[0]) && !isKeyword(tok) && m.r.IntN(5) > 0 {
			a[i] = pickFrom(m.r, fields)
		}
	}
	for range m.r.IntN(4) {
		b := pickFrom(m.r, m.seeds)
		at, from := m.r.IntN(len(a)+1), m.r.IntN(len(b))
		switch m.r.IntN(5) {
		case 0:
			a = slices.Delete(a, at, min(at+1, len(a)))
		case 1:
			a = slices.Replace(a, at, min(at+1, len(a)), b[from])
		case 2:
			a = slices.Insert(a, at, b[from])
		case 3:
			a = append(a[:at:at], b[from:]...)
		case 4:
			a = slices.Concat([]string{"("}, a, []string{")", pickFrom(m.r, []string{" and ", " or ", " == ", " - "})}, b)
		}
	}
	return strings.Join(a, "")
}

func pickFrom[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// Whatever is put together from parts of filters is a filter, which evaluates, or an
// error with its place.
func TestFiltersOfParts(t *testing.T) {
	texts := 15_000
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		texts = 2_000_000
	}
	mut, m := newMutator(t, 11), newModel(t, 11, 100)
	vars := map[string]any{"x": int64(1), "y": []any{int64(1), "a", 2.5}, "z": "a%"}
	filters := 0
	text := ""
	defer func() {
		if x := recover(); x != nil {
			t.Fatalf("%q: panic: %v", text, x)
		}
	}()
	for range texts {
		text = mut.next()
		if checkFilter(t, m, text, vars) {
			filters++
		}
	}
	if filters < texts/20 {
		t.Errorf("%d of %d texts are filters: the parts are too small", filters, texts)
	}
}
