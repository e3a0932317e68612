package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// dictionary has the words that searches by BM25 look for; no text has the last one.
var dictionary = append(slices.Clone(terms), "zebra")

// newTexts makes a vector field that a function counts from a text field. In the
// model its vectors are how often the words of the dictionary are in the text.
func newTexts(r *rand.Rand, of *field) vector {
	v := vector{name: "w_" + of.name, typ: sparse, dim: len(dictionary), of: of.name, analyzer: of.analyzer}
	v.reindex(r)
	return v
}

// reindexTexts draws what scores depend on.
func (v *vector) reindexTexts(r *rand.Rand) {
	v.metric = "BM25"
	v.k1, v.b = []float64{1.2, 1.2, 0, 0.5, 2}[r.IntN(5)], []float64{0.75, 0.75, 0, 0.25, 1}[r.IntN(5)]
	v.params = map[string]string{}
	if v.k1 != 1.2 || r.IntN(2) == 0 {
		v.params["bm25_k1"] = strconv.FormatFloat(v.k1, 'g', -1, 64)
	}
	if v.b != 0.75 || r.IntN(2) == 0 {
		v.params["bm25_b"] = strconv.FormatFloat(v.b, 'g', -1, 64)
	}
}

// function is the function that makes the field.
func (v *vector) function() *qnpb.FunctionSchema {
	return &qnpb.FunctionSchema{Name: "bm25_of_" + v.of, Type: qnpb.FunctionType_FUNCTION_TYPE_BM25,
		InputFields: []string{v.of}, OutputFields: []string{v.name}}
}

// countWords counts the words of a text. The model's texts are words with blanks between them.
func countWords(text string) []float64 {
	counts := make([]float64, len(dictionary))
	for _, w := range strings.Fields(text) {
		counts[slices.Index(dictionary, w)]++
	}
	return counts
}

// randomWords draws what to look for: some words, seldom one twice, seldom none.
func randomWords(r *rand.Rand) []float64 {
	counts := make([]float64, len(dictionary))
	for range r.IntN(5) {
		counts[r.IntN(len(dictionary))]++
	}
	return counts
}

// queryText is a text that has the words that often. Analyzers that know letters
// take it with capitals and commas too.
func (v *vector) queryText(counts []float64) string {
	var words []string
	for i, n := range counts {
		for range int(n) {
			words = append(words, dictionary[i])
		}
	}
	if v.analyzer == "whitespace" {
		return strings.Join(words, " ")
	}
	for i := 1; i < len(words); i += 2 {
		words[i] = strings.ToUpper(words[i])
	}
	return strings.Join(words, ", ")
}

// corpus is what the score of a text depends on besides the text itself.
type corpus struct {
	rows float64
	mean float64   // words of a text
	with []float64 // texts that have a word
}

// corpus counts all texts that a read at that moment could see, whatever it looks for.
func (m *model) corpus(v *vector, q read) corpus {
	c := corpus{with: make([]float64, len(dictionary))}
	for _, x := range m.see(read{at: q.at, timestamp: q.timestamp}) {
		c.rows++
		for i, n := range m.vectorOf(v, x) {
			c.mean += n
			if n > 0 {
				c.with[i]++
			}
		}
	}
	c.mean /= max(1, c.rows)
	return c
}

// bm25 scores a text of these words. !ok = it has none that is looked for.
func (v *vector) bm25(c corpus, query, text []float64) (score float64, ok bool) {
	length := 0.0
	for _, n := range text {
		length += n
	}
	for i, times := range query {
		if times == 0 || text[i] == 0 {
			continue
		}
		idf := math.Log(1 + (c.rows-c.with[i]+0.5)/(c.with[i]+0.5))
		score += times * idf * text[i] * (v.k1 + 1) / (text[i] + v.k1*(1-v.b+v.b*length/c.mean))
		ok = true
	}
	return score, ok
}

// vectorOf is the vector of a row; nil = it has none.
func (m *model) vectorOf(v *vector, x *row) []float64 {
	if v.of == "" {
		return x.vectors[slices.IndexFunc(m.spec.vectors, func(o vector) bool { return o.name == v.name })]
	}
	at := slices.IndexFunc(m.spec.fields, func(f field) bool { return f.name == v.of })
	text, _ := x.values[at].(string) // a null is a text without words
	return countWords(text)
}

// counted reports whether a vector field is made of f.
func (s *spec) counted(f *field) bool {
	return slices.ContainsFunc(s.vectors, func(v vector) bool { return v.of == f.name })
}

// addTexts makes vector fields of some text fields.
func (s *spec) addTexts(r *rand.Rand) {
	if r.IntN(3) == 0 {
		s.fields = append(s.fields, textField(r, len(s.fields)))
	}
	for i := range s.fields {
		if f := &s.fields[i]; f.analyzer != "" && r.IntN(3) > 0 {
			s.vectors = append(s.vectors, newTexts(r, f))
		}
	}
}

// textField is a field of texts of words.
func textField(r *rand.Rand, number int) field {
	f := field{name: fmt.Sprintf("t_%d", number), typ: qnpb.DataType_DATA_TYPE_VARCHAR, nullable: r.IntN(2) == 0,
		analyzer: []string{"standard", "whitespace", "english"}[r.IntN(3)]}
	if r.IntN(4) == 0 {
		f.def = f.random(r)
	}
	return f
}
