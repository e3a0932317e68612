package segments

import (
	"context"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

const (
	// filterRows is the number of rows that a filter sees at a time, so that a
	// read past its deadline is cut. A multiple of 64.
	filterRows = 1 << 15
	// keysAtOnce is the number of keys up to which a read asks the key filter
	// before it makes a task of the segment.
	keysAtOnce = 256
)

func (s *Sealed) visible(ts uint64) int {
	n := s.rows.Rows
	// The usual cases, without a look at memory that may be mapped.
	if n == 0 || s.newest <= ts {
		return n
	}
	if ts < s.oldest {
		return 0
	}
	return sort.Search(n, func(i int) bool { return s.rows.Timestamps[i] > ts })
}

func (s *Sealed) hidden() *deleteState { return s.deletes.state.Load() }

func (s *Sealed) timestamp(row uint32) uint64 { return max(s.rows.Timestamps[row], s.since) }

func (s *Sealed) key(row uint32) (int64, string) {
	if s.keys.Type == schema.VarChar {
		return 0, s.keys.Str[row]
	}
	return s.keys.Int[row], ""
}

// rulesOut tells whether statistics or the key filter rule out a match.
func (s *Sealed) rulesOut(m *match) string {
	switch {
	case !m.plan.MayMatch(s.stats):
		return "statistics"
	case m.keys != nil && m.keys.Rows() <= keysAtOnce && len(s.mayHave(m.keys)) == 0:
		return "keys"
	}
	return ""
}

// stats tells a filter what values a field has.
func (s *Sealed) stats(fieldID int64) (lo, hi any, nulls, rows int64, ok bool) {
	st, ok := s.file.Manifest().FieldStats(fieldID)
	if !ok {
		return nil, nil, 0, 0, false
	}
	rows = int64(s.rows.Rows)
	switch {
	case st.Bool != nil:
		return st.Bool.Min, st.Bool.Max, st.Nulls, rows, true
	case st.Int != nil:
		return st.Int.Min, st.Int.Max, st.Nulls, rows, true
	case st.Float != nil:
		return st.Float.Min, st.Float.Max, st.Nulls, rows, true
	case st.Text != nil:
		return st.Text.Min, st.Text.Max, st.Nulls, rows, true
	}
	return nil, nil, 0, 0, false
}

// rangeColumns gives a filter rows [from, to) of a segment.
type rangeColumns struct {
	s        *Sealed
	match    *match
	from, to int
}

// Column returns the rows of the field's column.
func (c rangeColumns) Column(fieldID int64) *schema.Column {
	if f, ok := c.match.vector(fieldID); ok {
		return vectorFlags(f, c.s.field(fieldID), c.to-c.from, behind(c.from))
	}
	if col := c.s.rows.Column(fieldID); col != nil {
		return col.Slice(c.from, c.to)
	}
	return c.match.missing(fieldID, c.to-c.from)
}

// rowColumns gives a filter some rows of a segment.
type rowColumns struct {
	s     *Sealed
	match *match
	rows  []uint32
}

// Column returns a copy of the rows of the field's column.
func (c rowColumns) Column(fieldID int64) *schema.Column {
	f, ok := c.match.schema.FieldByID(fieldID)
	if !ok {
		return nil
	}
	if f.Type.IsVector() {
		return vectorFlags(f, c.s.field(fieldID), len(c.rows), among(c.rows))
	}
	col := schema.NewColumn(f, len(c.rows))
	c.s.gather(col, c.rows)
	return col
}

// filter sets out to the rows among the first n that match.
func (s *Sealed) filter(ctx context.Context, m *match, n int, out *bitset.Set) (known bool, err error) {
	if s.matched.get(m, n, out) {
		return true, nil
	}
	if err := s.evaluate(ctx, m, n, out); err != nil {
		return false, err
	}
	if n == s.rows.Rows {
		s.matched.put(m, out.Words())
	}
	return false, nil
}

// evaluate is filter for one of which nothing is known. If the filter names the keys,
// it looks at their rows only.
func (s *Sealed) evaluate(ctx context.Context, m *match, n int, out *bitset.Set) error {
	if m.keys != nil && m.keys.Rows() < n/8 {
		return s.filterKeys(ctx, m, n, out)
	}
	if s.scalars.any() {
		if rest, ok := m.plan.Narrow(s.scalars, n, s.rows.Rows, out); ok {
			return s.filterRest(ctx, m, rest, n, out)
		}
	}
	out.Reset(n)
	var part bitset.Set
	for from := 0; from < n; from += filterRows {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "filter")
		}
		to := min(from+filterRows, n)
		if err := m.plan.Eval(rangeColumns{s, m, from, to}, to-from, nil, ctx.Err, &part); err != nil {
			return err
		}
		copy(out.Words()[from/64:], part.Words())
	}
	return nil
}

