package segments

import (
	"math"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// byteCodes are vectors as a byte of seven bits for each dimension (see
// vec.Panels): value d of a vector is about lo[d] + step[d]*code. Vectors are of
// length 1 if the metric is Cosine.
type byteCodes struct {
	kern     vec.Kernels
	dim      int
	quads    int
	lo, step []float32
	loss     float32 // square of what rounding takes from a vector, on average
}

// codeMargin is how far beyond the values of the sample codes reach, as a share of
// their range.
const codeMargin = 0.1

// trainCodes chooses lo and step so that they cover a sample, and a little more.
func trainCodes(kern vec.Kernels, dim int, sample []float32) *byteCodes {
	c := &byteCodes{kern: kern, dim: dim, quads: vec.PanelQuads(dim), lo: make([]float32, dim), step: make([]float32, dim)}
	hi := make([]float32, dim)
	for d := range dim {
		c.lo[d], hi[d] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	for at := 0; at < len(sample); at += dim {
		for d, x := range sample[at : at+dim] {
			c.lo[d], hi[d] = min(c.lo[d], x), max(hi[d], x)
		}
	}
	for d := range dim {
		wide := (hi[d] - c.lo[d]) * codeMargin
		c.lo[d] -= wide
		c.step[d] = (hi[d] + wide - c.lo[d]) / vec.PanelMax
		c.loss += c.step[d] * c.step[d] / 12
	}
	return c
}

func (c *byteCodes) panelBytes() int { return c.quads * 4 * vec.PanelRows }

// encode writes the codes of v and returns the squared length of what they stand
// for, and the square of what is lost where v is out of reach.
func (c *byteCodes) encode(code []byte, v []float32) (square, lost float32) {
	lo, step := c.lo[:len(v)], c.step[:len(v)]
	for d, x := range v {
		at := float32(0)
		if step[d] > 0 {
			at = (x-lo[d])/step[d] + 0.5
		}
		if in := min(max(at, 0), vec.PanelMax); in != at { // not a number is out of reach too
			by := x - lo[d] - step[d]*(in-0.5)
			lost += by * by
			at = in
		}
		code[d] = byte(at)
		y := lo[d] + step[d]*float32(code[d])
		square += y * y
	}
	return square, lost
}

// round replaces vectors by what their codes stand for.
func (c *byteCodes) round(vectors []float32) {
	code := make([]byte, c.dim)
	for at := 0; at < len(vectors); at += c.dim {
		v := vectors[at : at+c.dim]
		c.encode(code, v)
		for d := range v {
			v[d] = c.lo[d] + c.step[d]*float32(code[d])
		}
	}
}

// query writes what stands for a query to z, 4*quads values, and returns what
// makes distances of products with codes, and of L2 with the bias.
func (c *byteCodes) query(z []int8, q []float32, m index.Metric) vec.Affine {
	most := c.kern.Quantize(q, c.step, z[:len(q)])
	clear(z[len(q):])
	if !(most > 0) {
		clear(z) // it is undefined
		most = 0
	}
	low := c.kern.Dot(q, c.lo)
	switch m {
	case index.L2:
		return vec.Affine{Scale: -2 * most / 127, Base: c.kern.Dot(q, q) - 2*low}
	case index.IP:
		return vec.Affine{Scale: -most / 127, Base: -low}
	}
	return vec.Affine{Scale: -most / 127, Base: 1 - low}
}

// doubtSure is how many deviations doubt is.
const doubtSure = 4

// doubt is how much the estimate of a distance d is likely to be off at most: for
// what rounding did to the query, and to a row.
func (c *byteCodes) doubt(aff vec.Affine, m index.Metric, d, norm float32) float32 {
	query := float32(math.Abs(float64(aff.Scale))) * vec.PanelMax / 2 * float32(math.Sqrt(float64(c.dim)/12))
	rounding := float32(math.Sqrt(float64(c.loss / float32(c.dim))))
	switch m {
	case index.L2:
		rounding = 2*float32(math.Sqrt(float64(max(d, 0))))*rounding + c.loss
	case index.IP:
		rounding *= norm
	}
	return doubtSure * (query + rounding)
}

// doubtSlope is how much more doubt of L2 there is with the root of the square of the distance.
func (c *byteCodes) doubtSlope() float32 {
	return 2 * doubtSure * float32(math.Sqrt(float64(c.loss/float32(c.dim))))
}

// borderDoubt is how much farther than it seems a border between two codes is likely to be from a query, or nearer, at most:
// for what rounding did to the query, and as much to rows beyond.
func (c *byteCodes) borderDoubt(aff vec.Affine) float32 {
	if !(c.loss > 0) {
		return 0
	}
	// A product with the difference of codes is off by √(1/12) of their distance in steps, √(12 loss/dim) each.
	return 2 * float32(math.Abs(float64(aff.Scale))) / 24 * float32(math.Sqrt(float64(float32(c.dim)/c.loss)))
}

// centres are the middles of lists, as codes of their own.
type centres struct {
	codes  *byteCodes
	n      int
	panels []byte
	bias   []float32 // squared length; +Inf where a panel has no centre
}

// newCentres rounds vectors, which lie one behind the other.
func newCentres(kern vec.Kernels, dim int, vectors []float32) *centres {
	x := &centres{codes: trainCodes(kern, dim, vectors), n: len(vectors) / dim}
	panels := (x.n + vec.PanelRows - 1) / vec.PanelRows
	x.panels = make([]byte, panels*x.codes.panelBytes())
	x.bias = make([]float32, panels*vec.PanelRows)
	code := make([]byte, dim)
	for i := range x.bias {
		if i >= x.n {
			x.bias[i] = float32(math.Inf(1))
			continue
		}
		x.bias[i], _ = x.codes.encode(code, vectors[i*dim:][:dim])
		vec.PutPanel(x.panels[i/vec.PanelRows*x.codes.panelBytes():], i%vec.PanelRows, code)
	}
	return x
}

// bytes is the memory of x.
func (x *centres) bytes() int64 { return int64(len(x.panels) + 4*len(x.bias)) }

// assignRows is how many rows are compared with the centres in one go.
const assignRows = 64

// assigner is what finding the lists of rows works in.
type assigner struct {
	z    []int8
	sums []int32
	aff  [assignRows]vec.Affine
}

// assign calls found with the nearest centre of each row, and the square of its
// distance.
func (x *centres) assign(rows []float32, w *assigner, found func(row, list int, square float32)) {
	c, all := x.codes, len(x.bias)
	width := 4 * c.quads
	w.z, w.sums = grown(w.z, assignRows*width), grown(w.sums, assignRows*all)
	for from, n := 0, len(rows)/c.dim; from < n; from += assignRows {
		run := min(assignRows, n-from)
		for i := range run {
			w.aff[i] = c.query(w.z[i*width:][:width], rows[(from+i)*c.dim:][:c.dim], index.L2)
		}
		c.kern.Panels(w.z, run, c.quads, x.panels, all/vec.PanelRows, w.sums)
		for i := range run {
			list, d := x.home(w.sums[i*all:][:all], w.aff[i])
			found(from+i, list, max(d+w.aff[i].Base, 0))
		}
	}
}

// home is the nearest middle, by products of a vector with all, and the square of its distance but for
// the base. Vectors that are equal have the same.
func (x *centres) home(sums []int32, aff vec.Affine) (list int, square float32) {
	list, square = x.codes.kern.SumsNearest(sums, x.bias, aff.Scale)
	return min(list, x.n-1), square
}

// distances writes products of a vector with the middles to sums, and returns what
// makes squares of distances of them, with the bias. z and sums have room for
// kernelQueries.
func (x *centres) distances(q []float32, z []int8, sums []int32) vec.Affine {
	aff := x.codes.query(z[:4*x.codes.quads], q, index.L2)
	x.codes.kern.Panels(z, 1, x.codes.quads, x.panels, len(x.bias)/vec.PanelRows, sums)
	return aff
}

// grown returns s with n values that may be anything.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
