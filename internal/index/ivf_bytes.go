package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// byteCodes are vectors as one byte of seven bits for each dimension, in panels:
// value d of a vector is about lo[d] + step[d]*code. They estimate distances of
// many vectors at once, exactly those to the vectors that the codes stand for.
type byteCodes struct {
	dim, quads int
	lo, step   []float32 // dim each
	panels     []byte    // vec.PanelRows vectors each
	// bias is what an estimate gets added: the squared norm of what the codes
	// stand for (L2), or 0, and +Inf where a panel has no vector.
	bias []float32
}

func (b *byteCodes) panelBytes() int { return b.quads * 4 * vec.PanelRows }

// numPanels is the number of panels that n vectors take.
func numPanels(n int) int { return (n + vec.PanelRows - 1) / vec.PanelRows }

// trainBytes chooses lo and step from a sample of vectors: so that all but a
// part of the values of each dimension are covered, for heavy tails would cost
// all others their precision.
func trainBytes(dim int, sample []float32, tail float64) *byteCodes {
	b := &byteCodes{dim: dim, quads: vec.PanelQuads(dim), lo: make([]float32, dim), step: make([]float32, dim)}
	n := len(sample) / dim
	values := make([]float32, n)
	for d := range dim {
		for i := range values {
			values[i] = sample[i*dim+d]
		}
		var lo, hi float32
		if tail == 0 {
			lo, hi = slices.Min(values), slices.Max(values)
		} else {
			slices.Sort(values)
			at := int(tail * float64(n))
			lo, hi = values[at], values[n-1-at]
		}
		b.lo[d], b.step[d] = lo, (hi-lo)/vec.PanelMax
	}
	return b
}

// encode writes the codes of v, and returns the squared norm of what they stand for.
func (b *byteCodes) encode(code []byte, v []float32) float32 {
	sq := float32(0)
	for d, x := range v {
		c := float32(0)
		if b.step[d] > 0 {
			c = min(max((x-b.lo[d])/b.step[d]+0.5, 0), vec.PanelMax)
		}
		code[d] = byte(c)
		y := b.lo[d] + b.step[d]*float32(code[d])
		sq += y * y
	}
	return sq
}

// prepare writes the values that stand for a query to z, 4*quads of them, and
// returns what makes distances of their products with codes. The query has
// length 1 if the metric is Cosine.
func (b *byteCodes) prepare(kern vec.Kernels, z []int8, q []float32, metric Metric) vec.Affine {
	t := kern.Quantize(q, b.step, z[:len(q)]) / 127
	clear(z[len(q):])
	base := kern.Dot(q, b.lo)
	switch metric {
	case L2:
		return vec.Affine{Scale: -2 * t, Base: kern.Dot(q, q) - 2*base}
	case IP:
		return vec.Affine{Scale: -t, Base: -base}
	}
	return vec.Affine{Scale: -t, Base: 1 - base}
}

// fill makes b hold vectors, which lie one behind the other.
func (b *byteCodes) fill(vectors []float32, metric Metric) {
	n := len(vectors) / b.dim
	panels := numPanels(n)
	b.panels = grown(b.panels, panels*b.panelBytes())
	clear(b.panels)
	b.bias = grown(b.bias, panels*vec.PanelRows)
	code := make([]byte, b.dim)
	for i := range b.bias {
		if i >= n {
			b.bias[i] = float32(math.Inf(1))
			continue
		}
		b.bias[i] = 0
		if sq := b.encode(code, vectors[i*b.dim:][:b.dim]); metric == L2 {
			b.bias[i] = sq
		}
		vec.PutPanel(b.panels[i/vec.PanelRows*b.panelBytes():], i%vec.PanelRows, code)
	}
}
