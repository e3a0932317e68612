package segments

import (
	"sort"
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// chunkRows is the number of rows in a chunk of a growing segment's scalars: a
// multiple of 64, so that a chunk's filter bits are whole words.
const chunkRows = 4096

// noRow ends a chain of rows with the same key.
const noRow = ^uint32(0)

// Growing is a segment that takes rows. One goroutine, the one that applies its
// channel's messages, writes it; readers see the first n rows, n being the
// published count, and never wait for the writer.
type Growing struct {
	meta    Meta
	schema  *schema.Schema
	pk      schema.Field
	start   Position // before the first row
	deletes *deletes
	memory  *Reservation

	rows    atomic.Int64 // published
	chunks  atomic.Pointer[[]*chunk]
	vectors []*growingVectors // one per vector field

	// Owned by the writer.
	newestInt map[int64]uint32  // key to its newest row
	newestStr map[string]uint32 //
	older     []uint32          // row to the row with the same key before it, or noRow
	sealed    atomic.Bool       // no more rows will come
	sealedAt  atomic.Uint64     // timestamp of the seal
	end       atomic.Pointer[Position]
}

// chunk holds chunkRows rows of all scalar fields and timestamps. Slices have
// their full length from the start: the writer fills slots that no reader looks at yet.
type chunk struct {
	timestamps []uint64
	columns    []*schema.Column // scalar fields in the schema's order
}

func newGrowing(m Meta, s *schema.Schema, start Position, capacity int, mem *Reservation) (*Growing, error) {
	g := &Growing{meta: m, schema: s, pk: s.Primary(), start: start, memory: mem, deletes: newDeletes(0)}
	g.chunks.Store(&[]*chunk{})
	for _, f := range s.Columns() {
		if f.Type.IsVector() {
			v, err := newGrowingVectors(f, capacity)
			if err != nil {
				_ = g.close()
				return nil, err
			}
			g.vectors = append(g.vectors, v)
		}
	}
	if g.pk.Type == schema.VarChar {
		g.newestStr = map[string]uint32{}
	} else {
		g.newestInt = map[int64]uint32{}
	}
	return g, nil
}

func newChunk(s *schema.Schema) *chunk {
	c := &chunk{timestamps: make([]uint64, chunkRows)}
	for _, f := range s.Columns() {
		if f.Type.IsVector() {
			continue
		}
		col := schema.NewColumn(f, chunkRows)
		switch {
		case f.Type == schema.Bool:
			col.Bool = col.Bool[:chunkRows]
		case f.Type.IsInt():
			col.Int = col.Int[:chunkRows]
		case f.Type == schema.Float:
			col.Float = col.Float[:chunkRows]
		case f.Type == schema.Double:
			col.Double = col.Double[:chunkRows]
		default:
			col.Str = col.Str[:chunkRows]
		}
		if f.Nullable {
			col.Valid = make([]bool, chunkRows)
		}
		c.columns = append(c.columns, col)
	}
	return c
}

// Meta says what the segment is.
func (g *Growing) Meta() Meta { return g.meta }

// Rows is the number of published rows, deleted ones included.
func (g *Growing) Rows() int { return int(g.rows.Load()) }

// Sealed reports whether no more rows will come, and since which timestamp.
func (g *Growing) Sealed() (uint64, bool) { return g.sealedAt.Load(), g.sealed.Load() }

// Start is the position right before the segment's first row.
func (g *Growing) Start() Position { return g.start }

// End is the position of the seal; Start if it is not sealed.
func (g *Growing) End() Position {
	if p := g.end.Load(); p != nil {
		return *p
	}
	return g.start
}

// Bytes estimates the memory in use, in bytes.
func (g *Growing) Bytes() int64 { return g.bytes() }

// append adds the rows of b, all at timestamp ts, and publishes them at once.
func (g *Growing) append(b *schema.Batch, ts uint64) error {
	first := int(g.rows.Load())
	chunks := *g.chunks.Load()
	if need := (first + b.Rows + chunkRows - 1) / chunkRows; need > len(chunks) {
		grown := append([]*chunk(nil), chunks...)
		for len(grown) < need {
			grown = append(grown, newChunk(g.schema))
		}
		g.chunks.Store(&grown)
		chunks = grown
	}
	vectors, scalars := 0, 0
	for i, f := range g.schema.Columns() {
		col := b.Columns[i]
		if f.Type.IsVector() {
			if err := g.vectors[vectors].append(col, first, b.Rows); err != nil {
				return err
			}
			vectors++
			continue
		}
		for r := range b.Rows {
			copyValue(chunks[(first+r)/chunkRows].columns[scalars], (first+r)%chunkRows, col, r)
		}
		scalars++
	}
	for r := range b.Rows {
		chunks[(first+r)/chunkRows].timestamps[(first+r)%chunkRows] = ts
	}
	g.linkKeys(b.Column(g.pk.ID), first, b.Rows)
	g.rows.Store(int64(first + b.Rows))
	return nil
}

func (g *Growing) linkKeys(keys *schema.Column, first, n int) {
	for r := range n {
		row, before := uint32(first+r), noRow
		if g.newestStr != nil {
			if b, ok := g.newestStr[keys.Str[r]]; ok {
				before = b
			}
			g.newestStr[keys.Str[r]] = row
		} else {
			if b, ok := g.newestInt[keys.Int[r]]; ok {
				before = b
			}
			g.newestInt[keys.Int[r]] = row
		}
		g.older = append(g.older, before)
	}
}

// copyValue sets slot i of dst to row j of src, a column of the same field.
func copyValue(dst *schema.Column, i int, src *schema.Column, j int) {
	if dst.Valid != nil {
		dst.Valid[i] = !src.Null(j)
	}
	switch {
	case dst.Type == schema.Bool:
		dst.Bool[i] = src.Bool[j]
	case dst.Type.IsInt():
		dst.Int[i] = src.Int[j]
	case dst.Type == schema.Float:
		dst.Float[i] = src.Float[j]
	case dst.Type == schema.Double:
		dst.Double[i] = src.Double[j]
	default:
		dst.Str[i] = src.Str[j]
	}
}

// applyDeletes hides the rows of keys that are older than their delete. Called by the writer only.
func (g *Growing) applyDeletes(d *DeleteBatch) {
	var hide []hiddenRow
	for i := range d.Timestamps {
		if d.Partition != 0 && d.Partition != g.meta.PartitionID {
			continue
		}
		row, ok := noRow, false
		if g.newestStr != nil {
			row, ok = lookup(g.newestStr, d.Keys.Str[i])
		} else {
			row, ok = lookup(g.newestInt, d.Keys.Int[i])
		}
		for ok && row != noRow {
			if g.timestamp(row) < d.Timestamps[i] {
				hide = append(hide, hiddenRow{ts: d.Timestamps[i], row: row})
			}
			row = g.older[row]
		}
	}
	g.deletes.grow(g.Rows())
	g.deletes.apply(hide)
}

func lookup[K comparable](m map[K]uint32, k K) (uint32, bool) {
	row, ok := m[k]
	if !ok {
		return noRow, false
	}
	return row, true
}

func (g *Growing) timestamp(row uint32) uint64 {
	return (*g.chunks.Load())[row/chunkRows].timestamps[row%chunkRows]
}

func (g *Growing) key(row uint32) (int64, string) {
	c := (*g.chunks.Load())[row/chunkRows].columns[g.scalarIndex(g.pk.ID)]
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

// chunkColumns gives a filter the columns of one chunk.
type chunkColumns struct {
	chunk *chunk
	rows  int
}

// Column returns the first rows of the field's column in the chunk.
func (c chunkColumns) Column(fieldID int64) *schema.Column {
	for _, col := range c.chunk.columns {
		if col.FieldID == fieldID {
			return col.Slice(0, c.rows)
		}
	}
	return nil
}

// filter sets out to the rows among the first n that match.
func (g *Growing) filter(p *expr.Plan, n int, out *bitset.Set) error {
	out.Reset(n)
	var part bitset.Set
	chunks := *g.chunks.Load()
	for c := 0; c*chunkRows < n; c++ {
		rows := min(chunkRows, n-c*chunkRows)
		if err := p.Eval(chunkColumns{chunks[c], rows}, rows, &part); err != nil {
			return err
		}
		copy(out.Words()[c*chunkRows/64:], part.Words())
	}
	return nil
}

// gather appends the values of field f in the given rows to dst.
func (g *Growing) gather(dst *schema.Column, rows []uint32) {
	if dst.Type.IsVector() {
		v := g.vectorField(dst.FieldID)
		base := v.data()
		for _, r := range rows {
			dst.Float = append(dst.Float, base[int(r)*v.dim:(int(r)+1)*v.dim]...)
		}
		return
	}
	chunks := *g.chunks.Load()
	i := g.scalarIndex(dst.FieldID)
	for _, r := range rows {
		dst.AppendRow(chunks[r/chunkRows].columns[i], int(r%chunkRows))
	}
}

func (g *Growing) scalarIndex(fieldID int64) int {
	i := 0
	for _, f := range g.schema.Columns() {
		if f.Type.IsVector() {
			continue
		}
		if f.ID == fieldID {
			return i
		}
		i++
	}
	return -1
}

func (g *Growing) vectorField(fieldID int64) *growingVectors {
	for _, v := range g.vectors {
		if v.fieldID == fieldID {
			return v
		}
	}
	return nil
}

// nearest searches the first n rows: by graph what is in it, the rest exactly.
func (g *Growing) nearest(q nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	return g.vectorField(q.fieldID).nearest(q, n, allowed, sc)
}

// keyOrder returns rows, in place, in ascending order of their keys; rows of the
// same key newest first.
func (g *Growing) keyOrder(rows []uint32) []uint32 {
	chunks, pk := *g.chunks.Load(), g.scalarIndex(g.pk.ID)
	key := func(r uint32) (int64, string) {
		c := chunks[r/chunkRows].columns[pk]
		if c.Type == schema.VarChar {
			return 0, c.Str[r%chunkRows]
		}
		return c.Int[r%chunkRows], ""
	}
	sort.Slice(rows, func(a, b int) bool {
		ai, as := key(rows[a])
		bi, bs := key(rows[b])
		if ai != bi {
			return ai < bi
		}
		if as != bs {
			return as < bs
		}
		return rows[a] > rows[b]
	})
	return rows
}

// uniqueKeys is false: nothing stops a key from being inserted twice.
func (g *Growing) uniqueKeys() bool { return false }

// Batch copies rows [from, to) with their timestamps, for the flush. Vectors are copied too.
func (g *Growing) Batch(from, to int) *schema.Batch {
	b := &schema.Batch{Rows: to - from}
	rows := make([]uint32, 0, to-from)
	for r := from; r < to; r++ {
		rows = append(rows, uint32(r))
		b.Timestamps = append(b.Timestamps, g.timestamp(uint32(r)))
	}
	for _, f := range g.schema.Columns() {
		col := schema.NewColumn(f, to-from)
		g.gather(col, rows)
		b.Columns = append(b.Columns, col)
	}
	return b
}

// bytes estimates the memory in use.
func (g *Growing) bytes() int64 {
	n := g.deletes.bytes() + 4*int64(len(g.older)) + 24*int64(g.Rows())
	for _, c := range *g.chunks.Load() {
		n += 8 * chunkRows
		for _, col := range c.columns {
			n += col.Bytes()
		}
	}
	for _, v := range g.vectors {
		n += v.bytes(g.Rows())
	}
	return n
}

// close gives memory back. No reader may be left.
func (g *Growing) close() error {
	g.memory.Release()
	var first error
	for _, v := range g.vectors {
		if err := v.close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
