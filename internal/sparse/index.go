package sparse

import (
	"encoding/binary"
	"io"
	"math"
	"slices"
	"sort"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// List is what an index has of one dimension: rows, ascending, their values, and
// the largest of these.
type List struct {
	Rows     []uint32
	Values   []float32
	Max      float32
	Shortest uint32 // of texts: the fewest words that a row of the list has; else 0
}

// Index is an inverted index of the rows of a segment. It is immutable and safe
// for concurrent use.
type Index struct {
	rows   int
	dims   []uint32 // ascending
	starts []uint64 // list i at [starts[i], starts[i+1]) of postings and values
	max    []float32
	post   []uint32
	values []float32
	image  []byte

	// Of texts; else nil.
	ends     []uint64 // row i has ends[i+1]-ends[i] words
	shortest []uint32 // by dimension
}

const (
	magic      = "QNSPARSE"
	version    = 1
	ofTexts    = 2 // the version of an index of texts
	headerSize = 64
)

// maxTimes is how often a word can be in a row: whole numbers up to here are exact.
const maxTimes = 1 << 24

// sizes are the numbers of a header, and where its arrays lie.
type sizes struct {
	rows, dims, postings uint64
	texts                bool
}

// bytes is the size of an image.
func (s sizes) bytes() uint64 {
	n := headerSize + 8*(s.dims+1) + 8*s.dims + 8*s.postings
	if s.texts {
		n += 8*(s.rows+1) + 4*s.dims
	}
	return n
}

// Build returns the index of rows given as compressed rows: row i has the
// dimensions indices[indptr[i]:indptr[i+1]], ascending, with the values of data.
// An error of class Corrupt tells where they are not that.
func Build(indptr []int64, indices []uint32, data []float32) (*Index, error) {
	return build(indptr, indices, data, false)
}

// BuildTexts is Build for rows that are texts, whose values say how often a word is
// there: it keeps how long they are, for BM25.
func BuildTexts(indptr []int64, indices []uint32, data []float32) (*Index, error) {
	return build(indptr, indices, data, true)
}

func build(indptr []int64, indices []uint32, data []float32, texts bool) (*Index, error) {
	if err := check(indptr, indices, data); err != nil {
		return nil, err
	}
	if texts {
		for k, v := range data {
			if !isCount(v) {
				return nil, errclass.New(errclass.Corrupt, "sparse vectors: value %v in dimension %d, want how often a word is there", v, indices[k])
			}
		}
	}
	dims := slices.Clone(indices)
	slices.Sort(dims)
	dims = slices.Compact(dims)
	s := sizes{rows: uint64(len(indptr) - 1), dims: uint64(len(dims)), postings: uint64(len(indices)), texts: texts}
	// 8-byte words, so that the arrays lie right.
	words := make([]uint64, (s.bytes()+7)/8)
	image := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), s.bytes())
	copy(image, magic)
	binary.LittleEndian.PutUint32(image[8:], version)
	if texts {
		binary.LittleEndian.PutUint32(image[8:], ofTexts)
	}
	for i, n := range []uint64{s.rows, s.dims, s.postings} {
		binary.LittleEndian.PutUint64(image[16+8*i:], n)
	}
	x := view(image, s)
	copy(x.dims, dims)
	for _, d := range indices {
		x.starts[x.find(d)+1]++
	}
	for i := range x.dims {
		x.starts[i+1] += x.starts[i]
	}
	next := slices.Clone(x.starts)
	for row := range int(s.rows) {
		for k := indptr[row]; k < indptr[row+1]; k++ {
			i := x.find(indices[k])
			at := next[i]
			next[i]++
			x.post[at], x.values[at] = uint32(row), data[k]
			x.max[i] = max(x.max[i], data[k])
		}
	}
	if texts {
		x.measure(indptr, data)
	}
	return x, nil
}

// isCount reports whether v can be how often a word is in a row.
func isCount(v float32) bool { return v >= 1 && v <= maxTimes && v == float32(uint32(v)) }

