package segments

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sort"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// Sealed is an immutable segment: mapped files, and its scalars and keys in memory.
type Sealed struct {
	meta    Meta
	dir     string // removed on close
	file    *segfile.Segment
	rows    *schema.Batch // scalar columns and timestamps
	pk      schema.Field
	deletes *deletes
	graphs  map[int64]*index.HNSW // by field id
	metrics map[int64]index.Metric
	order   []uint32 // rows by key, newest of a key first; nil = row order is key order
	unique  bool
	heap    *Reservation
	mapped  *Reservation
}

// openSealed opens the segment in dir. The caller owns dir until it succeeds.
func openSealed(ctx context.Context, dir string, info CollectionInfo) (s *Sealed, err error) {
	file, err := segfile.Open(dir, segfile.Options{WillNeed: true, HugePages: true})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.CombineErrors(err, file.Close())
		}
	}()
	m := file.Manifest()
	s = &Sealed{
		meta: Meta{ID: m.SegmentID, CollectionID: m.CollectionID, PartitionID: m.PartitionID, VChannel: m.VChannel},
		dir:  dir, file: file, pk: info.Schema.Primary(), deletes: newDeletes(int(m.Rows)),
		graphs: map[int64]*index.HNSW{}, metrics: map[int64]index.Metric{},
	}
	if s.rows, err = file.Rows(ctx); err != nil {
		return nil, err
	}
	if !slices.IsSorted(s.rows.Timestamps) {
		return nil, errclass.New(errclass.Corrupt, "segment %d: rows are not in timestamp order", m.SegmentID)
	}
	if err = s.addMissing(info.Schema); err != nil {
		return nil, err
	}
	if err = s.openIndexes(info); err != nil {
		return nil, err
	}
	s.sortKeys()
	if err = s.applyOwnDeletes(); err != nil {
		return nil, err
	}
	return s, nil
}

// addMissing gives the segment null columns for fields that were added to the
// collection after it was written.
func (s *Sealed) addMissing(sc *schema.Schema) error {
	for _, f := range sc.Columns() {
		if f.Type.IsVector() || s.rows.Column(f.ID) != nil {
			continue
		}
		g, err := schema.NullColumn(f, s.rows.Rows)
		if err != nil {
			return errors.Wrapf(err, "segment %d", s.meta.ID)
		}
		s.rows.Columns = append(s.rows.Columns, g)
	}
	return nil
}

func (s *Sealed) openIndexes(info CollectionInfo) error {
	for _, f := range info.Schema.Fields {
		if !f.Type.IsVector() {
			continue
		}
		base := s.file.Vectors(f.ID)
		if len(base) != s.rows.Rows*f.Dim {
			return errclass.New(errclass.Corrupt, "segment %d: field %q has %d values, want %d rows of %d", s.meta.ID, f.Name, len(base), s.rows.Rows, f.Dim)
		}
		s.metrics[f.ID] = info.Indexes[f.ID].Metric
		ix, image, ok := s.file.Index(f.ID)
		if !ok || ix.Type != "HNSW" {
			continue
		}
		g, err := index.OpenHNSW(image, base)
		if err != nil {
			return errors.Wrapf(err, "segment %d: index of field %q", s.meta.ID, f.Name)
		}
		if g.Len() != s.rows.Rows {
			return errclass.New(errclass.Corrupt, "segment %d: index of field %q holds %d rows, the segment has %d", s.meta.ID, f.Name, g.Len(), s.rows.Rows)
		}
		s.graphs[f.ID] = g
	}
	return nil
}

// sortKeys finds out the order of the keys: often the rows are in it already.
func (s *Sealed) sortKeys() {
	keys := s.rows.Column(s.pk.ID)
	s.unique = true
	less := func(a, b uint32) int {
		if c := compareKeys(keys, int(a), keys, int(b)); c != 0 {
			return c
		}
		return cmp.Compare(b, a)
	}
	sorted := true
	for r := 1; r < s.rows.Rows && sorted; r++ {
		sorted = compareKeys(keys, r-1, keys, r) < 0
	}
	if sorted {
		return
	}
	s.order = make([]uint32, s.rows.Rows)
	for i := range s.order {
		s.order[i] = uint32(i)
	}
	slices.SortFunc(s.order, less)
	for i := 1; i < len(s.order) && s.unique; i++ {
		s.unique = compareKeys(keys, int(s.order[i-1]), keys, int(s.order[i])) != 0
	}
}

// compareKeys orders row i of a against row j of b, columns of the same key field.
func compareKeys(a *schema.Column, i int, b *schema.Column, j int) int {
	if a.Type == schema.VarChar {
		return cmp.Compare(a.Str[i], b.Str[j])
	}
	return cmp.Compare(a.Int[i], b.Int[j])
}

