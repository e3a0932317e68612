// Package scalarindex finds the rows of a column by value without reading the
// column: values in order, the words of a text, the elements of arrays, the letters of
// a pattern. An index is built once over a column that does not change and is
// immutable then; it refers to the column's values and does not copy them.
//
// Rows are bits in words, row i in bit i%64 of word i/64. All methods that take a
// bitmap add rows to it; it has a word for every row of the column.
package scalarindex

// Kind says what an index answers.
type Kind uint8

const (
	// Order answers comparisons, ranges, lists and prefixes of numbers and texts.
	Order Kind = iota + 1
	// Words answers text_match, and narrows phrase_match down.
	Words
	// Elements answers which arrays hold a value.
	Elements
	// Grams narrows down which texts hold a piece of text.
	Grams
	// Paths answers comparisons, ranges, lists, prefixes and exists at one path of JSON documents, and which arrays there hold a value.
	Paths
)

var kindNames = [...]string{Order: "order", Words: "words", Elements: "elements", Grams: "grams", Paths: "path"}

// String is the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "none"
}

// Index is one of *Ordered[int64], *Ordered[float32], *Ordered[float64],
// *Ordered[string], *Text, *Members[int64], ..., *Members[string], *Trigrams, *Path.
type Index interface {
	// Bytes is the memory the index takes, without the column.
	Bytes() int64
}
