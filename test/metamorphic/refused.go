package main

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// refused sends a request of which one thing is wrong: it has to be refused for what it is, and nothing may come of it.
func (l *lane) refused(ctx context.Context, o *op) error {
	m, r := l.model, rand.New(rand.NewPCG(o.Seed, 0x4ef5))
	if !m.loaded {
		return nil
	}
	what, err := "", error(nil)
	if r.IntN(2) == 0 {
		what, err = l.writeWrong(ctx, o, r)
	} else {
		what, err = l.readWrong(ctx, o, r)
	}
	if what != "" && status.Code(err) != codes.InvalidArgument {
		return o.differs("%s: want a refusal as invalid, got %v", what, err)
	}
	return nil
}

// writeWrong inserts a row with a value that its field cannot have; what = "" if there is no such field.
func (l *lane) writeWrong(ctx context.Context, o *op, r *rand.Rand) (what string, err error) {
	s := l.model.spec
	x := s.newRow(1, -1, l.model.parts[0], nil)
	data := s.data([]*row{x}, map[string]bool{"id": s.auto})
	d := data[r.IntN(len(data))]
	spoil := s.vectorData
	for i := range s.fields {
		if s.fields[i].name == d.GetField() {
			spoil = s.fields[i].spoil
		}
	}
	if d.GetField() == "id" {
		spoil = s.keyData
	}
	if what = spoil(r, d); what == "" {
		return "", nil
	}
	insert := &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: 1, Fields: data}}
	_, err = l.rig.write.Append(ctx, &qnpb.AppendRequest{Collection: s.called(o.Seed), Partition: l.model.parts[0], Operation: insert})
	return "insert " + d.GetField() + " with " + what, err
}

func (s *spec) keyData(_ *rand.Rand, d *qnpb.FieldData) string {
	if !s.text {
		d.Values.(*qnpb.FieldData_Ints).Ints.Values = nil
		return "no value"
	}
	d.Values.(*qnpb.FieldData_Strings).Strings.Values[0] = strings.Repeat("\u00fc", 33)
	return "33 characters of two bytes"
}

// spoil puts a value into a field of one row that it cannot have.
func (f *field) spoil(r *rand.Rand, d *qnpb.FieldData) string {
	if !f.optional() && r.IntN(4) == 0 {
		d.Valid = []bool{false}
		return "a null"
	}
	if len(d.GetValid()) > 0 {
		d.Valid[0] = true
	}
	least := map[qnpb.DataType]int64{qnpb.DataType_DATA_TYPE_INT8: math.MinInt8, qnpb.DataType_DATA_TYPE_INT16: math.MinInt16, qnpb.DataType_DATA_TYPE_INT32: math.MinInt32}
	wrong := func(lo int64) int64 { return []int64{lo - 1, -lo, math.MinInt64, math.MaxInt64}[r.IntN(4)] }
	switch v := d.GetValues().(type) {
	case *qnpb.FieldData_Ints:
		if lo, small := least[f.typ]; small {
			v.Ints.Values[0] = wrong(lo)
			return "a number out of range"
		}
	case *qnpb.FieldData_Floats:
		v.Floats.Values[0] = float32(unfinite(r))
		return "a number that is not finite"
	case *qnpb.FieldData_Doubles:
		v.Doubles.Values[0] = unfinite(r)
		return "a number that is not finite"
	case *qnpb.FieldData_Arrays:
		switch f.elem {
		case qnpb.DataType_DATA_TYPE_FLOAT:
			v.Arrays.Lengths = []uint32{2}
			v.Arrays.Elements = &qnpb.Arrays_Floats{Floats: &qnpb.FloatArray{Values: []float32{1, float32(unfinite(r))}}}
			return "an element that is not finite"
		case qnpb.DataType_DATA_TYPE_DOUBLE:
			v.Arrays.Lengths = []uint32{2}
			v.Arrays.Elements = &qnpb.Arrays_Doubles{Doubles: &qnpb.DoubleArray{Values: []float64{1, unfinite(r)}}}
			return "an element that is not finite"
		}
		if lo, small := least[f.elem]; small {
			v.Arrays.Lengths = []uint32{2}
			v.Arrays.Elements = &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: []int64{1, wrong(lo)}}}
			return "an element out of range"
		}
		v.Arrays.Lengths = []uint32{1 << 30}
		return "more elements than are sent"
	case *qnpb.FieldData_Strings:
		v.Strings.Values[0] = strings.Repeat("e", 65_536)
		if f.typ == qnpb.DataType_DATA_TYPE_JSON {
			v.Strings.Values[0] = []string{`{"n": 1`, `{"n": NaN}`, `{n: 1}`, `{"n": 1} 2`, `{"n": 01}`}[r.IntN(5)]
			return v.Strings.Values[0]
		}
		return "one byte too many"
	}
	return ""
}

// unfinite is an infinity, or no number.
func unfinite(r *rand.Rand) float64 {
	return []float64{math.NaN(), math.Inf(1), math.Inf(-1)}[r.IntN(3)]
}

