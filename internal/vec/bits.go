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
	if len(out) < 64*len(set)+ListRoom && len(out) < k.CountBits(set)+ListRoom || first < 0 || first+len(set) > 1<<26 {
		panic(errors.AssertionFailedf("%d bits of %d words from word %d on: room for %d", k.CountBits(set), len(set), first, len(out)))
	}
	if len(set) == 0 {
		return 0
	}
	return k.listBits(set, first, out)
}

// PickRoom is how many places more than it needs PickBits wants.
const PickRoom = 16

// pickMost is how many words are picked from in one go: what is found in these stays in the first cache.
const pickMost = 1 << 11

// PickBits is ListBits in no order. Of the time it takes 0.3 to 0.6 where 1 % of the bits are set, 0.55 where 3 % are, and all
// of it from 10 % on.
func (k Kernels) PickBits(set []uint64, first int, out []uint32) (n int) {
	if first < 0 || first+len(set) > 1<<26 {
		panic(errors.AssertionFailedf("%d words from word %d on", len(set), first))
	}
	for from := 0; from < len(set); from += pickMost {
		some, at := set[from:min(from+pickMost, len(set))], first+from
		if bits := k.CountBits(some); len(out)-n < bits+PickRoom {
			panic(errors.AssertionFailedf("%d bits in words from word %d on: room for %d", bits, at, len(out)-n))
		}
		n += k.pickBits(some, at, out[n:])
	}
	return n
}

// KeepListed writes those of the rows to out, in their order, for whose number in list in is 1, where it is 0 for all others, and
// returns how many these are. Rows are below len(list), and out has room for all of them. It may be rows.
func (k Kernels) KeepListed(rows []uint32, list []uint16, in *[1 << 16]byte, out []uint32) int {
	if len(rows) == 0 {
		return 0
	}
	n := -1
	if len(list) > 0 && len(out) >= len(rows) {
		n = k.keepListed(rows, list, in, out)
	}
	if n < 0 {
		panic(errors.AssertionFailedf("%d rows, numbers of %d, or fewer than the largest row: room for %d", len(rows), len(list), len(out)))
	}
	return n
}

func keepListedPortable(rows []uint32, list []uint16, in *[1 << 16]byte, out []uint32) (n int) {
	for _, row := range rows {
		if int(row) >= len(list) {
			return -1
		}
		out[n] = row
		n += int(in[list[row]])
	}
	return n
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
