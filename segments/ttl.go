package segments

import (
	"github.com/querynode/querynode/internal/bitset"
)

// expired is the timestamp up to which rows are too old for a read at ts; 0 = none is.
func (x *reader) expired(ts uint64) uint64 { return x.info.expired(ts) }

// expired is the timestamp up to which rows are too old to be seen at ts: those
// whose age then is TTL or more. 0 = none is.
func (i *CollectionInfo) expired(ts uint64) uint64 {
	age := uint64(i.TTL.Milliseconds()) << logicalBits
	if i.TTL <= 0 || ts <= age {
		return 0
	}
	return ts - age
}

// logicalBits of a hybrid timestamp count within a millisecond.
const logicalBits = 18

// dropFirst removes the first n rows of a set: rows are in timestamp order, so
// these are the oldest.
func dropFirst(set *bitset.Set, n int) {
	n = min(n, set.Len())
	words := set.Words()
	clear(words[:n/64])
	if n%64 != 0 {
		words[n/64] &^= 1<<(n%64) - 1
	}
}
