package segments

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// indexRows is the number of rows from which on a column may get an index: fewer are
// read in microseconds.
const indexRows = 16 << 10

// scalarKey names an index of a segment.
type scalarKey struct {
	fieldID int64
	kind    scalarindex.Kind
	path    string // of scalarindex.Paths: as in ["a"][0]
}

// maxPaths is how many indexes of paths a segment has at most: filters may name any number of them.
const maxPaths = 32

// maxCounted is of how many paths that have no index a segment counts what they would save, and of how
// many it knows that they can have none.
const maxCounted = 128

// scalarCost is about what building an index costs for each row.
func scalarCost(kind scalarindex.Kind) (nanos int64) {
	switch kind {
	case scalarindex.Words:
		return 2500
	case scalarindex.Elements:
		return 400
	case scalarindex.Grams:
		return 4000
	case scalarindex.Paths:
		return 800
	}
	return 200
}

// scalarRoom is about the memory that building an index over c takes.
func scalarRoom(kind scalarindex.Kind, path string, c *schema.Column) int64 {
	rows, text := int64(c.Rows()), textBytes(c)
	switch kind {
	case scalarindex.Words:
		return 80*rows + 2*text
	case scalarindex.Elements:
		return 40*rows + 2*c.Elements(0, c.Rows()).Bytes()
	case scalarindex.Grams:
		return 120*rows + 2*text
	case scalarindex.Paths:
		return scalarindex.PathRoom(c.Rows()) + pathTexts(c) + pathElements(c, path)
	}
	return 28 * rows
}

func textBytes(c *schema.Column) (n int64) {
	for _, s := range c.Str {
		n += int64(len(s))
	}
	return n
}

// pathTexts is how much an index of a path may copy of the documents: texts that have escapes. Short ones all have
// room; with longer ones a path has no index, as it would take as much memory as the column.
func pathTexts(c *schema.Column) int64 {
	text := textBytes(c)
	return min(text, 64*int64(c.Rows())+text/8)
}

// pathElements is how much an index of a path may take for the elements of arrays: at most as much as two a row that
// no other has, or thirty that many have.
func pathElements(c *schema.Column, path string) int64 {
	return min(expr.ElementsRoom(c, path), 256*int64(c.Rows()))
}

// scalarIndexes are the indexes over the columns of a sealed segment. One is built when the
// filters that had to read its column have cost as much as the build will: then an index
// costs at most twice what the best choice in hindsight would, and columns that nobody
// filters by cost nothing.
type scalarIndexes struct {
	built  atomic.Pointer[map[scalarKey]scalarindex.Index]
	memory *Reservation
	mu     struct {
		sync.Mutex
		spent map[scalarKey]int64 // nanoseconds, by filters, since the last try
		paths map[scalarKey]int64 // the same, of paths
		never map[scalarKey]bool  // there can be none
		built int                 // indexes of paths
	}
}

func newScalarIndexes(l *Ledger) *scalarIndexes {
	x := &scalarIndexes{memory: l.Force(KindSealed, 0)}
	x.mu.spent, x.mu.paths, x.mu.never = map[scalarKey]int64{}, map[scalarKey]int64{}, map[scalarKey]bool{}
	return x
}

// Index returns the index, nil if there is none.
func (x *scalarIndexes) Index(fieldID int64, kind scalarindex.Kind) scalarindex.Index {
	return (*x.built.Load())[scalarKey{fieldID: fieldID, kind: kind}]
}

// Path returns the index of a path, nil if there is none.
func (x *scalarIndexes) Path(fieldID int64, path string) *scalarindex.Path {
	p, _ := (*x.built.Load())[scalarKey{fieldID, scalarindex.Paths, path}].(*scalarindex.Path)
	return p
}

func (x *scalarIndexes) any() bool { return x.built.Load() != nil }

func (x *scalarIndexes) has(k scalarKey) bool {
	built := x.built.Load()
	return built != nil && (*built)[k] != nil
}

// add publishes an index.
func (x *scalarIndexes) add(k scalarKey, ix scalarindex.Index) {
	next := map[scalarKey]scalarindex.Index{k: ix}
	if old := x.built.Load(); old != nil {
		maps.Copy(next, *old)
	}
	x.built.Store(&next)
	x.mu.Lock()
	defer x.mu.Unlock()
	if delete(x.mu.paths, k); k.path != "" {
		x.mu.built++
	}
}

// takes reports whether an index may be built.
func (x *scalarIndexes) takes(k scalarKey) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.takesLocked(k)
}

