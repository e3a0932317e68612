package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// lidNear is how many of the nearest rows of a sample tell about the dimension, and
// lidValues how many values the sample has at most.
const lidNear, lidValues = 20, 1 << 25

// localDimension estimates in how many directions the nearest rows around a row
// are spread: the median over some rows of a sample of the maximum likelihood
// estimate (Levina and Bickel, "Maximum likelihood estimation of intrinsic
// dimension", 2004). Rows with nothing near that differs count for nothing; 0 if
// that is true of all.
func localDimension(k vec.Kernels, base []float32, dim int, m Metric) float64 {
	rows := sample(base, dim, min(trainRows, lidValues/dim))
	c := &coder{kern: k, metric: L2, dim: dim}
	rows.unit = m == Cosine
	var top vec.TopK
	var all []float64
	for _, known := range c.nearest(rows) {
		top.Reset(lidNear)
		top.PushRun(0, known.dist)
		near := top.AppendSorted(nil)
		far := float64(near[len(near)-1].Distance)
		sum, n := 0.0, 0
		for _, x := range near {
			if d := float64(x.Distance); d > 1e-9*far && d < far {
				sum += math.Log(far/d) / 2 // of the roots
				n++
			}
		}
		if n > lidNear/2 && !math.IsInf(far, 0) {
			all = append(all, float64(n)/sum)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
