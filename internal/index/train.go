package index

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Limits of the training of a coder.
const (
	trainRows = 8192 // sample for mean, directions and ranges
	// trainLongest are as many of the longest rows besides, for dot products: they are what is found.
	trainLongest = 256
	checkRows    = 100  // of the sample, asked for their nearest
	mostTurn     = 4096 // dimension up to which directions are looked for: it costs dim² per row
	mostHead     = 380  // values kept of a turned vector
	turns        = 10   // rounds of the power iteration
	// Of more dimensions than longTurn, directions are looked for in longRows rows, and
	// longTurns rounds: nearly as good (gist: 98.7 % of the nearest kept by 124 values after
	// four rounds, 98.5 % after ten), in a third of the time.
	// Fewer rows than longLeast are not worth the seconds that takes.
	longTurn, longRows, longTurns, longLeast = 1536, 4096, 4, 4000
)

// What part of the ten nearest rows of a sample have to be among the twenty that
// codes take for the nearest: for codes to be of use at all; for rows to be linked
// as well by them as by the vectors; and to search by them without having to keep,
// and rank, more rows than are wanted.
const (
	enough         = 0.97
	enoughToLink   = 0.992
	enoughToSearch = 0.994
	// enoughIfLarge is for records of which the next larger would make the index too large.
	enoughIfLarge = 0.99
)

// tooLarge says whether a graph of records of a size takes more than three fifths of what one of
// float32 takes by row, which has as many links and about a hundred bytes besides.
func tooLarge(dim, stride int) bool {
	return 5*(fineStride(dim, fineBits(dim))+stride+usualLinks) > 3*(4*dim+usualLinks+100)
}

// sampleLong is sample with the longest rows of base besides, in order of their number.
func sampleLong(k vec.Kernels, base []float32, dim, n, longest int) sampled {
	s := sampled{base: base, dim: dim}
	pickRows(len(base)/dim, min(n, len(base)/dim), func(row int) { s.rows = append(s.rows, uint32(row)) })
	var top vec.TopK
	top.Reset(longest)
	for row := range len(base) / dim {
		v := base[row*dim:][:dim]
		top.Push(uint32(row), -k.Dot(v, v))
	}
	first := len(s.rows)
	for _, x := range top.AppendSorted(nil) {
		s.rows = append(s.rows, x.Row)
	}
	slices.Sort(s.rows[first:])
	return s.inOnePiece()
}

// trained is what a training found.
type trained struct {
	coder *coder // the smallest wide codes that tell rows apart, to build by
	small *coder // mixed codes to search by; nil: the same
	ok    bool   // they do tell rows apart
	why   string
}

// trainCoder finds the smallest records with which the nearest rows of a sample
// are found.
func trainCoder(ctx context.Context, base []float32, dim int, m Metric, o BuildOptions) (t trained, err error) {
	if vec.SQ8Stride(dim) > vec.SQ8MaxStride {
		return trained{why: fmt.Sprintf("%d dimensions do not fit a record", dim)}, nil
	}
	rows := sample(base, dim, trainRows)
	if m == IP {
		rows = sampleLong(*o.Kernels, base, dim, trainRows, trainLongest)
	}
	for v := range rows.all() {
		if notFinite(v) >= 0 {
			return t, errclass.New(errclass.Invalid, "build index: a value is not finite")
		}
	}
	full := &coder{kern: *o.Kernels, metric: m, dim: dim, head: dim, wide: dim, stride: vec.SQ8Stride(dim), mean: make([]float32, dim)}
	full.findMean(rows)
	known, err := full.nearestUntil(ctx, rows)
	if err != nil {
		return t, err
	}
	turned := full
	if dim > vec.SQ8Line-vec.SQ8Bias && dim <= mostTurn && (dim <= longTurn || len(base)/dim >= longLeast) {
		turned = &coder{kern: full.kern, metric: m, dim: dim, head: min(dim, mostHead), mean: full.mean}
		directions, err := turned.directions(ctx, rows, o.Workers)
		if err != nil {
			return t, err
		}
		turned.basis = newBasis(directions, dim)
		for stride := vec.SQ8Line; stride < full.stride && stride-vec.SQ8Bias <= turned.head; stride += vec.SQ8Line {
			if err := ctx.Err(); err != nil {
				return t, errors.Wrap(err, "train codes")
			}
			c := turned.cut(stride, stride-vec.SQ8Bias).train(rows)
			if found := c.finds(rows, known); found >= enough {
				t = trained{coder: c, ok: true, why: fmt.Sprintf("%d of %d turned dimensions keep %.1f %% of the nearest", c.head, dim, 100*found)}
				if found >= enoughToLink {
					break
				}
			}
		}
	}
	below := full.stride
	if t.coder == nil {
		if t, err = full.trainAsTheyAre(ctx, rows, known); err != nil {
			return t, err
		}
		below = t.coder.stride
	}
	if t.ok && turned != full {
		return t, t.mix(ctx, turned, below, rows, known)
	}
	return t, nil
}

