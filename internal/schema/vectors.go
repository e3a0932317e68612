package schema

import (
	"encoding/binary"
	"math"
)

// checkVectors checks the values of vectors: finite, and sparse ones in order.
func (c *Column) checkVectors(f Field, bad func(string, ...any) error) error {
	switch f.Type {
	case FloatVector:
		for i, v := range c.Float {
			// v-v is NaN for NaN and both infinities, 0 otherwise.
			if v-v != 0 {
				return bad("row %d, dimension %d is %v: vectors must be finite", i/f.Dim, i%f.Dim, v)
			}
		}
	case Float16Vector, BFloat16Vector:
		exponent := uint16(0x7c00)
		if f.Type == BFloat16Vector {
			exponent = 0x7f80
		}
		for i := 0; i < len(c.Raw); i += 2 {
			if h := binary.LittleEndian.Uint16(c.Raw[i:]); h&exponent == exponent {
				return bad("row %d, dimension %d is infinite or no number (bits %#04x): vectors must be finite", i/2/f.Dim, i/2%f.Dim, h)
			}
		}
	case SparseFloatVector:
		return c.checkSparse(bad)
	}
	return nil
}

// checkSparse checks offsets, dimensions and values of sparse vectors.
func (c *Column) checkSparse(bad func(string, ...any) error) error {
	if len(c.Indices) != len(c.Float) {
		return bad("%d dimensions for %d values", len(c.Indices), len(c.Float))
	}
	for i := range c.Rows() {
		from, to := c.List(i)
		switch {
		case from < 0 || from > to || to > len(c.Indices):
			return bad("row %d has its values at %d to %d of %d", i, from, to, len(c.Indices))
		case to-from > MaxSparse:
			return bad("row %d has %d values, at most %d", i, to-from, MaxSparse)
		case from != to && c.Null(i):
			return bad("row %d is null, but has %d values", i, to-from)
		}
		for k := from; k < to; k++ {
			switch x, v := c.Indices[k], c.Float[k]; {
			case x == math.MaxUint32:
				return bad("row %d has dimension %d, at most %d", i, x, uint32(math.MaxUint32-1))
			case k > from && x == c.Indices[k-1]:
				return bad("row %d has dimension %d twice", i, x)
			case k > from && x < c.Indices[k-1]:
				return bad("row %d has dimension %d behind %d: send them in order", i, x, c.Indices[k-1])
			case v-v != 0 || v < 0:
				return bad("row %d, dimension %d is %v: values of sparse vectors must be finite and not negative", i, x, v)
			}
		}
	}
	return nil
}
