package segments

import (
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
)

// match is a read's filter, with what was found out about it once.
type match struct {
	plan   *expr.Plan
	schema *schema.Schema
	keys   *schema.Column // the only keys that can match, sorted; nil = any
	only   bool           // every row with one of the keys matches
}

// newMatch returns nil if every row matches.
func newMatch(p *expr.Plan, s *schema.Schema) *match {
	if p == nil || p.All() {
		return nil
	}
	m := &match{plan: p, schema: s}
	pk := s.Primary()
	if keys, ok := p.PrimaryKeys(pk); ok {
		m.keys, m.only = keys, p.OnlyPrimaryKeys(pk)
	}
	return m
}

// vector returns a field if it is one of vectors.
func (m *match) vector(fieldID int64) (schema.Field, bool) {
	f, ok := m.schema.FieldByID(fieldID)
	return f, ok && f.Type.IsVector()
}

// missing returns the column of n rows of a segment that lacks the field; nil if
// the collection lacks it too.
func (m *match) missing(fieldID int64, n int) *schema.Column {
	f, ok := m.schema.FieldByID(fieldID)
	if !ok {
		return nil
	}
	col, err := schema.AbsentColumn(f, n)
	if err != nil {
		return nil
	}
	return col
}
