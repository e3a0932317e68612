package vec

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
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
	checkPicked(t, k, set, want)
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

// first is the first word of sets.
const first = 3

// checkPicked compares what a level picks with the places of a set from word 0 on.
func checkPicked(t *testing.T, k Kernels, set []uint64, want []uint32) {
	t.Helper()
	picked := make([]uint32, len(want)+PickRoom+1)
	picked[len(want)+PickRoom] = 99
	if got := k.PickBits(set, first, picked[:len(want)+PickRoom]); got != len(want) {
		t.Fatalf("%s: %d places picked in %d words, want %d", k.Level(), got, len(set), len(want))
	}
	if picked[len(want)+PickRoom] != 99 {
		t.Fatalf("%s: wrote past the room for what is picked", k.Level())
	}
	picked = picked[:len(want)]
	slices.Sort(picked)
	for i, at := range want {
		if at += first << 6; picked[i] != at {
			t.Fatalf("%s: picked place %d is %d, want %d", k.Level(), i, picked[i], at)
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

// TestRowsOfSomeListsAreKept, in the order they come in, and none is looked up that has no list.
func TestRowsOfSomeListsAreKept(t *testing.T) {
	const n, lists = 3000, 90
	r := rand.New(rand.NewPCG(6, 7))
	list, in := make([]uint16, n), new([1 << 16]byte)
	for i := range list {
		list[i] = uint16(r.IntN(lists))
	}
	for l := range lists {
		in[l] = byte(r.IntN(2))
	}
	for _, k := range levels(t) {
		for _, count := range []int{0, 1, 3, 4, 5, 99, 100, 101, 104, 400} {
			rows, want := make([]uint32, count), []uint32{}
			for i := range rows {
				rows[i] = uint32(r.IntN(n))
				if in[list[rows[i]]] == 1 {
					want = append(want, rows[i])
				}
			}
			if out := make([]uint32, count); !slices.Equal(out[:k.KeepListed(rows, list, in, out)], want) {
				t.Fatalf("%s: of %d rows others than those of the lists are kept", k.Level(), count)
			}
			if !slices.Equal(rows[:k.KeepListed(rows, list, in, rows)], want) {
				t.Fatalf("%s: of %d rows others are kept in their place", k.Level(), count)
			}
		}
		for what, f := range map[string]func(){
			"a row that has no list": func() { k.KeepListed([]uint32{1, 2, 3, 4, n, 5}, list, in, make([]uint32, 6)) },
			"a row among many that has none": func() {
				k.KeepListed(append(slices.Repeat([]uint32{1}, 50), append([]uint32{math.MaxUint32}, make([]uint32, 400)...)...), list, in, make([]uint32, 451))
			},
			"a row among a few that has none":    func() { k.KeepListed([]uint32{1, n}, list, in, make([]uint32, 6)) },
			"no lists":                           func() { k.KeepListed([]uint32{0}, nil, in, make([]uint32, 6)) },
			"too little room":                    func() { k.KeepListed([]uint32{1, 2, 3}, list, in, make([]uint32, 2)) },
			"too little room for what is picked": func() { k.PickBits([]uint64{7}, 0, make([]uint32, PickRoom+2)) },
		} {
			if !panics(f) {
				t.Errorf("%s: %s is taken", k.Level(), what)
			}
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
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

// FuzzKeepListed takes rows that have lists, and now and then one that has none.
func FuzzKeepListed(f *testing.F) {
	f.Add(uint64(1), uint16(230), uint16(700), false)
	f.Add(uint64(2), uint16(101), uint16(1), true)
	f.Fuzz(func(t *testing.T, seed uint64, count, known uint16, odd bool) {
		r := rand.New(rand.NewPCG(seed, 2))
		list, in, rows := make([]uint16, int(known)+1), new([1 << 16]byte), make([]uint32, count)
		for i := range list {
			list[i] = uint16(r.Uint32())
			in[list[i]] = byte(r.IntN(2))
		}
		for i := range rows {
			rows[i] = uint32(r.IntN(len(list)))
		}
		if odd && count > 0 {
			rows[r.IntN(len(rows))] = uint32(len(list)) + r.Uint32()>>1
		}
		want := make([]uint32, count)
		n := keepListedPortable(rows, list, in, want)
		for _, k := range levels(t) {
			got := make([]uint32, count)
			if n < 0 {
				if !panics(func() { k.KeepListed(rows, list, in, got) }) {
					t.Errorf("%s: a row that has no list is taken", k.Level())
				}
			} else if m := k.KeepListed(rows, list, in, got); !slices.Equal(got[:m], want[:n]) {
				t.Errorf("%s: %d rows, want %d, or others", k.Level(), m, n)
			}
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
