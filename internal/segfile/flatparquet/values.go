package flatparquet

import (
	"math"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/querynode/querynode/internal/schema"
)

// loadPlain points v at the first n values of data, converting what has
// another width, and returns how many there are. Numbers alias the page where
// they can; text is copied out of it.
func (c *Cursor) loadPlain(v *values, data encoding.Values, n int) (int, error) {
	switch c.col.leaf.Type().Kind() {
	case parquet.Boolean:
		bits := data.Boolean()
		n = min(n, 8*len(bits))
		v.bools = v.bools[:0]
		for i := range n {
			v.bools = append(v.bools, bits[i/8]>>(i%8)&1 != 0)
		}
		return n, nil
	case parquet.Int32:
		v.ints = v.ints[:0]
		for _, x := range data.Int32() {
			if c.col.Unsigned {
				v.ints = append(v.ints, int64(uint32(x)))
			} else {
				v.ints = append(v.ints, int64(x))
			}
		}
		return len(v.ints), nil
	case parquet.Int64:
		v.ints = data.Int64()
		if c.col.Unsigned && !c.raw {
			for i, x := range v.ints {
				if x < 0 {
					return 0, errors.Newf("value %d of the page is %d, want at most %d", i, uint64(x), int64(math.MaxInt64))
				}
			}
		}
		return len(v.ints), nil
	case parquet.Float:
		v.floats = data.Float()
		return len(v.floats), nil
	case parquet.Double:
		v.doubles = data.Double()
		return len(v.doubles), nil
	case parquet.ByteArray:
		return v.loadText(data)
	}
	return 0, errors.Newf("values of kind %v", c.col.leaf.Type().Kind())
}

// loadText copies all text of the page into one string and cuts it.
func (v *values) loadText(data encoding.Values) (int, error) {
	raw, ends := data.ByteArray()
	v.strs = v.strs[:0]
	if len(ends) == 0 {
		return 0, nil
	}
	text := string(raw)
	for i := range len(ends) - 1 {
		from, to := ends[i], ends[i+1]
		if from > to || int(to) > len(text) {
			return 0, errors.Newf("text %d lies at %d to %d of %d bytes", i, from, to, len(text))
		}
		v.strs = append(v.strs, text[from:to])
	}
	return len(v.strs), nil
}

// dictionary holds the unpacked dictionary of a row group.
type dictionary struct {
	of parquet.Dictionary
	values
}

// loadIndexed looks the indexes of the page up in the dictionary. Rows share
// the text of the dictionary.
func (c *Cursor) loadIndexed() (int, error) {
	d := c.page.Dictionary()
	if c.dict.of != d {
		c.dict = dictionary{of: d}
		if n, err := c.loadPlain(&c.dict.values, d.Page().Data(), d.Len()); err != nil || n < d.Len() {
			return 0, errors.Wrapf(err, "dictionary of %d values has %d", d.Len(), n)
		}
	}
	data := c.page.Data()
	index := data.Int32()
	v, from := &c.values, &c.dict.values
	switch c.col.Type {
	case schema.Bool:
		v.bools = lookup(v.bools, from.bools, index)
	case schema.Float:
		v.floats = lookup(nil, from.floats, index)
	case schema.Double:
		v.doubles = lookup(nil, from.doubles, index)
	case schema.VarChar, schema.JSON:
		v.strs = lookup(v.strs, from.strs, index)
	default:
		v.ints = lookup(nil, from.ints, index)
	}
	return len(index), nil
}

// lookup appends from[i] for each index to dst[:0]. An index outside of the
// dictionary panics, which guard turns into an error. Pass nil for dst where
// it may alias a page.
func lookup[T any](dst, from []T, index []int32) []T {
	dst = dst[:0]
	if cap(dst) < len(index) {
		dst = make([]T, 0, len(index))
	}
	for _, i := range index {
		dst = append(dst, from[i])
	}
	return dst
}
