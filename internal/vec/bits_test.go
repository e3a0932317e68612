package vec

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

// checkBits compares what a level counts and lists with a walk over all places.
func checkBits(t *testing.T, k Kernels, set []uint64) {
	t.Helper()
	var want []uint32
	for w, x := range set {
		for i := range 64 {
			if x>>i&1 == 1 {
				want = append(want, uint32(w<<6+i))
			}
		}
	}
	if got := k.CountBits(set); got != len(want) {
		t.Fatalf("%s: %d bits in %d words, want %d", k.Level(), got, len(set), len(want))
	}
	const first = 3
	out := make([]uint32, len(want)+ListRoom+1)
	out[len(want)+ListRoom] = 99
	if got := k.ListBits(set, first, out[:len(want)+ListRoom]); got != len(want) {
		t.Fatalf("%s: %d places in %d words, want %d", k.Level(), got, len(set), len(want))
	}
	if out[len(want)+ListRoom] != 99 {
		t.Fatalf("%s: wrote past the room", k.Level())
	}
	for i, at := range want {
		if at += first << 6; out[i] != at {
			t.Fatalf("%s: place %d is %d, want %d", k.Level(), i, out[i], at)
		}
	}
}

func TestBitsOfASet(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for _, k := range levels(t) {
		for _, words := range []int{0, 1, 2, 31, 32, 33, 64, 300} {
			for _, few := range []int{0, 1, 4, 64} { // all of them are set, half, one of 16, none
				set := make([]uint64, words)
				for i := range set {
					set[i] = ^uint64(0)
					for range few {
						set[i] &= r.Uint64()
					}
				}
				checkBits(t, k, set)
			}
		}
		for n := range 65 { // so many bits in one word
			set := make([]uint64, 3)
			for bits.OnesCount64(set[1]) < n {
				set[1] |= 1 << r.IntN(64)
			}
			checkBits(t, k, set)
		}
	}
}

func FuzzBits(f *testing.F) {
	f.Add(uint64(1), uint8(40), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, words, few uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		set := make([]uint64, words)
		for i := range set {
			set[i] = r.Uint64()
			for range few % 8 {
				set[i] &= r.Uint64()
			}
		}
		for _, k := range levels(t) {
			checkBits(t, k, set)
		}
	})
}

func TestListBitsWantsRoom(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("places are written behind the room")
		}
	}()
	Detect().ListBits([]uint64{7}, 0, make([]uint32, ListRoom+2))
}

func BenchmarkBits(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	set, n := make([]uint64, 15_625), 0
	for range 10_000 { // one row in a hundred
		set[r.IntN(len(set))] |= 1 << r.IntN(64)
	}
	for _, k := range levels(b) {
		n = k.CountBits(set)
		out := make([]uint32, n+ListRoom)
		b.Run("count/"+k.Level().String(), func(b *testing.B) {
			for range b.N {
				k.CountBits(set)
			}
		})
		b.Run("list/"+k.Level().String(), func(b *testing.B) {
			for range b.N {
				k.ListBits(set, 0, out)
			}
		})
	}
}
