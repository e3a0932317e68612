package segments

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// growingVectors holds one vector field of a growing segment in one contiguous
// piece of memory that the kernels can address, and the lists of its first rows.
type growingVectors struct {
	fieldID int64
	typ     schema.Type
	dim     int
	width   int // bytes of a row
	metric  index.Metric
	exact   bool // never build lists: the index type is FLAT, or it is no field for them
	kernels vec.Kernels
	lengths vec.Distance   // of raw vectors, for their norms
	sparse  *growingSparse // of a sparse field; then nothing below is used

	arena atomic.Pointer[arena]
	norms atomic.Pointer[arena] // Cosine: inverse norm per row; else nil
	valid atomic.Pointer[arena] // of a nullable field: a byte per row, 0 = null; else nil
	old   []*arena              // outgrown ones that readers may still hold; writer only

	lists  atomic.Pointer[growingLists] // nil until the builder made some
	ledger *Ledger
	notYet int // builder only: rows at which to ask again for memory that was refused
}

func newGrowingVectors(f schema.Field, ix VectorIndex, rows int, l *Ledger) (*growingVectors, error) {
	v := &growingVectors{
		fieldID: f.ID, typ: f.Type, dim: f.Dim, width: f.Type.RowBytes(f.Dim), metric: ix.Metric,
		exact: ix.Type == indexFlat || f.Type != schema.FloatVector || f.Nullable, kernels: vec.Detect(), ledger: l,
	}
	if f.Type == schema.SparseFloatVector {
		v.sparse = newGrowingSparse(f, ix.Metric == index.BM25)
		return v, nil
	}
	var err error
	if f.Type != schema.FloatVector && v.metric == index.Cosine {
		if v.lengths, err = distanceOf(v.kernels, f.Type, v.metric, f.Dim); err != nil {
			return nil, err
		}
	}
	for p, room := range map[*atomic.Pointer[arena]]int{&v.arena: v.floats(rows), &v.norms: rows, &v.valid: byteFloats(rows)} {
		if p == &v.norms && v.metric != index.Cosine || p == &v.valid && !f.Nullable {
			continue
		}
		a, err := newArena(room)
		if err != nil {
			_ = v.close()
			return nil, err
		}
		p.Store(a)
	}
	return v, nil
}

// floats is how many values of an arena so many rows take.
func (v *growingVectors) floats(rows int) int { return byteFloats(rows * v.width) }

// byteFloats is how many values of an arena n bytes take.
func byteFloats(n int) int { return (n + 3) / 4 }

// data is the memory of all rows; only published ones may be read.
func (v *growingVectors) data() []float32 { return v.arena.Load().floats }

// invNorms is the inverse norm of each row, nil if the metric does not need it.
func (v *growingVectors) invNorms() []float32 {
	if n := v.norms.Load(); n != nil {
		return n.floats
	}
	return nil
}

// needs is the memory that n rows after the first take, those of col; see of. A piece
// of memory that is outgrown stays until the segment is closed, so its copy counts
// again.
func (v *growingVectors) needs(col *schema.Column, first, n int) int64 {
	if v.sparse != nil {
		return v.sparse.needs(col)
	}
	bytes := int64(0)
	if col != nil {
		bytes = int64(n) * int64(v.width)
		if v.metric == index.Cosine {
			bytes += 4 * int64(n)
		}
		if v.valid.Load() != nil {
			bytes += int64(n)
		}
	}
	if v.floats(first+n) > len(v.data()) {
		bytes += int64(first) * int64(v.width)
	}
	return bytes
}

// of is the field's column of b. If b was written without the field, or after it was
// dropped, that is nil, which stands for nulls, or for rows that nobody reads: fresh memory
// says so, and none is taken. Rows of a sparse field lie one behind the other, and have to
// be written.
func (v *growingVectors) of(b *schema.Batch) *schema.Column {
	c := b.Column(v.fieldID)
	if c == nil && v.sparse != nil {
		c = &schema.Column{FieldID: v.fieldID, Type: v.typ, Dim: v.dim}
		nullVectors{}.gather(c, make([]uint32, b.Rows))
	}
	return c
}