// mix looks for the smallest mixed codes that are good enough to search by. Among
// records of a size, below that of a record to be shorter than, those with the most wide codes are taken.
func (t *trained) mix(ctx context.Context, turned *coder, below int, rows sampled, known []truth) error {
	for stride := vec.SQ8Line; stride < below; stride += vec.SQ8Line {
		most := stride - vec.SQ8Bias
		fewest := max(0, 2*most-turned.head) // as many dimensions as there are
		if fewest >= most {
			break
		}
		// Wide codes first: fewer dimensions are to be turned for each query.
		best := 0.0
		for eighth := 4; eighth >= 0 && best < enoughToSearch; eighth-- {
			if err := ctx.Err(); err != nil {
				return errors.Wrap(err, "train codes")
			}
			c := turned.cut(stride, fewest+(most-fewest)*eighth/8).train(rows)
			if found := c.finds(rows, known); found > best {
				best, t.small = found, c
			}
		}
		if best >= enoughToSearch || best >= enoughIfLarge && tooLarge(turned.dim, stride+vec.SQ8Line) {
			t.why += fmt.Sprintf("; searched by %d of them in 8 and %d in 4 bits, which keep %.1f %%", t.small.wide, t.small.head-t.small.wide, 100*best)
			return nil
		}
		t.small = nil
	}
	return nil
}

// cut is c with records of a smaller size and so many wide codes, trained.
func (c *coder) cut(stride, wide int) *coder {
	head := min(vec.SQMixedCodes(stride, wide), c.head)
	to := &coder{
		kern: c.kern, metric: c.metric, dim: c.dim, head: head, wide: wide, stride: stride,
		mean: c.mean, basis: c.basis.prefix(head),
	}
	return to
}

// findMean sets the mean of the rows, each as centre will see it.
func (c *coder) findMean(rows sampled) {
	w := c.newCoded()
	sum := make([]float64, c.dim)
	for v := range rows.all() {
		c.centre(v, w) // the mean is still 0
		for i, x := range w.flat {
			sum[i] += float64(x)
		}
	}
	n := max(rows.len(), 1)
	for i, x := range sum {
		c.mean[i] = float32(x / float64(n))
	}
	c.roundMean(rows)
}

// roundMean rounds the mean of rows of whole numbers (bytes, counts) to so fine a fraction of one, a power of two, that fine codes
// tell their differences from it without rounding, see fine.exactStep. Rounded to 12 bits, distances of patches of photographs were
// off by so much that one of ten rows in 200 was taken for another whatever the effort.
func (c *coder) roundMean(rows sampled) {
	bits := fineBits(c.dim)
	if bits == 0 || c.metric == Cosine {
		return
	}
	peak := 0.0
	for v := range rows.all() {
		for i, x := range v {
			if x != float32(math.Trunc(float64(x))) {
				return
			}
			peak = max(peak, math.Abs(float64(x-c.mean[i])))
		}
	}
	_, exp := math.Frexp(fineTop(bits) / (peak + 1))
	grid := max(math.Ldexp(1, exp-1), 1) // of rows that have larger values than codes of whole numbers reach others are told
	if !(peak*grid < float32Whole) {
		return
	}
	for i, x := range c.mean {
		c.mean[i] = float32(math.Round(float64(x)*grid) / grid)
	}
}

