package segments

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sort"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/internal/vec"
)

// Sealed is an immutable segment: mapped files, and its scalars and keys in memory.
type Sealed struct {
	meta    Meta
	dir     string // removed on close
	file    *segfile.Segment
	rows    *schema.Batch // scalar columns and timestamps
	pk      schema.Field
	latest  func() *schema.Schema // of the collection; may gain fields
	keys    *schema.Column        // of rows
	deletes *deletes
	vectors []*sealedVectors
	order   []uint32 // rows by key, newest of a key first; nil = row order is key order
	oldest  uint64   // timestamp of the first row
	newest  uint64   // of the last
	since   uint64   // rows that are older count as written then
	scalars *scalarIndexes
	matched *matched

	tier    *tier
	spilled int64 // bytes of rows and order that are in a mapped file; 0 = the segment is warm

	heap    *Reservation // rows, keys
	removed *Reservation // what deletes hides
	mapped  *Reservation
	ledger  *Ledger
}

// sealedVectors is one vector field of a sealed segment. What is mapped is there
// while somebody has a claim on files.
type sealedVectors struct {
	fieldID int64
	typ     schema.Type
	texts   bool // a function of type BM25 makes the field
	dim     int
	rows    int
	valid   *bitset.Set // rows whose vector is not null; nil = all
	info    index.Info  // of the index; zero = there is none, it is searched exactly

	files   *fieldFiles // nil = they are in the segment's folder while it is open
	file    *segfile.Segment
	base    []float32      // mapped, row after row
	raw     []byte         // the same, of vectors that are not float32
	sparse  *sealedSparse  // of a sparse field; then there is neither of these, nor an index
	index   index.Searcher // nil = searched exactly
	mapped  *Reservation
	ledger  *Ledger
	read    int64        // bytes of the files that searches read all over
	built   *Reservation // what the index takes besides
	learned learned

	// The inverse norms are computed by the first search that needs them: Cosine
	// without the graph.
	once   sync.Once
	inv    []float32
	memory *Reservation
}

// openSealed opens the segment in dir but for its vectors and indexes. The caller owns
// dir until it succeeds.
func openSealed(ctx context.Context, dir string, info CollectionInfo, latest func() *schema.Schema, l *Ledger) (_ *Sealed, err error) {
	file, err := segfile.Open(dir, segfile.Options{WillNeed: true, HugePages: true, Apart: true})
	if err != nil {
		return nil, err
	}
	m := file.Manifest()
	s := &Sealed{
		meta: Meta{ID: m.SegmentID, CollectionID: m.CollectionID, PartitionID: m.PartitionID, VChannel: m.VChannel},
		dir:  dir, file: file, pk: info.Schema.Primary(), latest: latest, ledger: l, removed: l.Force(KindSealed, 0),
		scalars: newScalarIndexes(l), matched: newMatched(l), tier: newTier(),
	}
	opened := false
	defer func() {
		// Deferred, because a damaged file may fault while it is read.
		if !opened {
			s.removed.Release()
			for _, v := range s.vectors {
				v.memory.Release()
			}
			err = errors.CombineErrors(err, file.Close())
		}
	}()
	s.deletes = newDeletes(int(m.Rows), s.removed)
	if s.rows, err = file.Rows(ctx); err != nil {
		return nil, err
	}
	if !slices.IsSorted(s.rows.Timestamps) {
		return nil, errclass.New(errclass.Corrupt, "segment %d: rows are not in timestamp order", m.SegmentID)
	}
	if n := s.rows.Rows; n > 0 {
		s.oldest, s.newest = s.rows.Timestamps[0], s.rows.Timestamps[n-1]
	}
	if s.keys = s.rows.Column(s.pk.ID); s.keys == nil {
		return nil, errclass.New(errclass.Corrupt, "segment %d has no keys", m.SegmentID)
	}
	if err = s.openVectors(info); err != nil {
		return nil, err
	}
	s.sortKeys()
	if err = s.applyOwnDeletes(); err != nil {
		return nil, err
	}
	opened = true
	return s, nil
}

