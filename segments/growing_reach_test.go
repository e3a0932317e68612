package segments

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// TestListsOutOfReachHaveNothing: what a search leaves out without a look would have been
// left out after it, and of rows far away that is all.
func TestListsOutOfReachHaveNothing(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			r := newRig(t, hnsw(metric))
			r.set.listsAfter = 300
			r.insert(1, seq(0, 1100)...)
			r.built(1, 1024)
			x := r.holderOf(1).segment.(*Growing).vectors()[0].lists.Load()
			c, rnd := x.middles.codes, rand.New(rand.NewPCG(9, uint64(metric)))
			left, all := 0, 0
			for range 2000 {
				square, norm := float32(math.Exp(12*rnd.Float64()-8)), float32(rnd.Float64()+0.5)
				aff := vec.Affine{Scale: -float32(rnd.Float64()) / 50}
				most := float32(math.Exp(10*rnd.Float64() - 8))
				for i := range x.state.Load().lists {
					list := &x.state.Load().lists[i]
					least := x.least(list, square, norm, x.middles.bias[i]) - c.doubt(aff, index.L2, square, norm)
					all++
					if square < x.reach(aff, most) {
						continue
					}
					if left++; least < most {
						t.Fatalf("a list may have something at %v, looked for within %v, and is out of reach (%v of %v)", least, most, square, x.reach(aff, most))
					}
				}
			}
			if (metric == index.IP) != (left == 0) {
				t.Fatalf("%d of %d out of reach", left, all)
			}
			if reach := x.reach(vec.Affine{Scale: -0.01}, float32(math.Inf(1))); !math.IsInf(float64(reach), 1) {
				t.Fatalf("a search without a bound reaches %v", reach)
			}
		})
	}
}
