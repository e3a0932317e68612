package index

import (
	"context"
	"math"
	"math/rand/v2"
)

// Of product quantisation.
const (
	pqDims  = 2  // dimensions of a part, at most
	pqCodes = 16 // codes of a part: 4 bits
	// pqAlone is up to how many values of a row each is a part of its own. Of few values two bits each tell too little: of word vectors of 50, a search
	// that wants 0.95 of the nearest reads as many bytes, of two thirds of the rows, and ranks a third of them; for 0.99 parts of two never do. Of 100 what
	// ranking saves is less than what reading costs.
	pqAlone  = 64
	pqRounds = 12
	pqSample = 4096
	pqSweeps = 3
	// parallelThreshold is ScaNN's T: products below this part of the largest do
	// not matter (arXiv:1908.10396, section 3.2).
	parallelThreshold = 0.2
)

// partDims is how many values a part of rows of so many has.
func partDims(width int) int {
	if width <= pqAlone {
		return 1
	}
	return pqDims
}

// products are the codebooks of a product quantiser: each part of a vector, one or two
// dimensions, is one of 16 points.
type products struct {
	dim, parts int
	each       int // dimensions of a part
	// points of part p, as all first and then all second values, are at
	// [32*p, 32*p+32). A part of one dimension, as an odd last one, has second values of 0.
	points []float32
}

func newProducts(dim, each int) *products {
	parts := numParts(dim, each)
	return &products{dim: dim, parts: parts, each: each, points: make([]float32, parts*pqDims*pqCodes)}
}

// numParts is how many parts of each so many dimensions make.
func numParts(dim, each int) int { return (dim + each - 1) / each }

// part returns the values of part p of v.
func (pq *products) part(v []float32, p int) (x, y float32) {
	at := p * pq.each
	if pq.each == pqDims && at+1 < pq.dim {
		return v[at], v[at+1]
	}
	return v[at], 0
}

// train finds the points from a sample of vectors, or from some of all parts of it: a sample may
// be in the order of the rows.
func (pq *products) train(ctx context.Context, workers int, sample []float32) error {
	total := len(sample) / pq.dim
	n := min(total, pqSample)
	return parallel(ctx, workers, pq.parts, 4, func() func(from, to int) error {
		xs, ys := make([]float32, n), make([]float32, n)
		return func(from, to int) error {
			for p := from; p < to; p++ {
				for i := range n {
					xs[i], ys[i] = pq.part(sample[i*total/n*pq.dim:][:pq.dim], p)
				}
				trainPart(pq.points[p*pqDims*pqCodes:][:pqDims*pqCodes], xs, ys, rand.New(rand.NewPCG(uint64(p), 1)))
			}
			return nil
		}
	})
}

// trainPart is k-means in the plane, from a start of k-means++.
func trainPart(points, xs, ys []float32, r *rand.Rand) {
	px, py := points[:pqCodes], points[pqCodes:]
	near := make([]float32, len(xs)) // squared distance to the nearest point so far
	for i := range near {
		near[i] = float32(math.Inf(1))
	}
	at := r.IntN(len(xs))
	for c := range pqCodes {
		px[c], py[c] = xs[at], ys[at]
		total := 0.0
		for i := range near {
			dx, dy := xs[i]-px[c], ys[i]-py[c]
			near[i] = min(near[i], dx*dx+dy*dy)
			total += float64(near[i])
		}
		left := r.Float64() * total
		at = r.IntN(len(xs))
		for i, d := range near {
			if left -= float64(d); left < 0 {
				at = i
				break
			}
		}
	}
	for range pqRounds {
		var sx, sy [pqCodes]float64
		var count [pqCodes]int
		for i, x := range xs {
			c := nearestPoint(points, x, ys[i])
			sx[c] += float64(x)
			sy[c] += float64(ys[i])
			count[c]++
		}
		for c, k := range count {
			if k > 0 {
				px[c], py[c] = float32(sx[c]/float64(k)), float32(sy[c]/float64(k))
			}
		}
	}
}

