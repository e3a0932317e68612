package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// cell returns row i of a column as a value for JSON; nil = null.
func cell(d *qnpb.FieldData, i int) any {
	if v := d.GetValid(); len(v) > i && !v[i] {
		return nil
	}
	switch v := d.GetValues().(type) {
	case *qnpb.FieldData_Bools:
		return at(v.Bools.GetValues(), i)
	case *qnpb.FieldData_Ints:
		return at(v.Ints.GetValues(), i)
	case *qnpb.FieldData_Floats:
		return at(v.Floats.GetValues(), i)
	case *qnpb.FieldData_Doubles:
		return at(v.Doubles.GetValues(), i)
	case *qnpb.FieldData_Strings:
		return at(v.Strings.GetValues(), i)
	case *qnpb.FieldData_Vectors:
		values, rows, err := rowpb.Vectors(v.Vectors)
		if err != nil || i >= rows {
			return nil
		}
		dim := int(v.Vectors.GetDim())
		return values[i*dim : (i+1)*dim]
	}
	return nil
}

func at[T any](values []T, i int) any {
	if i >= len(values) {
		return nil
	}
	return values[i]
}

// shown is how many values of a vector and characters of a text a table shows.
const (
	shownValues = 4
	shownText   = 60
)

// cellText is a cell of a table.
func cellText(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		if r := []rune(v); len(r) > shownText {
			return string(r[:shownText-1]) + "…"
		}
		return v
	case float32:
		return strconv.FormatFloat(float64(v), 'g', 6, 32)
	case []float32:
		parts := make([]string, 0, shownValues+1)
		for i, x := range v {
			if i == shownValues {
				parts = append(parts, fmt.Sprintf("… %d in all", len(v)))
				break
			}
			parts = append(parts, strconv.FormatFloat(float64(x), 'g', 4, 32))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprint(v)
}

// rowJSON is row i as an object; JSON fields are nested, not quoted.
func rowJSON(fields []*qnpb.FieldData, i int, jsonFields map[string]bool) map[string]any {
	row := map[string]any{}
	for _, d := range fields {
		v := cell(d, i)
		if text, ok := v.(string); ok && jsonFields[d.GetField()] && json.Valid([]byte(text)) {
			v = json.RawMessage(text)
		}
		row[d.GetField()] = v
	}
	return row
}

// jsonFieldsOf names the fields that hold JSON.
func jsonFieldsOf(s *qnpb.CollectionSchema) map[string]bool {
	out := map[string]bool{"$meta": true}
	for _, f := range s.GetFields() {
		if f.GetType() == qnpb.DataType_DATA_TYPE_JSON {
			out[f.GetName()] = true
		}
	}
	return out
}

// keyOf returns key i.
func keyOf(ids *qnpb.Ids, i int) any {
	if s := ids.GetStrings(); s != nil {
		return at(s.GetValues(), i)
	}
	return at(ids.GetInts().GetValues(), i)
}

// keys reads keys as typed, for the primary key of a collection.
func keys(s *qnpb.CollectionSchema, texts []string) (*qnpb.Ids, error) {
	pk := primaryOf(s)
	if pk.GetType() == qnpb.DataType_DATA_TYPE_VARCHAR {
		return &qnpb.Ids{Keys: &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: texts}}}, nil
	}
	ints := make([]int64, len(texts))
	for i, t := range texts {
		v, err := strconv.ParseInt(strings.TrimSpace(t), 10, 64)
		if err != nil {
			return nil, &problem{text: fmt.Sprintf("%q is not a key of the collection: its primary key %q is of type Int64", t, pk.GetName()), next: "give whole numbers"}
		}
		ints[i] = v
	}
	return &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ints}}}, nil
}

func primaryOf(s *qnpb.CollectionSchema) *qnpb.FieldSchema {
	for _, f := range s.GetFields() {
		if f.GetPrimaryKey() {
			return f
		}
	}
	return nil
}

func vectorsOf(s *qnpb.CollectionSchema) (fields []*qnpb.FieldSchema) {
	for _, f := range s.GetFields() {
		if f.GetType() == qnpb.DataType_DATA_TYPE_FLOAT_VECTOR {
			fields = append(fields, f)
		}
	}
	return fields
}

// typeName is how a type is written in this program: "Int64", "FloatVector(100)".
func typeName(f *qnpb.FieldSchema) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.TrimPrefix(f.GetType().String(), "DATA_TYPE_"), "_") {
		switch part {
		case "JSON":
			b.WriteString(part)
		case "VARCHAR":
			b.WriteString("VarChar")
		default:
			b.WriteString(part[:1] + strings.ToLower(part[1:]))
		}
	}
	switch {
	case f.GetDim() > 0:
		fmt.Fprintf(&b, "(%d)", f.GetDim())
	case f.GetMaxLength() > 0:
		fmt.Fprintf(&b, "(%d)", f.GetMaxLength())
	}
	return b.String()
}
