// Package schema describes the rows of a collection: fields and their types,
// and Column and Batch, the columnar form in which rows move between the
// write-ahead log, segments, files and filters.
package schema

import (
	"fmt"
	"regexp"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Type is the type of a field. The numbers are Milvus', and are stored.
type Type uint8

// The types of a field.
const (
	None        Type = 0
	Bool        Type = 1
	Int8        Type = 2
	Int16       Type = 3
	Int32       Type = 4
	Int64       Type = 5
	Float       Type = 10
	Double      Type = 11
	VarChar     Type = 21
	Array       Type = 22 // of Field.Element
	JSON        Type = 23
	Timestamptz Type = 26 // microseconds since 1970-01-01 UTC

	BinaryVector      Type = 100 // Dim bits
	FloatVector       Type = 101
	Float16Vector     Type = 102
	BFloat16Vector    Type = 103
	SparseFloatVector Type = 104 // of any dimension
	Int8Vector        Type = 105
)

var typeNames = map[Type]string{
	Bool: "Bool", Int8: "Int8", Int16: "Int16", Int32: "Int32", Int64: "Int64",
	Float: "Float", Double: "Double", VarChar: "VarChar", Array: "Array", JSON: "JSON", Timestamptz: "Timestamptz",
	BinaryVector: "BinaryVector", FloatVector: "FloatVector", Float16Vector: "Float16Vector", BFloat16Vector: "BFloat16Vector",
	SparseFloatVector: "SparseFloatVector", Int8Vector: "Int8Vector",
}

// String returns the name as it stands in the API and in manifests.
func (t Type) String() string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// Valid reports whether t is a known type.
func (t Type) Valid() bool { _, ok := typeNames[t]; return ok }

// IsInt reports whether values of t are held in Column.Int: the integers, and
// Timestamptz.
func (t Type) IsInt() bool { return t >= Int8 && t <= Int64 || t == Timestamptz }

// IsElement reports whether an Array can hold values of t.
func (t Type) IsElement() bool {
	return t == Bool || t >= Int8 && t <= Int64 || t == Float || t == Double || t == VarChar
}

// IsVector reports whether t is a vector type.
func (t Type) IsVector() bool { return t >= BinaryVector && t <= Int8Vector }

// IsRaw reports whether t is a vector type whose values are held in Column.Raw.
func (t Type) IsRaw() bool { return t.IsVector() && t != FloatVector && t != SparseFloatVector }

// RowBytes is the size of a vector of dim values; 0 for sparse ones.
func (t Type) RowBytes(dim int) int {
	switch t {
	case FloatVector:
		return 4 * dim
	case Float16Vector, BFloat16Vector:
		return 2 * dim
	case Int8Vector:
		return dim
	case BinaryVector:
		return dim / 8
	}
	return 0
}

// MarshalText writes the name.
func (t Type) MarshalText() ([]byte, error) {
	if !t.Valid() {
		return nil, errclass.New(errclass.Invalid, "unknown field type %d", uint8(t))
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads a name.
func (t *Type) UnmarshalText(b []byte) error {
	for k, n := range typeNames {
		if n == string(b) {
			*t = k
			return nil
		}
	}
	return errclass.New(errclass.Invalid, "unknown field type %q", b)
}

// Limits on a schema. They bound what a request can make the node allocate.
const (
	MaxFields      = 256
	MaxVectorDim   = 32_768
	MaxBinaryDim   = 262_144 // of a BinaryVector, in bits
	MaxSparse      = 65_536  // values of a SparseFloatVector
	MaxNameBytes   = 255
	MaxVarChar     = 65_535
	MaxCapacity    = 4_096 // elements of an array
	DynamicFieldID = 2     // id of the hidden JSON field of a schema with Dynamic
	FirstFieldID   = 100   // ids of named fields start here, as in Milvus
)

// DynamicFieldName is the name of the hidden JSON field of a schema with Dynamic.
const DynamicFieldName = "$meta"

// Field is one column of a collection.
type Field struct {
	ID         int64  `json:"id"`                    // stable, unique in the collection, >= FirstFieldID
	Name       string `json:"name"`                  // [A-Za-z_][A-Za-z0-9_]*
	Type       Type   `json:"type"`                  // see Type
	PrimaryKey bool   `json:"primary_key,omitempty"` // exactly one field, Int64 or VarChar
	AutoID     bool   `json:"auto_id,omitempty"`     // primary key given by the node (Int64 only)
	Dim        int    `json:"dim,omitempty"`         // vectors: 1..MaxVectorDim; BinaryVector: bits, a multiple of 8 up to MaxBinaryDim; sparse: 0
	MaxLength  int    `json:"max_length,omitempty"`  // VarChar, alone or in an Array: bytes, 1..MaxVarChar; 0 = MaxVarChar
	Nullable   bool   `json:"nullable,omitempty"`    // not the primary key

	Element     Type    `json:"element_type,omitempty"`  // Array: type of its elements; else None
	MaxCapacity int     `json:"max_capacity,omitempty"`  // Array: most elements of a row, 1..MaxCapacity; 0 = MaxCapacity
	Default     Literal `json:"default_value,omitempty"` // value of rows that do not have the field; empty = none
	Analyzer    string  `json:"analyzer,omitempty"`      // VarChar: how text is cut into words, see package analyze; "" = standard
}

// Schema is the ordered list of fields. It is immutable once validated.
type Schema struct {
	Version int32   `json:"version"`           // grows with each change; starts at 1
	Fields  []Field `json:"fields"`            // without the hidden dynamic field
	Dynamic bool    `json:"dynamic,omitempty"` // a hidden JSON field "$meta" takes unknown keys

	Functions []Function `json:"functions,omitempty"` // make fields of others
}

var nameRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckName reports what is wrong with a name of a field, collection, partition or alias.
func CheckName(kind, name string) error {
	if len(name) > MaxNameBytes || !nameRE.MatchString(name) {
		return errclass.New(errclass.Invalid, "%s name %q: want a letter or _, then letters, digits or _, at most %d bytes", kind, name, MaxNameBytes)
	}
	return nil
}

// Validate reports every problem of the schema in one error of class Invalid.
func (s *Schema) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, errors.Newf(format, args...)) }
	if len(s.Fields) == 0 || len(s.Fields) > MaxFields {
		bad("a schema has 1 to %d fields, this one has %d", MaxFields, len(s.Fields))
	}
	names, ids, keys, vectors := map[string]bool{}, map[int64]bool{}, 0, 0
	for i := range s.Fields {
		f := &s.Fields[i]
		if err := f.validate(); err != nil {
			errs = append(errs, err)
		}
		if names[f.Name] {
			bad("field %q: the name is there twice", f.Name)
		}
		if ids[f.ID] {
			bad("field %q: id %d is there twice", f.Name, f.ID)
		}
		names[f.Name], ids[f.ID] = true, true
		if f.PrimaryKey {
			keys++
		}
		if f.Type.IsVector() {
			vectors++
		}
	}
	switch {
	case keys == 0:
		errs = append(errs, errclass.With(errors.New("want exactly one primary key field, got 0"), errclass.NoKey))
	case keys > 1:
		bad("want exactly one primary key field, got %d", keys)
	}
	if vectors == 0 {
		errs = append(errs, errclass.With(errors.New("want at least one vector field"), errclass.NoVector))
	}
	errs = append(errs, s.validateFunctions()...)
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

func (f *Field) validate() error {
	if err := CheckName("field", f.Name); err != nil {
		return err
	}
	switch {
	case !f.Type.Valid():
		return errors.Newf("field %q: unknown type %d", f.Name, uint8(f.Type))
	case f.ID < FirstFieldID:
		return errors.Newf("field %q: id %d, want >= %d", f.Name, f.ID, FirstFieldID)
	case f.PrimaryKey && f.Type != Int64 && f.Type != VarChar:
		return errors.Newf("field %q: a primary key is Int64 or VarChar, not %s", f.Name, f.Type)
	case f.PrimaryKey && f.Nullable:
		return errors.Newf("field %q: a primary key cannot be nullable", f.Name)
	case f.AutoID && !(f.PrimaryKey && f.Type == Int64):
		return errors.Newf("field %q: auto_id is for an Int64 primary key", f.Name)
	case f.Type == BinaryVector && (f.Dim < 8 || f.Dim > MaxBinaryDim || f.Dim%8 != 0):
		return errors.Newf("field %q: dim %d, want a multiple of 8 up to %d", f.Name, f.Dim, MaxBinaryDim)
	case f.Type.IsVector() && f.Type != BinaryVector && f.Type != SparseFloatVector && (f.Dim < 1 || f.Dim > MaxVectorDim):
		return errors.Newf("field %q: dim %d, want 1 to %d", f.Name, f.Dim, MaxVectorDim)
	case (!f.Type.IsVector() || f.Type == SparseFloatVector) && f.Dim != 0:
		return errors.Newf("field %q: dim is for vector fields that are not sparse", f.Name)
	case f.MaxLength < 0 || f.MaxLength > MaxVarChar:
		return errors.Newf("field %q: max_length %d, want 1 to %d", f.Name, f.MaxLength, MaxVarChar)
	case f.MaxLength != 0 && f.Type != VarChar && f.Element != VarChar:
		return errors.Newf("field %q: max_length is for VarChar", f.Name)
	case f.Type == Array && !f.Element.IsElement():
		return errors.Newf("field %q: an array holds Bool, Int8 to Int64, Float, Double or VarChar, not %s", f.Name, f.Element)
	case f.Type != Array && (f.Element != None || f.MaxCapacity != 0):
		return errors.Newf("field %q: element_type and max_capacity are for arrays", f.Name)
	case f.Analyzer != "" && f.Type != VarChar:
		return errors.Newf("field %q: analyzer is for VarChar", f.Name)
	case f.MaxCapacity < 0 || f.MaxCapacity > MaxCapacity:
		return errors.Newf("field %q: max_capacity %d, want 1 to %d", f.Name, f.MaxCapacity, MaxCapacity)
	}
	return f.checkDefault()
}

// Format is the oldest format of manifests, of segments as of the catalog, that
// can hold the schema: 3 if it has functions, 2 if it has arrays, times, default values,
// analyzers or vectors that are nullable or not of float32, else 1.
func (s *Schema) Format() int {
	if len(s.Functions) > 0 {
		return 3
	}
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.Type == Array || f.Type == Timestamptz || f.Default != "" || f.Analyzer != "" || f.Type.IsVector() && (f.Type != FloatVector || f.Nullable) {
			return 2
		}
	}
	return 1
}

// Field returns the field called name, the hidden dynamic field included.
func (s *Schema) Field(name string) (Field, bool) {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return s.Fields[i], true
		}
	}
	if s.Dynamic && name == DynamicFieldName {
		return dynamicField(), true
	}
	return Field{}, false
}

// FieldByID returns the field with the id, the hidden dynamic field included.
func (s *Schema) FieldByID(id int64) (Field, bool) {
	for i := range s.Fields {
		if s.Fields[i].ID == id {
			return s.Fields[i], true
		}
	}
	if s.Dynamic && id == DynamicFieldID {
		return dynamicField(), true
	}
	return Field{}, false
}

// Primary returns the primary key field of a valid schema.
func (s *Schema) Primary() Field {
	for i := range s.Fields {
		if s.Fields[i].PrimaryKey {
			return s.Fields[i]
		}
	}
	return Field{}
}

// Columns returns every field a row has in storage order: Fields, then the hidden dynamic field.
func (s *Schema) Columns() []Field {
	if !s.Dynamic {
		return s.Fields
	}
	return append(append(make([]Field, 0, len(s.Fields)+1), s.Fields...), dynamicField())
}

func dynamicField() Field {
	return Field{ID: DynamicFieldID, Name: DynamicFieldName, Type: JSON}
}
