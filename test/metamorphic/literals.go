package main

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// literal is a value in the text, or the name of one that goes beside it.
func (d *draft) literal(v any) string {
	if d.r.IntN(5) == 0 || long(v) {
		name := fmt.Sprintf("x%d", len(d.values))
		d.values[name] = apiValue(v)
		return "{" + name + "}"
	}
	return text(v)
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float32:
		return text(float64(v))
	case float64:
		if v != 0 && (math.Abs(v) > 1e15 || math.Abs(v) < 1e-6) {
			return strconv.FormatFloat(v, 'e', -1, 64)
		}
		t := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(t, ".") {
			t += ".0"
		}
		return t
	case list:
		var out []string
		for _, e := range v {
			out = append(out, text(e))
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	return fmt.Sprint(v)
}

func apiValue(v any) *qnpb.Value {
	switch v := v.(type) {
	case bool:
		return &qnpb.Value{Kind: &qnpb.Value_BoolValue{BoolValue: v}}
	case int64:
		return &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: v}}
	case float32:
		return apiValue(float64(v))
	case float64:
		return &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: v}}
	case string:
		return &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: v}}
	}
	l, _ := v.(list)
	rows := make([]*row, len(l))
	for i, e := range l {
		if f, ok := e.(float32); ok {
			e = float64(f)
		}
		rows[i] = &row{values: []any{e}}
	}
	if len(l) == 0 {
		return &qnpb.Value{Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{}}}
	}
	if len(l)%2 == 0 || slices.ContainsFunc(l, func(e any) bool { return reflect.TypeOf(e) != reflect.TypeOf(l[0]) }) {
		if text, err := json.Marshal(numbered(l)); err == nil {
			return &qnpb.Value{Kind: &qnpb.Value_Json{Json: string(text)}}
		}
	}
	switch l[0].(type) {
	case bool:
		return &qnpb.Value{Kind: &qnpb.Value_Bools{Bools: &qnpb.BoolArray{Values: column[bool](rows, 0)}}}
	case int64:
		return &qnpb.Value{Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{Values: column[int64](rows, 0)}}}
	case string:
		return &qnpb.Value{Kind: &qnpb.Value_Strings{Strings: &qnpb.StringArray{Values: column[string](rows, 0)}}}
	}
	return &qnpb.Value{Kind: &qnpb.Value_Doubles{Doubles: &qnpb.DoubleArray{Values: column[float64](rows, 0)}}}
}

// numbered are values of which floats stay such in JSON: without an exponent a large one would be an integer
// of more than 64 bits, which is refused.
func numbered(l list) (out list) {
	for _, e := range l {
		if f, ok := e.(float64); ok {
			e = json.Number(text(f))
		}
		out = append(out, e)
	}
	return out
}
