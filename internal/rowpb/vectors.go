package rowpb

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// toVectors fills c, a column of field f, with float32 vectors: as they are, or
// rounded to what the field holds.
func toVectors(v *qnpb.FloatVectors, c *schema.Column, f schema.Field) error {
	values, _, err := Vectors(v)
	if err != nil {
		return errclass.Wrap(err, errclass.Invalid, "field %q", f.Name)
	}
	if int(v.GetDim()) != f.Dim {
		return errclass.New(errclass.Invalid, "field %q: vectors of dimension %d, want %d", f.Name, v.GetDim(), f.Dim)
	}
	if f.Type == schema.FloatVector {
		c.Float = values
		return nil
	}
	c.Raw = make([]byte, f.Type.RowBytes(len(values)))
	for i, x := range values {
		switch f.Type {
		case schema.Float16Vector:
			binary.LittleEndian.PutUint16(c.Raw[2*i:], vec.Float32ToFloat16(x))
		case schema.BFloat16Vector:
			binary.LittleEndian.PutUint16(c.Raw[2*i:], vec.Float32ToBFloat16(x))
		default:
			n := math.RoundToEven(float64(x))
			if !(n >= math.MinInt8 && n <= math.MaxInt8) {
				return errclass.New(errclass.Invalid, "field %q: row %d, dimension %d is %v, want -128 to 127", f.Name, i/f.Dim, i%f.Dim, x)
			}
			c.Raw[i] = byte(int8(n))
		}
	}
	return nil
}

// Floats are the values of row i of a column of vectors that are not sparse, a
// bit being 0 or 1.
func Floats(c *schema.Column, i int) []float32 {
	if c.Type == schema.FloatVector {
		return c.Vector(i)
	}
	w := c.RowBytes()
	raw, out := c.Raw[i*w:(i+1)*w], make([]float32, c.Dim)
	for k := range out {
		switch c.Type {
		case schema.Float16Vector:
			out[k] = vec.Float16ToFloat32(binary.LittleEndian.Uint16(raw[2*k:]))
		case schema.BFloat16Vector:
			out[k] = vec.BFloat16ToFloat32(binary.LittleEndian.Uint16(raw[2*k:]))
		case schema.Int8Vector:
			out[k] = float32(int8(raw[k]))
		default:
			out[k] = float32(raw[k/8] >> (7 - k%8) & 1)
		}
	}
	return out
}

func toBytes(v *qnpb.ByteVectors, c *schema.Column, f schema.Field) error {
	w := f.Type.RowBytes(f.Dim)
	switch {
	case int(v.GetDim()) != f.Dim:
		return errclass.New(errclass.Invalid, "field %q: vectors of dimension %d, want %d", f.Name, v.GetDim(), f.Dim)
	case w == 0 || len(v.GetRaw())%w != 0:
		return errclass.New(errclass.Invalid, "field %q: raw has %d bytes, want a multiple of %d (%s of dimension %d)", f.Name, len(v.GetRaw()), w, f.Type, f.Dim)
	}
	c.Raw = v.GetRaw()
	return nil
}

func fromSparse(c *schema.Column) *qnpb.SparseVectors {
	rows := c.Rows()
	v := &qnpb.SparseVectors{Lengths: make([]uint32, rows)}
	for i := range rows {
		from, to := c.List(i)
		v.Lengths[i] = uint32(to - from)
	}
	if rows > 0 {
		from, to := c.Offsets[0], c.Offsets[rows]
		v.Indices, v.Values = c.Indices[from:to], c.Float[from:to]
	}
	return v
}

// toSparse fills c with sparse vectors, each brought into the order of its
// dimensions if it is not in it.
func toSparse(v *qnpb.SparseVectors, c *schema.Column, f schema.Field) error {
	offsets, n, err := offsetsOf(v.GetLengths(), f)
	if err != nil {
		return err
	}
	if len(v.GetIndices()) != n || len(v.GetValues()) != n {
		return errclass.New(errclass.Invalid, "field %q: the lengths add up to %d values, got %d indices and %d values", f.Name, n, len(v.GetIndices()), len(v.GetValues()))
	}
	c.Offsets, c.Indices, c.Float = offsets, v.GetIndices(), v.GetValues()
	sorted := false
	for i := range c.Rows() {
		if x, _ := c.Sparse(i); slices.IsSorted(x) {
			continue
		}
		if !sorted { // the request is not ours to change
			c.Indices, c.Float, sorted = slices.Clone(c.Indices), slices.Clone(c.Float), true
		}
		x, values := c.Sparse(i)
		sort.Sort(byDimension{x, values})
	}
	return nil
}

// byDimension sorts a sparse vector.
type byDimension struct {
	indices []uint32
	values  []float32
}

func (b byDimension) Len() int           { return len(b.indices) }
func (b byDimension) Less(i, j int) bool { return b.indices[i] < b.indices[j] }
func (b byDimension) Swap(i, j int) {
	b.indices[i], b.indices[j] = b.indices[j], b.indices[i]
	b.values[i], b.values[j] = b.values[j], b.values[i]
}

// Queries returns query vectors for field f as a column of its type; class
// Invalid if they do not fit. One of the three is given.
func Queries(f schema.Field, v *qnpb.FloatVectors, b *qnpb.ByteVectors, s *qnpb.SparseVectors) (*schema.Column, error) {
	d := &qnpb.FieldData{}
	given := 0
	if v != nil {
		d.Values = &qnpb.FieldData_Vectors{Vectors: v}
		given++
	}
	if b != nil {
		d.Values = &qnpb.FieldData_ByteVectors{ByteVectors: b}
		given++
	}
	if s != nil {
		d.Values = &qnpb.FieldData_SparseVectors{SparseVectors: s}
		given++
	}
	if given != 1 {
		return nil, errclass.New(errclass.Invalid, "send query vectors in one of vectors, byte_vectors and sparse_vectors; there are %d", given)
	}
	c, err := ToColumn(d, f)
	if err != nil {
		return nil, errclass.Wrap(err, errclass.Invalid, "query vectors")
	}
	f.Nullable = false
	if err := c.Check(f, c.Rows()); err != nil {
		return c, errclass.Wrap(err, errclass.Invalid, "query vectors")
	}
	return c, errclass.Wrap(CheckNorms(c, f), errclass.Invalid, "query vectors")
}