func (x *scalarIndexes) takesLocked(k scalarKey) bool {
	return !x.mu.never[k] && (k.path == "" || x.mu.built < maxPaths)
}

// rule notes that there can be no such index: the rows of the segment stay what they are.
func (x *scalarIndexes) rule(k scalarKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if delete(x.mu.paths, k); len(x.mu.never) >= maxCounted {
		for old := range x.mu.never { // any: it is tried again when filters have paid for that
			delete(x.mu.never, old)
			break
		}
	}
	x.mu.never[k] = true
}

// dropLocked forgets the path that has the least, and takes that off the others: what
// they have from long ago does not keep a new one out for ever.
func (x *scalarIndexes) dropLocked() {
	var least scalarKey
	for k, n := range x.mu.paths {
		if least.path == "" || n < x.mu.paths[least] {
			least = k
		}
	}
	n := x.mu.paths[least]
	delete(x.mu.paths, least)
	if n > 0 {
		for k := range x.mu.paths {
			x.mu.paths[k] -= n
		}
	}
}

// pay notes that a filter cost so many nanoseconds that the index would have
// saved, and reports whether the index is due.
func (x *scalarIndexes) pay(k scalarKey, nanos, price int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.takesLocked(k) {
		return false
	}
	spent := x.mu.spent
	if k.path != "" {
		spent = x.mu.paths
		if _, ok := spent[k]; !ok && len(spent) >= maxCounted {
			x.dropLocked()
		}
	}
	spent[k] += nanos
	if spent[k] < price {
		return false
	}
	spent[k] = -8 * price // should it fail, the next try is far
	return true
}

// describe lists the indexes by field.
func (x *scalarIndexes) describe(st *SegmentStatus) {
	built := x.built.Load()
	if built == nil {
		return
	}
	byField := map[int64][]string{}
	for k := range *built {
		byField[k.fieldID] = append(byField[k.fieldID], k.kind.String()+k.path)
	}
	for id, kinds := range byField {
		slices.Sort(kinds)
		st.Indexes[id] = strings.Join(kinds, "+")
	}
}

// wish tells the builder which indexes a filter over n rows of the segment would
// have liked to have. The caller's snapshot holds h.
func (s *Set) wish(h *holder, m *match, n int) {
	sealed, ok := h.segment.(*Sealed)
	if !ok || sealed.rows.Rows < s.indexAfter || m.only {
		return
	}
	m.plan.Wants(func(fieldID int64, kind scalarindex.Kind, path string, cost int) {
		k := scalarKey{fieldID, kind, path}
		if sealed.scalars.has(k) || sealed.rows.Column(fieldID) == nil {
			return
		}
		if sealed.scalars.pay(k, int64(cost)*int64(n), scalarCost(kind)*int64(sealed.rows.Rows)) {
			s.scalars.put(h, k)
		}
	})
}

// indexScalars queues the indexes that the collection asks for and segments lack.
func (c *Collection) indexScalars() {
	info := c.info.Load()
	if len(info.Scalars) == 0 {
		return
	}
	snap := c.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		s, ok := h.segment.(*Sealed)
		if !ok {
			continue
		}
		for id, name := range info.Scalars {
			col := s.rows.Column(id)
			if col == nil {
				continue
			}
			if col.Type == schema.JSON { // built when filters have paid for it
				continue
			}
			k := scalarKey{fieldID: id, kind: scalarindex.Order}
			switch {
			case col.Type == schema.Array:
				k.kind = scalarindex.Elements
			case name == indexNgram:
				k.kind = scalarindex.Grams
			}
			if !s.scalars.has(k) {
				c.set.scalars.put(h, k)
			}
		}
	}
}

// indexNgram is the type of an index of the pieces of texts.
const indexNgram = "NGRAM"

// scalarBuilder builds the indexes that are due, one after the other.
type scalarBuilder struct {
	set  *Set
	wake chan struct{}
	mu   struct {
		sync.Mutex
		pending []scalarJob
		closed  bool
	}
}

// scalarJob is an index to be built; it holds its segment.
type scalarJob struct {
	holder *holder
	key    scalarKey
}

func newScalarBuilder(s *Set) *scalarBuilder {
	return &scalarBuilder{set: s, wake: make(chan struct{}, 1)}
}

