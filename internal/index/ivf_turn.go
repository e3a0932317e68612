package index

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/querynode/querynode/internal/vec"
)

// Of what an inverted file leaves out of its codes.
const (
	// turnKeeps is the part of the ten nearest rows of a sample that have to be among the
	// twenty nearest by the values that are kept.
	turnKeeps = 0.99
	// turnMost is the part of the dimensions that may be kept: else it is not worth the
	// turning of each query, and what is lost.
	turnMost = 0.5
	turnStep = 16 // dimensions
	// turnMore is how many are kept beyond what the sample needs: all rows lie closer
	// together than those of a sample, and less tells them apart.
	turnMore = 16
	turnRows = 1024 // fewer rows tell too little
	// turnProofs is how many rows are asked for their ten nearest once all is built, and
	// turnProof what part of these has to be found where all lists are read.
	turnNear   = 10
	turnProofs = 64
	turnProof  = 0.985
)

// turning looks for the directions in which near rows differ. If a few of them make
// up most of the distance, centres and codes are of the values in these alone, and
// a search reads so much less; what is left out counts where rows are ranked. It
// returns nil if all are wanted. Rows are centred for L2, where that changes no
// distance, and not where products count.
func (b *ivfBuilder) turning(ctx context.Context) (*coder, error) {
	if b.n < turnRows || b.dim < 2*codedDims || b.dim > mostTurn || b.dim > longTurn && b.n < longLeast || vec.SQ8Stride(b.dim) > vec.SQ8MaxStride || !hasCodes(b.kind, b.dim) {
		return nil, nil
	}
	rows := sample(b.base[:b.n*b.dim], b.dim, trainRows)
	full := &coder{kern: b.kern, metric: b.metric, dim: b.dim, mean: make([]float32, b.dim)}
	known := full.nearest(rows)
	if b.metric == L2 {
		full.findMean(rows)
	}
	most := min(int(turnMost*float64(b.dim)), mostHead) / turnStep * turnStep
	all := &coder{kern: b.kern, metric: b.metric, dim: b.dim, head: most, mean: full.mean}
	directions, err := all.directions(ctx, rows, b.o.Workers)
	if err != nil {
		return nil, err
	}
	all.basis = newBasis(directions, b.dim)
	fits := func(head int) bool {
		c := *all
		c.head, c.wide, c.stride, c.basis = head, head, vec.SQ8Stride(head), all.basis.prefix(head)
		return c.train(rows).finds(rows, known) >= turnKeeps
	}
	if !fits(most) {
		return nil, nil
	}
	enough, few := most, 0 // few are not known to do
	for enough-few > turnStep {
		if half := (few + enough) / 2 / turnStep * turnStep; fits(half) {
			enough = half
		} else {
			few = half
		}
	}
	all.head = min(enough+turnMore, most)
	all.wide = all.head
	all.basis = newBasis(stirred(b.kern, directions[:all.head*b.dim], b.dim), b.dim)
	return all, nil
}

// stirred returns as many other directions that span the same, in which rows vary
// about equally: a part of a product quantiser has four bits whatever it says (Ge et al.,
// "Optimized Product Quantization", 2013).
func stirred(kern vec.Kernels, directions []float32, dim int) []float32 {
	n := len(directions) / dim
	r := rand.New(rand.NewPCG(uint64(n), uint64(dim)))
	mix := make([]float32, n*n)
	for i := range mix {
		mix[i] = float32(r.NormFloat64())
	}
	orthonormal(kern, mix, n)
	out := make([]float32, n*dim)
	for i := range n {
		to := out[i*dim:][:dim]
		for j, share := range mix[i*n:][:n] {
			for d, x := range directions[j*dim:][:dim] {
				to[d] += share * x
			}
		}
	}
	return out
}

// prove looks whether codes of the values that were kept tell the nearest of all rows,
// not only of those in a sample. If they do not, all is built again without turning.
func (b *ivfBuilder) prove(lists int) error {
	if b.turn == nil {
		return nil
	}
	n := min(b.n, turnProofs)
	var mu sync.Mutex
	hits, total := 0, 0
	err := parallel(b.ctx, b.o.Workers, n, 1, func() func(from, to int) error {
		var s Scratch
		return func(from, to int) error {
			for i := from; i < to; i++ {
				v := b.vector(uint32(i * b.n / n))
				s.begin(0)
				near := slices.Clone(b.scanAll(v, &plan{k: turnNear}, &s))
				got := shared(near, b.Search(v, &Query{K: turnNear, Effort: b.lists.n}, &s))
				mu.Lock()
				hits, total = hits+got, total+turnNear
				mu.Unlock()
			}
			return nil
		}
	})
	if err != nil || float64(hits) >= turnProof*float64(total) {
		return err
	}
	b.turn = nil
	b.prog.more(3 * b.n)
	for _, step := range []func(lists int) error{b.cluster, b.assign, b.encode, b.refine} {
		if err := step(lists); err != nil {
			return err
		}
	}
	return nil
}

// width is the number of values that codes and centres are of.
func (x *ivf) width() int {
	if x.turn == nil {
		return x.dim
	}
	return x.turn.head
}

// shorten writes what codes are of to dst, for vector v, and returns by how much the
// squared length of v (less the mean) exceeds that of dst.
func (x *ivf) shorten(dst, v []float32, w *coded) (tail float32) {
	if x.turn == nil {
		copy(dst, v)
		if x.metric == Cosine {
			x.kern.Normalize(dst, dst)
		}
		return 0
	}
	square := x.turn.centre(v, w)
	x.turn.turn(w.flat, w)
	copy(dst, w.head)
	return square - x.kern.Dot(dst, dst)
}

// turnRoom makes w fit for shorten.
func (x *ivf) turnRoom(w *coded) *coded {
	if x.turn != nil {
		w.flat, w.head = grown(w.flat, x.dim), grown(w.head, x.turn.head)
		w.halves = grown(w.halves, 2*x.turn.basis.stride)
	}
	return w
}

func (x *ivf) newTurned() *coded { return x.turnRoom(&coded{}) }

// size is the memory that w holds.
func (w *coded) size() int {
	return 4*(cap(w.flat)+cap(w.head)+cap(w.weights)) + cap(w.halves) + cap(w.codes)
}

// size is the memory of the directions.
func (b *basis) size() int64 {
	return int64(len(b.codes)) + 4*int64(len(b.low)+len(b.step)+len(b.ids)+len(b.ones))
}

// openTurning is a turning in an image.
func openTurning(s *space, head int, mean, low, step, codes []byte) *coder {
	return &coder{
		kern: s.kern, metric: s.metric, dim: s.dim, head: head, wide: head, mean: asFloats(mean),
		basis: viewBasis(s.dim, codes, asFloats(low), asFloats(step)),
	}
}
