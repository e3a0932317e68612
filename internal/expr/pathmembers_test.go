package expr

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// listed returns rows whose JSON field holds, at tags, arrays of all kinds and what is no array.
func listedRows(t *testing.T, s *schema.Schema, n int) table {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	some := []string{`"a"`, `"b"`, `"\u0062"`, `"a\nb"`, `""`, `1`, `1.0`, `-0.0`, `0`, `2.5`, `7`, `true`, `false`, `null`, `[1]`, `{"a":1}`, `"1"`, `1e2`}
	var rows strings.Builder
	for i := range n {
		doc := ""
		switch r.IntN(12) {
		case 0:
			doc = `,"meta":{}`
		case 1:
			doc = `,"meta":{"tags":` + some[r.IntN(len(some))] + `}`
		case 2: // null
		case 3:
			doc = `,"meta":{"tags":[ ]}`
		default:
			var in []string
			for range 1 + r.IntN(4) {
				in = append(in, some[r.IntN(len(some))])
			}
			doc = `,"meta":{"x":[9],"tags":[` + strings.Join(in, " , ") + `],"y":"a"}`
		}
		fmt.Fprintf(&rows, "{\"id\":%d%s}\n", i, doc)
	}
	tab, _ := parseRows(t, s, rows.String())
	return tab
}

// TestIndexesOfPathsKnowElements: all conditions on elements of arrays in JSON have the rows that
// they have by reading the documents.
func TestIndexesOfPathsKnowElements(t *testing.T) {
	const n = 4000
	s := parseSchema(t, "id Int64 pk\nmeta JSON nullable\nv FloatVector")
	tab := listedRows(t, s, n)
	ix := &indexSet{t: t, cols: tab, built: map[string]scalarindex.Index{}, asked: map[scalarindex.Kind]int{}, paths: map[bool]int{}}
	values := []string{`"a"`, `"b"`, `"nowhere"`, `1`, `1.0`, `0`, `2.5`, `100`, `true`, `false`, `9007199254740993`, `"1"`, `"a\nb"`, `""`}
	var exact, narrow []string
	for i, v := range values {
		w, x := values[(i+3)%len(values)], values[(i+7)%len(values)]
		exact = append(exact, fmt.Sprintf(`json_contains(meta["tags"], %s)`, v), fmt.Sprintf(`array_contains_any(meta["tags"], [%s, %s])`, v, w),
			fmt.Sprintf(`json_contains_all(meta["tags"], [%s, %s, %s])`, v, w, x), fmt.Sprintf(`json_contains_all(meta["tags"], [%s])`, v),
			fmt.Sprintf(`match_any(meta["tags"], $ == %s)`, v), fmt.Sprintf(`match_any(meta["tags"], $ in [%s, %s])`, v, x),
			fmt.Sprintf(`match_least(meta["tags"], $ == %s, threshold=1)`, v))
		narrow = append(narrow, fmt.Sprintf(`match_least(meta["tags"], $ in [%s, %s], threshold=2)`, v, w), fmt.Sprintf(`match_exact(meta["tags"], $ == %s, threshold=1)`, v))
	}
	exact = append(exact, `json_contains_all(meta["tags"], [])`, `json_contains_any(meta["tags"], [])`, `json_contains_all(meta["nowhere"], [])`, `json_contains(meta["nowhere"], 1)`)
	for _, text := range exact[:len(exact):len(exact)] {
		if !strings.HasPrefix(text, "match_least") {
			exact = append(exact, "not "+text)
		}
	}
	answered := 0
	for i, text := range slices.Concat(exact, narrow) {
		p := mustCompile(t, s, text, nil)
		for _, rows := range []int{n, n - 17} {
			want := matching(t, p, tab, rows)
			got, ok := narrowed(t, p, tab, ix, rows, n)
			if ok && !slices.Equal(got, want) {
				t.Fatalf("%s, %d rows: %d by the index, %d without", text, rows, len(got), len(want))
			}
			answered += int(b2i(ok))
		}
		q, is := p.root.(indexed)
		if !is {
			t.Fatalf("%s: no index can answer", text)
		}
		if l := q.lookup(ix, n); l == nil || l.exact != (i < len(exact)) {
			t.Errorf("%s: looked up as %+v", text, l)
		}
	}
	if answered < len(exact) {
		t.Errorf("the index answered %d times", answered)
	}
}

