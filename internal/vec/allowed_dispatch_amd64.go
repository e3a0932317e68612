package vec

import "math"

func (k Kernels) allowed(ids []uint32, set []uint64, masks []uint32) int {
	if k.level != AVX512 || len(set) > math.MaxInt32/2 {
		return allowedPortable(ids, set, masks)
	}
	return allowedAVX512(&ids[0], len(masks), &set[0], 2*len(set), &masks[0])
}