// measure notes how long rows are.
func (x *Index) measure(indptr []int64, data []float32) {
	for row := range x.rows {
		words := uint64(0)
		for _, v := range data[indptr[row]:indptr[row+1]] {
			words += uint64(v)
		}
		x.ends[row+1] = x.ends[row] + words
	}
	for i := range x.shortest {
		x.shortest[i] = x.shortestOf(i)
	}
}

// shortestOf is the fewest words of a row in list i.
func (x *Index) shortestOf(i int) uint32 {
	least := uint64(math.MaxUint32)
	for _, row := range x.post[x.starts[i]:x.starts[i+1]] {
		least = min(least, x.ends[row+1]-x.ends[row])
	}
	return uint32(least)
}

// check verifies that compressed rows are what they should be.
func check(indptr []int64, indices []uint32, data []float32) error {
	n := int64(len(indices))
	switch {
	case len(indptr) == 0 || indptr[0] != 0 || indptr[len(indptr)-1] != n || len(data) != len(indices):
		return errclass.New(errclass.Corrupt, "sparse vectors: %d offsets, %d dimensions, %d values do not fit each other", len(indptr), n, len(data))
	case len(indptr)-1 > math.MaxUint32:
		return errclass.New(errclass.Corrupt, "sparse vectors: %d rows", len(indptr)-1)
	}
	for row := range len(indptr) - 1 {
		from, to := indptr[row], indptr[row+1]
		if from > to || to > n || from < 0 {
			return errclass.New(errclass.Corrupt, "sparse vectors: row %d lies at %d to %d of %d", row, from, to, n)
		}
		for k := from; k < to; k++ {
			if v := data[k]; k > from && indices[k] <= indices[k-1] || !(v >= 0 && v <= math.MaxFloat32) {
				return errclass.New(errclass.Corrupt, "sparse vectors: row %d has the value %v in dimension %d, out of order or no value", row, v, indices[k])
			}
		}
	}
	return nil
}

// view cuts an image of the right size.
func view(image []byte, s sizes) *Index {
	x := &Index{rows: int(s.rows), image: image}
	at := uint64(headerSize)
	cut := func(n uint64) []byte {
		b := image[at : at+n]
		at += n
		return b
	}
	x.starts = numbers[uint64](cut(8 * (s.dims + 1)))
	if s.texts {
		x.ends = numbers[uint64](cut(8 * (s.rows + 1)))
		x.shortest = numbers[uint32](cut(4 * s.dims))
	}
	x.dims = numbers[uint32](cut(4 * s.dims))
	x.max = numbers[float32](cut(4 * s.dims))
	x.post = numbers[uint32](cut(4 * s.postings))
	x.values = numbers[float32](cut(4 * s.postings))
	return x
}

func numbers[T uint32 | uint64 | float32](b []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(zero)))
}

// Open returns the index whose image WriteTo wrote. It aliases the image, which
// starts at a multiple of 8 and must not change while the index is used. The whole
// image is checked: errors are of class Corrupt, or Unimplemented for one of a
// later version.
func Open(image []byte) (*Index, error) {
	if len(image) < headerSize || string(image[:8]) != magic || uintptr(unsafe.Pointer(unsafe.SliceData(image)))%8 != 0 {
		return nil, errclass.New(errclass.Corrupt, "sparse index: not an image")
	}
	v := binary.LittleEndian.Uint32(image[8:])
	if v != version && v != ofTexts {
		return nil, errclass.New(errclass.Unimplemented, "sparse index of version %d, this build reads up to %d", v, ofTexts)
	}
	var n [3]uint64
	for i := range n {
		if n[i] = binary.LittleEndian.Uint64(image[16+8*i:]); n[i] > 1<<40 {
			return nil, errclass.New(errclass.Corrupt, "sparse index: a count of %d", n[i])
		}
	}
	s := sizes{rows: n[0], dims: n[1], postings: n[2], texts: v == ofTexts}
	if s.rows > math.MaxUint32 || s.bytes() != uint64(len(image)) {
		return nil, errclass.New(errclass.Corrupt, "sparse index: %d bytes for %d rows, %d dimensions and %d values, want %d", len(image), s.rows, s.dims, s.postings, s.bytes())
	}
	x := view(image, s)
	return x, errclass.Wrap(x.verify(), errclass.Corrupt, "sparse index")
}

