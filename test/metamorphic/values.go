package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// A value of the model is nil (null), a bool, an int64 (of integers, and of
// times: microseconds), a float32, a float64, a string, a list or a *document.

// list is an array.
type list []any

// text tells arrays apart.
func (l list) text() string { return fmt.Sprintf("%#v", append([]any{}, l...)) }

var words = []string{"", "a", "ab", "abc", "red", "green", "blue", "bluegreen", "100%", "under_score", "größe", "x y"}

// terms are what longer texts are made of: words that no analyzer changes or drops.
var terms = []string{"red", "blue", "fox", "dog", "sun", "cat"}

func randomWord(r *rand.Rand) string { return words[r.IntN(len(words))] }

// random draws from few values, so that filters match some rows and not all.
func (f *field) random(r *rand.Rand) any {
	switch {
	case f.typ == qnpb.DataType_DATA_TYPE_JSON:
		d := randomDocument(r)
		if _, whole := d.num.(int64); whole && f.ends && r.IntN(4) == 0 {
			d.num = randomEnd(r, qnpb.DataType_DATA_TYPE_INT64)
		}
		return d
	case f.typ == qnpb.DataType_DATA_TYPE_ARRAY:
		out := list{}
		for range r.IntN(5) {
			out = append(out, f.element(r))
		}
		return out
	case f.ends && r.IntN(4) == 0:
		return randomEnd(r, f.typ)
	case f.analyzer != "":
		var out []string
		for range r.IntN(7) {
			out = append(out, terms[r.IntN(len(terms))])
		}
		return strings.Join(out, " ")
	}
	return randomValue(r, f.typ)
}

func randomValue(r *rand.Rand, t qnpb.DataType) any {
	switch t {
	case qnpb.DataType_DATA_TYPE_BOOL:
		return r.IntN(2) == 0
	case qnpb.DataType_DATA_TYPE_INT8, qnpb.DataType_DATA_TYPE_INT16, qnpb.DataType_DATA_TYPE_INT32, qnpb.DataType_DATA_TYPE_INT64:
		return int64(r.IntN(41) - 20)
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return float32(r.IntN(81)-40) / 4
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return float64(r.IntN(81)-40) / 8
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		return randomWord(r)
	case qnpb.DataType_DATA_TYPE_TIMESTAMPTZ:
		return randomTime(r).UnixMicro()
	}
	panic("no values of type " + t.String())
}

// element draws one for an array.
func (f *field) element(r *rand.Rand) any {
	if f.ends && f.elem != qnpb.DataType_DATA_TYPE_BOOL && r.IntN(4) == 0 {
		return randomEnd(r, f.elem)
	}
	return randomElement(r, f.elem)
}

// randomElement draws from even fewer values.
func randomElement(r *rand.Rand, t qnpb.DataType) any {
	switch t {
	case qnpb.DataType_DATA_TYPE_BOOL:
		return r.IntN(2) == 0
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return float32(r.IntN(6)) / 2
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return float64(r.IntN(6)) / 2
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		return words[r.IntN(5)]
	}
	return int64(r.IntN(6))
}

// document is a JSON object of the model: members that are not there are nil.
type document struct {
	num  any     // "n": mostly an int64, of a few rows a float64, string, bool or jsonNull
	word *string // "w"
	list []int64 // "l"; nil = not there
	sub  *bool   // "s": {"b": ...}
}

// jsonNull is the null of JSON.
type jsonNull struct{}

func randomDocument(r *rand.Rand) *document {
	d := &document{}
	switch r.IntN(20) {
	case 0, 1, 2, 3, 4:
	case 5:
		d.num = float64(r.IntN(21)-10) + 0.5
	case 6:
		d.num = []string{"3", "red", "a"}[r.IntN(3)]
	case 7:
		d.num = r.IntN(2) == 0
	case 8:
		d.num = jsonNull{}
	default:
		d.num = int64(r.IntN(21) - 10)
	}
	if r.IntN(4) > 0 {
		w := []string{"a", "ab", "red", "blue"}[r.IntN(4)]
		d.word = &w
	}
	if r.IntN(2) > 0 {
		d.list = []int64{}
		for range r.IntN(4) {
			d.list = append(d.list, int64(r.IntN(6)))
		}
	}
	if r.IntN(3) > 0 {
		b := r.IntN(2) == 0
		d.sub = &b
	}
	return d
}

