package vec

import (
	"sync/atomic"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./links -out ../../internal/vec/links_amd64.s -stubs ../../internal/vec/links_amd64.go -pkg vec

// Links writes to ids the rows that a list of a graph leads to and that are in a set
// or, if in is false, are not, and returns how many they are. A link is a row plus 1,
// 0 ends the list; links to rows from rows on are left out. Row r is bit r%64 of
// set[r/64]. ids is as long as links at least; what is behind the result is undefined.
// Links may change meanwhile, each at once.
func (k Kernels) Links(links []uint32, rows int, set []uint64, in bool, ids []uint32) int {
	if rows < 0 || rows > 64*len(set) || len(ids) < len(links) {
		panic(errors.AssertionFailedf("%d rows in a set of %d words, %d links, room for %d rows", rows, len(set), len(links), len(ids)))
	}
	if len(links) == 0 || rows == 0 {
		return 0
	}
	return k.links(links, rows, set, in, ids)
}

func linksPortable(links []uint32, rows int, set []uint64, in bool, ids []uint32) int {
	n, flip := 0, ^uint64(0)
	if in {
		flip = 0
	}
	for i := range links {
		row := atomic.LoadUint32(&links[i]) - 1
		if int(row) < rows {
			ids[n] = row
			n += int((set[row>>6] ^ flip) >> (row & 63) & 1)
		} else if row == 1<<32-1 {
			break
		}
	}
	return n
}
