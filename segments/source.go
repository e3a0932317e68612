package segments

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sort"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// Source is a sealed segment that is read to be rewritten. It is not searchable,
// and is used by one goroutine. Close it.
type Source struct {
	s    *Sealed
	heap *Reservation
}

// OpenSource opens the segment in dir, which Close removes; after an error it is
// the caller's. Rows that are older than minTimestamp count as written then: see
// LoadRequest. The memory it takes is in the ledger: class Exhausted if there is no room.
func (c *Collection) OpenSource(ctx context.Context, dir string, minTimestamp uint64) (_ *Source, err error) {
	m, err := segfile.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	heap, err := c.set.o.Ledger.Reserve(KindCompaction, emptyBytes(m)+m.ScalarBytes+4*m.Rows)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			heap.Release()
		}
	}()
	var s *Sealed
	// A damaged file may fault while it is read.
	err = guard("open segment to rewrite", func() (err error) {
		if s, err = openSealed(ctx, dir, c.Info(), c.schema, c.set.o.Ledger); err != nil {
			return err
		}
		return s.openAll()
	})
	if err != nil {
		if s != nil {
			err = errors.CombineErrors(err, s.close())
		}
		return nil, errors.Wrapf(err, "open segment %d to rewrite it", m.SegmentID)
	}
	s.writtenSince(minTimestamp)
	return &Source{s, heap}, nil
}

// Meta says what the segment is.
func (s *Source) Meta() Meta { return s.s.meta }

// Rows is the number of rows, deleted ones included.
func (s *Source) Rows() int { return s.s.rows.Rows }

// ApplyDeletes hides the rows of keys that are older than their delete.
func (s *Source) ApplyDeletes(d *DeleteBatch) error {
	if d.Keys.Type != s.s.pk.Type {
		return errclass.New(errclass.Corrupt, "deletes of keys of type %s, want %s", d.Keys.Type, s.s.pk.Type)
	}
	return guard("apply deletes", func() error { s.s.applyDeletes(d); return nil })
}

// Ledger accounts the memory of the source.
func (s *Source) Ledger() *Ledger { return s.s.ledger }

// Close removes the segment's files.
func (s *Source) Close() error {
	s.heap.Release()
	return s.s.close()
}

// Merged are the rows of several sources that are kept, in timestamp order.
type Merged struct {
	sources []*Source
	kept    []keptRow
	hides   []keptHide // by source and row
	at      int
	fields  []schema.Field
	pk      schema.Field
	// Dropped are the rows that no read can see any more.
	Dropped int
}

type keptRow struct {
	ts  uint64
	src uint32
	row uint32
}

type keptHide struct {
	keptRow        // what is hidden
	since   uint64 // from reads at this timestamp on
}

// Merge decides which rows of the sources are kept for reads at horizon and later:
// those that are not hidden at horizon or before they were written, and are newer than expired. All deletes
// up to some timestamp have been applied to all sources; those that hide rows that
// are kept are given out by Deletes.
//
// A key that two sources hold is hidden in the older row from the newer row's
// timestamp on, as within a segment.
func Merge(info CollectionInfo, sources []*Source, horizon, expired uint64) (*Merged, error) {
	m := &Merged{sources: sources, pk: info.Schema.Primary(), fields: info.Schema.Columns()}
	return m, guard("merge segments", func() error { m.merge(horizon, expired); return nil })
}

func (m *Merged) merge(horizon, expired uint64) {
	since := make([][]uint64, len(m.sources)) // by source and row; 0 = not hidden
	for i, s := range m.sources {
		since[i] = make([]uint64, s.Rows())
		for _, h := range s.s.hidden().entries {
			since[i][h.row] = h.ts
		}
	}
	if len(m.sources) > 1 {
		m.supersede(since)
	}
	for i, s := range m.sources {
		for r := range s.Rows() {
			ts, at := s.s.timestamp(uint32(r)), since[i][r]
			// Hidden since before it counts as written: by the segment's own deletes.
			if at != 0 && (at <= horizon || at <= ts) || ts <= expired {
				m.Dropped++
				continue
			}
			k := keptRow{ts, uint32(i), uint32(r)}
			m.kept = append(m.kept, k)
			if at != 0 {
				m.hides = append(m.hides, keptHide{k, at})
			}
		}
	}
	// Stable: rows of one message share a timestamp and stay in their order.
	slices.SortStableFunc(m.kept, func(a, b keptRow) int { return cmp.Compare(a.ts, b.ts) })
	slices.SortFunc(m.hides, func(a, b keptHide) int { return cmp.Compare(a.since, b.since) })
}