// writtenSince says that rows whose files say they are older count as written at ts.
// Called before anybody reads the segment and before deletes are applied, but for the
// segment's own: these hide rows as they are in the files.
func (s *Sealed) writtenSince(ts uint64) {
	s.since = ts
	if s.rows.Rows > 0 {
		s.oldest, s.newest = max(s.oldest, ts), max(s.newest, ts)
	}
}

// checkSchema reports whether a segment written with schema have can be searched
// as one of a collection with schema want: fields they share are the same, and
// what the segment lacks can be null.
func checkSchema(have, want *schema.Schema) error {
	for _, f := range want.Columns() {
		h, ok := have.FieldByID(f.ID)
		switch {
		case ok && (h.Type != f.Type || h.Element != f.Element || h.Dim != f.Dim || h.PrimaryKey != f.PrimaryKey):
			return errclass.New(errclass.Corrupt, "field %q is %s of dimension %d in the segment, %s of %d in the collection", f.Name, h.Type, h.Dim, f.Type, f.Dim)
		case !ok && !f.MayBeAbsent() && have.Version > want.Version: // it was dropped, which is news here
			return errclass.New(errclass.Retryable, "the segment has version %d of the schema, this node knows version %d", have.Version, want.Version)
		case !ok && !f.MayBeAbsent():
			return errclass.New(errclass.Corrupt, "the segment lacks field %q, which cannot be null and has no default value", f.Name)
		}
	}
	return nil
}

// dropped reports whether a field of a segment with schema have is not to be read in a
// collection with schema want. One that this node does not know yet is read once it does.
func dropped(f schema.Field, have, want *schema.Schema) bool {
	_, known := want.FieldByID(f.ID)
	return !known && have.Version <= want.Version
}

func (s *Sealed) openVectors(info CollectionInfo) error {
	have := s.file.Manifest().Schema
	for _, f := range have.Fields {
		if !f.Type.IsVector() || dropped(f, &have, info.Schema) {
			continue
		}
		v := &sealedVectors{fieldID: f.ID, typ: f.Type, texts: ofTexts(info.Schema, f.ID), dim: f.Dim, rows: s.rows.Rows, memory: s.ledger.Force(KindSealed, 0),
			ledger: s.ledger, mapped: s.ledger.Force(KindMapped, 0), built: s.ledger.Force(KindSealed, 0)}
		v.learned.memory = s.ledger.Force(KindSealed, 0)
		s.vectors = append(s.vectors, v)
		if err := s.describeField(v); err != nil {
			return errclass.Wrap(err, errclass.Corrupt, "segment %d: field %q", s.meta.ID, f.Name)
		}
	}
	return nil
}

// describeField finds out which vectors of a field are null, and how it is indexed.
func (s *Sealed) describeField(v *sealedVectors) error {
	if flags := s.file.Valid(v.fieldID); flags != nil {
		v.valid = &bitset.Set{}
		v.valid.Reset(len(flags))
		for row, ok := range flags {
			if ok != 0 {
				v.valid.Add(row)
			}
		}
		v.memory.Commit(int64(len(flags)+7) / 8)
	}
	files := s.file.Manifest().FieldFiles(v.fieldID)
	if len(files) == 0 {
		return errors.New("there are no vectors")
	}
	for _, f := range files {
		if f.Kind != segfile.KindIndex || !Indexable(v.typ) {
			continue
		}
		m, err := index.ParseMetric(f.Index.Metric)
		if err != nil {
			return errors.Wrap(err, "index")
		}
		v.info = index.Info{Kind: index.Kind(f.Index.Type), Metric: m, Dim: v.dim, Rows: v.rows}
	}
	return nil
}

// openAll maps the vectors and indexes of a segment whose files are all in its folder.
func (s *Sealed) openAll() error {
	for _, v := range s.vectors {
		if err := v.openAs(s.file, segfile.Options{WillNeed: true, HugePages: true, Scattered: v.ranksByCodes()}); err != nil {
			return errors.Wrapf(err, "segment %d: field %d", s.meta.ID, v.fieldID)
		}
	}
	return nil
}

