package vec

import (
	"math/bits"
	"slices"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./keys -out ../../internal/vec/keys_amd64.s -stubs ../../internal/vec/keys_amd64.go -pkg vec

// Keys writes the Key of each distance and row, plus add, to keys, which is as long as
// dist at least, as is rows.
func (k Kernels) Keys(dist []float32, rows []uint32, add uint32, keys []uint64) {
	if len(rows) < len(dist) || len(keys) < len(dist) {
		panic(errors.AssertionFailedf("%d distances of %d rows, room for %d keys", len(dist), len(rows), len(keys)))
	}
	if len(dist) > 0 {
		k.keys(dist, rows, add, keys)
	}
}

func keysPortable(dist []float32, rows []uint32, add uint32, keys []uint64) {
	rows, keys = rows[:len(dist)], keys[:len(dist)]
	for i, d := range dist {
		keys[i] = Key(d, rows[i]+add)
	}
}

// splitMost is how many keys are split in one go.
const splitMost = 512

// Split moves the keys below pivot to the front, in no order, and returns how many they are.
func (k Kernels) Split(keys []uint64, pivot uint64) int {
	if !k.splits() {
		return splitPortable(keys, pivot)
	}
	below := 0
	for from := 0; from < len(keys); from += splitMost {
		part := keys[from:min(from+splitMost, len(keys))]
		n := k.split(part, pivot)
		if others := from - below; others > 0 {
			// Those of this part change places with as many of the others before it.
			m := min(others, n)
			for i := range m {
				a, b := &keys[below+i], &part[n-m+i]
				*a, *b = *b, *a
			}
		}
		below += n
	}
	return below
}

// splitPortable does not branch on a key: which side of the pivot it is on is as good as random.
func splitPortable(keys []uint64, pivot uint64) int {
	n := 0
	for i, key := range keys {
		keys[i] = keys[n]
		keys[n] = key
		_, less := bits.Sub64(key, pivot, 0)
		n += int(less)
	}
	return n
}

// sortMost is how many keys are sorted by comparing each with all.
const sortMost = 128

// Sort puts keys in ascending order: fast if they are few and differ.
func (k Kernels) Sort(keys []uint64) {
	if len(keys) < 2 || len(keys) <= sortMost && k.sortFew(keys) {
		return
	}
	slices.Sort(keys)
}
