package expr

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// TestKeysOfAFieldOfAnyName are found without a filter that names it; a name that a
// filter could not write is a word.
func TestKeysOfAFieldOfAnyName(t *testing.T) {
	for _, name := range []string{"id", "and", "or", "not", "in", "like", "is", "null", "exists", "true", "false", "IN", "True", "NULL", "Exists",
		"between", "interval", "iso", "json_contains", "text_match", "array_length", "random_sample", "match_any", "threshold", "none", "inf", "nan", "r", "_"} {
		s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: name, Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "v", Type: schema.FloatVector, Dim: 2}}}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		keys := &schema.Column{Type: schema.Int64, Int: []int64{5, 1, 5, 9}}
		p, err := CompileKeys(keys, s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, ok := p.PrimaryKeys(s.Primary()); !ok || len(got.Int) != 3 || got.Int[0] != 1 || got.Int[2] != 9 || !p.OnlyPrimaryKeys(s.Primary()) {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
		_, err = Compile(name+" in {keys}", s, map[string]any{"keys": keys.Int}, "")
		if IsWord(name) != (err != nil) {
			t.Errorf("%s: a word: %v, a filter: %v", name, IsWord(name), err)
		}
	}
	texts := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "not", Type: schema.VarChar, MaxLength: 9, PrimaryKey: true}}}
	p, err := CompileKeys(&schema.Column{Type: schema.VarChar, Str: []string{"b", "a"}}, texts)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := p.PrimaryKeys(texts.Primary()); !ok || len(got.Str) != 2 || got.Str[0] != "a" {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, err := CompileKeys(&schema.Column{Type: schema.Int64, Int: []int64{1}}, texts); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("numbers for keys that are texts: %v", err)
	}
}

// TestWhetherAFilterDraws rows by chance is known from its plan.
func TestWhetherAFilterDraws(t *testing.T) {
	s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "s", Type: schema.VarChar, MaxLength: 9}}}
	for text, draws := range map[string]bool{
		"": false, "id > 1": false, "id > 1 and s in ['a', 'b']": false, "random_sample(0.5)": true, "id > 1 and random_sample(0.5)": true,
		"(id > 1 or s == 'a') and s != 'b' and random_sample(0.5)": true, "false or (id > 3 and random_sample(0.1))": true,
	} {
		p, err := Compile(text, s, nil, "")
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if p.Samples() != draws {
			t.Errorf("%s: draws %v", text, p.Samples())
		}
	}
}