func (v *sealedVectors) openDense() error {
	v.raw = v.file.RawVectors(v.fieldID)
	if want := v.rows * v.typ.RowBytes(v.dim); len(v.raw) != want {
		return errors.Newf("%d bytes, want %d for %d rows of %s of dimension %d", len(v.raw), want, v.rows, v.typ, v.dim)
	}
	if v.typ == schema.FloatVector {
		v.base, v.raw = v.file.Vectors(v.fieldID), nil
	}
	_, image, ok := v.file.Index(v.fieldID)
	if !ok || !Indexable(v.typ) {
		return nil
	}
	x, err := index.Open(image, v.base) // without vectors if they are not of float32
	if err != nil {
		return errors.Wrap(err, "index")
	}
	switch i := x.Info(); {
	case i.Rows != v.rows || i.Dim != v.dim:
		return errors.Newf("the index holds %d rows of dimension %d, the segment has %d of %d", i.Rows, i.Dim, v.rows, v.dim)
	case i.Kind != v.info.Kind || i.Metric != v.info.Metric:
		return errors.Newf("the index is %s by %s, the manifest says %s by %s", i.Kind, i.Metric, v.info.Kind, v.info.Metric)
	}
	v.index = x
	v.learned.begin(x)
	return nil
}

// sortKeys finds out the order of the keys (often the rows are in it already),
// and hides rows that have a newer one of the same key.
func (s *Sealed) sortKeys() {
	sorted := true
	for r := 1; r < s.rows.Rows && sorted; r++ {
		sorted = compareKeys(s.keys, r-1, s.keys, r) < 0
	}
	if sorted {
		return
	}
	s.order = make([]uint32, s.rows.Rows)
	for i := range s.order {
		s.order[i] = uint32(i)
	}
	slices.SortFunc(s.order, func(a, b uint32) int {
		if c := compareKeys(s.keys, int(a), s.keys, int(b)); c != 0 {
			return c
		}
		return cmp.Compare(b, a)
	})
	var hide []hiddenRow
	for i := 1; i < len(s.order); i++ {
		newer, row := s.order[i-1], s.order[i]
		if compareKeys(s.keys, int(newer), s.keys, int(row)) == 0 {
			hide = append(hide, hiddenRow{ts: s.rows.Timestamps[newer], row: row})
		}
	}
	s.deletes.apply(hide)
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
	if keys.Type != s.pk.Type {
		return errclass.New(errclass.Corrupt, "segment %d: deletes of keys of type %s, want %s", s.meta.ID, keys.Type, s.pk.Type)
	}
	s.applyDeletes(&DeleteBatch{Keys: keys, Timestamps: ts})
	return nil
}

// Meta says what the segment is.
func (s *Sealed) Meta() Meta { return s.meta }

// applyDeletes hides the rows of keys that are older than their delete.
func (s *Sealed) applyDeletes(d *DeleteBatch) {
	if d.Partition == 0 || d.Partition == s.meta.PartitionID {
		s.deletes.apply(s.named(d, nil))
	}
}

// named appends the rows that deletes of the segment's partition hide to hide.
func (s *Sealed) named(d *DeleteBatch, hide []hiddenRow) []hiddenRow {
	for _, i := range s.mayHave(d.Keys) {
		ts := d.Timestamps[i]
		for at := s.find(d.Keys, i); at < s.rows.Rows; at++ {
			row := s.byKey(at)
			if compareKeys(s.keys, int(row), d.Keys, i) != 0 {
				break
			}
			if s.timestamp(row) < ts {
				hide = append(hide, hiddenRow{ts: ts, row: row})
			}
		}
	}
	return hide
}

// mayHave returns the numbers of those keys that the segment may hold.
func (s *Sealed) mayHave(keys *schema.Column) []int {
	var some []int
	err := guard("key filter", func() (err error) {
		some, err = s.file.MayHave(keys, make([]int, 0, 64))
		return err
	})
	if err == nil {
		return some
	}
	// The filter saves time only: without it every key is looked for.
	some = some[:0]
	for i := range keys.Rows() {
		some = append(some, i)
	}
	return some
}

// find returns where in key order the rows of key i of keys begin, or would.
func (s *Sealed) find(keys *schema.Column, i int) int {
	return sort.Search(s.rows.Rows, func(at int) bool { return compareKeys(s.keys, int(s.byKey(at)), keys, i) >= 0 })
}

