package segments

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/internal/sparse"
)

// indexSparse is the type of the index of a sparse field in files.
const indexSparse = "SPARSE_INVERTED_INDEX"

// sparseVector is a sparse query.
type sparseVector struct {
	indices []uint32
	values  []float32
}

// scanSparse finds the nearest rows in [q.from, n) that share a dimension with the
// terms. The result is valid until the next scan.
func (sc *scratch) scanSparse(terms []sparse.Term, n int, q *nearestQuery, allowed *bitset.Set) ([]index.Neighbor, error) {
	sq := sparse.Query{K: q.k, From: q.from, To: n, Allowed: allowed, Stop: q.stop, Scorer: sc.scorer(q)}
	if q.bounded {
		sq.Keeps = q.keeps
	}
	found := sc.lists.Search(terms, &sq)
	if q.stop != nil && q.stop.Load() {
		return nil, q.cut()
	}
	way := wayScan
	if allowed != nil {
		way = wayScanMatches
	}
	sc.work.note(way, sc.lists.Scored(), 0)
	return found, nil
}

// sparseDistances computes the distance of every allowed row in [q.from, n) that
// shares a dimension with the terms.
func (sc *scratch) sparseDistances(terms []sparse.Term, n int, q *nearestQuery, allowed *bitset.Set, see visit) error {
	sq := sparse.Query{From: q.from, To: n, Allowed: allowed, Stop: q.stop, Scorer: sc.scorer(q)}
	if err := sc.lists.Each(terms, &sq, see); err != nil {
		return err
	}
	if q.stop != nil && q.stop.Load() {
		return q.cut()
	}
	sc.work.note(wayScan, sc.lists.Scored(), 0)
	return nil
}

// scorer scores the terms that were taken last; nil if they are no words.
func (sc *scratch) scorer(q *nearestQuery) sparse.Scorer {
	if q.scores == nil {
		return nil
	}
	sc.bm25 = *q.scores
	sc.bm25.Ends = sc.ends
	return &sc.bm25
}

// growingSparse is a sparse field of a growing segment: its rows as they came, and
// a list of rows for each dimension.
type growingSparse struct {
	// rows is replaced with each append: values grow behind those that readers know.
	rows atomic.Pointer[schema.Column]
	ends atomic.Pointer[[]uint64] // of texts: row i has ends[i+1]-ends[i] words; else nil

	mu struct {
		sync.RWMutex
		lists map[uint32]*sparse.List
	}
}

func newGrowingSparse(f schema.Field, texts bool) *growingSparse {
	s := &growingSparse{}
	if texts {
		s.ends.Store(&[]uint64{0})
	}
	s.rows.Store(schema.NewColumn(f, 0))
	s.mu.lists = map[uint32]*sparse.List{}
	return s
}

const (
	// sparseBytes is what a value takes: in the rows and in a list, whose memory
	// grows ahead of them.
	sparseBytes = 20
	// listBytes is what a list takes besides.
	listBytes = 160
)

// needs is the memory that the rows of col take. The writer calls it.
func (s *growingSparse) needs(col *schema.Column) int64 {
	n := 10 * int64(col.Rows())
	if s.ends.Load() != nil {
		n += 16 * int64(col.Rows())
	}
	if col.Rows() == 0 {
		return n
	}
	from, to := col.Offsets[0], col.Offsets[col.Rows()]
	n += sparseBytes * int64(to-from)
	fresh := map[uint32]bool{}
	for _, d := range col.Indices[from:to] {
		if s.mu.lists[d] == nil { // only the writer changes the map, so it may look without the lock
			fresh[d] = true
		}
	}
	return n + listBytes*int64(len(fresh))
}

