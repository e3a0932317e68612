package expr

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// indexSet has every index that the fields of a table can have, and counts who asks.
type indexSet struct {
	t     testing.TB
	cols  table
	built map[string]scalarindex.Index
	asked map[scalarindex.Kind]int
	paths map[bool]int // indexes of paths: that there are, that there are none

	elements int64 // room for those of arrays in JSON
}

func (x *indexSet) Index(id int64, kind scalarindex.Kind) scalarindex.Index {
	x.asked[kind]++
	key := fmt.Sprint(id, kind)
	if _, ok := x.built[key]; !ok {
		x.built[key] = build(x.t, x.cols[id], kind)
	}
	return x.built[key]
}

func (x *indexSet) Path(id int64, path string) *scalarindex.Path {
	x.asked[scalarindex.Paths]++
	key := fmt.Sprint(id, path)
	if _, ok := x.built[key]; !ok {
		p, err := IndexPath(context.Background(), x.cols[id], path, 1<<20, max(1<<20, x.elements))
		if err != nil {
			x.t.Fatal(err)
		}
		x.built[key] = p
		x.paths[p != nil]++
	}
	return x.built[key].(*scalarindex.Path)
}

func build(t testing.TB, c *schema.Column, kind scalarindex.Kind) (ix scalarindex.Index) {
	t.Helper()
	ctx, err := context.Background(), error(nil)
	switch kind {
	case scalarindex.Order:
		switch {
		case c.Type.IsInt():
			ix, err = scalarindex.NewOrdered(ctx, c.Int, c.Valid)
		case c.Type == schema.Float:
			ix, err = scalarindex.NewOrdered(ctx, c.Float, c.Valid)
		case c.Type == schema.Double:
			ix, err = scalarindex.NewOrdered(ctx, c.Double, c.Valid)
		case c.Type == schema.VarChar:
			ix, err = scalarindex.NewOrdered(ctx, c.Str, c.Valid)
		}
	case scalarindex.Words:
		ix, err = scalarindex.NewText(ctx, analyze.Analyzer{}, c.Str, c.Valid)
	case scalarindex.Grams:
		ix, err = scalarindex.NewTrigrams(ctx, c.Str, c.Valid)
	case scalarindex.Elements:
		if c.Element == schema.VarChar {
			ix, err = scalarindex.NewMembers(ctx, c.Str, c.Offsets, c.Valid)
		} else {
			ix, err = scalarindex.NewMembers(ctx, c.Int, c.Offsets, c.Valid)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// narrowed is matching with the help of indexes.
func narrowed(t testing.TB, p *Plan, cols Columns, ix Indexes, n, total int) (rows []uint32, used bool) {
	t.Helper()
	var out bitset.Set
	rest, ok := p.Narrow(ix, n, total, &out)
	if !ok {
		return nil, false
	}
	if out.Len() != n {
		t.Fatalf("%s: the set is over %d rows, want %d", p, out.Len(), n)
	}
	if rest != nil {
		if err := rest.Eval(cols, n, out.Words(), nil, &out); err != nil {
			t.Fatal(err)
		}
	}
	return out.AppendTo(nil), true
}

func TestIndexesFindWhatColumnsHold(t *testing.T) {
	used, asked, paths := 0, map[scalarindex.Kind]int{}, map[bool]int{}
	for seed := range uint64(3) {
		total := []int{1000, 3000, 64}[seed]
		m := newModel(t, seed, total)
		x := &indexSet{t: t, cols: m.cols, built: map[string]scalarindex.Index{}, asked: asked, paths: paths}
		conditions := []string{
			`s like "aab%"`, `s like "%aab%"`, `s like "%ab_aab"`, `not (s like "a%")`, `s like "a%b"`, `s >= "b"`, `s < "b"`, `s <= "red"`, `s > "a_b"`,
			`text_match(s, "red blue")`, `not text_match(s, "red")`, `text_match(s, "red blue", minimum_should_match=2)`, `phrase_match(s, "red")`,
			`id in [1, 2, 5] or s == "red"`, `id != 7 and ai[0] == 1`, `array_contains_all(ai, [1, 2])`, `not array_contains_any(ai, [7])`,
			`f in [1.1, 3]`, `d not in [0.1]`, `f > 0.1 and d < 100`, `not (d > 1)`, `i is null and s == "b"`, `s in ["red", "blue"] and meta["a"] > 0`,
			`array_contains_all(ai, []) and j > 0`, `array_contains(ai, 2.5)`, `at > ISO "2000-01-01T00:00:00Z"`,
			`meta["a"] == 1`, `meta["a"] != 1`, `not (meta["a"] < 2)`, `0 < meta["a"] <= 2`, `meta["a"] > 0.5 and meta["a"] != 1`, `meta["a"] == "red"`,
			`not (meta["a"] >= "b")`, `meta["a"] like "a%"`, `meta["a"] like "a_b%"`, `meta["a"] in [1, 2.5, "red"]`, `meta["a"] not in [1, "red"]`, `meta["a"] not in ["red"]`,
			`meta["a"] == true`, `meta["a"] != true`, `exists meta["a"]`, `not exists meta["a"]`, `exists $meta["c"] or c == 1`, `c in [1] or meta["a"] in ["b", 2] or s == "red"`,
			`match_any(ai, $ == 1)`, `not match_any(ai, $ in [1, 7])`, `match_any(ai, 2.5 == $)`, `match_least(ai, $ in [1, 2], threshold=2)`, `match_exact(ai, $ == 1, threshold=1) and j > 0`,
			`match_exact(ai, $ == 1, threshold=0)`, `match_least(ai, $ == 2, threshold=1) or id == 3`, `not match_least(ai, $ == 1, threshold=1)`, `match_all(ai, $ == 1)`, `match_most(ai, $ in [1], threshold=1)`, `match_any(ai, $ not in [1])`,
			`meta["a"] == 9007199254740993`, `meta["a"] in [9007199254740993, 1]`, `meta["nowhere"] == 1 or meta["nowhere"] == "a" or exists meta["nowhere"]`,
		}
		for range 60 {
			conditions = append(conditions, m.condition(2).text)
		}
		for _, text := range conditions {
			p := mustCompile(t, m.s, text, nil)
			for _, n := range []int{total, total - 17, 1} {
				got, ok := narrowed(t, p, m.cols, x, n, total)
				if want := matching(t, p, m.cols, n); ok && !slices.Equal(got, want) {
					t.Fatalf("%s, %d of %d rows:\n%v\nwant %v", text, n, total, got, want)
				}
				used += int(b2i(ok))
			}
		}
	}
	if paths[true] < 5 || paths[false] < 1 {
		t.Errorf("there are indexes of %d paths, and none of %d", paths[true], paths[false])
	}
	if used < 150 {
		t.Fatalf("indexes answered %d times", used)
	}
	for _, k := range []scalarindex.Kind{scalarindex.Order, scalarindex.Words, scalarindex.Grams, scalarindex.Elements, scalarindex.Paths} {
		if asked[k] == 0 {
			t.Errorf("nobody asked for %s", k)
		}
	}
}

func TestWants(t *testing.T) {
	s := parseSchema(t, modelSchema)
	for text, want := range map[string]string{
		`i > 1 and (s like "%abc%" or array_contains(ai, 1)) and meta["a"] == 1`: "[elements grams order path]",
		`exists meta["a"]["b"]`: "[path]",
		`meta["a"] like "%x" or meta == 1 or meta["a"] + 1 == 2 or json_contains(meta["a"], [1])`:                                                          "[]",
		`json_contains_all(meta["a"], [1, "b", true]) and not json_contains(meta["b"], 2)`:                                                                 "[path path]",
		`match_any(meta["a"], $ == 1) and match_least(meta["b"], $ in [1, "a"], threshold=2)`:                                                              "[path path]",
		`match_any(meta["a"], $ > 1) or match_all(meta["a"], $ == 1) or match_most(meta["a"], $ == 1, threshold=2)`:                                        "[]",
		`not match_least(meta["a"], $ == 1, threshold=1) or match_any(meta["a"], $ != 1) or match_any(meta["a"], $ not in [1])`:                            "[]",
		`match_any(ai, $ == 1) and match_least(ai, $ in [1, 2], threshold=2) and match_exact(ai, 2 == $, threshold=1)`:                                     "[elements elements elements]",
		`match_any(ai, $ > 1) or match_all(ai, $ == 1) or match_most(ai, $ == 1, threshold=2) or match_exact(ai, $ == 1, threshold=0)`:                     "[]",
		`match_any(ai, $ > 1 and $ != 3) and match_any(ai, $ != 1) and match_any(ai, $ not in [1]) and not match_least(ai, $ == 1, threshold=2) and i > 0`: "[order]",
		`text_match(s, "a")`:    "[words]",
		`ai[0] == 1`:            "[]",
		`i is null`:             "[]",
		`not (s like "%abc%")`:  "[]",
		`i + 1 == 2 and id > 0`: "[order]",
	} {
		var got []string
		mustCompile(t, s, text, nil).Wants(func(_ int64, k scalarindex.Kind, _ string, cost int) {
			if cost < 1 {
				t.Errorf("%s: %s costs %d", text, k, cost)
			}
			got = append(got, k.String())
		})
		if slices.Sort(got); fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", text, got, want)
		}
	}
}

// A path that is too long to be read again, as that of a key of the dynamic field gets one step more, has no index.
func TestLongPathsWantNoIndex(t *testing.T) {
	s := parseSchema(t, modelSchema)
	long := strings.Repeat("[0]", MaxPath)
	for text, want := range map[string]int{"meta" + long + " == 1": 1, "c" + long + " == 1": 0, "c" + long[3:] + " == 1": 1, `meta["` + strings.Repeat("a", 2*maxPathText) + `"] == 1`: 0} {
		got := 0
		mustCompile(t, s, text, nil).Wants(func(_ int64, _ scalarindex.Kind, path string, _ int) {
			got++
			if _, err := IndexPath(t.Context(), &schema.Column{Type: schema.JSON}, path, 0, 0); err != nil {
				t.Error(err)
			}
		})
		if got != want {
			t.Errorf("%.20s: %d indexes, want %d", text, got, want)
		}
	}
}

// Texts with escapes are copied, but no more of them than there is room for.
func TestIndexPathKeepsToItsRoom(t *testing.T) {
	const n, room = 1000, 300 << 10
	c := &schema.Column{Type: schema.JSON}
	for range n {
		c.Str = append(c.Str, `{"body":"`+strings.Repeat(`0123456789abcdef\n`, 900)+`","tag":"a\nb"}`)
	}
	took := func(path string, want bool) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p, err := IndexPath(t.Context(), c, path, room, room)
		runtime.ReadMemStats(&after)
		if err != nil || (p != nil) != want {
			t.Fatalf("%s: %v, %v", path, p != nil, err)
		}
		if n, most := int64(after.TotalAlloc-before.TotalAlloc), scalarindex.PathRoom(n)+room+8*int64(len(c.Str[0])); n > most {
			t.Errorf("%s: %d bytes, at most %d were to be taken", path, n, most)
		}
	}
	took(`["body"]`, false)
	took(`["tag"]`, true)
}

// BenchmarkMillion is a > x and b in [...] over a million rows; a is true for
// half of them, b for as many as the name says. best-ns is the fastest of all
// runs: what it takes when nothing else takes the processor.
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	s := parseSchema(b, "id Int64 pk\na Int64\nb Int64\nv FloatVector")
	r := rand.New(rand.NewPCG(1, 2))
	cols := table{}
	for _, f := range s.Fields[:3] {
		c := schema.NewColumn(f, n)
		for range n {
			c.Int = append(c.Int, r.Int64N(1000))
		}
		cols[f.ID] = c
	}
	x := &indexSet{t: b, cols: cols, built: map[string]scalarindex.Index{}, asked: map[scalarindex.Kind]int{}, paths: map[bool]int{}}
	for _, text := range []string{`a > 500 and b in [1, 5, 7]`, `a > 500 and b in [1, 2, 3, 5, 8, 13, 21, 34, 55, 89]`, `a > 500 and b > 100`} {
		p := mustCompile(b, s, text, nil)
		var out bitset.Set
		b.Run("columns/"+text, func(b *testing.B) {
			best := time.Hour
			for b.Loop() {
				began := time.Now()
				if err := p.Eval(cols, n, nil, nil, &out); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(began))
			}
			b.ReportMetric(float64(best.Nanoseconds()), "best-ns")
		})
		narrowed(b, p, cols, x, n, n)
		b.Run("indexes/"+text, func(b *testing.B) {
			b.ReportAllocs()
			best := time.Hour
			for b.Loop() {
				began := time.Now()
				rest, ok := p.Narrow(x, n, n, &out)
				if !ok {
					b.Fatal("no index used")
				}
				if rest != nil {
					if err := rest.Eval(cols, n, out.Words(), nil, &out); err != nil {
						b.Fatal(err)
					}
				}
				best = min(best, time.Since(began))
			}
			b.ReportMetric(float64(best.Nanoseconds()), "best-ns")
		})
	}
}