// put queues a job; the caller holds h.
func (b *scalarBuilder) put(h *holder, k scalarKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return
	}
	h.refs.Add(1)
	b.mu.pending = append(b.mu.pending, scalarJob{h, k})
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *scalarBuilder) take() (j scalarJob, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.pending) == 0 {
		return j, false
	}
	j, b.mu.pending = b.mu.pending[0], b.mu.pending[1:]
	return j, true
}

// releaseAll lets go of what is pending; nothing is taken on afterwards.
func (b *scalarBuilder) releaseAll() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	for j, ok := b.take(); ok; j, ok = b.take() {
		b.set.unref(j.holder)
	}
}

func (b *scalarBuilder) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		for j, ok := b.take(); ok; j, ok = b.take() {
			b.build(ctx, j)
		}
	}
}

func (b *scalarBuilder) build(ctx context.Context, j scalarJob) {
	defer b.set.unref(j.holder)
	s := j.holder.segment.(*Sealed)
	err := lifecycle.Call("build scalar index", func() error { return s.buildScalar(ctx, j.key) })
	if err == nil {
		b.set.changed()
	}
	if err != nil && ctx.Err() == nil {
		// Without it filters read the column, as before.
		b.set.o.Logger.Warn("segments: no scalar index for now", "segment", s.meta.ID, "field", j.key.fieldID, "index", j.key.kind.String(), "error", err)
	}
}

// buildScalar builds and publishes an index, if memory allows.
func (s *Sealed) buildScalar(ctx context.Context, k scalarKey) error {
	if ctx.Err() != nil || s.scalars.has(k) || !s.scalars.takes(k) {
		return ctx.Err()
	}
	c := s.rows.Column(k.fieldID)
	room, err := s.ledger.Reserve(KindSealed, scalarRoom(k.kind, k.path, c))
	if err != nil {
		return err
	}
	defer room.Release()
	ix, err := newScalarIndex(ctx, k, c, s.latest())
	if err != nil {
		return err
	}
	if ix == nil {
		s.scalars.rule(k)
		return nil
	}
	if err := s.scalars.memory.Grow(ix.Bytes()); err != nil {
		return err
	}
	s.scalars.add(k, ix)
	return nil
}

// newScalarIndex builds an index over c; nil if there is none of the kind for
// its type.
func newScalarIndex(ctx context.Context, k scalarKey, c *schema.Column, latest *schema.Schema) (scalarindex.Index, error) {
	kind, text := k.kind, c.Type == schema.VarChar
	switch {
	case kind == scalarindex.Paths && c.Type == schema.JSON:
		p, err := expr.IndexPath(ctx, c, k.path, pathTexts(c), pathElements(c, k.path))
		if err != nil || p == nil {
			return nil, err
		}
		return p, nil
	case kind == scalarindex.Order && c.Type.IsInt():
		return scalarindex.NewOrdered(ctx, c.Int, c.Valid)
	case kind == scalarindex.Order && c.Type == schema.Float:
		return scalarindex.NewOrdered(ctx, c.Float, c.Valid)
	case kind == scalarindex.Order && c.Type == schema.Double:
		return scalarindex.NewOrdered(ctx, c.Double, c.Valid)
	case kind == scalarindex.Order && text:
		return scalarindex.NewOrdered(ctx, c.Str, c.Valid)
	case kind == scalarindex.Words && text:
		f, _ := latest.FieldByID(c.FieldID)
		a, err := analyze.New(f.Analyzer)
		if err != nil {
			return nil, errors.Wrapf(err, "field %q", f.Name)
		}
		return scalarindex.NewText(ctx, a, c.Str, c.Valid)
	case kind == scalarindex.Grams && text:
		return scalarindex.NewTrigrams(ctx, c.Str, c.Valid)
	case kind == scalarindex.Elements && c.Type == schema.Array:
		return newMembers(ctx, c)
	}
	return nil, nil
}

func newMembers(ctx context.Context, c *schema.Column) (scalarindex.Index, error) {
	switch {
	case c.Element == schema.Bool:
		return scalarindex.NewMembers(ctx, c.Bool, c.Offsets, c.Valid)
	case c.Element == schema.Float:
		return scalarindex.NewMembers(ctx, c.Float, c.Offsets, c.Valid)
	case c.Element == schema.Double:
		return scalarindex.NewMembers(ctx, c.Double, c.Offsets, c.Valid)
	case c.Element == schema.VarChar:
		return scalarindex.NewMembers(ctx, c.Str, c.Offsets, c.Valid)
	}
	return scalarindex.NewMembers(ctx, c.Int, c.Offsets, c.Valid)
}