func (s *Sealed) byKey(i int) uint32 {
	if s.order == nil {
		return uint32(i)
	}
	return s.order[i]
}

// What a sealed segment takes however few rows it has, and each vector field of it.
const (
	segmentBytes = 6 << 10
	fieldBytes   = 2 << 10
)

// emptyBytes is what a segment of m takes besides its rows.
func emptyBytes(m *segfile.Manifest) int64 {
	n := int64(segmentBytes)
	for _, f := range m.Schema.Fields {
		if f.Type.IsVector() {
			n += fieldBytes
		}
	}
	return n
}

// fixedBytes is the memory that does not change while the segment is open.
func (s *Sealed) fixedBytes() int64 {
	return emptyBytes(s.file.Manifest()) + max(0, s.rows.Bytes()+4*int64(len(s.order))-s.spilled)
}

func (s *Sealed) bytes() int64 {
	n := s.heap.size() + s.removed.size() + s.scalars.memory.size() + s.matched.memory.size()
	for _, v := range s.vectors {
		n += v.memory.size() + v.built.size() + v.learned.memory.size()
	}
	return n
}

// mappedBytes is what is mapped of files.
func (s *Sealed) mappedBytes() int64 {
	n := s.mapped.size()
	for _, v := range s.vectors {
		n += v.mapped.size()
	}
	return n
}

// field returns the vectors of a field: all null if the segment was written without it.
func (s *Sealed) field(id int64) fieldVectors {
	if v := s.stored(id); v != nil {
		return v
	}
	return nullVectors{}
}

// stored returns the vectors of a field, nil if the segment was written without it.
func (s *Sealed) stored(id int64) *sealedVectors {
	for _, v := range s.vectors {
		if v.fieldID == id {
			return v
		}
	}
	return nil
}

// present returns the rows of allowed (nil = all) among the first n whose vector
// is not null; nil = all of them.
func (v *sealedVectors) present(allowed *bitset.Set, n int, sc *scratch) *bitset.Set {
	switch {
	case v.valid == nil:
		return allowed
	case allowed == nil && n == v.rows:
		return v.valid
	}
	return sc.among(allowed, n, func(set *bitset.Set) {
		set.Fill()
		set.And(v.valid)
	})
}

// vectorsFor returns the vectors of a field that is not sparse, for a scan by q's
// metric: Cosine needs the inverse norms, which the first search computes.
func (v *sealedVectors) vectorsFor(q *nearestQuery) vectors {
	rows := vectors{base: v.base, raw: v.raw, typ: v.typ, dim: v.dim}
	if q.metric != index.Cosine {
		return rows
	}
	v.once.Do(func() {
		inv := make([]float32, v.rows)
		k := vec.Detect()
		lengths, err := distanceOf(k, v.typ, q.metric, v.dim)
		for r := range inv {
			switch {
			case v.raw == nil:
				inv[r] = k.InvNorm(v.base[r*v.dim : (r+1)*v.dim])
			case err == nil: // else the scan tells
				w := lengths.RowBytes()
				inv[r] = inverse(lengths.Norm(v.raw[r*w : (r+1)*w]))
			}
		}
		v.memory.Commit(v.memory.size() + 4*int64(len(inv)))
		v.inv = inv
	})
	rows.inv = v.inv
	return rows
}

// close unmaps the files and removes them. No reader may be left.
func (s *Sealed) close() error {
	s.scalars.memory.Release()
	last, err := s.tier.leave()
	if !last {
		return err
	}
	s.matched.forget()
	for _, r := range []*Reservation{s.heap, s.removed, s.mapped} {
		r.Release()
	}
	for _, v := range s.vectors {
		if v.files != nil {
			err = errors.CombineErrors(err, v.files.close())
		}
		err = errors.CombineErrors(err, v.shut())
		v.memory.Release()
	}
	s.tier.giveDisk()
	err = errors.CombineErrors(err, s.file.Close())
	return errors.CombineErrors(err, errors.Wrap(os.RemoveAll(s.dir), "remove segment files"))
}