// filterRest keeps those rows of out that match rest too; nil is all.
func (s *Sealed) filterRest(ctx context.Context, m *match, rest *expr.Plan, n int, out *bitset.Set) error {
	if rest == nil {
		return nil
	}
	var part bitset.Set
	for from := 0; from < n; from += filterRows {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "filter")
		}
		to := min(from+filterRows, n)
		within := out.Words()[from/64 : (to+63)/64]
		if !slices.ContainsFunc(within, func(w uint64) bool { return w != 0 }) {
			continue
		}
		part.Reset(to - from)
		if err := rest.Eval(rangeColumns{s, m, from, to}, to-from, within, ctx.Err, &part); err != nil {
			return err
		}
		copy(within, part.Words())
	}
	return nil
}

func (s *Sealed) filterKeys(ctx context.Context, m *match, n int, out *bitset.Set) error {
	out.Reset(n)
	var rows []uint32
	for count, i := range s.mayHave(m.keys) {
		if count%1024 == 0 && ctx.Err() != nil {
			return errors.Wrap(ctx.Err(), "filter")
		}
		for at := s.find(m.keys, i); at < s.rows.Rows; at++ {
			row := s.byKey(at)
			if compareKeys(s.keys, int(row), m.keys, i) != 0 {
				break
			}
			if int(row) < n {
				rows = append(rows, row)
			}
		}
	}
	if m.only {
		for _, r := range rows {
			out.Add(int(r))
		}
		return nil
	}
	var part bitset.Set
	if err := m.plan.Eval(rowColumns{s, m, rows}, len(rows), nil, ctx.Err, &part); err != nil {
		return err
	}
	for i, r := range rows {
		if part.Has(i) {
			out.Add(int(r))
		}
	}
	return nil
}

func (s *Sealed) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	return s.field(q.fieldID).nearest(q, n, allowed, sc)
}

func (v *sealedVectors) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	if v.typ == schema.SparseFloatVector {
		return sc.scanSparse(v.terms(q, sc), n, q, allowed)
	}
	allowed = v.present(allowed, n, sc)
	if vector := v.asked(q, sc); vector != nil {
		if allowed == nil && n < v.rows {
			allowed = sc.prefix(n)
		}
		return sc.searchIndex(v.index, v.info.Kind, vector, q, allowed, v.exactly(q))
	}
	return sc.scan(v.vectorsFor(q), q.from, n, q, allowed)
}

// asked returns the vector that the index is asked for; nil = the rows are scanned.
func (v *sealedVectors) asked(q *nearestQuery, sc *scratch) []float32 {
	switch {
	case v.scans(q):
		return nil
	case v.raw == nil:
		return q.vector
	}
	vector := sc.widen(v.typ, v.dim, q.raw)
	if !(sc.kernels.Dot(vector, vector) <= math.MaxFloat32) {
		return nil // codes do not tell how far rows are, and there is nothing else in the index
	}
	return vector
}

// nearestEach finds the nearest rows of each of the vectors, which lie one behind the
// other, by the index that there is since nearest does not scan, and leaves them in sc.batch.
func (s *Sealed) nearestEach(q *nearestQuery, vectors []float32, n int, allowed *bitset.Set, sc *scratch) error {
	v := s.stored(q.fieldID)
	allowed = v.present(allowed, n, sc)
	if allowed == nil && n < v.rows {
		allowed = sc.prefix(n)
	}
	return sc.searchIndexEach(v.index, v.info.Kind, vectors, q, allowed, v.exactly(q))
}

// scans reports whether nearest looks at every row.
func (s *Sealed) scans(q *nearestQuery) bool { return s.field(q.fieldID).scans(q) }

func (v *sealedVectors) scans(q *nearestQuery) bool {
	return q.exact || v.info.Kind == "" || v.info.Metric != q.metric
}

func (s *Sealed) gather(dst *schema.Column, rows []uint32) {
	if dst.Type.IsVector() {
		s.field(dst.FieldID).gather(dst, rows)
		return
	}
	src := s.rows.Column(dst.FieldID)
	if src == nil {
		appendAbsent(dst, s.latest(), len(rows))
		return
	}
	texts := len(dst.Str)
	dst.AppendRows(src, rows)
	if s.spilled > 0 { // it ends with the segment, the answer may not
		for i := texts; i < len(dst.Str); i++ {
			dst.Str[i] = strings.Clone(dst.Str[i])
		}
	}
}

// gather appends the vectors of rows to dst.
func (v *sealedVectors) gather(dst *schema.Column, rows []uint32) {
	var null func(uint32) bool
	if v.valid != nil {
		null = func(row uint32) bool { return !v.valid.Has(int(row)) }
	}
	if v.typ != schema.SparseFloatVector {
		gatherVectors(dst, &schema.Column{FieldID: v.fieldID, Type: v.typ, Dim: v.dim, Float: v.base, Raw: v.raw}, rows, null)
		return
	}
	for _, r := range rows {
		gatherVectors(dst, v.sparse.row(r), []uint32{0}, func(uint32) bool { return null != nil && null(r) })
	}
}
