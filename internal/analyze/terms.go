package analyze

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Term is the dimension that stands for a token: a hash, below the largest number.
// It is stored, so it never changes: FNV-1a with the mixer of MurmurHash3 behind it.
// Of a million words some hundred share theirs with another, which then counts as
// the same word.
func Term(token []byte) uint32 {
	h := uint64(14695981039346656037)
	for _, c := range token {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return uint32(h % math.MaxUint32)
}

// Counter makes sparse vectors of texts: a dimension for each word, its value how
// often the word is there. It belongs to one goroutine.
type Counter struct {
	scan  *Scanner
	terms []uint32
}

// Counter returns a Counter for any number of texts.
func (a Analyzer) Counter() *Counter { return &Counter{scan: a.Scan()} }

// Append appends the vector of a text to a SparseFloatVector column.
func (c *Counter) Append(to *schema.Column, text string) {
	c.terms = c.terms[:0]
	c.scan.Reset(text)
	for c.scan.Next() {
		c.terms = append(c.terms, Term(c.scan.Token()))
	}
	slices.Sort(c.terms)
	for i, t := range c.terms {
		if i > 0 && t == c.terms[i-1] {
			to.Float[len(to.Float)-1]++
			continue
		}
		to.Indices, to.Float = append(to.Indices, t), append(to.Float, 1)
	}
	if len(to.Offsets) == 0 {
		to.Offsets = append(to.Offsets, 0)
	}
	to.Offsets = append(to.Offsets, len(to.Indices))
}

// Fill arranges the columns of b as the schema says, and makes those that functions
// make and that are not there. It does not touch the columns it is given. The same
// texts make the same columns. An error of class Invalid names what is missing.
func Fill(b *schema.Batch, s *schema.Schema) error {
	if len(s.Functions) == 0 {
		return nil
	}
	fields := s.Columns()
	columns := make([]*schema.Column, 0, len(fields))
	for _, f := range fields {
		c := b.Column(f.ID)
		if fn, made := s.FunctionOf(f.ID); made && c == nil {
			var err error
			if c, err = count(b, s, fn, f); err != nil {
				return err
			}
		}
		if c == nil {
			return errclass.New(errclass.Invalid, "field %q is missing", f.Name)
		}
		columns = append(columns, c)
	}
	b.Columns = columns
	return nil
}

// count makes the column that a function of type BM25 makes. A null is a text
// without words.
func count(b *schema.Batch, s *schema.Schema, fn schema.Function, f schema.Field) (*schema.Column, error) {
	in, _ := s.FieldByID(fn.Input)
	texts := b.Column(fn.Input)
	if texts == nil || len(texts.Str) != b.Rows {
		return nil, errclass.New(errclass.Invalid, "function %q: field %q is missing", fn.Name, in.Name)
	}
	a, err := New(in.Analyzer)
	if err != nil {
		return nil, err
	}
	counter := a.Counter()
	out := &schema.Column{FieldID: f.ID, Type: f.Type, Offsets: append(make([]int, 0, b.Rows+1), 0)}
	for i, text := range texts.Str {
		if texts.Null(i) {
			text = ""
		}
		counter.Append(out, text)
	}
	return out, nil
}
