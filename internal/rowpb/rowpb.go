// Package rowpb converts rows between their API form (FieldData) and their
// columnar form (schema.Batch). It checks shapes only: whether values fit the
// schema is schema.Batch.Check's job.
package rowpb

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Vectors returns the values of v as rows of v.Dim values and the number of
// rows. The result aliases v where the memory layout allows.
func Vectors(v *qnpb.FloatVectors) ([]float32, int, error) {
	dim := int(v.GetDim())
	if dim <= 0 {
		return nil, 0, errclass.New(errclass.Invalid, "vectors: dim is %d, want at least 1", dim)
	}
	if len(v.GetRaw()) > 0 && len(v.GetValues()) > 0 {
		return nil, 0, errclass.New(errclass.Invalid, "vectors: send either values or raw, not both")
	}
	values := v.GetValues()
	if len(v.GetRaw()) > 0 {
		if len(v.GetRaw())%(4*dim) != 0 {
			return nil, 0, errclass.New(errclass.Invalid, "vectors: raw has %d bytes, want a multiple of %d (4 bytes x dim %d)", len(v.GetRaw()), 4*dim, dim)
		}
		values = floats(v.GetRaw())
	}
	if len(values)%dim != 0 {
		return nil, 0, errclass.New(errclass.Invalid, "vectors: %d values, want a multiple of dim %d", len(values), dim)
	}
	return values, len(values) / dim, nil
}

// floats decodes little-endian values, without a copy where memory is laid out so.
func floats(raw []byte) []float32 {
	if littleEndian() && uintptr(unsafe.Pointer(&raw[0]))%4 == 0 {
		return unsafe.Slice((*float32)(unsafe.Pointer(&raw[0])), len(raw)/4)
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

func littleEndian() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}

// RawVectors encodes vectors of dim values as raw.
func RawVectors(values []float32, dim int) *qnpb.FloatVectors {
	raw := make([]byte, 4*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(v))
	}
	return &qnpb.FloatVectors{Dim: int32(dim), Raw: raw}
}

// FromColumn returns the API form of c, the column of field f. It aliases c.
func FromColumn(c *schema.Column, f schema.Field) *qnpb.FieldData {
	d := &qnpb.FieldData{Field: f.Name, FieldId: f.ID, Valid: c.Valid}
	switch {
	case c.Type == schema.Bool:
		d.Values = &qnpb.FieldData_Bools{Bools: &qnpb.BoolArray{Values: c.Bool}}
	case c.Type.IsInt():
		d.Values = &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: c.Int}}
	case c.Type == schema.Float:
		d.Values = &qnpb.FieldData_Floats{Floats: &qnpb.FloatArray{Values: c.Float}}
	case c.Type == schema.Double:
		d.Values = &qnpb.FieldData_Doubles{Doubles: &qnpb.DoubleArray{Values: c.Double}}
	case c.Type == schema.FloatVector:
		d.Values = &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: int32(c.Dim), Values: c.Float}}
	case c.Type == schema.Array:
		d.Values = &qnpb.FieldData_Arrays{Arrays: fromArrays(c)}
	case c.Type == schema.SparseFloatVector:
		d.Values = &qnpb.FieldData_SparseVectors{SparseVectors: fromSparse(c)}
	case c.Type.IsRaw():
		d.Values = &qnpb.FieldData_ByteVectors{ByteVectors: &qnpb.ByteVectors{Dim: int32(c.Dim), Raw: c.Raw}}
	default:
		d.Values = &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: c.Str}}
	}
	return d
}

// ToColumn returns the columnar form of d for field f; an error of class Invalid
// names the field and the type it wants. It aliases d.
func ToColumn(d *qnpb.FieldData, f schema.Field) (*schema.Column, error) {
	c := &schema.Column{FieldID: f.ID, Type: f.Type, Element: f.Element, Dim: f.Dim}
	if len(d.GetValid()) > 0 {
		c.Valid = d.GetValid()
	}
	ok := false
	switch v := d.GetValues().(type) {
	case *qnpb.FieldData_Bools:
		c.Bool, ok = v.Bools.GetValues(), f.Type == schema.Bool
	case *qnpb.FieldData_Ints:
		c.Int, ok = v.Ints.GetValues(), f.Type.IsInt()
	case *qnpb.FieldData_Floats:
		c.Float, ok = v.Floats.GetValues(), f.Type == schema.Float
	case *qnpb.FieldData_Doubles:
		c.Double, ok = v.Doubles.GetValues(), f.Type == schema.Double
	case *qnpb.FieldData_Strings:
		c.Str, ok = v.Strings.GetValues(), f.Type == schema.VarChar || f.Type == schema.JSON
	case *qnpb.FieldData_Vectors:
		if f.Type.IsVector() && f.Type != schema.SparseFloatVector && f.Type != schema.BinaryVector {
			return c, toVectors(v.Vectors, c, f)
		}
	case *qnpb.FieldData_ByteVectors:
		if f.Type.IsRaw() {
			return c, toBytes(v.ByteVectors, c, f)
		}
	case *qnpb.FieldData_SparseVectors:
		if f.Type == schema.SparseFloatVector {
			return c, toSparse(v.SparseVectors, c, f)
		}
	case *qnpb.FieldData_Arrays:
		if f.Type == schema.Array {
			return toArrays(v.Arrays, c, f)
		}
	}
	if !ok {
		return nil, errclass.New(errclass.Invalid, "field %q: want values of type %s, got %s", f.Name, f.Type, kind(d))
	}
	return c, nil
}

