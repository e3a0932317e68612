package server

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// everyType is a schema with a field of every type.
func everyType() *schema.Schema {
	s := &schema.Schema{Version: 1, Dynamic: true}
	for i, t := range []schema.Type{schema.Int64, schema.Bool, schema.Int8, schema.Int32, schema.Float, schema.Double, schema.VarChar, schema.JSON, schema.FloatVector} {
		f := schema.Field{ID: schema.FirstFieldID + int64(i), Name: string(rune('a' + i)), Type: t, PrimaryKey: i == 0, Nullable: i > 3 && i < 7}
		if t == schema.FloatVector {
			f.Dim = 2
		}
		s.Fields = append(s.Fields, f)
	}
	return s
}

// FuzzAppendRequest: whatever a client sends as rows is refused with class
// Invalid or NotFound, or becomes a batch that can be checked and sent on.
func FuzzAppendRequest(f *testing.F) {
	s := everyType()
	seed := func(op *qnpb.InsertOperation) {
		raw, err := proto.Marshal(op)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, false)
		f.Add(raw, true)
	}
	ints := func(name string, v ...int64) *qnpb.FieldData {
		return &qnpb.FieldData{Field: name, Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: v}}}
	}
	full := []*qnpb.FieldData{
		ints("a", 1, 2), ints("c", 3, 4), ints("d", 5, 6),
		{Field: "b", Values: &qnpb.FieldData_Bools{Bools: &qnpb.BoolArray{Values: []bool{true, false}}}},
		{Field: "g", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: []string{"x", ""}}}, Valid: []bool{true, false}},
		{Field: "h", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: []string{"1", "{}"}}}},
		{Field: "i", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{1, 2, 3, 4}}}},
		{Field: "$meta", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: []string{"{}", `{"k":1}`}}}},
	}
	seed(&qnpb.InsertOperation{Rows: 2, Fields: full})
	seed(&qnpb.InsertOperation{Rows: 1 << 40, Fields: full[:3]})
	short := proto.Clone(full[4]).(*qnpb.FieldData)
	short.Valid = short.Valid[:1]
	seed(&qnpb.InsertOperation{Rows: 2, Fields: append(full[:4:4], short)})
	seed(&qnpb.InsertOperation{Rows: 1, Fields: []*qnpb.FieldData{{Field: "i", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: -1, Raw: []byte{1}}}}}})
	f.Fuzz(func(t *testing.T, raw []byte, upsert bool) {
		op := new(qnpb.InsertOperation)
		if proto.Unmarshal(raw, op) != nil {
			return
		}
		b, err := toBatch(s, op.GetRows(), op.GetFields(), upsert)
		if err != nil {
			if c := errclass.Of(err); c != errclass.Invalid && c != errclass.NotFound {
				t.Fatalf("%v is of class %v", err, c)
			}
			return
		}
		if err := b.Check(s); err != nil {
			if !errclass.Is(err, errclass.Invalid) {
				t.Fatalf("%v is of class %v", err, errclass.Of(err))
			}
			return
		}
		if back, err := rowpb.ToBatch(b.Rows, rowpb.FromBatch(b, s), s); err != nil || back.Rows != b.Rows {
			t.Fatalf("what was accepted does not come back: %v, %v", back, err)
		}
	})
}

// FuzzCreateCollectionRequest: a schema is translated or refused, never worse.
func FuzzCreateCollectionRequest(f *testing.F) {
	for _, r := range []*qnpb.CreateCollectionRequest{
		{}, {Name: "x", Schema: fromSchema(everyType()), Indexes: []*qnpb.IndexSpec{{Field: "i", Type: "HNSW", Params: map[string]string{"M": "8"}}}},
		{Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{{Type: 999, Dim: -1, MaxLength: -1}, nil}}},
	} {
		raw, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := new(qnpb.CreateCollectionRequest)
		if proto.Unmarshal(raw, r) != nil {
			return
		}
		s, bad := toSchema(r.GetSchema())
		for _, x := range r.GetIndexes() {
			_, _ = toIndex(x, &s)
		}
		if err := s.Validate(); err == nil && len(bad) == 0 {
			if back, bad := toSchema(fromSchema(&s)); len(bad) > 0 || len(back.Fields) != len(s.Fields) {
				t.Fatalf("a valid schema does not come back: %v, %v", back, bad)
			}
		}
	})
}
