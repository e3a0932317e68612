package schema

import (
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// FunctionType is what a function makes. The numbers are Milvus'.
type FunctionType uint8

// BM25 makes a sparse vector of a text: a dimension for each word, and how often it
// is there.
const BM25 FunctionType = 1

// String returns the name as it stands in the API and in manifests.
func (t FunctionType) String() string {
	if t == BM25 {
		return "BM25"
	}
	return "unknown"
}

// MarshalText writes the name.
func (t FunctionType) MarshalText() ([]byte, error) {
	if t != BM25 {
		return nil, errclass.New(errclass.Invalid, "unknown function type %d", uint8(t))
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads a name.
func (t *FunctionType) UnmarshalText(b []byte) error {
	if string(b) != BM25.String() {
		return errclass.New(errclass.Invalid, "unknown function type %.40q", b)
	}
	*t = BM25
	return nil
}

// Function makes the values of a field of those of another. Rows are written
// without the field it makes.
type Function struct {
	Name   string       `json:"name"` // [A-Za-z_][A-Za-z0-9_]*
	Type   FunctionType `json:"type"`
	Input  int64        `json:"input_field"`  // id; BM25: a VarChar
	Output int64        `json:"output_field"` // id; BM25: a SparseFloatVector that is not nullable
}

// validateFunctions reports what is wrong with the functions.
func (s *Schema) validateFunctions() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, errors.Newf(format, args...)) }
	if len(s.Functions) > MaxFields {
		bad("%d functions, at most %d", len(s.Functions), MaxFields)
	}
	names, made := map[string]bool{}, map[int64]bool{}
	for _, f := range s.Functions {
		if err := CheckName("function", f.Name); err != nil {
			errs = append(errs, err)
		}
		in, hasIn := s.FieldByID(f.Input)
		out, hasOut := s.FieldByID(f.Output)
		switch {
		case f.Type != BM25:
			bad("function %q: unknown type %d, want BM25", f.Name, uint8(f.Type))
		case !hasIn:
			bad("function %q: there is no input field", f.Name)
		case !hasOut:
			bad("function %q: there is no output field", f.Name)
		case in.Type != VarChar:
			bad("function %q: the input of BM25 is a VarChar field, %q is %s", f.Name, in.Name, in.Type)
		case out.Type != SparseFloatVector || out.Nullable:
			bad("function %q: the output of BM25 is a SparseFloatVector field that is not nullable, %q is none", f.Name, out.Name)
		case names[f.Name]:
			bad("function %q: the name is there twice", f.Name)
		case made[f.Output]:
			bad("function %q: another one makes field %q", f.Name, out.Name)
		}
		names[f.Name], made[f.Output] = true, true
	}
	return errs
}

// FunctionOf returns the function that makes the field with the id.
func (s *Schema) FunctionOf(fieldID int64) (Function, bool) {
	i := slices.IndexFunc(s.Functions, func(f Function) bool { return f.Output == fieldID })
	if i < 0 {
		return Function{}, false
	}
	return s.Functions[i], true
}

// Given returns the fields that rows are written with, in the order of Columns: all
// but those that functions make.
func (s *Schema) Given() []Field {
	all := s.Columns()
	if len(s.Functions) == 0 {
		return all
	}
	given := make([]Field, 0, len(all))
	for _, f := range all {
		if _, made := s.FunctionOf(f.ID); !made {
			given = append(given, f)
		}
	}
	return given
}

// CheckGiven is Check for rows as they are written: without the columns that
// functions make.
func (b *Batch) CheckGiven(s *Schema) error { return b.checkFields(s.Given()) }
