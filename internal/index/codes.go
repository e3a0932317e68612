package index

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// coder turns vectors into records of 8-bit codes (see vec.SQ8IDs) so that the
// distances of a graph walk need only a few cache lines for each row.
//
// A vector x is brought to unit length (Cosine), the mean m is taken away, and
// it is turned so that the first values carry most of the variance; only the
// head of those is kept, each value in 256 or 16 steps of its own size. With y for
// what is kept of x-m, z for that of the query, and r for the query less the mean:
//
//	L2, Cosine   |q-x|² = |r|² + |x-m|² - 2 (z·y + what the tails have in common)
//	IP           -q·x   = -q·m - (z·y + ...), where r is the query itself
//
// |x-m|² is the record's bias, for L2 and Cosine, but for the square of what
// rounding did to y: rows near the query are then off by little more than that. Only
// the product of the tails is taken for 0, which for the variance they have is a small error (that is also
// how Faiss' and ScaNN's reductions treat what they cut off).
type coder struct {
	kern     vec.Kernels
	metric   Metric
	dim      int
	head     int       // values kept
	wide     int       // of them, those that have 256 steps; the others have 16, see vec.PutSQMixed
	stride   int       // bytes of a record
	mean     []float32 // dim
	basis    *basis    // nil: the values as they are
	meanHead []float32 // head: the mean turned
	low      []float32 // head: what code 0 stands for
	step     []float32 // head: the distance of two codes
}

// codes is how many codes a record has room for, if some are narrow, else how
// many it has.
func (c *coder) codes() int {
	if c.mixed() {
		return vec.SQMixedCodes(c.stride, c.wide)
	}
	return c.head
}

// mixed reports whether there are narrow codes.
func (c *coder) mixed() bool { return c.wide < c.head }

// queryLen is the size of a query.
func (c *coder) queryLen() int {
	if c.mixed() {
		return vec.SQMixedQueryLen(c.stride)
	}
	return vec.SQ8QueryLen(c.stride)
}

// distances writes the distances by code of the rows ids to out.
func (c *coder) distances(q *sqQuery, records []byte, ids []uint32, out []float32) {
	if c.mixed() {
		c.kern.SQMixedIDs(q.halves, q.scale, records, ids, out)
		return
	}
	c.kern.SQ8IDs(q.halves, q.scale, records, ids, out)
}

// basis is the directions that the head is made of: orthonormal but for the
// rounding to 8 bits, which is the same for rows and queries and turns them all
// a little too far.
type basis struct {
	ids    []uint32  // 0, 1, 2, ...
	ones   []float32 // a one for each dimension
	codes  []byte    // a record for each direction
	stride int       // bytes of one
	low    []float32 // of each direction, what code 0 stands for
	step   []float32 // and the distance of two codes
	picks  []uint32  // the values that the directions are, if each is one value of a vector; else nil
}

// newBasis rounds rows of dim values.
func newBasis(rows []float32, dim int) *basis {
	n := len(rows) / dim
	b := viewBasis(dim, make([]byte, n*vec.SQ8Stride(dim)), make([]float32, n), make([]float32, n))
	codes := make([]byte, dim)
	for j := range n {
		row := rows[j*dim : (j+1)*dim]
		low := slices.Min(row)
		step := max((slices.Max(row)-low)/255, 1e-30)
		for i, x := range row {
			codes[i] = byte(min(max((x-low)/step+0.5, 0), 255))
		}
		b.low[j], b.step[j] = low, step
		vec.PutSQ8(b.codes[j*b.stride:(j+1)*b.stride], 0, codes)
	}
	b.pick()
	return b
}

// viewBasis is a basis in memory that is there already.
func viewBasis(dim int, codes []byte, low, step []float32) *basis {
	b := &basis{codes: codes, stride: vec.SQ8Stride(dim), low: low, step: step}
	for i := range low {
		b.ids = append(b.ids, uint32(i))
	}
	b.ones = slices.Repeat([]float32{1}, dim)
	b.pick()
	return b
}

// pick finds out whether each direction is one value of a vector: then nothing is to be turned.
func (b *basis) pick() {
	b.picks = nil
	var picks []uint32
	for j, low := range b.low {
		codes := b.codes[j*b.stride+vec.SQ8Bias:][:len(b.ones)]
		at := slices.Index(codes, 255)
		if low != 0 || b.step[j] != float32(1)/255 || at < 0 || len(codes)-bytes.Count(codes, []byte{0}) != 1 {
			return
		}
		picks = append(picks, uint32(at))
	}
	b.picks = picks
}

// prefix is the first n directions.
func (b *basis) prefix(n int) *basis {
	return &basis{ids: b.ids[:n], ones: b.ones, codes: b.codes[:n*b.stride], stride: b.stride, low: b.low[:n], step: b.step[:n], picks: b.picks[:min(n, len(b.picks))]}
}

