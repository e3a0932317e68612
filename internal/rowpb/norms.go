package rowpb

import (
	"encoding/binary"
	"math"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// maxSquaredNorm is what the squares of a vector's values may add up to: a quarter of
// the largest float32. The inner product of two such vectors is no more, and the squared distance
// four times that, so that no metric of them is infinite, or no number.
const maxSquaredNorm = math.MaxFloat32 / 4

// CheckNorms refuses vectors, of field f, for which distances do not fit a float32. The error is of
// class Invalid and names the row. Values that are not finite are for schema.Column.Check to name.
func CheckNorms(c *schema.Column, f schema.Field) error {
	var one []float32
	switch f.Type {
	case schema.FloatVector, schema.SparseFloatVector:
	case schema.BFloat16Vector:
		one = make([]float32, f.Dim)
	default:
		return nil // float16 reaches 65504 only
	}
	for i := range c.Rows() {
		v := one
		switch f.Type {
		case schema.FloatVector:
			v = c.Vector(i)
		case schema.SparseFloatVector:
			_, v = c.Sparse(i)
		default:
			for k, at := 0, 2*i*f.Dim; k < f.Dim; k, at = k+1, at+2 {
				v[k] = vec.BFloat16ToFloat32(binary.LittleEndian.Uint16(c.Raw[at:]))
			}
		}
		if n := squaredNorm(v); n > maxSquaredNorm {
			if norm, finite := exactNorm(v); finite && !c.Null(i) {
				return tooLong(f, i, norm)
			}
		}
	}
	return nil
}

func tooLong(f schema.Field, row int, norm float64) error {
	return errclass.New(errclass.Invalid, "field %q: the vector of row %d has norm %.3g, at most %.3g: distances beyond do not fit 32 bits; scale it", f.Name, row, norm, math.Sqrt(maxSquaredNorm))
}

// CheckQueries refuses query vectors for f, a field of float32, that are not finite or for which
// distances do not fit a float32. They lie one behind the other. The error is of class Invalid.
func CheckQueries(vectors []float32, f schema.Field) error {
	for row := 0; (row+1)*f.Dim <= len(vectors); row++ {
		v := vectors[row*f.Dim:][:f.Dim]
		if squaredNorm(v) <= maxSquaredNorm { // so they are finite, too
			continue
		}
		for k, x := range v {
			if x-x != 0 {
				return errclass.New(errclass.Invalid, "vector %d, dimension %d is %v: vectors must be finite", row, k, x)
			}
		}
		norm, _ := exactNorm(v)
		return errclass.Wrap(tooLong(f, row, norm), errclass.Invalid, "query vectors")
	}
	return nil
}

// squaredNorm adds up the squares of v, eight at a time, each of which waits for the one eight before it
// only; infinite if they do not fit, no number if one of v is none.
func squaredNorm(v []float32) float32 {
	var a, b, c, d, e, f, g, h float32
	for ; len(v) >= 8; v = v[8:] {
		a += v[0] * v[0]
		b += v[1] * v[1]
		c += v[2] * v[2]
		d += v[3] * v[3]
		e += v[4] * v[4]
		f += v[5] * v[5]
		g += v[6] * v[6]
		h += v[7] * v[7]
	}
	for _, x := range v {
		a += x * x
	}
	return a + b + c + d + e + f + g + h
}

// exactNorm is the norm of v in 64 bits; not finite if one of its values is not.
func exactNorm(v []float32) (norm float64, finite bool) {
	for _, x := range v {
		norm += float64(x) * float64(x)
	}
	return math.Sqrt(norm), !math.IsInf(norm, 0) && !math.IsNaN(norm)
}
