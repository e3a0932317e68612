package main

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// addBM25 adds a function that counts the words of a text field, as typed:
// "words=body", and the field that it makes if the schema does not have it.
func addBM25(text string, s *qnpb.CollectionSchema) error {
	out, in, ok := strings.Cut(text, "=")
	if !ok || out == "" || in == "" {
		return errors.Newf("--bm25 %q: want FIELD=TEXT_FIELD", text)
	}
	makeField(out, s)
	s.Functions = append(s.Functions, &qnpb.FunctionSchema{Name: out + "_bm25", Type: qnpb.FunctionType_FUNCTION_TYPE_BM25,
		InputFields: []string{in}, OutputFields: []string{out}})
	return nil
}

// makeField adds the field that a function makes if the schema does not have it.
func makeField(name string, s *qnpb.CollectionSchema) {
	if !slices.ContainsFunc(s.GetFields(), func(f *qnpb.FieldSchema) bool { return f.GetName() == name }) {
		s.Fields = append(s.Fields, &qnpb.FieldSchema{Name: name, Type: qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR})
	}
}

// fileFunction is a function in a schema file. A field that it makes and that is not
// among the fields is added.
type fileFunction struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Input  []string `json:"input_fields"`
	Output []string `json:"output_fields"`
}

// add adds the function to the schema.
func (f *fileFunction) add(s *qnpb.CollectionSchema) error {
	if f.Type != "" && !strings.EqualFold(f.Type, "BM25") {
		return errors.Newf("function %q: type %q, want BM25", f.Name, f.Type)
	}
	if len(f.Input) != 1 || len(f.Output) != 1 {
		return errors.Newf("function %q: want one of input_fields and one of output_fields", f.Name)
	}
	fn := &qnpb.FunctionSchema{Name: f.Name, Type: qnpb.FunctionType_FUNCTION_TYPE_BM25, InputFields: f.Input, OutputFields: f.Output}
	if fn.Name == "" {
		fn.Name = f.Output[0] + "_bm25"
	}
	makeField(f.Output[0], s)
	s.Functions = append(s.Functions, fn)
	return nil
}

// parseSparse reads sparse vectors as typed after flag: "3:0.5, 17:1".
func parseSparse(flag string, texts []string) (*qnpb.SparseVectors, error) {
	out := &qnpb.SparseVectors{}
	for _, text := range texts {
		pairs := strings.FieldsFunc(strings.Trim(strings.TrimSpace(text), "{}"), func(r rune) bool { return r == ',' || r == ' ' })
		for _, pair := range pairs {
			d, x, ok := strings.Cut(pair, ":")
			dim, derr := strconv.ParseUint(d, 10, 32)
			v, verr := strconv.ParseFloat(x, 32)
			if !ok || derr != nil || verr != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, usage(errors.Newf("%s %q: %q is no DIMENSION:VALUE; a sparse vector is '3:0.5,17:1'", flag, text, pair))
			}
			out.Indices, out.Values = append(out.Indices, uint32(dim)), append(out.Values, float32(v))
		}
		out.Lengths = append(out.Lengths, uint32(len(pairs)))
	}
	return out, nil
}

// parseParams reads the values of a filter's {placeholders}, as typed: "least=3",
// "colors=[\"red\",\"blue\"]", "any=[1,2.5,\"a\"]". What is no JSON is text.
func parseParams(texts []string) (map[string]*qnpb.Value, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	out := map[string]*qnpb.Value{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usage(errors.Newf("--param %q: want NAME=VALUE", text))
		}
		if _, twice := out[name]; twice {
			return nil, usage(errors.Newf("--param %q: there is a value of %q already", text, name))
		}
		v, err := paramValue(value)
		if err != nil {
			return nil, usage(errors.Wrapf(err, "--param %q", text))
		}
		out[name] = v
	}
	return out, nil
}

func paramValue(text string) (*qnpb.Value, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: n}}, nil
	}
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: text}}, nil
	}
	switch v := v.(type) {
	case bool:
		return &qnpb.Value{Kind: &qnpb.Value_BoolValue{BoolValue: v}}, nil
	case float64:
		return &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: v}}, nil
	case string:
		return &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: v}}, nil
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		if !ok {
			return nil, errors.New("want a number, a text, true, false, or a list of these as JSON")
		}
		return &qnpb.Value{Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{}}}, nil
	}
	// What cannot be read as a list of one type goes as it is; a null would be read as a 0.
	var ints []int64
	var words []string
	switch raw := []byte(text); {
	case slices.Contains(list, nil):
	case json.Unmarshal(raw, &ints) == nil:
		return &qnpb.Value{Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{Values: ints}}}, nil
	case json.Unmarshal(raw, &words) == nil:
		return &qnpb.Value{Kind: &qnpb.Value_Strings{Strings: &qnpb.StringArray{Values: words}}}, nil
	}
	return &qnpb.Value{Kind: &qnpb.Value_Json{Json: text}}, nil
}

// ofWords reports whether a function counts words into the field.
func ofWords(s *qnpb.CollectionSchema, f *qnpb.FieldSchema) bool {
	return slices.ContainsFunc(s.GetFunctions(), func(fn *qnpb.FunctionSchema) bool { return slices.Contains(fn.GetOutputFields(), f.GetName()) })
}