// float32Whole is up to where all whole numbers are float32.
const float32Whole = 1 << 24

// How many deviations from the mean codes reach: few steps are best spent where
// most values are.
const (
	reachOfWide   = 4.5
	reachOfNarrow = 2.9
	// What is found by dot products are the longest rows: codes reach farther, and
	// beyond the sample, of which not all of the longest are part.
	reachOfIP = 6
	reachPast = 1.5
)

// train sets low and step from the rows, and the turned mean, and returns c.
func (c *coder) train(rows sampled) *coder { return c.trainFor(rows, 1) }

// trainFor is train for codes that reach so many times as far as they do mostly.
func (c *coder) trainFor(rows sampled, times float64) *coder {
	w := c.newCoded()
	c.turn(c.mean, w)
	c.meanHead = slices.Clone(w.head)
	n := max(rows.len(), 1)
	sum, square := make([]float64, c.head), make([]float64, c.head)
	lo, hi := make([]float32, c.head), make([]float32, c.head)
	first := true
	for v := range rows.all() {
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
		reach, steps := reachOfWide, 255.0
		if i >= c.wide {
			reach, steps = reachOfNarrow, 15
		}
		reach *= times * math.Sqrt(max(square[i]/float64(n)-mean*mean, 0))
		low, high := float64(lo[i]), float64(hi[i])
		if c.metric == IP {
			low, high = mean-reachPast*(mean-low), mean+reachPast*(high-mean)
			reach *= reachOfIP
		}
		low, high = max(low, mean-reach), min(high, mean+reach)
		c.low[i] = float32(low)
		if c.step[i] = float32((high - low) / steps); !(c.step[i] > 1e-30) {
			c.step[i] = 1e-30 // one value only
		}
	}
	return c
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
func (c *coder) nearest(rows sampled) []truth {
	all, _ := c.nearestUntil(context.Background(), rows)
	return all
}

// nearestUntil is nearest unless ctx ends. It goes through the rows once, some at a time.
func (c *coder) nearestUntil(ctx context.Context, rows sampled) ([]truth, error) {
	n := rows.len()
	some := asked(n)
	all, queries := make([]truth, len(some)), make([]float32, 0, len(some)*c.dim)
	for i, row := range some {
		queries = append(queries, rows.block(c.kern, row, 1, nil)...)
		all[i].dist = make([]float32, n)
	}
	sp := space{kern: c.kern, metric: c.metric, dim: c.dim}
	var room []float32
	for from := 0; from < n; from += rows.step() {
		if err := ctx.Err(); err != nil {
			return nil, errors.Wrap(err, "look for the rows nearest to some")
		}
		to := min(from+rows.step(), n)
		room = rows.block(c.kern, from, to-from, room)
		sp.base = room
		if c.metric == Cosine {
			sp.inv = grown(sp.inv, to-from)
			for row := range sp.inv {
				sp.inv[row] = c.kern.InvNorm(sp.vector(uint32(row)))
			}
		}
		for i := range all {
			q := queries[i*c.dim:][:c.dim]
			sp.run(q, sp.scale(q), 0, all[i].dist[from:to])
		}
	}
	var top vec.TopK
	for i, row := range some {
		near := nearestOf(&top, all[i].dist, row, 10)
		all[i].tenth = all[i].dist[near[len(near)-1]]
	}
	return all, nil
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
func (c *coder) finds(rows sampled, known []truth) float64 {
	n := rows.len()
	w := c.newCoded()
	records, q := make([]byte, n*c.stride), sqQuery{halves: make([]int8, c.queryLen())}
	for row := range n {
		c.record(rows.at(row), w, records[row*c.stride:(row+1)*c.stride])
	}
	ids, out := make([]uint32, n), make([]float32, n)
	for i := range ids {
		ids[i] = uint32(i)
	}
	var top vec.TopK
	hits, total := 0, 0
	for i, row := range asked(n) {
		q.scale, _ = c.query(rows.at(row), w, q.halves)
		c.distances(&q, records, ids, out)
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
