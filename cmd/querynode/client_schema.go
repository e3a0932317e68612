package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// typeRE splits a type as typed: "int64", "varchar(64)", "FloatVector(128)".
var typeRE = regexp.MustCompile(`^([A-Za-z0-9_]+)(?:\((\d+)\))?$`)

// parseType reads a type into f.
func parseType(text string, f *qnpb.FieldSchema) error {
	m := typeRE.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return errors.Newf("type %q: want a name such as int64, varchar(64) or vector(128)", text)
	}
	name := strings.ReplaceAll(strings.TrimPrefix(strings.ToUpper(m[1]), "DATA_TYPE_"), "_", "")
	types := map[string]qnpb.DataType{
		"BOOL": qnpb.DataType_DATA_TYPE_BOOL, "INT8": qnpb.DataType_DATA_TYPE_INT8, "INT16": qnpb.DataType_DATA_TYPE_INT16,
		"INT32": qnpb.DataType_DATA_TYPE_INT32, "INT64": qnpb.DataType_DATA_TYPE_INT64, "FLOAT": qnpb.DataType_DATA_TYPE_FLOAT,
		"DOUBLE": qnpb.DataType_DATA_TYPE_DOUBLE, "VARCHAR": qnpb.DataType_DATA_TYPE_VARCHAR, "JSON": qnpb.DataType_DATA_TYPE_JSON,
		"VECTOR": qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, "FLOATVECTOR": qnpb.DataType_DATA_TYPE_FLOAT_VECTOR,
	}
	t, ok := types[name]
	if !ok {
		return errors.Newf("unknown type %q: want bool, int8, int16, int32, int64, float, double, varchar(N), json or vector(N)", text)
	}
	f.Type = t
	n := 0
	if m[2] != "" {
		v, err := strconv.ParseInt(m[2], 10, 32)
		if err != nil {
			return errors.Newf("type %q: the number is too large", text)
		}
		n = int(v)
	}
	switch {
	case t == qnpb.DataType_DATA_TYPE_VARCHAR && n > 0:
		f.MaxLength = int32(n)
	case t == qnpb.DataType_DATA_TYPE_FLOAT_VECTOR && n > 0:
		f.Dim = int32(n)
	case m[2] != "":
		return errors.Newf("type %q: a number in brackets goes with varchar and vector, from 1", text)
	}
	return nil
}

// parseField reads "name:type[:pk][:auto][:nullable]".
func parseField(text string) (*qnpb.FieldSchema, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || parts[0] == "" {
		return nil, errors.Newf("--field %q: want NAME:TYPE, then :pk, :auto or :nullable", text)
	}
	f := &qnpb.FieldSchema{Name: parts[0]}
	if err := parseType(parts[1], f); err != nil {
		return nil, errors.Wrapf(err, "--field %q", text)
	}
	if f.GetType() == qnpb.DataType_DATA_TYPE_FLOAT_VECTOR && f.GetDim() == 0 {
		return nil, errors.Newf("--field %q: say the dimension: vector(128)", text)
	}
	for _, word := range parts[2:] {
		switch strings.ToLower(word) {
		case "pk", "primary_key":
			f.PrimaryKey = true
		case "auto", "auto_id":
			f.AutoId = true
		case "nullable", "null":
			f.Nullable = true
		default:
			return nil, errors.Newf("--field %q: unknown word %q, want pk, auto or nullable", text, word)
		}
	}
	return f, nil
}

// parseIndex reads "field:type[:metric][:name=value]...".
func parseIndex(text string) (*qnpb.IndexSpec, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return nil, errors.Newf("--index %q: want FIELD:TYPE:METRIC, then parameters such as :M=16", text)
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
			return nil, errors.Newf("--index %q: %q is neither a metric nor NAME=VALUE", text, word)
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

func parseSchema(raw []byte, req *qnpb.CreateCollectionRequest) error {
	var file struct {
		Fields []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			PrimaryKey bool   `json:"primary_key"`
			AutoID     bool   `json:"auto_id"`
			Dim        int32  `json:"dim"`
			MaxLength  int32  `json:"max_length"`
			Nullable   bool   `json:"nullable"`
			ID         int64  `json:"id"` // as in a manifest; the node gives its own
		} `json:"fields"`
		Indexes []struct {
			Name   string            `json:"name"`
			Field  string            `json:"field"`
			Type   string            `json:"type"`
			Metric string            `json:"metric"`
			Params map[string]string `json:"params"`
		} `json:"indexes"`
		Dynamic    bool              `json:"dynamic"`
		Version    int32             `json:"version"` // as in a manifest
		Shards     int32             `json:"shards"`
		Properties map[string]string `json:"properties"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return errors.Wrap(err, "not a schema")
	}
	for _, f := range file.Fields {
		p := &qnpb.FieldSchema{Name: f.Name, PrimaryKey: f.PrimaryKey, AutoId: f.AutoID, Nullable: f.Nullable}
		if err := parseType(f.Type, p); err != nil {
			return errors.Wrapf(err, "field %q", f.Name)
		}
		if f.Dim != 0 {
			p.Dim = f.Dim
		}
		if f.MaxLength != 0 {
			p.MaxLength = f.MaxLength
		}
		req.Schema.Fields = append(req.Schema.Fields, p)
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
		out.Fields = append(out.Fields, &qnpb.FieldSchema{Name: f.Name, Type: qnpb.DataType(f.Type), PrimaryKey: f.PrimaryKey, AutoId: f.AutoID,
			Dim: int32(f.Dim), MaxLength: int32(f.MaxLength), Nullable: f.Nullable, Id: f.ID})
	}
	return out
}

// schemaOf is the schema of a collection as the node describes it.
func schemaOf(p *qnpb.CollectionSchema) schema.Schema {
	s := schema.Schema{Version: p.GetVersion(), Dynamic: p.GetDynamic()}
	for _, f := range p.GetFields() {
		s.Fields = append(s.Fields, schema.Field{ID: f.GetId(), Name: f.GetName(), Type: schema.Type(f.GetType()), PrimaryKey: f.GetPrimaryKey(),
			AutoID: f.GetAutoId(), Dim: int(f.GetDim()), MaxLength: int(f.GetMaxLength()), Nullable: f.GetNullable()})
	}
	return s
}