// append adds the rows of col as rows first and on.
func (s *growingSparse) append(col *schema.Column, first int) {
	next := *s.rows.Load()
	next.AppendRange(col, 0, col.Rows())
	s.measure(col)
	s.mu.Lock()
	for i := range col.Rows() {
		indices, values := col.Sparse(i)
		length := s.words(first + i)
		for k, d := range indices {
			l := s.mu.lists[d]
			if l == nil {
				l = &sparse.List{Shortest: length}
				s.mu.lists[d] = l
			}
			l.Shortest = min(l.Shortest, length)
			l.Rows, l.Values, l.Max = append(l.Rows, uint32(first+i)), append(l.Values, values[k]), max(l.Max, values[k])
		}
	}
	s.mu.Unlock()
	s.rows.Store(&next)
}

// measure notes how long the rows of col are, if they are texts.
func (s *growingSparse) measure(col *schema.Column) {
	old := s.ends.Load()
	if old == nil {
		return
	}
	ends := *old
	for i := range col.Rows() {
		end := ends[len(ends)-1]
		_, times := col.Sparse(i)
		for _, n := range times {
			end += uint64(n)
		}
		ends = append(ends, end)
	}
	s.ends.Store(&ends)
}

// words is how long a row is; 0 if it is no text.
func (s *growingSparse) words(row int) uint32 {
	ends := s.ends.Load()
	if ends == nil {
		return 0
	}
	return uint32((*ends)[row+1] - (*ends)[row])
}

// list is the list of a dimension as it is now.
func (s *growingSparse) list(d uint32) sparse.List {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.mu.lists[d]; l != nil {
		return *l
	}
	return sparse.List{}
}

// terms are the lists of the query's dimensions, as they are now: rows that a read
// must not see may be in them, at the end.
func (s *growingSparse) terms(q *nearestQuery, sc *scratch) []sparse.Term {
	sc.terms, sc.ends = sc.terms[:0], nil
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ends := s.ends.Load(); ends != nil {
		sc.ends = *ends // stored before the lists, so that it has all their rows
	}
	for i, d := range q.sparse.indices {
		if l := s.mu.lists[d]; l != nil {
			sc.terms = append(sc.terms, sparse.Term{List: *l, Weight: q.sparse.values[i]})
		}
	}
	return sc.terms
}

// sealedSparse is a sparse field of a sealed segment.
type sealedSparse struct {
	rows  segfile.Sparse // mapped
	index *sparse.Index
}

// openSparse opens the index of a sparse field, or makes one in memory if the
// segment has none.
func (v *sealedVectors) openSparse() error {
	rows, ok := v.file.Sparse(v.fieldID)
	if !ok || len(rows.Indptr) != v.rows+1 {
		return errors.Newf("%d offsets for %d rows", len(rows.Indptr), v.rows)
	}
	v.sparse = &sealedSparse{rows: rows}
	var err error
	if x, image, ok := v.file.Index(v.fieldID); ok && x.Type == indexSparse {
		v.sparse.index, err = sparse.Open(image)
	}
	if x := v.sparse.index; err == nil && (x == nil || v.texts && x.Ends() == nil) {
		build := sparse.Build
		if v.texts {
			build = sparse.BuildTexts
		}
		if v.sparse.index, err = build(rows.Indptr, rows.Indices, rows.Data); err == nil {
			v.built.Commit(v.sparse.index.Bytes())
		}
	}
	if err == nil && v.sparse.index.Rows() != v.rows {
		err = errors.Newf("the index holds %d rows, the segment has %d", v.sparse.index.Rows(), v.rows)
	}
	return err
}

// terms are the lists of the query's dimensions.
func (v *sealedVectors) terms(q *nearestQuery, sc *scratch) []sparse.Term {
	sc.terms, sc.ends = sc.terms[:0], v.sparse.index.Ends()
	for i, d := range q.sparse.indices {
		sc.terms = append(sc.terms, sparse.Term{List: v.sparse.index.List(d), Weight: q.sparse.values[i]})
	}
	return sc.terms
}

// row is a row as a column of its own.
func (s *sealedSparse) row(row uint32) *schema.Column {
	from, to := s.rows.Indptr[row], s.rows.Indptr[row+1]
	return &schema.Column{Type: schema.SparseFloatVector, Indices: s.rows.Indices[from:to], Float: s.rows.Data[from:to], Offsets: []int{0, int(to - from)}}
}