func kind(d *qnpb.FieldData) string {
	switch d.GetValues().(type) {
	case *qnpb.FieldData_Bools:
		return "bools"
	case *qnpb.FieldData_Ints:
		return "ints"
	case *qnpb.FieldData_Floats:
		return "floats"
	case *qnpb.FieldData_Doubles:
		return "doubles"
	case *qnpb.FieldData_Strings:
		return "strings"
	case *qnpb.FieldData_Vectors:
		return "vectors"
	case *qnpb.FieldData_Arrays:
		return "arrays"
	case *qnpb.FieldData_ByteVectors:
		return "byte_vectors"
	case *qnpb.FieldData_SparseVectors:
		return "sparse_vectors"
	}
	return "nothing"
}

// ToIDs returns the API form of a key column. It aliases c.
func ToIDs(c *schema.Column) *qnpb.Ids {
	if c.Type == schema.VarChar {
		return &qnpb.Ids{Keys: &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: c.Str}}}
	}
	return &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: c.Int}}}
}

// FromIDs returns the column of ids for the primary key field. It aliases ids.
func FromIDs(ids *qnpb.Ids, pk schema.Field) (*schema.Column, error) {
	c := &schema.Column{FieldID: pk.ID, Type: pk.Type}
	switch k := ids.GetKeys().(type) {
	case *qnpb.Ids_Ints:
		if pk.Type == schema.Int64 {
			c.Int = k.Ints.GetValues()
			return c, nil
		}
	case *qnpb.Ids_Strings:
		if pk.Type == schema.VarChar {
			c.Str = k.Strings.GetValues()
			return c, nil
		}
	}
	return nil, errclass.New(errclass.Invalid, "ids: the primary key %q is %s, send %s", pk.Name, pk.Type,
		map[bool]string{true: "strings", false: "ints"}[pk.Type == schema.VarChar])
}

// FromBatch returns all columns of b in their API form, for the write-ahead log.
// Vectors are packed as raw.
func FromBatch(b *schema.Batch, s *schema.Schema) []*qnpb.FieldData {
	out := make([]*qnpb.FieldData, len(b.Columns))
	for i, c := range b.Columns {
		f, _ := s.FieldByID(c.FieldID)
		out[i] = FromColumn(c, f)
		if c.Type == schema.FloatVector {
			out[i].Values = &qnpb.FieldData_Vectors{Vectors: RawVectors(c.Float, c.Dim)}
		}
		out[i].Field = "" // the id is enough
	}
	return out
}

// ToBatch returns the rows of a message of the write-ahead log for schema s.
// Fields are found by id; one that the schema has and the message lacks, because
// it was added later, becomes its default value or nulls; one that the schema lacks is dropped.
// Functions make their fields, whatever the message has of them. The number of rows is compared with
// the columns there are before it is believed.
func ToBatch(rows int, data []*qnpb.FieldData, s *schema.Schema) (*schema.Batch, error) {
	if rows <= 0 {
		return nil, errclass.New(errclass.Invalid, "message has %d rows", rows)
	}
	byID := make(map[int64]*qnpb.FieldData, len(data))
	for _, d := range data {
		byID[d.GetFieldId()] = d
	}
	pk := s.Primary()
	keys, ok := byID[pk.ID]
	if !ok {
		return nil, errclass.New(errclass.Invalid, "message without the primary key %q", pk.Name)
	}
	if c, err := ToColumn(keys, pk); err != nil {
		return nil, err
	} else if c.Rows() != rows {
		return nil, errclass.New(errclass.Invalid, "message of %d rows has %d keys", rows, c.Rows())
	}
	b := &schema.Batch{Rows: rows}
	for _, f := range s.Given() {
		d, ok := byID[f.ID]
		if !ok {
			c, err := schema.AbsentColumn(f, rows)
			if err != nil {
				return nil, err
			}
			b.Columns = append(b.Columns, c)
			continue
		}
		c, err := ToColumn(d, f)
		if err != nil {
			return nil, err
		}
		b.Columns = append(b.Columns, c)
	}
	if err := b.CheckGiven(s); err != nil {
		return nil, err
	}
	return b, analyze.Fill(b, s)
}