// vectorData puts a value into a vector that it cannot have.
func (s *spec) vectorData(r *rand.Rand, d *qnpb.FieldData) string {
	if len(d.GetValid()) > 0 && !d.GetValid()[0] {
		return ""
	}
	odd := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e19}[r.IntN(4)]
	switch v := d.GetValues().(type) {
	case *qnpb.FieldData_Vectors:
		if r.IntN(4) == 0 {
			v.Vectors.Values = append(v.Vectors.Values, 1)
			return "a value too many"
		}
		v.Vectors.Values[r.IntN(len(v.Vectors.Values))] = odd
		return "values that are not finite, or make distances that are not"
	case *qnpb.FieldData_SparseVectors:
		v.SparseVectors.Lengths = []uint32{2}
		v.SparseVectors.Indices, v.SparseVectors.Values = []uint32{3, 9}, []float32{1, pick(r.IntN(2) == 0, odd, -1)}
		return "values that are not finite or not positive"
	case *qnpb.FieldData_ByteVectors:
		for _, field := range s.vectors {
			switch raw := v.ByteVectors.Raw; {
			case field.name != d.GetField():
			case field.typ == float16s || field.typ == bfloats:
				bits := pick[uint16](field.typ == float16s, 0x7c00, 0x7f80) | uint16(r.IntN(2)) | uint16(r.IntN(2))<<15
				binary.LittleEndian.PutUint16(raw[2*r.IntN(len(raw)/2):], bits)
				return "values that are not finite"
			default:
				v.ByteVectors.Raw = append(raw, 0)
				return "a byte too many"
			}
		}
	}
	return ""
}

// readWrong searches, or queries, with a parameter that cannot be.
func (l *lane) readWrong(ctx context.Context, o *op, r *rand.Rand) (what string, err error) {
	s := l.model.spec
	name := s.called(o.Seed)
	if r.IntN(2) == 0 {
		req := &qnpb.QueryRequest{Collection: name, Filter: "id == {x}", OutputFields: []string{"id"}}
		odd := unfinite(r)
		x := &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: odd}}
		what = "a filter's value that is not finite"
		f := s.pick(r, func(f *field) bool { return f.integer() || f.floating() })
		switch r.IntN(6) {
		case 0:
			req.Filter, x, what = "id in {x}", &qnpb.Value{Kind: &qnpb.Value_Doubles{Doubles: &qnpb.DoubleArray{Values: []float64{1, odd}}}}, "a list that has what is not finite"
		case 1:
			req.Filter, what = "id > 9223372036854775808", "a number beyond 64 bits"
		case 2:
			req.Filter, what = "1e309 > id", "a number beyond what is finite"
		case 3:
			req.Filter, req.Limit, what = "", -1, "a limit below 0"
		case 4:
			req.Filter, what = "element_filter(id, $ == 1)", "elements of what has none"
		case 5:
			if f != nil {
				req.Filter = f.name + " < {x}"
			}
		}
		if strings.Contains(req.Filter, "{x}") {
			req.FilterValues = map[string]*qnpb.Value{"x": x}
		}
		_, err = l.ask(ctx, o, req)
		return "query with " + what, err
	}
	v := &s.vectors[r.IntN(len(s.vectors))]
	form := v.query([][]float64{v.random(r)}, true)
	req := &qnpb.SearchRequest{Collection: name, Field: v.name, TopK: 10, Vectors: form.floats, ByteVectors: form.bytes, SparseVectors: form.sparse, Texts: form.texts}
	what = v.spoilSearch(r, req)
	if what == "" {
		return "", nil
	}
	_, err = l.rig.query.Search(ctx, req)
	return "search of " + v.name + " by " + v.index + " with " + what, err
}

// spoilSearch gives a search a parameter that it cannot have.
func (v *vector) spoilSearch(r *rand.Rand, req *qnpb.SearchRequest) string {
	odd, digits := float32(math.NaN()), int32(7)
	switch r.IntN(12) {
	case 0:
		req.TopK, req.Ef = 10, 9
		return "ef below top_k"
	case 1:
		req.TopK = []int64{0, -1, 16_385, math.MaxInt64}[r.IntN(4)]
		return "top_k out of range"
	case 2:
		req.Offset = []int64{-1, 16_380, math.MaxInt64}[r.IntN(3)]
		return "offset out of range"
	case 3:
		req.Recall = []float32{0.4, 1.1, -1, odd}[r.IntN(4)]
		return "recall out of range"
	case 4:
		req.RefineK = []float32{0.5, -1, odd, 4_000}[r.IntN(4)]
		return "refine_k out of range"
	case 5:
		req.Radius = &odd
		return "a radius that is no number"
	case 6:
		req.RoundDecimal = &digits
		return "seven decimals"
	case 7:
		req.Recall, req.Ef = 0.9, 100
		return "recall and ef"
	case 8:
		if v.typ == float32s && v.index != "IVF_FLAT" && v.index != "IVF_SQ8" && v.index != "SCANN" && v.index != "AUTOINDEX" {
			req.Nprobe = 8
			return "nprobe, which the index does not know"
		}
		req.Nprobe = []int32{-1, 65_537}[r.IntN(2)]
		return "nprobe out of range"
	case 9:
		if v.typ == float32s && v.index != "SCANN" && v.index != "AUTOINDEX" {
			req.ReorderK = 100
			return "reorder_k, which the index does not know"
		}
		req.ReorderK = 9
		return "reorder_k below top_k"
	case 10:
		if v.typ == float32s && (v.index == "FLAT" || v.index == "HNSW" || v.index == "IVF_FLAT") {
			req.RefineK = 2
			return "refine_k, which the index does not know"
		}
	}
	if f := req.GetVectors(); f != nil {
		f.Values[r.IntN(len(f.Values))] = float32(unfinite(r))
		return "a vector that is not finite"
	}
	return ""
}
