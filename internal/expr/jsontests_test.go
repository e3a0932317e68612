package expr

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

const jsonRowsSchema = `id Int64 pk
i Int64 nullable
f Double
meta JSON nullable`

// TestEqualTermsAreOne: a program that writes thousands of terms writes some of them again.
func TestEqualTermsAreOne(t *testing.T) {
	s := parseSchema(t, jsonRowsSchema)
	for text, want := range map[string]string{
		strings.Repeat(`meta["a"] like "%x%" or `, 2000) + `meta["a"] like "%x%"`:                  `meta["a"] like "%x%"`,
		strings.Repeat(`meta["a"] like "%x%" or meta["b"] == 1 or `, 10) + `f > 1`:                 `meta["a"] like "%x%" or meta["b"] == 1 or f > 1`,
		strings.Repeat(`not (i > 3 or meta["b"] == 1) and `, 8) + `f < 2`:                          `not (i > 3 or meta["b"] == 1) and f < 2`,
		strings.Repeat(`meta["a"] == 1 or meta["a"] == "1" or meta["a"] == 1.5 or `, 4) + `i == 1`: `meta["a"] == 1 or meta["a"] == "1" or meta["a"] == 1.5 or i == 1`,
	} {
		p, err := Compile(text, s, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if p.String() != want {
			t.Errorf("%.60s...: got %.200s\nwant %s", text, p, want)
		}
	}
}

// TestTermsOfOnePathReadItOnce, and say what they say one by one.
func TestTermsOfOnePathReadItOnce(t *testing.T) {
	s := parseSchema(t, jsonRowsSchema)
	r := rand.New(rand.NewPCG(7, 7))
	values := []string{`1`, `1.5`, `"abc"`, `"a\u0062c"`, `"x\ny"`, `true`, `null`, `{}`, `[1]`, `["abc"]`, `"\ud83d\ude00"`, `"`, `1e999`}
	var rows strings.Builder
	for i := range 500 {
		doc := "null"
		if r.IntN(10) > 0 {
			v := values[r.IntN(len(values)-2)]
			doc = fmt.Sprintf(`{"b": {"c": %s}, "a": %s}`, values[r.IntN(len(values)-2)], v)
		}
		fmt.Fprintf(&rows, `{"id": %d, "i": %d, "f": 1, "meta": %s}`+"\n", i, r.IntN(3), doc)
	}
	tab, n := parseRows(t, s, rows.String())
	for i, text := range values { // documents that no client can write
		c := tab[s.Fields[3].ID]
		c.Str[i] = `{"a": ` + text + `}`
	}
	terms := []string{`meta["a"] like "a%"`, `meta["a"] like "%y"`, `meta["a"] not like "%c"`, `meta["a"] in [1, "abc", [1]]`, `meta["a"] not in [1.5, true]`,
		`meta["a"] == "abc"`, `meta["a"] != "abc"`, `not (meta["a"] == [1])`, `meta["a"] > 1`, `meta["b"]["c"] like "%b%"`, `meta["b"]["c"] == 1`,
		`exists meta["a"]`, `json_contains(meta["a"], 1)`, `meta["a"] is null`, `i == 1`, `not (meta["a"] < 2)`}
	rowsOf := func(text string) []uint64 {
		p, err := Compile(text, s, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		out := bitset.New(n)
		if err := p.Eval(tab, n, nil, nil, out); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(out.Words())
	}
	alone := map[string][]uint64{}
	for _, x := range terms {
		alone[x] = rowsOf(x)
	}
	for range 2000 {
		some := make([]string, 2+r.IntN(6))
		for i := range some {
			some[i] = terms[r.IntN(len(terms))]
		}
		all := r.IntN(2) == 0
		want := slices.Clone(alone[some[0]])
		for _, x := range some[1:] {
			for i, w := range alone[x] {
				if all {
					want[i] &= w
				} else {
					want[i] |= w
				}
			}
		}
		text := "(" + strings.Join(some, pick(all, ") and (", ") or (")) + ")"
		if got := rowsOf(text); !slices.Equal(got, want) {
			t.Fatalf("%s: got %x, want %x", text, got, want)
		}
	}
	many, err := Compile(`meta["a"] like "a%" or i == 1 or meta["a"] == 1 or meta["a"] in [2, "b"] or meta["b"] == 1`, s, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if or := many.root.(*orPred); len(or.terms) != 5 || len(or.steps) != 3 {
		t.Errorf("%d terms are %d steps", len(or.terms), len(or.steps))
	}
}

// TestManyTermsOfAPathEndWhenTheyAreToEnd: they count as work, however short the documents are.
func TestManyTermsOfAPathEndWhenTheyAreToEnd(t *testing.T) {
	s := parseSchema(t, jsonRowsSchema)
	tab, n := parseRows(t, s, strings.Repeat(`{"id": 1, "meta": {"a": "b"}}`+"\n", 64))
	var some []string
	for i := range 2000 {
		some = append(some, fmt.Sprintf(`meta["a"] like "%%%d%%"`, i))
	}
	p, err := Compile(strings.Join(some, " or "), s, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	asked, out := 0, bitset.New(n)
	if err := p.Eval(tab, n, nil, func() error { asked++; return nil }, out); err != nil {
		t.Fatal(err)
	}
	if asked < n/2 {
		t.Errorf("2,000 terms of %d rows asked %d times whether to go on", n, asked)
	}
}

// BenchmarkTermsOfOnePath is many conditions on one path of a document.
func BenchmarkTermsOfOnePath(b *testing.B) {
	s := parseSchema(b, jsonRowsSchema)
	const rows = 4096
	var text strings.Builder
	for i := range rows {
		fmt.Fprintf(&text, `{"id": %d, "f": 1, "meta": {"kind": "k%d", "size": %d, "tags": [1, 2, 3], "a": "name of %d"}}`+"\n", i, i%7, i, i)
	}
	tab, n := parseRows(b, s, text.String())
	for _, terms := range []int{1, 4, 64} {
		var some []string
		for i := range terms {
			some = append(some, fmt.Sprintf(`meta["a"] like "%%of x%d%%"`, i))
		}
		p, err := Compile(strings.Join(some, " or "), s, nil, "")
		if err != nil {
			b.Fatal(err)
		}
		out := bitset.New(n)
		b.Run(fmt.Sprintf("terms=%d", terms), func(b *testing.B) {
			for b.Loop() {
				if err := p.Eval(tab, n, nil, nil, out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
		})
	}
}
