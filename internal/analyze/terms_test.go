package analyze

import (
	"math"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// TestTermsNeverChange: they are in files.
func TestTermsNeverChange(t *testing.T) {
	for word, want := range map[string]uint32{"": 2859026567, "a": 744585140, "search": 3949812905, "größe": 2535620758} {
		if got := Term([]byte(word)); got != want {
			t.Errorf("%q is %d, was %d", word, got, want)
		}
	}
}

func body(analyzer string) *schema.Schema {
	return &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "words", Type: schema.SparseFloatVector},
		{ID: 102, Name: "body", Type: schema.VarChar, Nullable: true, Analyzer: analyzer},
	}, Functions: []schema.Function{{Name: "count", Type: schema.BM25, Input: 102, Output: 101}}}
}

func rows(texts ...string) *schema.Batch {
	b := &schema.Batch{Rows: len(texts), Columns: []*schema.Column{
		{FieldID: 100, Type: schema.Int64, Int: make([]int64, len(texts))},
		{FieldID: 102, Type: schema.VarChar, Str: texts, Valid: make([]bool, len(texts))},
	}}
	for i, text := range texts {
		b.Columns[1].Valid[i] = text != "null"
	}
	return b
}

func TestAFunctionCountsWords(t *testing.T) {
	s := body("english")
	b := rows("Dogs and a dog, and the DOG's cat", "", "null", "cats")
	if err := Fill(b, s); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(s); err != nil {
		t.Fatal(err)
	}
	for i, want := range []map[string]float32{{"dog": 3, "cat": 1}, {}, {}, {"cat": 1}} {
		dims, times := b.Columns[1].Sparse(i)
		if len(dims) != len(want) {
			t.Errorf("row %d has %d words, want %v", i, len(dims), want)
		}
		for word, n := range want {
			found := false
			for k, d := range dims {
				found = found || d == Term([]byte(word)) && times[k] == n
			}
			if !found {
				t.Errorf("row %d: want %s %v times in %v %v", i, word, n, dims, times)
			}
		}
	}
	kept := b.Columns[1]
	if err := Fill(b, s); err != nil || b.Columns[1] != kept {
		t.Errorf("what is there is made again: %v", err)
	}
}

func TestFillNamesWhatIsMissing(t *testing.T) {
	s := body("")
	for _, drop := range []int{0, 1} {
		b := rows("x")
		b.Columns = []*schema.Column{b.Columns[1-drop]}
		if err := Fill(b, s); !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), []string{`"id"`, `"body"`}[drop]) {
			t.Errorf("without column %d: %v", drop, err)
		}
	}
	if err := Fill(rows("x"), body("klingon")); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("no such analyzer: %v", err)
	}
}

// FuzzCounter: whatever the text, its vector is one that a row can have.
func FuzzCounter(f *testing.F) {
	f.Add("the quick brown fox jumps over the lazy dog", byte(0))
	f.Add("größe GRÖSSE 今日は 👋 a.b_c", byte(1))
	f.Add(strings.Repeat("a ", 300), byte(2))
	f.Fuzz(func(t *testing.T, text string, which byte) {
		a, err := New(Names()[int(which)%len(Names())])
		if err != nil {
			t.Fatal(err)
		}
		words := float32(len(a.Tokens(text)))
		c := &schema.Column{FieldID: 1, Type: schema.SparseFloatVector}
		counter := a.Counter()
		for range 2 {
			counter.Append(c, text)
		}
		if err := c.Check(schema.Field{ID: 1, Name: "f", Type: schema.SparseFloatVector}, 2); err != nil && words < schema.MaxSparse {
			t.Fatal(err)
		}
		sum := float32(0)
		for _, v := range c.Float {
			sum += v
		}
		if sum != 2*words && words < 1<<20 || math.IsNaN(float64(sum)) {
			t.Fatalf("%v words counted, there are twice %v", sum, words)
		}
	})
}