func (x *Index) verify() error {
	if x.starts[0] != 0 || x.starts[len(x.dims)] != uint64(len(x.post)) {
		return errors.Newf("lists from %d to %d, want 0 to %d", x.starts[0], x.starts[len(x.dims)], len(x.post))
	}
	for i, d := range x.dims {
		from, to := x.starts[i], x.starts[i+1]
		if from >= to || to > uint64(len(x.post)) || i > 0 && x.dims[i-1] >= d {
			return errors.Newf("dimension %d: list from %d to %d, behind dimension %d", d, from, to, x.dims[max(i-1, 0)])
		}
		for k := from; k < to; k++ {
			if k > from && x.post[k-1] >= x.post[k] || int(x.post[k]) >= x.rows {
				return errors.Newf("dimension %d: row %d of %d out of order", d, x.post[k], x.rows)
			}
			if v := x.values[k]; !(v >= 0 && v <= x.max[i]) {
				return errors.Newf("dimension %d, row %d: value %v, want 0 to %v", d, x.post[k], v, x.max[i])
			}
		}
		if !(x.max[i] <= math.MaxFloat32) {
			return errors.Newf("dimension %d: largest value %v", d, x.max[i])
		}
	}
	return x.verifyTexts()
}

// verifyTexts verifies what only an index of texts has. Lists are right already.
func (x *Index) verifyTexts() error {
	if x.ends == nil {
		return nil
	}
	if x.ends[0] != 0 {
		return errors.Newf("lengths begin at %d, want 0", x.ends[0])
	}
	for row := range x.rows {
		if from, to := x.ends[row], x.ends[row+1]; from > to || to-from > math.MaxUint32 {
			return errors.Newf("row %d: words %d to %d", row, from, to)
		}
	}
	for k, v := range x.values {
		if !isCount(v) {
			return errors.Newf("value %v of row %d, want how often a word is there", v, x.post[k])
		}
	}
	for i, d := range x.dims {
		if least := x.shortestOf(i); x.shortest[i] > least {
			return errors.Newf("dimension %d: rows of %d words and more, want %d", d, x.shortest[i], least)
		}
	}
	return nil
}

// WriteTo writes the image.
func (x *Index) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(x.image)
	return int64(n), errors.Wrap(err, "write sparse index")
}

// Rows is the number of rows, those without values included.
func (x *Index) Rows() int { return x.rows }

// Bytes is the size of the image.
func (x *Index) Bytes() int64 { return int64(len(x.image)) }

// find returns where dimension d is, or would be.
func (x *Index) find(d uint32) int {
	i, _ := slices.BinarySearch(x.dims, d)
	return i
}

// List returns the list of a dimension; an empty one if no row has it.
func (x *Index) List(d uint32) List {
	i, ok := slices.BinarySearch(x.dims, d)
	if !ok {
		return List{}
	}
	from, to := x.starts[i], x.starts[i+1]
	l := List{Rows: x.post[from:to:to], Values: x.values[from:to:to], Max: x.max[i]}
	if x.shortest != nil {
		l.Shortest = x.shortest[i]
	}
	return l
}

// Ends says how long rows are: row i has ends[i+1]-ends[i] words. Nil if the index
// was not built of texts.
func (x *Index) Ends() []uint64 { return x.ends }

// seek returns the first place at or behind from whose row is at least row. It
// doubles its steps, since most seeks are short.
func seek(rows []uint32, from int, row uint32) int {
	step := 1
	to := from
	for to < len(rows) && rows[to] < row {
		from = to + 1
		to += step
		step *= 2
	}
	to = min(to, len(rows))
	return from + sort.Search(to-from, func(i int) bool { return rows[from+i] >= row })
}
