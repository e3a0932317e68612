package index

import (
	"context"
	"math/rand/v2"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// Of k-means.
const (
	kmeansRounds = 10
	// kmeansSample is how many vectors are looked at for each centre.
	kmeansSample = 64
	assignBlock  = 128 // vectors that are assigned in one go
)

// kmeansRows is how many of the rows k-means looks at for so many centres: all, if nearly all would do.
func kmeansRows(rows, centres int) int {
	if n := max(kmeansSample*centres, codeSample); rows-n >= kmeansSample {
		return n
	}
	return rows
}

// centres are points in space, each the middle of a list of vectors.
type centres struct {
	dim, n  int
	vectors []float32 // n*dim
	codes   *byteCodes
	short   *shortCentres // nil: few centres, or an image from before they were
}

// pack makes codes of the centres, to compare many vectors with all of them.
func (c *centres) pack(metric Metric) {
	c.codes = trainBytes(c.dim, c.vectors, 0)
	c.codes.fill(c.vectors, metric)
}

// assigner finds the centres nearest to vectors. It belongs to one goroutine.
type assigner struct {
	c    *centres
	kern vec.Kernels
	z    []int8
	sums []int32
	aff  [assignBlock]vec.Affine
}

func newAssigner(c *centres, kern vec.Kernels) *assigner {
	return &assigner{
		c: c, kern: kern,
		z:    make([]int8, assignBlock*4*c.codes.quads),
		sums: make([]int32, assignBlock*len(c.codes.bias)),
	}
}

// assign calls each with the number of the centre nearest to each of at most
// assignBlock vectors, by squared distance, and the distances to all centres as
// sums that aff and the bias of the codes make distances of.
func (a *assigner) assign(vectors []float32, each func(i, centre int, sums []int32, aff vec.Affine)) {
	c := a.c.codes
	n := len(vectors) / c.dim
	for i := range n {
		a.aff[i] = c.prepare(a.kern, a.z[i*4*c.quads:][:4*c.quads], vectors[i*c.dim:][:c.dim], L2)
	}
	all := len(c.bias)
	a.kern.Panels(a.z, n, c.quads, c.panels, all/vec.PanelRows, a.sums)
	for i := range n {
		sums := a.sums[i*all:][:all]
		at, _ := a.kern.SumsNearest(sums, c.bias, a.aff[i].Scale)
		each(i, at, sums, a.aff[i])
	}
}

// kmeans returns n centres of a sample of vectors, at least n of them, by Lloyd's
// algorithm. Distances are estimated by codes: a vector that is as near to two
// centres may as well go to any of them. Centres that attract nothing take half
// of what the largest has.
func kmeans(ctx context.Context, kern vec.Kernels, workers, n, dim int, sample []float32, tell func()) (*centres, error) {
	r := rand.New(rand.NewPCG(uint64(n), uint64(len(sample))))
	c := &centres{dim: dim, n: n, vectors: make([]float32, 0, n*dim)}
	total := len(sample) / dim
	for _, i := range r.Perm(total)[:n] {
		c.vectors = append(c.vectors, sample[i*dim:][:dim]...)
	}
	c.pack(L2)
	tallies := newTallies(c, kern, workers, total)
	for round := range kmeansRounds {
		sums, err := sumUp(ctx, tallies, sample)
		if err != nil {
			return nil, err
		}
		c.move(sums, r, round == kmeansRounds-1)
		c.pack(L2)
		if tell != nil {
			tell()
		}
	}
	return c, nil
}

// tally sums up the vectors of each centre, and how many they are. It belongs to one goroutine.
type tally struct {
	assigner *assigner
	sum      []float32
	count    []int
}

// newTallies makes one for each goroutine that has something to do with so many vectors. They are used again in each round: there are as many
// as the goroutines, and not as many as there is garbage.
func newTallies(c *centres, kern vec.Kernels, workers, vectors int) []*tally {
	all := make([]*tally, max(min(workers, (vectors+assignBlock-1)/assignBlock), 1))
	for i := range all {
		all[i] = &tally{assigner: newAssigner(c, kern), sum: make([]float32, c.n*c.dim), count: make([]int, c.n)}
	}
	return all
}

func (t *tally) add(vectors []float32) {
	dim := t.assigner.c.dim
	t.assigner.assign(vectors, func(i, at int, _ []int32, _ vec.Affine) {
		t.count[at]++
		sum := t.sum[at*dim:][:dim]
		for d, x := range vectors[i*dim:][:dim] {
			sum[d] += x
		}
	})
}

// sumUp assigns all vectors, and returns what the tallies have together, which is their own. Each has a piece of its own, whoever is quicker:
// what is summed up in another order is not the same, and as many workers make the same lists of the same rows each time.
func sumUp(ctx context.Context, tallies []*tally, sample []float32) (*tally, error) {
	dim := tallies[0].assigner.c.dim
	total := len(sample) / dim
	err := parallel(ctx, len(tallies), len(tallies), 1, func() func(from, to int) error {
		return func(i, _ int) error {
			t := tallies[i]
			clear(t.sum)
			clear(t.count)
			for from, end := i*total/len(tallies), (i+1)*total/len(tallies); from < end; from += assignBlock {
				if err := ctx.Err(); err != nil {
					return errors.Wrap(err, "build index")
				}
				t.add(sample[from*dim : min(from+assignBlock, end)*dim])
			}
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	s := tallies[0]
	for _, more := range tallies[1:] {
		for i, x := range more.sum {
			s.sum[i] += x
		}
		for i, x := range more.count {
			s.count[i] += x
		}
	}
	return s, nil
}

// move puts the centres into the middle of their vectors.
func (c *centres) move(s *tally, r *rand.Rand, last bool) {
	for i, count := range s.count {
		if count == 0 {
			continue
		}
		inv := 1 / float32(count)
		for d := range c.dim {
			c.vectors[i*c.dim+d] = s.sum[i*c.dim+d] * inv
		}
	}
	if last {
		return
	}
	for i, count := range s.count {
		if count > 0 {
			continue
		}
		// A large one is found by lot, the larger the likelier.
		big, most := 0, 0
		for range 16 {
			if j := r.IntN(c.n); s.count[j] > most {
				big, most = j, s.count[j]
			}
		}
		from, to := c.vectors[big*c.dim:][:c.dim], c.vectors[i*c.dim:][:c.dim]
		for d, x := range from {
			e := x * (1.0 / 1024) * float32(1-2*(d&1))
			from[d], to[d] = x+e, x-e
		}
		s.count[i], s.count[big] = most/2, most-most/2
	}
}
