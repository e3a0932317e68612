package rowpb

import (
	"encoding/json"
	"math"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// ToField returns the field that p describes, with its id. The error, of class
// Invalid, tells what cannot be translated; the rest is for Schema.Validate.
func ToField(p *qnpb.FieldSchema) (schema.Field, error) {
	f := schema.Field{
		ID: p.GetId(), Name: p.GetName(), PrimaryKey: p.GetPrimaryKey(), AutoID: p.GetAutoId(), Dim: int(p.GetDim()),
		MaxLength: int(p.GetMaxLength()), Nullable: p.GetNullable(), MaxCapacity: int(p.GetMaxCapacity()),
		Analyzer: p.GetAnalyzer(),
	}
	for _, t := range []qnpb.DataType{p.GetType(), p.GetElementType()} {
		if t < 0 || t > math.MaxUint8 {
			return f, errclass.New(errclass.Invalid, "field %q: unknown type %d", f.Name, t)
		}
	}
	f.Type, f.Element = schema.Type(p.GetType()), schema.Type(p.GetElementType())
	if _, err := analyze.New(f.Analyzer); err != nil {
		return f, errclass.Wrap(err, errclass.Invalid, "field %q", f.Name)
	}
	var err error
	if f.Default, err = toLiteral(p.GetDefaultValue(), f.Type); err != nil {
		return f, errclass.Wrap(err, errclass.Invalid, "field %q", f.Name)
	}
	return f, nil
}

// toLiteral returns the default value of a field of type t; "" if v is nil.
func toLiteral(v *qnpb.Value, t schema.Type) (schema.Literal, error) {
	switch k := v.GetKind().(type) {
	case nil:
		return "", nil
	case *qnpb.Value_BoolValue:
		return schema.LiteralOf(k.BoolValue)
	case *qnpb.Value_IntValue:
		return schema.LiteralOf(k.IntValue)
	case *qnpb.Value_DoubleValue:
		return schema.LiteralOf(k.DoubleValue)
	case *qnpb.Value_StringValue:
		if t == schema.Timestamptz {
			micros, err := schema.ParseTime(k.StringValue)
			if err != nil {
				return "", err
			}
			return schema.LiteralOf(micros)
		}
		return schema.LiteralOf(k.StringValue)
	}
	return "", errclass.New(errclass.Invalid, "a default value is one value, not a list")
}

// FromField describes a field.
func FromField(f schema.Field) *qnpb.FieldSchema {
	return &qnpb.FieldSchema{
		Name: f.Name, Type: qnpb.DataType(f.Type), PrimaryKey: f.PrimaryKey, AutoId: f.AutoID, Dim: int32(f.Dim),
		MaxLength: int32(f.MaxLength), Nullable: f.Nullable, Id: f.ID, ElementType: qnpb.DataType(f.Element),
		MaxCapacity: int32(f.MaxCapacity), DefaultValue: fromLiteral(f), Analyzer: f.Analyzer,
	}
}

func fromLiteral(f schema.Field) *qnpb.Value {
	if f.Default == "" {
		return nil
	}
	raw := []byte(f.Default)
	var ok bool
	var n int64
	var x float64
	var text string
	switch {
	case f.Type == schema.Bool && json.Unmarshal(raw, &ok) == nil:
		return &qnpb.Value{Kind: &qnpb.Value_BoolValue{BoolValue: ok}}
	case f.Type.IsInt() && json.Unmarshal(raw, &n) == nil:
		return &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: n}}
	case (f.Type == schema.Float || f.Type == schema.Double) && json.Unmarshal(raw, &x) == nil:
		return &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: x}}
	case json.Unmarshal(raw, &text) == nil:
		return &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: text}}
	}
	return nil
}