func (d *document) text() string {
	var out []string
	for _, k := range []string{"n", "w", "l", "s"} {
		if v := d.member(k); v != nil {
			out = append(out, fmt.Sprintf("%q: %v", k, v))
		}
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// member is the text of a member; nil = it is not there.
func (d *document) member(key string) any {
	switch {
	case key == "n" && d.num != nil:
		return scalarText(d.num)
	case key == "w" && d.word != nil:
		return strconv.Quote(*d.word)
	case key == "l" && d.list != nil:
		return strings.ReplaceAll(fmt.Sprint(d.list), " ", ", ")
	case key == "s" && d.sub != nil:
		return fmt.Sprintf(`{"b": %v}`, *d.sub)
	}
	return nil
}

// scalarText is a scalar as JSON.
func scalarText(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case jsonNull:
		return "null"
	}
	return fmt.Sprint(v)
}

// data are the values of a field as the API wants them.
func (f *field) data(rows []*row, at int) *qnpb.FieldData {
	d := &qnpb.FieldData{Field: f.name}
	if f.optional() && !f.dynamic() {
		for _, x := range rows {
			d.Valid = append(d.Valid, x.values[at] != nil)
		}
	}
	switch f.typ {
	case qnpb.DataType_DATA_TYPE_BOOL:
		d.Values = &qnpb.FieldData_Bools{Bools: &qnpb.BoolArray{Values: column[bool](rows, at)}}
	case qnpb.DataType_DATA_TYPE_FLOAT:
		d.Values = &qnpb.FieldData_Floats{Floats: &qnpb.FloatArray{Values: column[float32](rows, at)}}
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		d.Values = &qnpb.FieldData_Doubles{Doubles: &qnpb.DoubleArray{Values: column[float64](rows, at)}}
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		d.Values = &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: column[string](rows, at)}}
	case qnpb.DataType_DATA_TYPE_JSON:
		texts := make([]string, len(rows))
		for i, x := range rows {
			if doc, ok := x.values[at].(*document); ok {
				texts[i] = doc.text()
			}
		}
		d.Values = &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: texts}}
	case qnpb.DataType_DATA_TYPE_ARRAY:
		d.Values = &qnpb.FieldData_Arrays{Arrays: f.arrays(rows, at)}
	default:
		d.Values = &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: column[int64](rows, at)}}
	}
	return d
}

func (f *field) arrays(rows []*row, at int) *qnpb.Arrays {
	out := &qnpb.Arrays{}
	var all []*row // one per element, so that column lists them
	for _, l := range column[list](rows, at) {
		out.Lengths = append(out.Lengths, uint32(len(l)))
		for _, v := range l {
			all = append(all, &row{values: []any{v}})
		}
	}
	switch f.elem {
	case qnpb.DataType_DATA_TYPE_BOOL:
		out.Elements = &qnpb.Arrays_Bools{Bools: &qnpb.BoolArray{Values: column[bool](all, 0)}}
	case qnpb.DataType_DATA_TYPE_FLOAT:
		out.Elements = &qnpb.Arrays_Floats{Floats: &qnpb.FloatArray{Values: column[float32](all, 0)}}
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		out.Elements = &qnpb.Arrays_Doubles{Doubles: &qnpb.DoubleArray{Values: column[float64](all, 0)}}
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		out.Elements = &qnpb.Arrays_Strings{Strings: &qnpb.StringArray{Values: column[string](all, 0)}}
	default:
		out.Elements = &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: column[int64](all, 0)}}
	}
	return out
}

// column lists the values of a field; those of nulls are zero.
func column[T any](rows []*row, at int) []T {
	out := make([]T, len(rows))
	for i, x := range rows {
		if v, ok := x.values[at].(T); ok {
			out[i] = v
		}
	}
	return out
}

// shown is a row of an answer: field to value. Arrays and documents are texts.
type shown map[string]any

// shownRows are the rows of an answer.
func (s *spec) shownRows(fields []*qnpb.FieldData, n int) []shown {
	out := make([]shown, n)
	for i := range out {
		out[i] = shown{}
	}
	for _, d := range fields {
		s.show(d, func(i int, v any) {
			if i < n {
				out[i][d.GetField()] = v
			}
		})
	}
	return out
}

// show calls set with each value of a field.
func (s *spec) show(d *qnpb.FieldData, set func(i int, v any)) {
	put := func(i int, v any) {
		if valid := d.GetValid(); len(valid) > i && !valid[i] {
			v = nil
		}
		set(i, v)
	}
	switch v := d.GetValues().(type) {
	case *qnpb.FieldData_Bools:
		each(v.Bools.GetValues(), put)
	case *qnpb.FieldData_Ints:
		each(v.Ints.GetValues(), put)
	case *qnpb.FieldData_Floats:
		each(v.Floats.GetValues(), put)
	case *qnpb.FieldData_Doubles:
		each(v.Doubles.GetValues(), put)
	case *qnpb.FieldData_Strings:
		each(v.Strings.GetValues(), put)
	case *qnpb.FieldData_Arrays:
		var all list
		add := func(_ int, v any) { all = append(all, v) }
		switch e := v.Arrays.GetElements().(type) {
		case *qnpb.Arrays_Bools:
			each(e.Bools.GetValues(), add)
		case *qnpb.Arrays_Ints:
			each(e.Ints.GetValues(), add)
		case *qnpb.Arrays_Floats:
			each(e.Floats.GetValues(), add)
		case *qnpb.Arrays_Doubles:
			each(e.Doubles.GetValues(), add)
		case *qnpb.Arrays_Strings:
			each(e.Strings.GetValues(), add)
		}
		for i, n := range v.Arrays.GetLengths() {
			put(i, all[:n].text())
			all = all[n:]
		}
	default:
		for i := range s.vectors {
			if v := &s.vectors[i]; v.name == d.GetField() {
				each(v.decode(d), put)
			}
		}
	}
}

func each[T any](values []T, put func(i int, v any)) {
	for i, v := range values {
		put(i, v)
	}
}

// wanted is what show must give for a value of the model.
func wanted(v any) any {
	switch v := v.(type) {
	case *document:
		return v.text()
	case list:
		return v.text()
	}
	return v
}
