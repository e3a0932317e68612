package expr

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

const benchSchema = `
id Int64 pk
a Int64
f Float
color VarChar
meta JSON
v FloatVector`

func benchTable(b *testing.B, s *schema.Schema, n int) table {
	r := rand.New(rand.NewPCG(1, 2))
	tab := table{}
	for _, f := range s.Columns() {
		tab[f.ID] = schema.NewColumn(f, n)
	}
	colors := []string{"red", "blue", "green", "black", "white", "orange", "violet", "yellow"}
	col := func(name string) *schema.Column { f, _ := s.Field(name); return tab[f.ID] }
	for i := range n {
		col("id").Int = append(col("id").Int, int64(i))
		col("a").Int = append(col("a").Int, int64(r.IntN(1000)))
		col("f").Float = append(col("f").Float, r.Float32())
		col("color").Str = append(col("color").Str, string([]byte(colors[r.IntN(len(colors))])))
		doc := fmt.Sprintf(`{"color":%q,"size":%d,"price":%.2f,"tags":["x","y","z"]}`, colors[i&7], r.IntN(100), r.Float64()*100)
		col("meta").Str = append(col("meta").Str, doc)
	}
	return tab
}

func BenchmarkEval(b *testing.B) {
	s := parseSchema(b, benchSchema)
	ids := make([]int64, 10_000)
	for i := range ids {
		ids[i] = int64(i) * 7919 << 20
	}
	for _, n := range []int{100_000, 1_000_000} {
		tab := benchTable(b, s, n)
		for _, c := range []struct{ name, filter string }{
			{"int", `a > 500`},
			{"range", `100 < a <= 500`},
			{"float", `f < 0.5`},
			{"in-3", `a in [1, 500, 900]`},
			{"in-20-dense", `a in [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39]`},
			{"in-10000-hash", `id in {ids}`},
			{"string", `color == "red"`},
			{"string-in-2", `color in ["red", "blue"]`},
			{"string-in-6", `color in ["red", "blue", "c", "d", "e", "f"]`},
			{"int-and-string-in", `a > 500 and color in ["red", "blue"]`},
			{"like-prefix", `color like "re%"`},
			{"like-infix", `color like "%ee%"`},
			{"arith", `a % 7 == 3`},
			{"arith2", `a * 2 + 1 > 1000`},
			{"or-5", `a < 10 or a > 990 or f < 0.01 or color == "red" or id == 5`},
			{"json-first", `meta["color"] == "red"`},
			{"json-third", `meta["price"] > 50`},
			{"json-contains", `json_contains(meta["tags"], "z")`},
			{"int-and-json", `a < 10 and meta["price"] > 50`},
		} {
			p := mustCompile(b, s, c.filter, map[string]any{"ids": ids})
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				var out bitset.Set
				b.ReportAllocs()
				for b.Loop() {
					if err := p.Eval(tab, n, nil, nil, &out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	s := parseSchema(b, benchSchema)
	for _, filter := range []string{`a > 500 and color in ["red", "blue"]`, `meta["a"]["b"] like "x%" or not (a + 1 == 2)`} {
		b.Run(filter[:5], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compile(filter, s, nil, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPath is conditions on a path of 100,000 documents, with and without its index.
func BenchmarkPath(b *testing.B) {
	const n = 100_000
	s := parseSchema(b, benchSchema)
	tab := benchTable(b, s, n)
	x := &indexSet{t: b, cols: tab, built: map[string]scalarindex.Index{}, asked: map[scalarindex.Kind]int{}, paths: map[bool]int{}}
	for _, filter := range []string{`meta["price"] > 50`, `meta["size"] in [1, 7]`, `meta["color"] == "red"`, `exists meta["color"]`} {
		p := mustCompile(b, s, filter, nil)
		var out bitset.Set
		b.Run("columns/"+filter, func(b *testing.B) {
			for b.Loop() {
				if err := p.Eval(tab, n, nil, nil, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("index/"+filter, func(b *testing.B) {
			for b.Loop() {
				if rest, ok := p.Narrow(x, n, n, &out); !ok || rest != nil {
					b.Fatal("the index does not answer")
				}
			}
		})
	}
}

// BenchmarkNewList is a list of 100 of 1,000 numbers that never came before: reading it, and asking the index
// of 100,000 rows.
func BenchmarkNewList(b *testing.B) {
	const n, lists = 100_000, 1000
	s := parseSchema(b, benchSchema)
	x := &indexSet{t: b, cols: benchTable(b, s, n), built: map[string]scalarindex.Index{}, asked: map[scalarindex.Kind]int{}}
	r := rand.New(rand.NewPCG(1, 2))
	texts, plans := make([]string, lists), make([]*Plan, lists)
	for i := range texts {
		list := make([]string, 100)
		for k, v := range r.Perm(1000)[:len(list)] {
			list[k] = strconv.Itoa(v)
		}
		texts[i] = "a in [" + strings.Join(list, ",") + "]"
		plans[i] = mustCompile(b, s, texts[i], nil)
	}
	next := 0
	b.Run("compile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mustCompile(b, s, texts[next%lists], nil)
			next++
		}
	})
	var out bitset.Set
	b.Run("index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if rest, ok := plans[next%lists].Narrow(x, n, n, &out); !ok || rest != nil {
				b.Fatal("the index does not answer")
			}
			next++
		}
	})
}
