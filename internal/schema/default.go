package schema

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Literal is a JSON scalar as text: true, -3, 1.5, "text". Empty is none. A time
// is its number of microseconds.
type Literal string

// MarshalJSON writes the scalar itself.
func (l Literal) MarshalJSON() ([]byte, error) { return []byte(l), nil }

// UnmarshalJSON reads a scalar other than null.
func (l *Literal) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] == '{' || b[0] == '[' || b[0] == 'n' {
		return errclass.New(errclass.Invalid, "default value %.40q, want a number, a text or a truth value", b)
	}
	*l = Literal(b)
	return nil
}

// LiteralOf returns the literal of a bool, an int64, a float64 or a string.
func LiteralOf(v any) (Literal, error) {
	b, err := json.Marshal(v)
	return Literal(b), errclass.Wrap(err, errclass.Invalid, "default value %v", v)
}

// checkDefault reports a default value that the field cannot have.
func (f *Field) checkDefault() error {
	if f.Default == "" {
		return nil
	}
	if f.PrimaryKey || f.Type.IsVector() || f.Type == Array || f.Type == JSON {
		return errors.Newf("field %q: a default value is for scalar fields other than the primary key, arrays and JSON", f.Name)
	}
	c := NewColumn(*f, 1)
	if err := c.appendLiteral(f.Default); err != nil {
		return errors.Wrapf(err, "field %q: default value", f.Name)
	}
	return errors.Wrap(c.check(*f, 1), "default value")
}

// appendLiteral appends a row with the value of l.
func (c *Column) appendLiteral(l Literal) (err error) {
	switch {
	case c.Type == Bool:
		var v bool
		err = json.Unmarshal([]byte(l), &v)
		c.Bool = append(c.Bool, v)
	case c.Type.IsInt():
		var v int64
		err = json.Unmarshal([]byte(l), &v)
		c.Int = append(c.Int, v)
	case c.Type == Float:
		var v float32
		err = json.Unmarshal([]byte(l), &v)
		c.Float = append(c.Float, v)
	case c.Type == Double:
		var v float64
		err = json.Unmarshal([]byte(l), &v)
		c.Double = append(c.Double, v)
	default:
		var v string
		err = json.Unmarshal([]byte(l), &v)
		c.Str = append(c.Str, v)
	}
	if err != nil {
		return errors.Newf("%s is not of type %s", l, c.Type)
	}
	return nil
}

// MayBeAbsent reports whether there can be rows without the field.
func (f *Field) MayBeAbsent() bool {
	return f.Nullable || f.Default != "" || f.ID == DynamicFieldID
}

// AbsentColumn returns n rows of field f as rows have it that were written
// without it: its default value, else null; class Invalid if it can be neither.
// The hidden dynamic field gets empty objects.
func AbsentColumn(f Field, n int) (*Column, error) {
	if f.Default == "" {
		return NullColumn(f, n)
	}
	one := NewColumn(f, 1)
	if err := one.appendLiteral(f.Default); err != nil {
		return nil, errclass.Wrap(err, errclass.Internal, "field %q: default value", f.Name)
	}
	c := NewColumn(f, n)
	for range n {
		c.AppendRow(one, 0)
	}
	return c, nil
}

// FillNulls returns c, a column of f, with the default value in place of nulls,
// if f has one; c itself if there is nothing to fill.
func FillNulls(c *Column, f Field) (*Column, error) {
	if f.Default == "" || c.Valid == nil || len(c.Valid) != c.Rows() {
		return c, nil
	}
	one := NewColumn(f, 1)
	if err := one.appendLiteral(f.Default); err != nil {
		return nil, errclass.Wrap(err, errclass.Internal, "field %q: default value", f.Name)
	}
	out := NewColumn(f, c.Rows())
	for i, ok := range c.Valid {
		if ok {
			out.AppendRow(&Column{Type: c.Type, Bool: c.Bool, Int: c.Int, Float: c.Float, Double: c.Double, Str: c.Str}, i)
		} else {
			out.AppendRow(one, 0)
		}
	}
	return out, nil
}

// FormatTime is the RFC 3339 form, in UTC, of a Timestamptz value.
func FormatTime(micros int64) string {
	return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano)
}

// ParseTime reads RFC 3339, or a date and time without a zone, which is UTC, or
// a number of microseconds; class Invalid otherwise.
func ParseTime(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMicro(), nil
		}
	}
	return 0, errclass.New(errclass.Invalid, "time %.60q: want RFC 3339 such as 2025-01-31T12:00:00Z or 2025-01-31T14:00:00.5+02:00", text)
}
