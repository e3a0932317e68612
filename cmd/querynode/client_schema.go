package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// typeRE splits a type as typed: "int64", "varchar(64)", "FloatVector(128)".
var typeRE = regexp.MustCompile(`^([A-Za-z0-9_]+)(?:\((\d+)\))?$`)

// arrayRE splits an array as typed: "array(int32)", "array(varchar(64),100)".
var arrayRE = regexp.MustCompile(`^(?i)array\(([A-Za-z0-9_]+(?:\(\d+\))?)(?:,\s*(\d+))?\)$`)

// types are the types as they are typed, in capitals and without "_".
func types() map[string]qnpb.DataType {
	m := map[string]qnpb.DataType{"VECTOR": qnpb.DataType_DATA_TYPE_FLOAT_VECTOR}
	for n, name := range qnpb.DataType_name {
		if t := qnpb.DataType(n); t != qnpb.DataType_DATA_TYPE_UNSPECIFIED && t != qnpb.DataType_DATA_TYPE_ARRAY {
			m[plainType(name)] = t
		}
	}
	return m
}

func plainType(name string) string {
	return strings.ReplaceAll(strings.TrimPrefix(strings.ToUpper(name), "DATA_TYPE_"), "_", "")
}

// parseType reads a type into f.
func parseType(text string, f *qnpb.FieldSchema) error {
	text = strings.TrimSpace(text)
	if m := arrayRE.FindStringSubmatch(text); m != nil {
		return parseArray(text, m[1], m[2], f)
	}
	m := typeRE.FindStringSubmatch(text)
	if m == nil {
		return errors.Newf("type %q: want a name such as int64, varchar(64), array(int64) or vector(128)", text)
	}
	t, ok := types()[plainType(m[1])]
	if !ok {
		return errors.Newf("unknown type %q: want bool, int8, int16, int32, int64, float, double, varchar(N), timestamptz, json, array(TYPE), vector(N), float16_vector(N), bfloat16_vector(N), int8_vector(N), binary_vector(N) or sparse_float_vector", text)
	}
	f.Type = t
	n, err := number(text, m[2])
	switch {
	case err != nil:
		return err
	case t == qnpb.DataType_DATA_TYPE_VARCHAR && n > 0:
		f.MaxLength = n
	case isVector(t) && n > 0:
		f.Dim = n
	case m[2] != "":
		return errors.Newf("type %q: a number in brackets goes with varchar and vectors, from 1", text)
	}
	return nil
}

// parseArray reads the type of elements and the capacity of an array.
func parseArray(text, element, capacity string, f *qnpb.FieldSchema) error {
	var e qnpb.FieldSchema
	if err := parseType(element, &e); err != nil {
		return errors.Wrapf(err, "type %q", text)
	}
	n, err := number(text, capacity)
	if err != nil {
		return err
	}
	f.Type, f.ElementType, f.MaxLength, f.MaxCapacity = qnpb.DataType_DATA_TYPE_ARRAY, e.GetType(), e.GetMaxLength(), n
	return nil
}

// number reads the number in a type; 0 if there is none.
func number(text, digits string) (int32, error) {
	if digits == "" {
		return 0, nil
	}
	v, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, errors.Newf("type %q: the number is too large", text)
	}
	return int32(v), nil
}

func isVector(t qnpb.DataType) bool { return schema.Type(t).IsVector() }