// nullBytes is the memory that n rows take before the first that is not null: pages
// that nobody writes to are none.
func (v *growingVectors) nullBytes(n int) int64 {
	if v.sparse != nil {
		return 10 * int64(n)
	}
	return int64(n)
}

// appendNulls makes the first n rows null; there are none yet. Fresh memory says so.
func (v *growingVectors) appendNulls(n int) {
	if v.sparse == nil {
		return
	}
	c := v.sparse.rows.Load().New()
	nullVectors{}.gather(c, make([]uint32, n))
	v.sparse.append(c, 0)
}

// vectors is the memory of all rows, for scans.
func (v *growingVectors) vectors() vectors {
	if v.typ == schema.FloatVector {
		return vectors{base: v.data(), inv: v.invNorms(), dim: v.dim}
	}
	return vectors{raw: v.arena.Load().bytes(), typ: v.typ, inv: v.invNorms(), dim: v.dim}
}

// present returns the rows of allowed (nil = all) among the first n whose vector
// is not null; nil = all of them.
func (v *growingVectors) present(allowed *bitset.Set, n int, sc *scratch) *bitset.Set {
	a := v.valid.Load()
	if a == nil {
		return allowed
	}
	return sc.among(allowed, n, func(set *bitset.Set) {
		for row, ok := range a.bytes()[:n] {
			if ok != 0 {
				set.Add(row)
			}
		}
	})
}

// gather appends the vectors of rows to dst.
func (v *growingVectors) gather(dst *schema.Column, rows []uint32) {
	if v.sparse != nil {
		src := v.sparse.rows.Load()
		for _, r := range rows {
			dst.AppendRow(src, int(r))
		}
		return
	}
	a := v.arena.Load()
	src := &schema.Column{FieldID: v.fieldID, Type: v.typ, Dim: v.dim, Float: a.floats}
	if v.typ != schema.FloatVector {
		src.Float, src.Raw = nil, a.bytes()
	}
	var null func(uint32) bool
	if valid := v.valid.Load(); valid != nil {
		flags := valid.bytes()
		null = func(row uint32) bool { return flags[row] == 0 }
	}
	gatherVectors(dst, src, rows, null)
}

// room makes room for n rows after the first.
func (v *growingVectors) room(first, n int) error {
	if v.sparse != nil {
		return nil
	}
	if err := v.widen(&v.arena, v.floats(first), v.floats(first+n)); err != nil {
		return err
	}
	if v.valid.Load() != nil {
		if err := v.widen(&v.valid, byteFloats(first), byteFloats(first+n)); err != nil {
			return err
		}
	}
	if v.norms.Load() == nil {
		return nil
	}
	return v.widen(&v.norms, first, first+n)
}

// widen replaces the memory by one of twice the size if need values do not fit.
func (v *growingVectors) widen(p *atomic.Pointer[arena], used, need int) error {
	a := p.Load()
	if need <= len(a.floats) {
		return nil
	}
	bigger, err := newArena(max(need, 2*len(a.floats)))
	if err != nil {
		return err
	}
	copy(bigger.floats, a.floats[:used])
	v.old = append(v.old, a)
	p.Store(bigger)
	return nil
}

// append copies rows, those of col, to where room has made room for them; see of.
func (v *growingVectors) append(col *schema.Column, first, n int) {
	switch {
	case v.sparse != nil:
		v.sparse.append(col, first)
		return
	case col == nil:
		return
	}
	if a := v.valid.Load(); a != nil {
		for i, flags := 0, a.bytes(); i < n; i++ {
			flags[first+i] = 1
			if col.Null(i) {
				flags[first+i] = 0
			}
		}
	}
	if v.typ != schema.FloatVector {
		v.appendRaw(col, first, n)
		return
	}
	base := v.data()
	copy(base[first*v.dim:(first+n)*v.dim], col.Float)
	if inv := v.invNorms(); inv != nil {
		for r := first; r < first+n; r++ {
			inv[r] = v.kernels.InvNorm(base[r*v.dim : (r+1)*v.dim])
		}
	}
}

