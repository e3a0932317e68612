package segments

import (
	"slices"

	"github.com/querynode/querynode/internal/schema"
)

// A field of floats or int8 with nulls has an index over all rows, in which those without a
// vector are equal to others that have one: indexes keep equal rows beside their graph,
// so that it is the graph of the rows that have vectors, and spread as these are. No
// search finds them: it is told which rows have a vector, always.

// vectorShare is the share of its rows, one in so many, that have a vector if a
// segment gets an index over them. Where fewer have one, these are compared one by one:
// an index takes memory for every row, and what is measured when it is built would count
// several copies of the same vector among the nearest (with one row in seven a wanted recall of 0.95 found 0.81).
const vectorShare = 2

// donorRows is the number of vectors that are kept for batches without any.
const donorRows = 64

// nullSlots writes vectors into the places of rows that have none, and counts both.
// It is of one field.
type nullSlots struct {
	fieldID int64
	rows    int
	nulls   int
	floats  donors[float32] // of a field of float32
	raw     donors[byte]    // of one of other numbers
}

// nullSlotsOf returns one for each field that may get an index.
func nullSlotsOf(info CollectionInfo) map[int64]*nullSlots {
	out := map[int64]*nullSlots{}
	for _, f := range info.Schema.Fields {
		if Indexable(f.Type) && info.index(f.ID).Type != indexFlat {
			out[f.ID] = &nullSlots{fieldID: f.ID, floats: donors[float32]{width: f.Dim}, raw: donors[byte]{width: f.Type.RowBytes(f.Dim)}}
		}
	}
	return out
}

// fits reports whether the column has a place for the vector of each row.
func (s *nullSlots) fits(c *schema.Column, rows int) bool {
	if c.Type == schema.FloatVector {
		return len(c.Float) == rows*s.floats.width
	}
	return len(c.Raw) == rows*s.raw.width
}

// fill returns the column with vectors of other rows where it has none. It does not
// change c. Places before the first vector of all stay as they are.
func (s *nullSlots) fill(c *schema.Column, rows int) *schema.Column {
	s.rows += rows
	var have []int
	if slices.Contains(c.Valid, false) {
		have = make([]int, 0, rows)
		for i, ok := range c.Valid {
			if ok {
				have = append(have, i)
			}
		}
		s.nulls += rows - len(have)
	}
	twin := *c
	if c.Type == schema.FloatVector {
		twin.Float = s.floats.fill(c.Float, c.Valid, have)
	} else {
		twin.Raw = s.raw.fill(c.Raw, c.Valid, have)
	}
	return &twin
}

// enough reports whether so many rows have a vector that an index is worth it.
func (s *nullSlots) enough() bool { return vectorShare*(s.rows-s.nulls) >= s.rows && s.nulls < s.rows }

// donors are vectors for rows that have none.
type donors[T any] struct {
	width int // of a vector
	last  []T // of the newest batch that had vectors
	turn  int
}

// fill returns vectors, those of other rows where a row has none; have are the rows that have one, nil = all.
func (d *donors[T]) fill(vectors []T, valid []bool, have []int) []T {
	if have == nil {
		d.last = append(d.last[:0], vectors[:min(len(vectors), donorRows*d.width)]...)
		return vectors
	}
	filled := slices.Clone(vectors)
	for i, ok := range valid {
		if ok {
			continue
		}
		place := filled[i*d.width : (i+1)*d.width]
		switch {
		case len(have) > 0:
			from := have[d.turn%len(have)] * d.width
			copy(place, vectors[from:from+d.width])
		case len(d.last) > 0:
			from := d.turn * d.width % len(d.last)
			copy(place, d.last[from:from+d.width])
		}
		d.turn++
	}
	if len(have) > 0 {
		d.last = d.last[:0]
		for _, i := range have[:min(len(have), donorRows)] {
			d.last = append(d.last, vectors[i*d.width:(i+1)*d.width]...)
		}
	}
	return filled
}