// TestElementsThatAreNotKnown: too many of them, numbers that are not exact and malformed arrays leave an index of
// the rest.
func TestElementsThatAreNotKnown(t *testing.T) {
	index := func(room int64, docs ...string) *scalarindex.Path {
		t.Helper()
		p, err := IndexPath(t.Context(), &schema.Column{Type: schema.JSON, Str: docs}, `["a"]`, 1<<10, room)
		if err != nil || p == nil {
			t.Fatalf("%q: %v, %v", docs, p, err)
		}
		return p
	}
	if p := index(1<<10, `{"a":[1,"x"]}`, `{"a":5}`); p.Elements == nil || p.Numbers == nil {
		t.Errorf("an index that knows too little: %+v", p)
	}
	for _, doc := range []string{`{"a":[9007199254740993]}`, `{"a":[1,}`, `{"a":[1 2]}`} {
		if p := index(1<<10, doc, `{"a":5}`); p.Elements != nil || p.Numbers == nil {
			t.Errorf("%s: elements are known", doc)
		}
	}
	many := `{"a":[` + strings.TrimSuffix(strings.Repeat(`1,`, 50)+strings.Repeat(`2,`, 50), ",") + `]}`
	if p := index(20*8, many); p.Elements != nil {
		t.Error("more elements than there is room for")
	}
	if p := index(2<<10, many); p.Elements == nil {
		t.Error("there was room")
	}
	if p := index(0, `{"a":5}`, `{}`); p.Elements == nil {
		t.Error("no arrays take no room")
	}
	p := mustCompile(t, parseSchema(t, "id Int64 pk\na JSON\nv FloatVector"), `json_contains(a["a"], 1)`, nil)
	ix := &oneIndex{index(0, many)}
	if l := p.root.(indexed).lookup(ix, 1); l != nil {
		t.Errorf("looked up in an index without elements: %+v", l)
	}
}

// oneIndex has an index of every path.
type oneIndex struct{ path *scalarindex.Path }

func (oneIndex) Index(int64, scalarindex.Kind) scalarindex.Index { return nil }
func (x oneIndex) Path(int64, string) *scalarindex.Path          { return x.path }

// BenchmarkElements is json_contains over 100,000 documents with three of 1,000 tags each.
func BenchmarkElements(b *testing.B) {
	const n = 100_000
	s := parseSchema(b, "id Int64 pk\nmeta JSON\nv FloatVector")
	r := rand.New(rand.NewPCG(1, 2))
	f, _ := s.Field("meta")
	c := schema.NewColumn(f, n)
	for range n {
		c.Str = append(c.Str, fmt.Sprintf(`{"name":"some text","price":%d,"tags":["tag%d","tag%d","tag%d"]}`, r.IntN(1000), r.IntN(1000), r.IntN(1000), r.IntN(1000)))
	}
	tab := table{f.ID: c}
	ix := &indexSet{t: b, cols: tab, built: map[string]scalarindex.Index{}, asked: map[scalarindex.Kind]int{}, paths: map[bool]int{}, elements: 100 << 20}
	for _, text := range []string{`json_contains(meta["tags"], "tag7")`, `json_contains_all(meta["tags"], ["tag7", "tag8"])`, `match_any(meta["tags"], $ in ["tag7", "tag8"])`} {
		p := mustCompile(b, s, text, nil)
		var out bitset.Set
		b.Run("documents/"+text, func(b *testing.B) {
			for b.Loop() {
				if err := p.Eval(tab, n, nil, nil, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("index/"+text, func(b *testing.B) {
			narrowed(b, p, tab, ix, n, n)
			for b.Loop() {
				if rest, ok := p.Narrow(ix, n, n, &out); !ok || rest != nil {
					b.Fatal("the index does not answer")
				}
			}
		})
	}
}
