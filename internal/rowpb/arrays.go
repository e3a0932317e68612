package rowpb

import (
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// fromArrays returns the API form of an Array column. The elements alias c.
func fromArrays(c *schema.Column) *qnpb.Arrays {
	rows := c.Rows()
	a := &qnpb.Arrays{Lengths: make([]uint32, rows)}
	for i := range rows {
		from, to := c.List(i)
		a.Lengths[i] = uint32(to - from)
	}
	switch e := c.Elements(0, rows); {
	case e.Type == schema.Bool:
		a.Elements = &qnpb.Arrays_Bools{Bools: &qnpb.BoolArray{Values: e.Bool}}
	case e.Type.IsInt():
		a.Elements = &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: e.Int}}
	case e.Type == schema.Float:
		a.Elements = &qnpb.Arrays_Floats{Floats: &qnpb.FloatArray{Values: e.Float}}
	case e.Type == schema.Double:
		a.Elements = &qnpb.Arrays_Doubles{Doubles: &qnpb.DoubleArray{Values: e.Double}}
	default:
		a.Elements = &qnpb.Arrays_Strings{Strings: &qnpb.StringArray{Values: e.Str}}
	}
	return a
}

// toArrays fills c, a column of field f, with the lists of a. The elements alias a.
func toArrays(a *qnpb.Arrays, c *schema.Column, f schema.Field) (*schema.Column, error) {
	offsets, n, err := offsetsOf(a.GetLengths(), f)
	if err != nil {
		return nil, err
	}
	got, ok := 0, false
	switch v := a.GetElements().(type) {
	case *qnpb.Arrays_Bools:
		c.Bool, ok = v.Bools.GetValues(), f.Element == schema.Bool
		got = len(c.Bool)
	case *qnpb.Arrays_Ints:
		c.Int, ok = v.Ints.GetValues(), f.Element.IsInt()
		got = len(c.Int)
	case *qnpb.Arrays_Floats:
		c.Float, ok = v.Floats.GetValues(), f.Element == schema.Float
		got = len(c.Float)
	case *qnpb.Arrays_Doubles:
		c.Double, ok = v.Doubles.GetValues(), f.Element == schema.Double
		got = len(c.Double)
	case *qnpb.Arrays_Strings:
		c.Str, ok = v.Strings.GetValues(), f.Element == schema.VarChar
		got = len(c.Str)
	case nil:
		ok = true
	}
	switch {
	case !ok:
		return nil, errclass.New(errclass.Invalid, "field %q: want elements of type %s", f.Name, f.Element)
	case got != n:
		return nil, errclass.New(errclass.Invalid, "field %q: the lengths add up to %d elements, got %d", f.Name, n, got)
	}
	c.Offsets = offsets
	return c, nil
}

// offsetsOf turns lengths into offsets, of which the last is returned too.
func offsetsOf(lengths []uint32, f schema.Field) (offsets []int, n int, err error) {
	offsets = make([]int, 1, len(lengths)+1)
	for i, l := range lengths {
		if n += int(l); n < 0 {
			return nil, 0, errclass.New(errclass.Invalid, "field %q: the lengths up to row %d add up to too much", f.Name, i)
		}
		offsets = append(offsets, n)
	}
	return offsets, n, nil
}
