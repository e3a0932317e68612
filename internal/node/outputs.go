package node

import (
	"slices"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
)

// outputFields resolves the names of output fields. "*" is every field, vectors too,
// but the primary key, which a search returns anyway; withKey puts it first. A key of
// the dynamic field is a JSON field of its own name, for pickMembers to fill.
func outputFields(s *schema.Schema, names []string, withKey bool) ([]schema.Field, error) {
	var out []schema.Field
	add := func(f schema.Field) {
		if !slices.ContainsFunc(out, func(o schema.Field) bool { return o.Name == f.Name }) {
			out = append(out, f)
		}
	}
	if withKey {
		add(s.Primary())
	}
	for _, name := range names {
		name = strings.TrimSpace(name) // as Milvus takes them
		if name == "*" {
			for _, f := range s.Given() {
				if !f.PrimaryKey {
					add(f)
				}
			}
			continue
		}
		f, ok := s.Field(name)
		if fn, made := s.FunctionOf(f.ID); ok && made {
			return nil, errclass.New(errclass.Invalid, "output field %q: it holds what function %q makes for searches, and is not returned", name, fn.Name)
		}
		if !ok {
			key, quoted := metaKey(name)
			if quoted {
				name = key
			}
			switch {
			case s.Dynamic && !quoted && strings.HasPrefix(name, schema.DynamicFieldName):
				return nil, errclass.New(errclass.Invalid, "output field %q: one key is written %s[\"key\"], without a path behind it", name, schema.DynamicFieldName)
			case !s.Dynamic, !quoted && schema.CheckName("field", name) != nil:
				return nil, errclass.With(errclass.New(errclass.NotFound, "output field %q: the collection has no such field", name), errclass.Field)
			}
			if _, is := s.Field(name); is {
				return nil, errclass.With(errclass.New(errclass.NotFound, "output field %q: the dynamic field has no such key, it is a field", name), errclass.Field)
			}
			f = schema.Field{ID: schema.DynamicFieldID, Name: name, Type: schema.JSON, Nullable: true}
		}
		add(f)
	}
	if len(out) > MaxOutputs+1 {
		return nil, errclass.New(errclass.Invalid, "%d output fields, at most %d", len(out), MaxOutputs)
	}
	return out, nil
}

// metaKey returns the key of the dynamic field that $meta["key"] names, which may be
// any text.
func metaKey(name string) (key string, ok bool) {
	in, ok := strings.CutPrefix(name, schema.DynamicFieldName+"[")
	in, closed := strings.CutSuffix(in, "]")
	if !ok || !closed || len(in) < 3 {
		return "", false
	}
	if q := in[0]; q == '\'' && in[len(in)-1] == q {
		key = in[1 : len(in)-1]
		return key, !strings.ContainsAny(key, `'\`)
	}
	key, err := strconv.Unquote(in)
	return key, err == nil && in[0] == '"' && key != ""
}

// pickMembers puts the values of keys of the dynamic field into the place of the
// field, for those of out that are such keys. What is not there, and a JSON null, is
// null.
func pickMembers(out []schema.Field, columns []*schema.Column) {
	for i, f := range out {
		if f.ID != schema.DynamicFieldID || f.Name == schema.DynamicFieldName || i >= len(columns) {
			continue
		}
		docs := columns[i]
		col := schema.NewColumn(f, docs.Rows())
		for row, doc := range docs.Str {
			text, ok := expr.Member(doc, f.Name)
			ok = ok && text != "null" && !docs.Null(row)
			if !ok {
				text = ""
			}
			col.Str, col.Valid = append(col.Str, text), append(col.Valid, ok)
		}
		columns[i] = col
	}
}