// parseField reads "name:type[:pk][:auto][:nullable][:analyzer=name][:default=value]".
// A default is the rest of the text.
func parseField(text string) (*qnpb.FieldSchema, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || parts[0] == "" {
		return nil, errors.Newf("--field %q: want NAME:TYPE, then :pk, :auto, :nullable, :analyzer=NAME or :default=VALUE", text)
	}
	f := &qnpb.FieldSchema{Name: parts[0]}
	if err := parseType(parts[1], f); err != nil {
		return nil, errors.Wrapf(err, "--field %q", text)
	}
	if isVector(f.GetType()) && f.GetDim() == 0 && f.GetType() != qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR {
		return nil, errors.Newf("--field %q: say the dimension: vector(128)", text)
	}
	for i, word := range parts[2:] {
		if value, ok := strings.CutPrefix(strings.Join(parts[2+i:], ":"), "default="); ok {
			if err := parseDefault(value, f); err != nil {
				return nil, errors.Wrapf(err, "--field %q", text)
			}
			break
		}
		if name, ok := strings.CutPrefix(word, "analyzer="); ok {
			f.Analyzer = name
			continue
		}
		switch strings.ToLower(word) {
		case "pk", "primary_key":
			f.PrimaryKey = true
		case "auto", "auto_id":
			f.AutoId = true
		case "nullable", "null":
			f.Nullable = true
		default:
			return nil, errors.Newf("--field %q: unknown word %q, want pk, auto, nullable, analyzer=NAME or default=VALUE", text, word)
		}
	}
	return f, nil
}

// parseDefault reads the default value of a field as typed.
func parseDefault(text string, f *qnpb.FieldSchema) (err error) {
	v := &qnpb.Value{}
	switch t := schema.Type(f.GetType()); {
	case t == schema.Bool:
		x := &qnpb.Value_BoolValue{}
		x.BoolValue, err = strconv.ParseBool(text)
		v.Kind = x
	case t == schema.Timestamptz || t == schema.VarChar:
		v.Kind = &qnpb.Value_StringValue{StringValue: text}
	case t.IsInt():
		x := &qnpb.Value_IntValue{}
		x.IntValue, err = strconv.ParseInt(text, 10, 64)
		v.Kind = x
	case t == schema.Float, t == schema.Double:
		x := &qnpb.Value_DoubleValue{}
		x.DoubleValue, err = strconv.ParseFloat(text, 64)
		v.Kind = x
	default:
		return errors.Newf("a field of type %s has no default value", t)
	}
	f.DefaultValue = v
	return errors.Wrapf(err, "default value %q", text)
}

// parseIndex reads "field:type[:metric][:name=value]...".
func parseIndex(text string) (*qnpb.IndexSpec, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return nil, errors.Newf("index %q: want FIELD:TYPE:METRIC, then parameters such as :M=16", text)
	}
	ix := &qnpb.IndexSpec{Field: parts[0], Type: strings.ToUpper(parts[1])}
	for _, word := range parts[2:] {
		name, value, ok := strings.Cut(word, "=")
		switch {
		case ok && name != "" && value != "":
			if ix.Params == nil {
				ix.Params = map[string]string{}
			}
			ix.Params[name] = value
		case !ok && ix.Metric == "" && word != "":
			ix.Metric = strings.ToUpper(word)
		default:
			return nil, errors.Newf("index %q: %q is neither a metric nor NAME=VALUE", text, word)
		}
	}
	return ix, nil
}

// maxSchemaFile bounds what --schema reads.
const maxSchemaFile = 1 << 20

// schemaFile reads fields and indexes from a JSON file; see the help of
// "collection create".
func schemaFile(path string, req *qnpb.CreateCollectionRequest) error {
	st, err := os.Stat(path)
	if err != nil {
		return errors.Wrap(err, "--schema")
	}
	if st.Size() > maxSchemaFile {
		return errors.Newf("--schema %s: %d bytes, want at most %d", path, st.Size(), maxSchemaFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return errors.Wrap(err, "--schema")
	}
	return errors.Wrapf(parseSchema(raw, req), "--schema %s", path)
}

// fileField is a field in a schema file.
type fileField struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	PrimaryKey bool   `json:"primary_key"`
	AutoID     bool   `json:"auto_id"`
	Dim        int32  `json:"dim"`
	MaxLength  int32  `json:"max_length"`
	Nullable   bool   `json:"nullable"`
	Analyzer   string `json:"analyzer"`
	ID         int64  `json:"id"` // as in a manifest; the node gives its own

	Element     string          `json:"element_type"`
	MaxCapacity int32           `json:"max_capacity"`
	Default     json.RawMessage `json:"default_value"`
}

