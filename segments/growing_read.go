package segments

import (
	"context"
	"sort"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

func (g *Growing) timestamp(row uint32) uint64 {
	return (*g.chunks.Load())[row/chunkRows].timestamps[row%chunkRows]
}

func (g *Growing) key(row uint32) (int64, string) { return g.keyIn(*g.chunks.Load(), row) }

func (g *Growing) keyIn(chunks []*chunk, row uint32) (int64, string) {
	c := chunks[row/chunkRows].columns[g.pkIndex].col.Load()
	if c.Type == schema.VarChar {
		return 0, c.Str[row%chunkRows]
	}
	return c.Int[row%chunkRows], ""
}

// visible is the number of rows with a timestamp <= ts: rows are in timestamp order.
func (g *Growing) visible(ts uint64) int {
	n := g.Rows()
	if n == 0 || g.timestamp(uint32(n-1)) <= ts {
		return n
	}
	return sort.Search(n, func(i int) bool { return g.timestamp(uint32(i)) > ts })
}

func (g *Growing) hidden() *deleteState { return g.deletes.state.Load() }

// rulesOut is "": nothing is known about rows that keep coming.
func (g *Growing) rulesOut(*match) string { return "" }

// chunkRead gives a filter the columns of one chunk.
type chunkRead struct {
	g     *Growing
	from  int // of its first row
	chunk *chunk
	rows  int
	match *match
}

// Column returns the first rows of the field's column in the chunk.
func (c chunkRead) Column(fieldID int64) *schema.Column {
	if f, ok := c.match.vector(fieldID); ok {
		return vectorFlags(f, c.g.field(fieldID), c.rows, behind(c.from))
	}
	if col := c.chunk.column(fieldID); col != nil {
		return col.Slice(0, c.rows)
	}
	return c.match.missing(fieldID, c.rows)
}

// filter sets out to the rows among the first n that match.
func (g *Growing) filter(ctx context.Context, m *match, n int, out *bitset.Set) (known bool, err error) {
	return false, g.evaluate(ctx, m, n, out)
}

func (g *Growing) evaluate(ctx context.Context, m *match, n int, out *bitset.Set) error {
	if m.keys != nil && m.keys.Rows() < n/8 {
		return g.filterKeys(ctx, m, n, out)
	}
	out.Reset(n)
	var part bitset.Set
	chunks := *g.chunks.Load()
	for c := 0; c*chunkRows < n; c++ {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "filter")
		}
		rows := min(chunkRows, n-c*chunkRows)
		if err := m.plan.Eval(chunkRead{g, c * chunkRows, chunks[c], rows, m}, rows, nil, ctx.Err, &part); err != nil {
			return err
		}
		copy(out.Words()[c*chunkRows/64:], part.Words())
	}
	return nil
}

// gather appends the values of dst's field in the given rows to dst.
func (g *Growing) gather(dst *schema.Column, rows []uint32) {
	if dst.Type.IsVector() {
		g.field(dst.FieldID).gather(dst, rows)
		return
	}
	chunks := *g.chunks.Load()
	for _, r := range rows {
		if col := chunks[r/chunkRows].column(dst.FieldID); col != nil {
			dst.AppendRow(col, int(r%chunkRows))
		} else {
			appendAbsent(dst, g.latest().Schema, 1)
		}
	}
}

// field returns the vectors of a field: all null as long as no row has one.
func (g *Growing) field(id int64) fieldVectors {
	if v := g.stored(id); v != nil {
		return v
	}
	return nullVectors{}
}

// stored returns the vectors of a field, nil as long as no row has one.
func (g *Growing) stored(fieldID int64) *growingVectors {
	for _, v := range g.vectors() {
		if v.fieldID == fieldID {
			return v
		}
	}
	return nil
}

// nearest searches the first n rows: by lists what is in them, the rest exactly.
func (g *Growing) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	return g.field(q.fieldID).nearest(q, n, allowed, sc)
}

// nearestEach is nearest for each of the vectors, which lie one behind the other. What is
// found is left in sc.batch.
func (g *Growing) nearestEach(q *nearestQuery, vectors []float32, n int, allowed *bitset.Set, sc *scratch) error {
	v := g.stored(q.fieldID)
	if v == nil {
		return nil
	}
	return v.nearestEach(q, vectors, n, allowed, sc)
}

// scans reports whether nearest looks at every row.
func (g *Growing) scans(q *nearestQuery) bool { return g.field(q.fieldID).scans(q) }

func (v *growingVectors) scans(q *nearestQuery) bool {
	return q.exact || v.lists.Load() == nil || v.metric != q.metric
}

// Batch copies rows [from, to) with their timestamps, for the flush: a column for
// each field that the collection has now. Vectors are copied too.
func (g *Growing) Batch(from, to int) *schema.Batch {
	b := &schema.Batch{Rows: to - from}
	rows := make([]uint32, 0, to-from)
	for r := from; r < to; r++ {
		rows = append(rows, uint32(r))
		b.Timestamps = append(b.Timestamps, g.timestamp(uint32(r)))
	}
	for _, f := range g.latest().Schema.Columns() {
		col := schema.NewColumn(f, to-from)
		g.gather(col, rows)
		b.Columns = append(b.Columns, col)
	}
	return b
}
