package vec

import (
	"math/bits"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./bits -out ../../internal/vec/bits_amd64.s -stubs ../../internal/vec/bits_amd64.go -pkg vec

// ListRoom is how many places more than it needs ListBits wants.
const ListRoom = 8

// CountBits is the number of bits in a set.
func (k Kernels) CountBits(set []uint64) int {
	n := k.countBits(set)
	for _, w := range set[n.words:] {
		n.bits += bits.OnesCount64(w)
	}
	return n.bits
}

// counted is how many bits there are in so many words.
type counted struct{ words, bits int }

// ListBits writes the place of each bit of a set whose first word is word first to out, in order, and returns how many there are.
// It writes up to ListRoom values behind these, and out has room for them.
func (k Kernels) ListBits(set []uint64, first int, out []uint32) int {
	if n := k.CountBits(set); len(out) < n+ListRoom || first < 0 || first+len(set) > 1<<26 {
		panic(errors.AssertionFailedf("%d bits of %d words from word %d on: room for %d", n, len(set), first, len(out)))
	}
	if len(set) == 0 {
		return 0
	}
	return k.listBits(set, first, out)
}

func listBitsPortable(set []uint64, first int, out []uint32) int {
	n := 0
	for w, x := range set {
		for ; x != 0; x &= x - 1 {
			out[n] = uint32((first+w)<<6 + bits.TrailingZeros64(x))
			n++
		}
	}
	return n
}
