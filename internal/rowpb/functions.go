package rowpb

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// ToFunction returns the function that p describes, with the ids of the fields that
// it names. The error, of class Invalid, tells what cannot be translated; the rest
// is for Schema.Validate.
func ToFunction(p *qnpb.FunctionSchema, fields []schema.Field) (schema.Function, error) {
	f := schema.Function{Name: p.GetName()}
	if t := p.GetType(); t < 0 || t > math.MaxUint8 {
		return f, errclass.New(errclass.Invalid, "function %q: unknown type %d", f.Name, t)
	}
	f.Type = schema.FunctionType(p.GetType())
	for what, x := range map[string]struct {
		names []string
		id    *int64
	}{"input_fields": {p.GetInputFields(), &f.Input}, "output_fields": {p.GetOutputFields(), &f.Output}} {
		if len(x.names) != 1 {
			return f, errclass.New(errclass.Invalid, "function %q: %d %s, want one", f.Name, len(x.names), what)
		}
		i := slices.IndexFunc(fields, func(f schema.Field) bool { return f.Name == x.names[0] })
		if i < 0 {
			return f, errclass.With(errclass.New(errclass.Invalid, "function %q: %s: there is no field %q", f.Name, what, x.names[0]), errclass.Field)
		}
		*x.id = fields[i].ID
	}
	return f, nil
}

// FromFunction describes a function of a schema.
func FromFunction(f schema.Function, s *schema.Schema) *qnpb.FunctionSchema {
	in, _ := s.FieldByID(f.Input)
	out, _ := s.FieldByID(f.Output)
	return &qnpb.FunctionSchema{Name: f.Name, Type: qnpb.FunctionType(f.Type), InputFields: []string{in.Name}, OutputFields: []string{out.Name}}
}

// Texts returns queries for field f, which a function of type BM25 makes, as a
// column of its type: how often words are in them. Class Invalid if it is made of no
// words or a text is too long.
func Texts(s *schema.Schema, f schema.Field, texts []string) (*schema.Column, error) {
	fn, made := s.FunctionOf(f.ID)
	if !made || fn.Type != schema.BM25 {
		return nil, errclass.New(errclass.Invalid, "field %q is %s: texts are for a field that a BM25 function makes", f.Name, f.Type)
	}
	in, _ := s.FieldByID(fn.Input)
	a, err := analyze.New(in.Analyzer)
	if err != nil {
		return nil, err
	}
	counter, c := a.Counter(), &schema.Column{FieldID: f.ID, Type: f.Type, Offsets: []int{0}}
	for i, text := range texts {
		if len(text) > schema.MaxVarChar {
			return nil, errclass.New(errclass.Invalid, "texts: number %d has %d bytes, at most %d", i, len(text), schema.MaxVarChar)
		}
		counter.Append(c, text)
	}
	return c, nil
}