// coded is a vector on its way to a record or a query.
type coded struct {
	flat    []float32 // dim: centred
	halves  []int8    // of a vector that is to be turned
	head    []float32 // turned
	codes   []byte
	weights []float32
}

func (c *coder) newCoded() *coded {
	w := &coded{
		flat: make([]float32, c.dim), head: make([]float32, c.head),
		codes: make([]byte, c.codes()), weights: make([]float32, c.codes()),
	}
	if c.basis != nil {
		w.halves = make([]int8, 2*c.basis.stride)
	}
	return w
}

// centre writes v, at unit length if the metric wants it, less the mean, to
// w.flat, and returns the square of its length. A vector without a direction has
// a length that puts it at the distance of a cosine of 0.
func (c *coder) centre(v []float32, w *coded) (square float32) {
	scale := float32(1)
	if c.metric == Cosine {
		scale = c.kern.InvNorm(v)
	}
	flat, mean := w.flat[:len(v)], c.mean[:len(v)]
	for i, x := range v {
		flat[i] = x*scale - mean[i]
	}
	square = c.kern.Dot(flat, flat)
	if scale == 0 {
		square++
	}
	return square
}

// turn writes the head of v to w.head.
func (c *coder) turn(v []float32, w *coded) {
	b := c.basis
	if b == nil {
		copy(w.head, v)
		return
	}
	if b.picks != nil {
		for j, d := range b.picks[:len(w.head)] {
			w.head[j] = v[d]
		}
		return
	}
	scale, sum := c.kern.SetSQ8(w.halves, v), c.kern.Dot(v, b.ones)
	c.kern.SQ8IDs(w.halves, scale, b.codes, b.ids, w.head)
	low, step := b.low[:len(w.head)], b.step[:len(w.head)]
	for j, x := range w.head {
		w.head[j] = x*step[j] + sum*low[j]
	}
}

// record writes the record of a row. Its bias is such that the distance is that
// from what the codes stand for, plus the tail's.
func (c *coder) record(v []float32, w *coded, record []byte) {
	bias := c.centre(v, w)
	c.turn(w.flat, w)
	top := float32(255)
	for i, x := range w.head {
		if i == c.wide {
			top = 15
		}
		code := byte(min(max((x-c.low[i])/c.step[i]+0.5, 0), top))
		w.codes[i] = code
		y := c.low[i] + c.step[i]*float32(code)
		bias += y*y - x*x
	}
	if c.metric == IP {
		bias = 0
	}
	if c.mixed() {
		vec.PutSQMixed(record, bias, c.wide, w.codes)
		return
	}
	vec.PutSQ8(record, bias, w.codes)
}

// query readies halves for distances from a query, and returns their scale. They
// differ from the exact distances (from twice those, for Cosine) by a term that
// is the same for all rows, besides the codes' error: add, and what fineQuery.add is.
func (c *coder) query(v []float32, w *coded, halves []int8) (scale, add float32) {
	c.turn(v, w)
	if c.metric != IP {
		factor := float32(1)
		if c.metric == Cosine {
			factor = c.kern.InvNorm(v)
		}
		mean := c.meanHead[:len(w.head)]
		for i, x := range w.head {
			w.head[i] = x*factor - mean[i]
		}
	}
	return c.weigh(w, halves, 0)
}

// weigh is the end of query, for the head in w.
func (c *coder) weigh(w *coded, halves []int8, add float32) (float32, float32) {
	factor := float32(-2)
	if c.metric == IP {
		factor = -1
	}
	low, step := c.low[:len(w.head)], c.step[:len(w.head)]
	for i, z := range w.head {
		add += factor * z * low[i]
		w.weights[i] = factor * z * step[i]
	}
	if c.mixed() {
		return c.kern.SetSQMixed(halves, c.wide, w.weights), add
	}
	return c.kern.SetSQ8(halves, w.weights), add
}

// rowQuery is query for a row given by its record of wide codes, with what the code has kept
// of it: good enough to link rows by.
func (c *coder) rowQuery(record []byte, w *coded, halves []int8) (scale, add float32) {
	for i, code := range record[vec.SQ8Bias:][:c.head] {
		w.head[i] = c.low[i] + c.step[i]*float32(code)
	}
	if c.metric != IP {
		return c.weigh(w, halves, math.Float32frombits(binary.LittleEndian.Uint32(record)))
	}
	add = -c.kern.Dot(c.mean, c.mean) - c.kern.Dot(w.head, c.meanHead)
	for i, m := range c.meanHead {
		w.head[i] += m
	}
	return c.weigh(w, halves, add)
}
