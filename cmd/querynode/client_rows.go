package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
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
	case *qnpb.FieldData_Arrays:
		return list(v.Arrays, i)
	case *qnpb.FieldData_SparseVectors:
		return sparse(v.SparseVectors, i)
	}
	return nil
}

// sparse is row i of a sparse vector field, by dimension.
func sparse(v *qnpb.SparseVectors, i int) any {
	from := 0
	for k, n := range v.GetLengths() {
		to := from + int(n)
		if to > len(v.GetIndices()) || to > len(v.GetValues()) {
			return nil
		}
		if k == i {
			out := make(map[string]float32, n)
			for at := from; at < to; at++ {
				out[strconv.FormatUint(uint64(v.GetIndices()[at]), 10)] = v.GetValues()[at]
			}
			return out
		}
		from = to
	}
	return nil
}

// list is row i of an array field; never nil, for that is null.
func list(a *qnpb.Arrays, i int) any {
	from := 0
	for k, n := range a.GetLengths() {
		if k == i {
			return elements(a, from, from+int(n))
		}
		from += int(n)
	}
	return nil
}

func elements(a *qnpb.Arrays, from, to int) any {
	switch v := a.GetElements().(type) {
	case *qnpb.Arrays_Bools:
		return piece(v.Bools.GetValues(), from, to)
	case *qnpb.Arrays_Ints:
		return piece(v.Ints.GetValues(), from, to)
	case *qnpb.Arrays_Floats:
		return piece(v.Floats.GetValues(), from, to)
	case *qnpb.Arrays_Doubles:
		return piece(v.Doubles.GetValues(), from, to)
	case *qnpb.Arrays_Strings:
		return piece(v.Strings.GetValues(), from, to)
	}
	return []string{}
}

// piece is values[from:to], in which a number that JSON does not have is text.
func piece[T any](values []T, from, to int) any {
	if from > to || to > len(values) {
		return nil
	}
	out := make([]any, 0, to-from)
	for _, v := range values[from:to] {
		out = append(out, v)
	}
	return out
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
	case []any:
		parts := make([]string, 0, shownValues+1)
		for i, x := range v {
			if i == shownValues {
				parts = append(parts, fmt.Sprintf("… %d in all", len(v)))
				break
			}
			parts = append(parts, cellText(x))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprint(v)
}

// fieldTypes are the types of the fields of a collection by name: what comes over
// the wire does not tell a time from a number.
type fieldTypes map[string]qnpb.DataType

func typesOf(s *qnpb.CollectionSchema) fieldTypes {
	out := fieldTypes{}
	if s.GetDynamic() {
		out[schema.DynamicFieldName] = qnpb.DataType_DATA_TYPE_JSON
	}
	for _, f := range s.GetFields() {
		out[f.GetName()] = f.GetType()
	}
	return out
}

// json reports whether the texts of a field are JSON: those of the dynamic field's
// keys, which are no fields of the collection, are too.
func (t fieldTypes) json(name string) bool {
	typ, known := t[name]
	if _, dynamic := t[schema.DynamicFieldName]; !known && dynamic {
		return schema.CheckName("field", name) == nil
	}
	return typ == qnpb.DataType_DATA_TYPE_JSON
}

// time reports whether the numbers of a column are times: those of a field, or the first or last of them.
func (t fieldTypes) time(name string) bool {
	typ, known := t[name]
	if fn, arg, found := strings.Cut(strings.TrimSuffix(name, ")"), "("); found && !known {
		if fn = strings.ToLower(strings.TrimSpace(fn)); fn == "min" || fn == "max" {
			typ = t[strings.TrimSpace(arg)]
		}
	}
	return typ == qnpb.DataType_DATA_TYPE_TIMESTAMPTZ
}

// cell is cell with times as RFC 3339.
func (t fieldTypes) cell(d *qnpb.FieldData, i int) any {
	v := cell(d, i)
	if n, ok := v.(int64); ok && t.time(d.GetField()) {
		return schema.FormatTime(n)
	}
	raw, ok := d.GetValues().(*qnpb.FieldData_ByteVectors)
	if valid := d.GetValid(); !ok || len(valid) > i && !valid[i] {
		return v
	}
	// What the bytes are is in the type.
	f := schema.Field{Type: schema.Type(t[d.GetField()]), Dim: int(raw.ByteVectors.GetDim())}
	c, err := rowpb.ToColumn(&qnpb.FieldData{Values: d.GetValues()}, f)
	if err != nil || i >= c.Rows() {
		return nil
	}
	return rowpb.Floats(c, i)
}

// row is row i as an object; JSON fields are nested, not quoted.
func (t fieldTypes) row(fields []*qnpb.FieldData, i int) map[string]any {
	row := map[string]any{}
	for _, d := range fields {
		v := t.cell(d, i)
		if text, ok := v.(string); ok && t.json(d.GetField()) && json.Valid([]byte(text)) {
			v = json.RawMessage(text)
		}
		row[d.GetField()] = v
	}
	return row
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
		if isVector(f.GetType()) {
			fields = append(fields, f)
		}
	}
	return fields
}

// typeName is how a type is written in this program: "Int64", "FloatVector(100)".
func typeName(f *qnpb.FieldSchema) string {
	if f.GetType() == qnpb.DataType_DATA_TYPE_ARRAY {
		element := typeName(&qnpb.FieldSchema{Type: f.GetElementType(), MaxLength: f.GetMaxLength()})
		if f.GetMaxCapacity() > 0 {
			return fmt.Sprintf("Array(%s, %d)", element, f.GetMaxCapacity())
		}
		return fmt.Sprintf("Array(%s)", element)
	}
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
