package vec

func (k Kernels) keys(dist []float32, rows []uint32, add uint32, keys []uint64) {
	if k.level < AVX512 {
		keysPortable(dist, rows, add, keys)
		return
	}
	keysAVX512(&dist[0], &rows[0], len(dist), add, &keys[0])
}

// splits says that there is a kernel that splits keys.
func (k Kernels) splits() bool { return k.level == AVX512 }

func (Kernels) split(keys []uint64, pivot uint64) int { return splitAVX512(&keys[0], len(keys), pivot) }

// sortFew sorts keys, two or more, if there is a kernel that can, and reports whether it did.
func (k Kernels) sortFew(keys []uint64) bool {
	return k.level == AVX512 && sortAVX512(&keys[0], len(keys))
}
