package expr

import (
	"fmt"
	"math"
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
	}
	return v, fmt.Sprintf("type %T is not supported, want bool, int64, float64, string or a slice of them", x)
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
