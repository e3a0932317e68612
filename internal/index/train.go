package index

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// Limits of the training of a coder.
const (
	trainRows = 8192 // sample for mean, directions and ranges
	checkRows = 100  // of the sample, asked for their nearest
	mostTurn  = 1536 // dimension up to which directions are looked for: it costs dim² per row
	mostHead  = 380  // values kept of a turned vector
	turns     = 10   // rounds of the power iteration
)

// enough is the part of the ten nearest rows of a sample that have to be among
// the twenty that codes take for the nearest.
const enough = 0.97

// sample returns about n rows of base, spread evenly, in one piece.
func sample(base []float32, dim, n int) []float32 {
	rows := len(base) / dim
	n = min(n, rows)
	out := make([]float32, 0, n*dim)
	for i := range n {
		row := int(int64(i) * int64(rows) / int64(n))
		out = append(out, base[row*dim:(row+1)*dim]...)
	}
	return out
}

// trainCoder finds the smallest records with which the nearest rows of a sample
// are found. ok is false if even the largest do not; why says what was found.
func trainCoder(ctx context.Context, base []float32, dim int, m Metric, o BuildOptions) (c *coder, ok bool, why string, err error) {
	rows := sample(base, dim, trainRows)
	if vec.SQ8Stride(dim) > vec.SQ8MaxStride {
		return nil, false, fmt.Sprintf("%d dimensions do not fit a record", dim), nil
	}
	full := &coder{kern: *o.Kernels, metric: m, dim: dim, head: dim, stride: vec.SQ8Stride(dim), mean: make([]float32, dim)}
	full.findMean(rows)
	known := full.nearest(rows)
	turned := full
	if most := min(dim, mostHead); dim > vec.SQ8Line-vec.SQ8Bias && dim <= mostTurn {
		turned = &coder{kern: full.kern, metric: m, dim: dim, head: most, mean: full.mean}
		directions, err := turned.directions(ctx, rows, o.Workers)
		if err != nil {
			return nil, false, "", err
		}
		turned.basis = newBasis(directions, dim)
		for stride := vec.SQ8Line; stride < full.stride && stride-vec.SQ8Bias <= most; stride += vec.SQ8Line {
			c := turned.cut(stride)
			c.findRanges(rows)
			found := c.finds(rows, known)
			if found >= enough {
				return c, true, fmt.Sprintf("%d of %d turned dimensions in %d bytes keep %.1f %% of the nearest", c.head, dim, c.stride, 100*found), nil
			}
		}
	}
	full.findRanges(rows)
	found := full.finds(rows, known)
	return full, found >= enough, fmt.Sprintf("8-bit codes of all %d dimensions keep %.1f %% of the nearest", dim, 100*found), nil
}

// cut is c with records of a smaller size.
func (c *coder) cut(stride int) *coder {
	head := min(stride-vec.SQ8Bias, c.head)
	return &coder{
		kern: c.kern, metric: c.metric, dim: c.dim, head: head, stride: stride,
		mean: c.mean, basis: c.basis.prefix(head),
	}
}

// findMean sets the mean of the rows, each as centre will see it.
func (c *coder) findMean(rows []float32) {
	w := c.newCoded()
	sum := make([]float64, c.dim)
	for v := range slices.Chunk(rows, c.dim) {
		c.centre(v, w) // the mean is still 0
		for i, x := range w.flat {
			sum[i] += float64(x)
		}
	}
	n := max(len(rows)/c.dim, 1)
	for i, x := range sum {
		c.mean[i] = float32(x / float64(n))
	}
}

// rangeOf is how many deviations from the mean codes reach.
const rangeOf = 4.5

