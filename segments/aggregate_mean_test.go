package segments

import (
	"math/big"
	"testing"
)

// TestTheMeanOfASumThatDoesNotFit into 64 bits, though what is left of it there is a small number.
func TestTheMeanOfASumThatDoesNotFit(t *testing.T) {
	for _, c := range []acc{
		{hi: 1, lo: 6, n: 3},
		{hi: -1, lo: 6, n: 3},
		{hi: -2, lo: ^uint64(5), n: 3},
		{hi: 0, lo: 1<<64 - 5, n: 7},
		{hi: 0, lo: 6, n: 3},
		{hi: -1, lo: ^uint64(5), n: 4},
	} {
		sum := new(big.Int).Lsh(big.NewInt(c.hi), 64)
		sum.Add(sum, new(big.Int).SetUint64(c.lo))
		want, _ := new(big.Rat).SetFrac(sum, big.NewInt(int64(c.n))).Float64()
		if got := c.mean(); got != want {
			t.Errorf("the mean of %d with the sum %v: %v, want %v", c.n, sum, got, want)
		}
	}
}
