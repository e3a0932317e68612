package vec

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAHalfQueryForgetsWhatItWasBefore: a search of long rows, and then one of shorter rows with the same memory.
func TestAHalfQueryForgetsWhatItWasBefore(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	for _, dim := range []int{65, 67, 127, 131} {
		rows, _, weights := halfCase(r, dim, 9)
		_, _, before := halfCase(r, 300, 1)
		var used, fresh HalfQuery
		used.Set(before)
		used.Set(weights)
		fresh.Set(weights)
		ids := []uint32{8, 7, 6, 5, 4, 3, 2, 1, 0}
		for _, k := range sq8Levels(t) {
			got, want := make([]float32, len(ids)), make([]float32, len(ids))
			k.HalfIDs(&used, &rows, ids, 0, 1, 1, got)
			k.HalfIDs(&fresh, &rows, ids, 0, 1, 1, want)
			if !slices.Equal(got, want) {
				t.Errorf("%s, %d values: %v, want %v", k.Level(), dim, got, want)
			}
		}
	}
}

// TestAHalfQueryThatDoesNotFitIsRefused: kernels trust that weights are as long as rows, and that there is room for what they write.
func TestAHalfQueryThatDoesNotFitIsRefused(t *testing.T) {
	rows := NewHalfRows(128, 4, make([]byte, HalfLines(128, 4)))
	ids := []uint32{0, 1, 2, 3}
	for what, c := range map[string]struct{ dim, room int }{
		"longer rows":  {64, 4},
		"shorter rows": {256, 4},
		"no weights":   {0, 4},
		"no room":      {128, 3},
	} {
		var q HalfQuery
		q.Set(make([]int8, c.dim))
		for _, k := range sq8Levels(t) {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s, %s: it was read", k.Level(), what)
					}
				}()
				k.HalfIDs(&q, &rows, ids, 0, 1, 1, make([]float32, 64)[:c.room])
			}()
		}
	}
}
