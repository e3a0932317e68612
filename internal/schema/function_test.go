package schema

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func posts() Schema {
	return Schema{Version: 1, Fields: []Field{
		{ID: 100, Name: "id", Type: Int64, PrimaryKey: true},
		{ID: 101, Name: "words", Type: SparseFloatVector},
		{ID: 102, Name: "body", Type: VarChar, Nullable: true, Analyzer: "english"},
	}, Functions: []Function{{Name: "count", Type: BM25, Input: 102, Output: 101}}}
}

func TestFunctionsAreChecked(t *testing.T) {
	s := posts()
	if err := s.Validate(); err != nil || s.Format() != 3 {
		t.Fatalf("%v, format %d", err, s.Format())
	}
	for what, c := range map[string]struct {
		change func(*Schema)
		want   string
	}{
		"no name":             {func(s *Schema) { s.Functions[0].Name = "" }, "function name"},
		"no type":             {func(s *Schema) { s.Functions[0].Type = 0 }, "unknown type"},
		"no input":            {func(s *Schema) { s.Functions[0].Input = 9 }, "no input field"},
		"no output":           {func(s *Schema) { s.Functions[0].Output = 9 }, "no output field"},
		"input of numbers":    {func(s *Schema) { s.Functions[0].Input = 100 }, "VarChar"},
		"output of text":      {func(s *Schema) { s.Functions[0].Output = 102 }, "SparseFloatVector"},
		"output that is null": {func(s *Schema) { s.Fields[1].Nullable = true }, "not nullable"},
		"made twice": {func(s *Schema) {
			s.Functions = append(s.Functions, Function{Name: "again", Type: BM25, Input: 102, Output: 101})
		}, "another one"},
		"called twice": {func(s *Schema) {
			s.Functions = append(s.Functions, Function{Name: "count", Type: BM25, Input: 102, Output: 101})
		}, "there twice"},
	} {
		s := posts()
		c.change(&s)
		if err := s.Validate(); !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRowsAreGivenWithoutWhatFunctionsMake(t *testing.T) {
	s := posts()
	given := s.Given()
	if len(given) != 2 || given[0].ID != 100 || given[1].ID != 102 {
		t.Fatalf("%v", given)
	}
	b := &Batch{Rows: 1, Columns: []*Column{{FieldID: 100, Type: Int64, Int: []int64{1}}, {FieldID: 102, Type: VarChar, Str: []string{"x"}}}}
	if err := b.CheckGiven(&s); err != nil {
		t.Error(err)
	}
	if err := b.Check(&s); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("stored without: %v", err)
	}
	if f, ok := s.FunctionOf(101); !ok || f.Name != "count" {
		t.Errorf("%v, %v", f, ok)
	}
}

func TestFunctionsInManifests(t *testing.T) {
	s := posts()
	raw, err := json.Marshal(&s)
	if err != nil || !strings.Contains(string(raw), `"functions":[{"name":"count","type":"BM25","input_field":102,"output_field":101}]`) {
		t.Fatalf("%s, %v", raw, err)
	}
	var back Schema
	if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("%+v, %v", back, err)
	}
	if json.Unmarshal([]byte(`{"functions":[{"type":"EMBED"}]}`), &back) == nil {
		t.Error("a type that is unknown")
	}
	if _, err := (FunctionType(7)).MarshalText(); err == nil {
		t.Error("written")
	}
}