// findRanges sets low and step from the rows, and the turned mean.
func (c *coder) findRanges(rows []float32) {
	w := c.newCoded()
	c.turn(c.mean, w)
	c.meanHead = slices.Clone(w.head)
	n := max(len(rows)/c.dim, 1)
	sum, square := make([]float64, c.head), make([]float64, c.head)
	lo, hi := make([]float32, c.head), make([]float32, c.head)
	first := true
	for v := range slices.Chunk(rows, c.dim) {
		c.centre(v, w)
		c.turn(w.flat, w)
		for i, x := range w.head {
			sum[i] += float64(x)
			square[i] += float64(x) * float64(x)
			if first || x < lo[i] {
				lo[i] = x
			}
			if first || x > hi[i] {
				hi[i] = x
			}
		}
		first = false
	}
	c.low, c.step = make([]float32, c.head), make([]float32, c.head)
	for i := range c.low {
		mean := sum[i] / float64(n)
		reach := rangeOf * math.Sqrt(max(square[i]/float64(n)-mean*mean, 0))
		low, high := max(float64(lo[i]), mean-reach), min(float64(hi[i]), mean+reach)
		c.low[i] = float32(low)
		if c.step[i] = float32((high - low) / 255); !(c.step[i] > 1e-30) {
			c.step[i] = 1e-30 // one value only
		}
	}
}

// asked are the numbers of the rows of a sample whose nearest are looked for.
func asked(n int) []int {
	var rows []int
	for i := range min(checkRows, n) {
		rows = append(rows, i*n/min(checkRows, n))
	}
	return rows
}

// truth is how far all rows of a sample are from one of them, and from its tenth
// nearest.
type truth struct {
	dist  []float32
	tenth float32
}

// nearest finds the truth about each of the rows asked.
func (c *coder) nearest(rows []float32) []truth {
	n := len(rows) / c.dim
	sp := &space{kern: c.kern, metric: c.metric, dim: c.dim, base: rows}
	if c.metric == Cosine {
		sp.inv = make([]float32, n)
		for row := range n {
			sp.inv[row] = c.kern.InvNorm(sp.vector(uint32(row)))
		}
	}
	var top vec.TopK
	var all []truth
	for _, row := range asked(n) {
		q, out := sp.vector(uint32(row)), make([]float32, n)
		sp.run(q, sp.rowScale(uint32(row)), 0, out)
		near := nearestOf(&top, out, row, 10)
		all = append(all, truth{dist: out, tenth: out[near[len(near)-1]]})
	}
	return all
}

// nearestOf returns the k rows with the smallest distances; the row asked comes last.
func nearestOf(top *vec.TopK, dist []float32, asked, k int) []uint32 {
	dist[asked] = float32(math.Inf(1))
	top.Reset(k)
	top.PushRun(0, dist)
	var rows []uint32
	for _, n := range top.AppendSorted(nil) {
		rows = append(rows, n.Row)
	}
	return rows
}

// finds returns the part of the ten nearest that is among the twenty nearest by
// code. Rows as near as the tenth are as good.
func (c *coder) finds(rows []float32, known []truth) float64 {
	n := len(rows) / c.dim
	w := c.newCoded()
	records, halves := make([]byte, n*c.stride), make([]int8, 2*c.stride)
	for row := range n {
		c.record(rows[row*c.dim:(row+1)*c.dim], w, records[row*c.stride:(row+1)*c.stride])
	}
	ids, out := make([]uint32, n), make([]float32, n)
	for i := range ids {
		ids[i] = uint32(i)
	}
	var top vec.TopK
	hits, total := 0, 0
	for i, row := range asked(n) {
		scale := c.query(rows[row*c.dim:(row+1)*c.dim], w, halves)
		c.kern.SQ8IDs(halves, scale, records, ids, out)
		want, have := min(10, n-1), 0
		for _, near := range nearestOf(&top, out, row, 20) {
			if known[i].dist[near] <= known[i].tenth {
				have++
			}
		}
		total += want
		hits += min(have, want)
	}
	if total == 0 {
		return 1
	}
	return float64(hits) / float64(total)
}