// fileSchema is a schema file.
type fileSchema struct {
	Fields  []fileField `json:"fields"`
	Indexes []struct {
		Name   string            `json:"name"`
		Field  string            `json:"field"`
		Type   string            `json:"type"`
		Metric string            `json:"metric"`
		Params map[string]string `json:"params"`
	} `json:"indexes"`
	Functions  []fileFunction    `json:"functions"`
	Dynamic    bool              `json:"dynamic"`
	Version    int32             `json:"version"` // as in a manifest
	Shards     int32             `json:"shards"`
	Properties map[string]string `json:"properties"`
}

func parseSchema(raw []byte, req *qnpb.CreateCollectionRequest) error {
	var file fileSchema
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return errors.Wrap(err, "not a schema")
	}
	for i := range file.Fields {
		p, err := file.Fields[i].message()
		if err != nil {
			return errors.Wrapf(err, "field %q", file.Fields[i].Name)
		}
		req.Schema.Fields = append(req.Schema.Fields, p)
	}
	for i := range file.Functions {
		if err := file.Functions[i].add(req.Schema); err != nil {
			return err
		}
	}
	for _, x := range file.Indexes {
		req.Indexes = append(req.Indexes, &qnpb.IndexSpec{Name: x.Name, Field: x.Field, Type: x.Type, Metric: x.Metric, Params: x.Params})
	}
	req.Schema.Dynamic, req.Shards = file.Dynamic, file.Shards
	for k, v := range file.Properties {
		if req.Properties == nil {
			req.Properties = map[string]string{}
		}
		if _, given := req.Properties[k]; !given {
			req.Properties[k] = v
		}
	}
	return nil
}

// message is the field as the API has it. What is in the type, such as a
// dimension, may be in a key of its own instead, as in a manifest.
func (f *fileField) message() (*qnpb.FieldSchema, error) {
	p := &qnpb.FieldSchema{Name: f.Name, PrimaryKey: f.PrimaryKey, AutoId: f.AutoID, Nullable: f.Nullable, Analyzer: f.Analyzer}
	typ := f.Type
	if f.Element != "" {
		typ = fmt.Sprintf("%s(%s)", f.Type, f.Element)
	}
	if err := parseType(typ, p); err != nil {
		return nil, err
	}
	if len(f.Default) > 0 {
		text := string(f.Default)
		var quoted string
		if json.Unmarshal(f.Default, &quoted) == nil {
			text = quoted
		}
		if err := parseDefault(text, p); err != nil {
			return nil, err
		}
	}
	if f.MaxCapacity != 0 {
		p.MaxCapacity = f.MaxCapacity
	}
	if f.Dim != 0 {
		p.Dim = f.Dim
	}
	if f.MaxLength != 0 {
		p.MaxLength = f.MaxLength
	}
	return p, nil
}

// schemaOfData makes the fields that a data file has.
func schemaOfData(path string) (*qnpb.CollectionSchema, error) {
	s, _, err := dataset.InferSchema(path)
	if err != nil {
		return nil, err
	}
	return schemaMessage(&s), nil
}

func schemaMessage(s *schema.Schema) *qnpb.CollectionSchema {
	out := &qnpb.CollectionSchema{Dynamic: s.Dynamic, Version: s.Version}
	for _, f := range s.Fields {
		out.Fields = append(out.Fields, rowpb.FromField(f))
	}
	return out
}

// schemaOf is the schema of a collection as the node describes it.
func schemaOf(p *qnpb.CollectionSchema) (schema.Schema, error) {
	s := schema.Schema{Version: p.GetVersion(), Dynamic: p.GetDynamic()}
	for _, f := range p.GetFields() {
		field, err := rowpb.ToField(f)
		if err != nil {
			return s, errors.Wrap(err, "the node's answer")
		}
		s.Fields = append(s.Fields, field)
	}
	for _, f := range p.GetFunctions() {
		fn, err := rowpb.ToFunction(f, s.Fields)
		if err != nil {
			return s, errors.Wrap(err, "the node's answer")
		}
		s.Functions = append(s.Functions, fn)
	}
	return s, nil
}
