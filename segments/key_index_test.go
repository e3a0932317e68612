package segments

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestKeysOfAGrowingSegment: what the index says is what a map says, for readers
// that run beside the writer too.
func TestKeysOfAGrowingSegment(t *testing.T) {
	for _, text := range []bool{false, true} {
		const rows = 20_000
		rnd := rand.New(rand.NewPCG(1, 2))
		keys := make([]int64, rows)
		for i := range keys {
			keys[i] = rnd.Int64N(rows / 3)
		}
		var added atomic.Int64
		k := newKeyIndex(text, func(row uint32) (int64, string) {
			if text {
				return 0, fmt.Sprint(keys[row])
			}
			return keys[row], ""
		})
		of := func(key int64) (int64, string) {
			if text {
				return 0, fmt.Sprint(key)
			}
			return key, ""
		}
		var wg sync.WaitGroup
		for r := range 2 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(3, uint64(r)))
				for added.Load() < rows {
					n := added.Load()
					if n == 0 {
						continue
					}
					at := rnd.Int64N(n)
					row := k.newest(of(keys[at]))
					for row != noRow && row > uint32(at) {
						row = k.before(row)
					}
					if row != uint32(at) {
						t.Errorf("row %d of key %d is not in its chain", at, keys[at])
						return
					}
				}
			})
		}
		newest := map[int64]uint32{}
		for r := range uint32(rows) {
			want, ok := newest[keys[r]]
			if !ok {
				want = noRow
			}
			if got := k.add(r); got != want {
				t.Fatalf("row %d follows row %d, want %d", r, got, want)
			}
			newest[keys[r]] = r
			added.Store(int64(r) + 1)
		}
		wg.Wait()
		for key := range int64(rows) {
			want, ok := newest[key]
			if !ok {
				want = noRow
			}
			if got := k.newest(of(key)); got != want {
				t.Fatalf("key %d: row %d, want %d", key, got, want)
			}
		}
	}
}
