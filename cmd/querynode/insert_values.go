package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// typedColumn collects the values of a field, as JSON has them, in the form of the
// API. A null has a value too, which nobody looks at.
type typedColumn struct {
	field schema.Field
	valid []bool
	given bool  // some row has a value
	chars int64 // in texts

	bools   []bool
	ints    []int64
	floats  []float32
	doubles []float64
	texts   []string
	lengths []uint32 // of arrays, and sparse vectors
	indices []uint32 // of sparse vectors
}

// add appends the value of one row; nil and null are none.
func (c *typedColumn) add(raw json.RawMessage) error {
	if raw == nil || string(raw) == "null" {
		if !c.field.MayBeAbsent() {
			return errors.New("no value, and the field is neither nullable nor has it a default value")
		}
		c.valid = append(c.valid, false)
		c.addNothing()
		return nil
	}
	c.valid, c.given = append(c.valid, true), true
	switch t := c.field.Type; {
	case t == schema.Array:
		return c.addList(raw)
	case t == schema.SparseFloatVector:
		return c.addSparse(raw)
	case t.IsVector():
		return c.addVector(raw)
	}
	return c.addValue(c.field.Type, raw)
}

// addNothing appends what stands in the place of a null.
func (c *typedColumn) addNothing() {
	switch t := c.field.Type; {
	case t == schema.Bool:
		c.bools = append(c.bools, false)
	case t.IsInt():
		c.ints = append(c.ints, 0)
	case t == schema.Float:
		c.floats = append(c.floats, 0)
	case t == schema.Double:
		c.doubles = append(c.doubles, 0)
	case t == schema.Array, t == schema.SparseFloatVector:
		c.lengths = append(c.lengths, 0)
	case t.IsVector():
		c.floats = append(c.floats, make([]float32, c.field.Dim)...)
	case c.field.ID == schema.DynamicFieldID:
		c.valid[len(c.valid)-1] = true // an empty object, no null
		c.addText("{}")
	default:
		c.addText("")
	}
}

func (c *typedColumn) addText(text string) {
	c.texts, c.chars = append(c.texts, text), c.chars+int64(len(text))
}

// bytes bounds what the column takes in a call.
func (c *typedColumn) bytes() int64 {
	const (
		varint = 10 // at most
		length = 6  // before a text
	)
	return int64(len(c.valid)+len(c.bools)+varint*len(c.ints)+4*len(c.floats)+8*len(c.doubles)+
		length*len(c.texts)+length*len(c.lengths)+length*len(c.indices)) + c.chars
}

// addValue appends a value that is no list: of a field, or an element.
func (c *typedColumn) addValue(t schema.Type, raw json.RawMessage) (err error) {
	switch {
	case t == schema.Bool:
		var v bool
		if json.Unmarshal(raw, &v) != nil {
			return wanted(t, raw)
		}
		c.bools = append(c.bools, v)
	case t == schema.Timestamptz:
		text := string(raw)
		if quoted, ok := unquote(raw); ok {
			text = quoted
		}
		v, err := schema.ParseTime(text)
		if err != nil {
			return wanted(t, raw)
		}
		c.ints = append(c.ints, v)
	case t.IsInt():
		bits := map[schema.Type]int{schema.Int8: 8, schema.Int16: 16, schema.Int32: 32, schema.Int64: 64}[t]
		v, err := strconv.ParseInt(string(raw), 10, bits)
		if err != nil {
			return wanted(t, raw)
		}
		c.ints = append(c.ints, v)
	case t == schema.Float:
		v, err := finite(raw, 32)
		if err != nil {
			return wanted(t, raw)
		}
		c.floats = append(c.floats, float32(v))
	case t == schema.Double:
		v, err := finite(raw, 64)
		if err != nil {
			return wanted(t, raw)
		}
		c.doubles = append(c.doubles, v)
	case t == schema.JSON:
		if !json.Valid(raw) {
			return wanted(t, raw)
		}
		c.addText(string(raw))
	default:
		text, ok := unquote(raw)
		if !ok {
			return wanted(t, raw)
		}
		if most := c.field.MaxLength; most > 0 && len(text) > most {
			return errors.Newf("the text has %d bytes, the field takes %d", len(text), most)
		}
		c.addText(text)
	}
	return nil
}

// wanted says that a value is not of the type.
func wanted(t schema.Type, raw json.RawMessage) error {
	const most = 40
	shown := string(raw)
	if len(shown) > most {
		shown = strings.ToValidUTF8(shown[:most], "") + "…"
	}
	return errors.Newf("%s is not of type %s", shown, t)
}

func unquote(raw json.RawMessage) (text string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	return text, json.Unmarshal(raw, &text) == nil
}

// finite reads a JSON number.
func finite(raw json.RawMessage, bits int) (float64, error) {
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, errors.New("no number")
	}
	v, err := strconv.ParseFloat(string(raw), bits) // out of range is an error
	return v, err
}

func (c *typedColumn) addList(raw json.RawMessage) error {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return wanted(c.field.Type, raw)
	}
	if most := c.field.MaxCapacity; most > 0 && len(list) > most {
		return errors.Newf("the list has %d elements, the field takes %d", len(list), most)
	}
	for i, e := range list {
		if err := c.addValue(c.field.Element, e); err != nil {
			return errors.Wrapf(err, "element %d", i)
		}
	}
	c.lengths = append(c.lengths, uint32(len(list)))
	return nil
}

