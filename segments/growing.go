package segments

import (
	"slices"
	"sync/atomic"

	"github.com/querynode/querynode/internal/schema"
)

// Growing is a segment that takes rows. One goroutine, the one that applies its
// channel's messages, writes it; readers see the first n rows, n being the
// published count, and never wait for the writer.
type Growing struct {
	meta   Meta
	start  Position // before the first row
	pk     schema.Field
	latest func() CollectionInfo // may gain and lose fields

	rows    atomic.Int64 // published
	chunks  atomic.Pointer[[]*chunk]
	fields  atomic.Pointer[[]*growingVectors] // one per vector field that a row has; replaced before a row has another
	deletes *deletes
	keys    *keyIndex
	pkIndex int // of the key among the columns of every chunk

	memory  *Reservation // rows; grown by the writer
	removed *Reservation // what deletes hides

	// Owned by the writer.
	scalars []schema.Field // of the newest chunk
	ahead   int            // rows that vectors reserve address space for
	ledger  *Ledger
	coming  *coming // of its channel

	sealed   atomic.Bool   // no more rows will come
	sealedAt atomic.Uint64 // timestamp of the seal
	end      atomic.Pointer[Position]
	used     atomic.Int64 // bytes of memory, for readers
}

// growingOptions say what growing segment to make.
type growingOptions struct {
	meta   Meta
	info   func() CollectionInfo // the newest one
	start  Position
	rows   int // to reserve address space for
	ledger *Ledger
	coming *coming
}

// newGrowing returns an empty segment, which takes no memory yet.
func newGrowing(o growingOptions) (*Growing, error) {
	info := o.info()
	g := &Growing{meta: o.meta, start: o.start, pk: info.Schema.Primary(), latest: o.info, ahead: o.rows, ledger: o.ledger, coming: o.coming,
		memory: o.ledger.Force(KindGrowing, 0), removed: o.ledger.Force(KindGrowing, 0)}
	g.deletes = newDeletes(0, g.removed)
	g.chunks.Store(&[]*chunk{})
	g.fields.Store(&[]*growingVectors{})
	for _, f := range info.Schema.Columns() {
		if !f.Type.IsVector() {
			if f.ID == g.pk.ID {
				g.pkIndex = len(g.scalars)
			}
			g.scalars = append(g.scalars, f)
			continue
		}
		v, err := newGrowingVectors(f, info.index(f.ID), o.rows, o.ledger)
		if err != nil {
			_ = g.close()
			return nil, err
		}
		g.addVectors(v)
	}
	g.keys = newKeyIndex(g.pk.Type == schema.VarChar, g.key)
	return g, nil
}

// Meta says what the segment is.
func (g *Growing) Meta() Meta { return g.meta }

// Rows is the number of published rows, deleted ones included.
func (g *Growing) Rows() int { return int(g.rows.Load()) }

// Sealed reports whether no more rows will come, and since which timestamp.
func (g *Growing) Sealed() (uint64, bool) {
	sealed := g.sealed.Load() // stored last, so read first
	return g.sealedAt.Load(), sealed
}

// seal says that no more rows will come after at.
func (g *Growing) seal(at Position) {
	g.sealedAt.Store(at.Timestamp)
	g.end.Store(&at)
	g.sealed.Store(true)
	g.coming.seals(g.meta.ID)
}

// Start is the position right before the segment's first row.
func (g *Growing) Start() Position { return g.start }

// First is the timestamp of the segment's first row, 0 if it has none.
func (g *Growing) First() uint64 {
	if g.Rows() == 0 {
		return 0
	}
	return g.timestamp(0)
}

// End is the position of the seal; Start if it is not sealed.
func (g *Growing) End() Position {
	if p := g.end.Load(); p != nil {
		return *p
	}
	return g.start
}

// Bytes estimates the memory in use, in bytes.
func (g *Growing) Bytes() int64 { return g.bytes() }

func (g *Growing) bytes() int64 {
	n := g.used.Load() + g.deletes.state.Load().bytes()
	for _, v := range g.vectors() {
		n += v.listsBytes()
	}
	return n
}

// append adds the rows of b, all at timestamp ts, and publishes them at once; beyond: past the limit if
// need be. On an error nothing is published and the memory is given back.
func (g *Growing) append(b *schema.Batch, ts uint64, beyond bool) error {
	first := g.Rows()
	need, err := g.reserve(b, first, beyond)
	if err != nil {
		return err
	}
	g.used.Add(need)
	chunks := g.room(b, first)
	for i, f := range g.scalars {
		col := b.Column(f.ID)
		if col == nil { // rows written before the field was added, or after it was dropped
			col = schema.NewColumn(f, b.Rows)
			appendAbsent(col, g.latest().Schema, b.Rows)
		}
		for r := 0; r < b.Rows; {
			c, slot := chunks[(first+r)/chunkRows], (first+r)%chunkRows
			n := min(b.Rows-r, chunkRows-slot)
			c.columns[i].set(slot, col, r, n)
			r += n
		}
	}
	for _, v := range g.vectors() {
		v.append(v.of(b), first, b.Rows)
	}
	for r := range b.Rows {
		chunks[(first+r)/chunkRows].timestamps[(first+r)%chunkRows] = ts
	}
	g.rows.Store(int64(first + b.Rows))
	g.linkKeys(first, b.Rows, ts)
	g.coming.grows(g.meta.ID, g.Rows())
	return nil
}

// toBuild has the ledger know from now on what building the index of the segment will take with so many workers; 0 = nothing.
func (g *Growing) toBuild(workers int) { g.coming.toBuild(g.meta.ID, workers) }