func (s *Sealed) applyOwnDeletes() error {
	keys, ts, err := s.file.Deletes()
	if err != nil || keys == nil {
		return err
	}
	s.applyDeletes(&DeleteBatch{Keys: keys, Timestamps: ts})
	return nil
}

// Meta says what the segment is.
func (s *Sealed) Meta() Meta { return s.meta }

// applyDeletes hides the rows of keys that are older than their delete.
func (s *Sealed) applyDeletes(d *DeleteBatch) {
	if d.Partition != 0 && d.Partition != s.meta.PartitionID {
		return
	}
	keys := s.rows.Column(s.pk.ID)
	var hide []hiddenRow
	for i, ts := range d.Timestamps {
		at := sort.Search(s.rows.Rows, func(k int) bool { return compareKeys(keys, int(s.byKey(k)), d.Keys, i) >= 0 })
		for ; at < s.rows.Rows; at++ {
			row := s.byKey(at)
			if compareKeys(keys, int(row), d.Keys, i) != 0 {
				break
			}
			if s.rows.Timestamps[row] < ts {
				hide = append(hide, hiddenRow{ts: ts, row: row})
			}
		}
	}
	s.deletes.apply(hide)
}

func (s *Sealed) byKey(i int) uint32 {
	if s.order == nil {
		return uint32(i)
	}
	return s.order[i]
}

func (s *Sealed) visible(ts uint64) int {
	n := s.rows.Rows
	if n == 0 || s.rows.Timestamps[n-1] <= ts {
		return n
	}
	return sort.Search(n, func(i int) bool { return s.rows.Timestamps[i] > ts })
}

func (s *Sealed) hidden() *deleteState { return s.deletes.state.Load() }

// batchColumns gives a filter the columns of a batch.
type batchColumns struct{ batch *schema.Batch }

// Column returns the field's column.
func (b batchColumns) Column(fieldID int64) *schema.Column { return b.batch.Column(fieldID) }

func (s *Sealed) filter(p *expr.Plan, n int, out *bitset.Set) error {
	return p.Eval(batchColumns{s.rows}, n, out)
}

func (s *Sealed) nearest(q nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	if g := s.graphs[q.fieldID]; g != nil && g.Metric() == q.metric && !q.exact {
		return sc.walk(g, q, allowed, n)
	}
	base := s.file.Vectors(q.fieldID)
	return sc.scan(base, len(base)/max(s.rows.Rows, 1), 0, n, q, allowed)
}

func (s *Sealed) gather(dst *schema.Column, rows []uint32) {
	if dst.Type.IsVector() {
		base := s.file.Vectors(dst.FieldID)
		for _, r := range rows {
			dst.Float = append(dst.Float, base[int(r)*dst.Dim:(int(r)+1)*dst.Dim]...)
		}
		return
	}
	src := s.rows.Column(dst.FieldID)
	for _, r := range rows {
		dst.AppendRow(src, int(r))
	}
}

func (s *Sealed) keyOrder(rows []uint32) []uint32 {
	if s.order == nil {
		slices.Sort(rows)
		return rows
	}
	keys := s.rows.Column(s.pk.ID)
	slices.SortFunc(rows, func(a, b uint32) int {
		if c := compareKeys(keys, int(a), keys, int(b)); c != 0 {
			return c
		}
		return cmp.Compare(b, a)
	})
	return rows
}

func (s *Sealed) timestamp(row uint32) uint64 { return s.rows.Timestamps[row] }

func (s *Sealed) key(row uint32) (int64, string) {
	c := s.rows.Column(s.pk.ID)
	if c.Type == schema.VarChar {
		return 0, c.Str[row]
	}
	return c.Int[row], ""
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

func (s *Sealed) uniqueKeys() bool { return s.unique }

func (s *Sealed) bytes() int64 {
	return s.rows.Bytes() + 4*int64(len(s.order)) + s.deletes.bytes()
}

func (s *Sealed) describe(st *SegmentStatus) {
	st.State, st.Rows = "loaded", s.rows.Rows
	st.MappedBytes, _ = s.file.Bytes()
	if st.Rows > 0 {
		st.MinTimestamp, st.MaxTimestamp = s.rows.Timestamps[0], s.rows.Timestamps[st.Rows-1]
	}
	for id := range s.metrics {
		st.Indexes[id] = "FLAT"
		if s.graphs[id] != nil {
			st.Indexes[id] = "HNSW"
		}
	}
}

// close unmaps the files and removes them. No reader may be left.
func (s *Sealed) close() error {
	s.heap.Release()
	s.mapped.Release()
	err := s.file.Close()
	return errors.CombineErrors(err, errors.Wrap(os.RemoveAll(s.dir), "remove segment files"))
}