func (c *typedColumn) addVector(raw json.RawMessage) error {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return errors.Newf("want a list of %d numbers", c.field.Dim)
	}
	if len(list) != c.field.Dim {
		return errors.Newf("the vector has %d values, the field's have %d", len(list), c.field.Dim)
	}
	for i, e := range list {
		v, err := finite(e, 32)
		switch {
		case err != nil:
			return errors.Newf("value %d of the vector, %s, is no number that a float32 can hold", i, e)
		case c.field.Type == schema.BinaryVector && v != 0 && v != 1:
			return errors.Newf("value %d of the vector is %s, want 0 or 1", i, e)
		case c.field.Type == schema.Int8Vector && (v != math.Trunc(v) || v < math.MinInt8 || v > math.MaxInt8):
			return errors.Newf("value %d of the vector is %s, want a whole number from -128 to 127", i, e)
		}
		c.floats = append(c.floats, float32(v))
	}
	return nil
}

func (c *typedColumn) addSparse(raw json.RawMessage) error {
	var values map[string]json.RawMessage
	if json.Unmarshal(raw, &values) != nil {
		return errors.New(`want an object of dimensions and values, such as {"3": 0.5, "17": 1}`)
	}
	byDimension := make(map[uint32]float32, len(values))
	for k, e := range values {
		at, err := strconv.ParseUint(k, 10, 32)
		if err != nil {
			return errors.Newf("%q is no dimension", k)
		}
		v, err := finite(e, 32)
		if err != nil {
			return errors.Newf("the value of dimension %s, %s, is no number that a float32 can hold", k, e)
		}
		byDimension[uint32(at)] = float32(v)
	}
	for _, at := range slices.Sorted(maps.Keys(byDimension)) {
		c.indices, c.floats = append(c.indices, at), append(c.floats, byDimension[at])
	}
	c.lengths = append(c.lengths, uint32(len(byDimension)))
	return nil
}

// data is the column in the form of the API.
func (c *typedColumn) data() *qnpb.FieldData {
	d := &qnpb.FieldData{Field: c.field.Name, FieldId: c.field.ID}
	if slices.Contains(c.valid, false) {
		d.Valid = c.valid
	}
	switch t := c.field.Type; {
	case t == schema.Bool:
		d.Values = &qnpb.FieldData_Bools{Bools: &qnpb.BoolArray{Values: c.bools}}
	case t.IsInt():
		d.Values = &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: c.ints}}
	case t == schema.Float:
		d.Values = &qnpb.FieldData_Floats{Floats: &qnpb.FloatArray{Values: c.floats}}
	case t == schema.Double:
		d.Values = &qnpb.FieldData_Doubles{Doubles: &qnpb.DoubleArray{Values: c.doubles}}
	case t == schema.Array:
		d.Values = &qnpb.FieldData_Arrays{Arrays: c.lists()}
	case t == schema.SparseFloatVector:
		d.Values = &qnpb.FieldData_SparseVectors{SparseVectors: &qnpb.SparseVectors{Lengths: c.lengths, Indices: c.indices, Values: c.floats}}
	case t == schema.BinaryVector:
		d.Values = &qnpb.FieldData_ByteVectors{ByteVectors: packBits(c.floats, int32(c.field.Dim))}
	case t.IsVector():
		d.Values = &qnpb.FieldData_Vectors{Vectors: rowpb.RawVectors(c.floats, c.field.Dim)}
	default:
		d.Values = &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: c.texts}}
	}
	return d
}

func (c *typedColumn) lists() *qnpb.Arrays {
	a := &qnpb.Arrays{Lengths: c.lengths}
	switch t := c.field.Element; {
	case t == schema.Bool:
		a.Elements = &qnpb.Arrays_Bools{Bools: &qnpb.BoolArray{Values: c.bools}}
	case t.IsInt():
		a.Elements = &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: c.ints}}
	case t == schema.Float:
		a.Elements = &qnpb.Arrays_Floats{Floats: &qnpb.FloatArray{Values: c.floats}}
	case t == schema.Double:
		a.Elements = &qnpb.Arrays_Doubles{Doubles: &qnpb.DoubleArray{Values: c.doubles}}
	default:
		a.Elements = &qnpb.Arrays_Strings{Strings: &qnpb.StringArray{Values: c.texts}}
	}
	return a
}

// cellJSON makes JSON of the text of a CSV cell, by the type of its field; nil is
// no value. Lists, vectors and JSON are JSON already.
func cellJSON(text string, f schema.Field) json.RawMessage {
	trimmed := strings.TrimSpace(text)
	switch {
	case f.Type == schema.VarChar && (text != "" || !f.MayBeAbsent()), f.Type == schema.Timestamptz && trimmed != "":
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if e.Encode(text) != nil {
			return json.RawMessage(fmt.Sprintf("%q", text))
		}
		return bytes.TrimSpace(b.Bytes())
	case trimmed == "":
		return nil
	case f.Type == schema.Bool:
		return json.RawMessage(strings.ToLower(trimmed))
	}
	return json.RawMessage(trimmed)
}
