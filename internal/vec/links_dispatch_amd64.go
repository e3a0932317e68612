package vec

func (k Kernels) links(links []uint32, rows int, set []uint64, in bool, ids []uint32) int {
	if k.level < AVX512 {
		return linksPortable(links, rows, set, in, ids)
	}
	flip := ^uint32(0)
	if in {
		flip = 0
	}
	return linksAVX512(&links[0], len(links), uint32(min(rows, 1<<32-1)), &set[0], flip, &ids[0])
}
