package main

import (
	"context"
	"fmt"

	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// rowsVectors fetches the vectors of rows by key: a column of each, in the order of the keys.
// partial allows that they are looked for in some segments only.
func (c *client) rowsVectors(ctx context.Context, coll *qnpb.Collection, f *qnpb.FieldSchema, texts []string, partial bool) ([]*schema.Column, error) {
	ids, err := keys(coll.GetSchema(), texts)
	if err != nil {
		return nil, err
	}
	field, err := rowpb.ToField(f)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.answer(ctx)
	defer cancel()
	out := make([]*schema.Column, len(texts))
	for i, text := range texts {
		// One by one: an answer comes in the order of the keys and leaves out those that are not there.
		one := &qnpb.Ids{}
		if s := ids.GetStrings(); s != nil {
			one.Keys = &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: s.GetValues()[i : i+1]}}
		} else {
			one.Keys = &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids.GetInts().GetValues()[i : i+1]}}
		}
		got, err := c.query.Get(ctx, &qnpb.GetRequest{Collection: coll.GetName(), Ids: one, OutputFields: []string{f.GetName()}, AllowPartial: partial})
		if err != nil {
			return nil, err
		}
		for _, d := range got.GetFields() {
			if d.GetField() == f.GetName() && got.GetRows() == 1 {
				if out[i], err = rowpb.ToColumn(d, field); err != nil {
					return nil, err
				}
			}
		}
		switch {
		case out[i] == nil && missing(got.GetStats()) != nil:
			return nil, &problem{text: fmt.Sprintf("no row with the key %s is in the %.1f %% of the rows of %s that can be read", text, 100*got.GetStats().GetSearchedShare(), coll.GetName()),
				next: "\"querynode status\" says what is wrong with the rest; or give the vector itself with --vector"}
		case out[i] == nil:
			return nil, &problem{text: fmt.Sprintf("%s has no row with the key %s", coll.GetName(), text)}
		case out[i].Null(0):
			return nil, &problem{text: fmt.Sprintf("the row with the key %s has no vector in %q", text, f.GetName())}
		}
	}
	return out, nil
}

// vectorsOf fetches the vectors of rows, of any type but sparse.
func (c *client) vectorsOf(ctx context.Context, coll *qnpb.Collection, f *qnpb.FieldSchema, texts []string, partial bool) ([]float32, error) {
	rows, err := c.rowsVectors(ctx, coll, f, texts, partial)
	if err != nil {
		return nil, err
	}
	var out []float32
	for _, r := range rows {
		out = append(out, rowpb.Floats(r, 0)...)
	}
	return out, nil
}

// sparseOf fetches the sparse vectors of rows.
func (c *client) sparseOf(ctx context.Context, coll *qnpb.Collection, f *qnpb.FieldSchema, texts []string, partial bool) (*qnpb.SparseVectors, error) {
	rows, err := c.rowsVectors(ctx, coll, f, texts, partial)
	if err != nil {
		return nil, err
	}
	field, err := rowpb.ToField(f)
	if err != nil {
		return nil, err
	}
	out := &qnpb.SparseVectors{}
	for _, r := range rows {
		v := rowpb.FromColumn(r, field).GetSparseVectors()
		out.Lengths = append(out.Lengths, v.GetLengths()...)
		out.Indices = append(out.Indices, v.GetIndices()...)
		out.Values = append(out.Values, v.GetValues()...)
	}
	return out, nil
}

func isSparse(f *qnpb.FieldSchema) bool {
	return f.GetType() == qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR
}

// packBits makes vectors of bits of numbers, of which those that are not 0 are set.
func packBits(values []float32, dim int32) *qnpb.ByteVectors {
	v := &qnpb.ByteVectors{Dim: dim, Raw: make([]byte, (len(values)+7)/8)}
	for i, x := range values {
		if x != 0 {
			v.Raw[i/8] |= 0x80 >> (i % 8)
		}
	}
	return v
}