// appendRaw is append for vectors that are not float32.
func (v *growingVectors) appendRaw(col *schema.Column, first, n int) {
	rows := v.arena.Load().bytes()[first*v.width : (first+n)*v.width]
	copy(rows, col.Raw)
	if inv := v.invNorms(); inv != nil {
		for i := range n {
			inv[first+i] = inverse(v.lengths.Norm(rows[i*v.width : (i+1)*v.width]))
		}
	}
}

// nearest merges what lists have of their rows with a scan of the others.
func (v *growingVectors) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	if v.sparse != nil {
		return sc.scanSparse(v.sparse.terms(q, sc), n, q, allowed)
	}
	rows := v.vectors()
	allowed = v.present(allowed, n, sc)
	x := v.listsFor(q, n, allowed)
	if x == nil {
		return sc.scan(rows, q.from, n, q, allowed)
	}
	st := x.state.Load()
	s, err := sc.searchLists(x, st, rows, q, q.vector, n, allowed)
	if err != nil {
		return nil, err
	}
	found := s.found(0)
	if st.rows >= n {
		return found, nil
	}
	rest, err := sc.scan(rows, st.rows, n, q, allowed)
	if err != nil {
		return nil, err
	}
	return sc.merge(found, rest, q.k), nil
}

// nearestEach is nearest for each of the vectors, which lie one behind the other. What is
// found is left in sc.batch.
func (v *growingVectors) nearestEach(q *nearestQuery, vectors []float32, n int, allowed *bitset.Set, sc *scratch) error {
	rows := v.vectors()
	allowed = v.present(allowed, n, sc)
	x, rest, st := v.listsFor(q, n, allowed), *q, &listsState{}
	if x != nil {
		st = x.state.Load()
		rest.from = min(st.rows, n)
	}
	step := min(listQueries, max(1, scanHeaps/max(q.k, 1)))
	for from := 0; from < len(vectors)/v.dim; from += step {
		some := vectors[from*v.dim : min((from+step)*v.dim, len(vectors))]
		one, count := *q, len(some)/v.dim
		one.number += from
		err := sc.scanEach(count, func(i int, q *nearestQuery) { q.vector = some[i*v.dim:][:v.dim] }, &rest, rows, n, allowed)
		if err != nil {
			return err
		}
		var s *listSearch
		if x != nil {
			if s, err = sc.searchLists(x, st, rows, &one, some, n, allowed); err != nil {
				return err
			}
		}
		for i := range count {
			var found []index.Neighbor
			if s != nil {
				found = s.found(i)
			}
			sc.rest = sc.scans.tops[i].AppendSorted(sc.rest[:0])
			sc.batch.add(from+i, sc.merge(found, sc.rest, q.k))
		}
	}
	return nil
}

// listsFor returns the lists if they are worth reading for q among n rows, of which those
// in allowed (nil = all) count, or nil.
func (v *growingVectors) listsFor(q *nearestQuery, n int, allowed *bitset.Set) *growingLists {
	if q.exact || v.metric != q.metric || 4*listRank(q.k) > n || allowed != nil && fewAllowed*allowed.Count() < n {
		return nil
	}
	return v.lists.Load()
}

func (v *growingVectors) listsBytes() int64 {
	if x := v.lists.Load(); x != nil {
		return x.memory.size()
	}
	return 0
}

func (v *growingVectors) close() error {
	if x := v.lists.Load(); x != nil {
		x.memory.Release()
	}
	var errs error
	for _, a := range append(v.old, v.arena.Load(), v.norms.Load(), v.valid.Load()) {
		if a == nil {
			continue
		}
		if err := a.close(); err != nil {
			errs = errclass.Wrap(err, errclass.Internal, "vectors of field %d", v.fieldID)
		}
	}
	return errs
}
