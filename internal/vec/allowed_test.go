package vec

import (
	"math"
	"math/rand/v2"
	"testing"
)

func checkAllowed(t *testing.T, k Kernels, r *rand.Rand, words, blocks int) {
	t.Helper()
	set := make([]uint64, words)
	for i := range set {
		set[i] = r.Uint64() & r.Uint64()
	}
	ids := make([]uint32, blocks*FastScanBlock)
	for i := range ids {
		switch r.IntN(8) {
		case 0:
			ids[i] = math.MaxUint32
		case 1:
			ids[i] = r.Uint32()
		default:
			ids[i] = uint32(r.IntN(64*words + 70))
		}
	}
	masks := make([]uint32, blocks+1)
	masks[blocks] = 99
	got := k.Allowed(ids, set, masks)
	if masks[blocks] != 99 {
		t.Fatalf("%s: wrote past the end", k.Level())
	}
	want := 0
	for i, id := range ids {
		in := int(id>>6) < words && set[id>>6]>>(id&63)&1 == 1
		if in {
			want++
		}
		if (masks[i/FastScanBlock]>>(i%FastScanBlock)&1 == 1) != in {
			t.Fatalf("%s: id %d of a set of %d words: in it is %v", k.Level(), id, words, in)
		}
	}
	if got != want {
		t.Fatalf("%s: %d in the set, want %d", k.Level(), got, want)
	}
}

func TestAllowedIDs(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for _, k := range levels(t) {
		for _, words := range []int{0, 1, 2, 100, 5000} {
			for _, blocks := range []int{0, 1, 2, 17} {
				checkAllowed(t, k, r, words, blocks)
			}
		}
	}
}

func FuzzAllowed(f *testing.F) {
	f.Add(uint64(1), uint16(3), uint8(2))
	f.Fuzz(func(t *testing.T, seed uint64, words uint16, blocks uint8) {
		for _, k := range levels(t) {
			checkAllowed(t, k, rand.New(rand.NewPCG(seed, 3)), int(words), int(blocks))
		}
	})
}