func nearestPoint(points []float32, x, y float32) int {
	px, py := points[:pqCodes], points[pqCodes:][:pqCodes]
	at, best := 0, float32(math.Inf(1))
	for c := range pqCodes {
		dx, dy := x-px[c], y-py[c]
		if d := dx*dx + dy*dy; d < best {
			at, best = c, d
		}
	}
	return at
}

// pqEncoder encodes vectors. It belongs to one goroutine.
type pqEncoder struct {
	pq *products
	// eta is how much more an error along the vector weighs than one across it; 1:
	// as much.
	eta  float32
	off  []float32 // squared error of each part with each code
	skew []float32 // its component along the vector
}

// newPQEncoder returns an encoder whose errors count as they do for the metric.
// Where a product with the query is what counts, queries with a large product
// lie along the vector, and so an error along it does most harm (ScaNN).
func newPQEncoder(pq *products, metric Metric) *pqEncoder {
	e := &pqEncoder{pq: pq, eta: 1, off: make([]float32, pq.parts*pqCodes), skew: make([]float32, pq.parts*pqCodes)}
	if metric != L2 {
		const t2 = parallelThreshold * parallelThreshold
		e.eta = max(1, float32(pq.dim-1)*t2/(1-t2))
	}
	return e
}

// encode writes the codes of residual r, which is v less its list's centre, and
// returns the squared norm of what the codes stand for, with the centre added.
func (e *pqEncoder) encode(code []byte, r, v, centre []float32) float32 {
	inv := float32(0)
	if e.eta > 1 {
		sq := float32(0)
		for _, x := range v {
			sq += x * x
		}
		if sq > 0 {
			inv = 1 / float32(math.Sqrt(float64(sq)))
		}
	}
	along := float32(0)
	for p := range e.pq.parts {
		x, y := e.pq.part(r, p)
		ux, uy := e.pq.part(v, p)
		ux, uy = ux*inv, uy*inv
		points := e.pq.points[p*pqDims*pqCodes:][:pqDims*pqCodes]
		px, py := points[:pqCodes], points[pqCodes:][:pqCodes]
		off, skew := e.off[p*pqCodes:][:pqCodes], e.skew[p*pqCodes:][:pqCodes]
		best, least := 0, float32(math.Inf(1))
		for c := range pqCodes {
			dx, dy := x-px[c], y-py[c]
			off[c] = dx*dx + dy*dy
			skew[c] = dx*ux + dy*uy
			if off[c] < least {
				best, least = c, off[c]
			}
		}
		code[p] = byte(best)
		along += skew[best]
	}
	if e.eta > 1 {
		e.descend(code, along)
	}
	sq := float32(0)
	for p, c := range code[:e.pq.parts] {
		points := e.pq.points[p*pqDims*pqCodes:]
		x, y := e.pq.part(centre, p)
		x, y = x+points[c], y+points[pqCodes+int(c)]
		sq += x*x + y*y
	}
	return sq
}

// descend changes one code after the other as long as the weighed error falls.
// along is the sum of the errors along the vector.
func (e *pqEncoder) descend(code []byte, along float32) {
	w := e.eta - 1
	for range pqSweeps {
		moved := false
		for p := range e.pq.parts {
			off, skew := e.off[p*pqCodes:][:pqCodes], e.skew[p*pqCodes:][:pqCodes]
			rest := along - skew[code[p]]
			best, least := int(code[p]), off[code[p]]+w*along*along
			for c := range pqCodes {
				s := rest + skew[c]
				if cost := off[c] + w*s*s; cost < least {
					best, least = c, cost
				}
			}
			if best != int(code[p]) {
				along = rest + skew[best]
				code[p], moved = byte(best), true
			}
		}
		if !moved {
			return
		}
	}
}
