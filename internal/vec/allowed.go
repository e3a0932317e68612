package vec

import (
	"math/bits"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./allowed -out ../../internal/vec/allowed_amd64.s -stubs ../../internal/vec/allowed_amd64.go -pkg vec

// Allowed writes to masks, a word for each block of FastScanBlock ids, which of them
// are in a set of bits: bit i of a word for id i of its block. It returns how many
// are. What is past the end of the set is not in it. len(ids) is a multiple of
// FastScanBlock.
func (k Kernels) Allowed(ids []uint32, set []uint64, masks []uint32) int {
	blocks := len(ids) / FastScanBlock
	if len(ids)%FastScanBlock != 0 || len(masks) < blocks {
		panic(errors.AssertionFailedf("%d ids in whole blocks: room for %d masks", len(ids), len(masks)))
	}
	if blocks == 0 {
		return 0
	}
	if len(set) == 0 {
		clear(masks[:blocks])
		return 0
	}
	return k.allowed(ids, set, masks[:blocks])
}

func allowedPortable(ids []uint32, set []uint64, masks []uint32) int {
	n := 0
	for b := range masks {
		mask := uint32(0)
		for i, id := range ids[b*FastScanBlock:][:FastScanBlock] {
			if int(id>>6) < len(set) {
				mask |= uint32(set[id>>6]>>(id&63)&1) << i
			}
		}
		masks[b] = mask
		n += bits.OnesCount32(mask)
	}
	return n
}