// supersede hides rows that have a newer one of the same key in another source.
func (m *Merged) supersede(since [][]uint64) {
	var all []keptRow
	for i, s := range m.sources {
		for r := range uint32(s.Rows()) {
			all = append(all, keptRow{s.s.timestamp(r), uint32(i), r})
		}
	}
	slices.SortFunc(all, func(a, b keptRow) int {
		if c := compareKeys(m.sources[a.src].s.keys, int(a.row), m.sources[b.src].s.keys, int(b.row)); c != 0 {
			return c
		}
		return cmp.Compare(a.ts, b.ts)
	})
	for i := 1; i < len(all); i++ {
		old, next := all[i-1], all[i]
		if compareKeys(m.sources[old.src].s.keys, int(old.row), m.sources[next.src].s.keys, int(next.row)) != 0 {
			continue
		}
		if at := &since[old.src][old.row]; next.ts > old.ts && (*at == 0 || *at > next.ts) {
			*at = next.ts
		}
	}
}

// Rows is the number of rows that are kept.
func (m *Merged) Rows() int { return len(m.kept) }

// mergeRows is how many rows Next returns at a time, and mergeBytes how many bytes of their vectors, at most.
const mergeRows, mergeBytes = 4096, 8 << 20

// step is how many rows Next returns.
func (m *Merged) step() int {
	row := 1
	for _, f := range m.fields {
		if f.Type.IsVector() {
			row += 4 * f.Dim // 0 of sparse ones
		}
	}
	return min(max(mergeBytes/row, 1), mergeRows)
}

// Next returns the next rows, io.EOF after the last. It is what Build wants.
func (m *Merged) Next() (b *schema.Batch, err error) {
	if m.at == len(m.kept) {
		return nil, io.EOF
	}
	some := m.kept[m.at:min(m.at+m.step(), len(m.kept))]
	m.at += len(some)
	b = &schema.Batch{Rows: len(some)}
	for _, k := range some {
		b.Timestamps = append(b.Timestamps, k.ts)
	}
	// Mapped files may fault.
	err = guard("read rows to rewrite", func() error {
		for _, f := range m.fields {
			col := schema.NewColumn(f, len(some))
			// Rows of one source that follow each other are copied at once.
			for i := 0; i < len(some); {
				var rows []uint32
				src := some[i].src
				for ; i < len(some) && some[i].src == src; i++ {
					rows = append(rows, some[i].row)
				}
				m.sources[src].s.gather(col, rows)
			}
			b.Columns = append(b.Columns, col)
		}
		return nil
	})
	return b, err
}

// Deletes are the keys of kept rows that are hidden, with the timestamps from
// which on they are, in the order of these; nil if there are none.
func (m *Merged) Deletes() *DeleteBatch {
	if len(m.hides) == 0 {
		return nil
	}
	d := &DeleteBatch{Keys: schema.NewColumn(m.pk, len(m.hides))}
	for _, h := range m.hides {
		d.Keys.AppendRow(m.sources[h.src].s.keys, int(h.row))
		d.Timestamps = append(d.Timestamps, h.since)
	}
	return d
}

// Garbage says how much of a sealed segment no read can see any more.
type Garbage struct {
	Rows int // in the segment
	Gone int // hidden at the horizon, or expired
}

// Garbage looks at the loaded segments of the collection: which of their rows no
// read at horizon or later sees, those up to expired among them. A row that is
// both hidden and expired may be counted twice.
func (c *Collection) Garbage(horizon, expired uint64) map[int64]Garbage {
	snap := c.Acquire()
	defer snap.Release()
	out := map[int64]Garbage{}
	for _, h := range snap.view.segments {
		if h.growing {
			continue
		}
		rows := h.visible(Latest)
		entries := h.hidden().entries
		gone := sort.Search(len(entries), func(i int) bool { return entries[i].ts > horizon })
		out[h.Meta().ID] = Garbage{Rows: rows, Gone: min(rows, gone+h.visible(expired))}
	}
	return out
}

// Ledger accounts the memory of the collection's segments.
func (c *Collection) Ledger() *Ledger { return c.set.o.Ledger }
