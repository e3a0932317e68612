package segments

import (
	"math"
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// TestPointsOfInfiniteScoresAreNumbers: what is no number has no place in an order.
func TestPointsOfInfiniteScoresAreNumbers(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, normalize := range []bool{false, true} {
		r := Ranker{Weights: []float32{0, 0.5, 1}, Normalize: normalize}
		for _, m := range []index.Metric{index.L2, index.IP, index.Cosine} {
			for _, a := range []float32{inf, -inf, 1} {
				for _, b := range []float32{inf, -inf, 1} {
					zero, sum := r.points(0, 1, m, a), r.points(1, 1, m, a)+r.points(2, 1, m, b)
					if zero != 0 || math.IsNaN(sum) || math.IsInf(sum, 0) {
						t.Errorf("%s of %v and %v: %v for weight 0, %v for both", m, a, b, zero, sum)
					}
				}
			}
		}
	}
	if s := index.IP.Score(0); math.Signbit(float64(s)) {
		t.Error("the inner product of vectors at right angles is -0")
	}
}
