package expr

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
)

// variableValue converts the value of a template variable, or says what is
// wrong with it.
func variableValue(x any, depth int) (v value, bad string) {
	switch x := x.(type) {
	case bool:
		return boolValue(x), ""
	case int64:
		return intValue(x), ""
	case int:
		return intValue(int64(x)), ""
	case int32:
		return intValue(int64(x)), ""
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return v, "must be a finite number"
		}
		return floatValue(x), ""
	case float32:
		return variableValue(float64(x), depth)
	case string:
		return stringValue(x), ""
	case []bool:
		return listValue(x, depth)
	case []int64:
		return listValue(x, depth)
	case []int:
		return listValue(x, depth)
	case []int32:
		return listValue(x, depth)
	case []float64:
		return listValue(x, depth)
	case []float32:
		return listValue(x, depth)
	case []string:
		return listValue(x, depth)
	case []any:
		return listValue(x, depth)
	case json.RawMessage:
		return jsonValue(x)
	}
	return v, fmt.Sprintf("type %T is not supported, want bool, int64, float64, string, a slice of them or JSON text", x)
}

// jsonValue reads a value, or a list of values of any types, from JSON text.
func jsonValue(text json.RawMessage) (v value, bad string) {
	if len(text) > MaxTextWithLists {
		return v, fmt.Sprintf("JSON of %d bytes, at most %d", len(text), MaxTextWithLists)
	}
	r := jsonReader{dec: json.NewDecoder(strings.NewReader(string(text)))}
	r.dec.UseNumber()
	if v, bad = r.next(0); bad != "" {
		return v, bad
	}
	if _, err := r.dec.Token(); err != io.EOF {
		return v, "there is more than one JSON value"
	}
	return v, ""
}

// jsonReader counts the values it has read: a few bytes become many.
type jsonReader struct {
	dec    *json.Decoder
	values int
}

// next reads one value at a depth of lists.
func (r *jsonReader) next(depth int) (v value, bad string) {
	if r.values++; r.values > MaxList+1 { // the outermost list is one
		return v, fmt.Sprintf("a list has at most %d elements, those of lists in it included", MaxList)
	}
	token, err := r.dec.Token()
	if err != nil {
		return v, fmt.Sprintf("is no JSON: %v", err)
	}
	switch x := token.(type) {
	case bool:
		return boolValue(x), ""
	case string:
		return stringValue(x), ""
	case json.Number:
		return numberValue(x)
	case json.Delim:
		if x == '[' {
			return r.list(depth + 1)
		}
		return v, "an object is no value of a filter"
	}
	return v, "null is no value of a filter"
}

// list reads what follows a "[".
func (r *jsonReader) list(depth int) (v value, bad string) {
	if depth > MaxDepth {
		return v, fmt.Sprintf("nested more than %d levels deep", MaxDepth)
	}
	v = value{k: kArray, list: []value{}}
	for r.dec.More() {
		x, bad := r.next(depth)
		if bad != "" {
			return v, bad
		}
		v.list = append(v.list, x)
	}
	if _, err := r.dec.Token(); err != nil {
		return v, fmt.Sprintf("is no JSON: %v", err)
	}
	return v, ""
}

// numberValue is an integer if it is written as one.
func numberValue(x json.Number) (v value, bad string) {
	if !strings.ContainsAny(string(x), ".eE") {
		n, err := x.Int64()
		if err != nil {
			return v, fmt.Sprintf("number %q does not fit a 64-bit integer", x)
		}
		return intValue(n), ""
	}
	f, err := x.Float64()
	if err != nil {
		return v, fmt.Sprintf("number %q does not fit a 64-bit float", x)
	}
	return floatValue(f), ""
}

func listValue[T any](xs []T, depth int) (v value, bad string) {
	if len(xs) > MaxList {
		return v, fmt.Sprintf("a list has at most %d elements", MaxList)
	}
	if depth == MaxDepth {
		return v, fmt.Sprintf("nested more than %d levels deep", MaxDepth)
	}
	v = value{k: kArray, list: make([]value, len(xs))}
	for i, x := range xs {
		if v.list[i], bad = variableValue(x, depth+1); bad != "" {
			return v, fmt.Sprintf("element %d: %s", i, bad)
		}
	}
	return v, ""
}