// reserve takes the memory for the rows of b from the ledger and makes room for
// their vectors, or changes nothing.
func (g *Growing) reserve(b *schema.Batch, first int, beyond bool) (need int64, err error) {
	fields := g.fieldsWith(b)
	more, err := g.vectorsWith(b)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			closeAll(more)
		}
	}()
	chunks := len(*g.chunks.Load())
	need = int64(b.Rows) * bytesPerKey
	need += int64(max(0, chunksFor(first+b.Rows)-chunks)) * (chunkBytes(fields) + chainBytes)
	if chunks > 0 {
		need += chunkBytes(fields) - chunkBytes(g.scalars) // columns that the last chunk gets
	}
	for _, c := range b.Columns {
		need += looseBytes(c)
	}
	all := append(slices.Clone(g.vectors()), more...)
	for _, v := range all {
		need += v.needs(v.of(b), first, b.Rows)
	}
	for _, v := range more {
		need += v.nullBytes(first)
	}
	before := g.used.Load()
	if err = g.memory.growForLog(need, beyond); err != nil {
		return 0, err
	}
	for _, v := range all {
		if err = v.room(first, b.Rows); err != nil {
			g.memory.Commit(before)
			return 0, err
		}
	}
	for _, v := range more {
		v.appendNulls(first)
		g.addVectors(v)
	}
	g.scalars = fields
	return need, nil
}

// vectors are the vector fields that rows have.
func (g *Growing) vectors() []*growingVectors { return *g.fields.Load() }

// addVectors publishes a vector field whose rows so far are null.
func (g *Growing) addVectors(v *growingVectors) {
	next := append(slices.Clone(g.vectors()), v)
	g.fields.Store(&next)
}

// vectorsWith makes the vector fields that b has values of and no row had before: they
// were added to the collection after the segment had begun.
func (g *Growing) vectorsWith(b *schema.Batch) (more []*growingVectors, err error) {
	for _, c := range b.Columns {
		if !c.Type.IsVector() || g.stored(c.FieldID) != nil || c.Valid != nil && !slices.Contains(c.Valid, true) {
			continue
		}
		info := g.latest()
		f, ok := info.Schema.FieldByID(c.FieldID)
		if !ok {
			continue
		}
		v, err := newGrowingVectors(f, info.index(f.ID), max(g.ahead, g.Rows()+b.Rows), g.ledger)
		if err != nil {
			closeAll(more)
			return nil, err
		}
		more = append(more, v)
	}
	return more, nil
}

// closeAll gives up vectors that nobody has seen.
func closeAll(all []*growingVectors) {
	for _, v := range all {
		_ = v.close()
	}
}

func chunksFor(rows int) int { return (rows + chunkRows - 1) / chunkRows }

// fieldsWith returns the scalar fields with those that b has besides: they were
// added to the collection after the segment had begun.
func (g *Growing) fieldsWith(b *schema.Batch) []schema.Field {
	fields := g.scalars
	for _, c := range b.Columns {
		if c.Type.IsVector() || slices.ContainsFunc(fields, func(f schema.Field) bool { return f.ID == c.FieldID }) {
			continue
		}
		if f, ok := g.latest().Schema.FieldByID(c.FieldID); ok {
			fields = append(fields[:len(fields):len(fields)], f)
		}
	}
	return fields
}

// room returns the chunks, with slots for the rows of b in all columns.
func (g *Growing) room(b *schema.Batch, first int) []*chunk {
	chunks := *g.chunks.Load()
	need := chunksFor(first + b.Rows)
	last := len(chunks) - 1
	widen := last >= 0 && len(chunks[last].columns) < len(g.scalars)
	if need <= len(chunks) && !widen {
		return chunks
	}
	grown := append([]*chunk(nil), chunks...)
	if widen {
		grown[last] = chunks[last].with(g.scalars)
	}
	for len(grown) < need {
		grown = append(grown, newChunk(g.scalars))
	}
	g.chunks.Store(&grown)
	return grown
}

// linkKeys puts n rows into the index of keys, and hides those that have a newer one.
func (g *Growing) linkKeys(first, n int, ts uint64) {
	var hide []hiddenRow
	for row := uint32(first); row < uint32(first+n); row++ {
		if before := g.keys.add(row); before != noRow {
			hide = append(hide, hiddenRow{ts: ts, row: before})
		}
	}
	g.deletes.grow(g.Rows())
	g.deletes.apply(hide)
}

// applyDeletes hides the rows of keys that are older than their delete. Called by the writer only.
func (g *Growing) applyDeletes(d *DeleteBatch) {
	if d.Partition != 0 && d.Partition != g.meta.PartitionID {
		return
	}
	var hide []hiddenRow
	state := g.hidden()
	newest := state.newest()
	for i, ts := range d.Timestamps {
		for row := g.keys.newest(keyAt(d.Keys, i)); row != noRow; row = g.keys.before(row) {
			if ts >= newest && state.hides(row) {
				break // and so are all before it, at timestamps that are no later
			}
			if g.timestamp(row) < ts {
				hide = append(hide, hiddenRow{ts: ts, row: row})
			}
		}
	}
	g.deletes.grow(g.Rows())
	g.deletes.apply(hide)
}

// close gives memory back. No reader may be left.
func (g *Growing) close() error {
	g.memory.Release()
	g.removed.Release()
	var first error
	for _, v := range g.vectors() {
		if err := v.close(); err != nil && first == nil {
			first = err
		}
	}
	if g.Rows() > 0 { // else nobody has heard of it, and another may have its name by now
		g.coming.gone(g.meta.ID)
	}
	return first
}
