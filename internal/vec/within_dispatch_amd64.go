package vec

// Here the arguments are checked already: at least one word, one value in a list.

func (k Kernels) withinInt64(v []int64, words int, lo, hi int64, out []uint64) {
	switch k.level {
	case AVX512:
		withinInt64AVX512(&v[0], words, lo, hi, &out[0])
	case AVX2:
		withinInt64AVX2(&v[0], words, lo, hi, &out[0])
	default:
		withinPortable(v, words, lo, hi, out)
	}
}

func (k Kernels) withinFloat64(v []float64, words int, lo, hi float64, out []uint64) {
	switch k.level {
	case AVX512:
		withinFloat64AVX512(&v[0], words, lo, hi, &out[0])
	case AVX2:
		withinFloat64AVX2(&v[0], words, lo, hi, &out[0])
	default:
		withinPortable(v, words, lo, hi, out)
	}
}

func (k Kernels) withinFloat32(v []float32, words int, lo, hi float32, out []uint64) {
	switch k.level {
	case AVX512:
		withinFloat32AVX512(&v[0], words, lo, hi, &out[0])
	case AVX2:
		withinFloat32AVX2(&v[0], words, lo, hi, &out[0])
	default:
		withinPortable(v, words, lo, hi, out)
	}
}

func (k Kernels) equalInt64(v []int64, words int, list []int64, out []uint64) {
	switch k.level {
	case AVX512:
		equalInt64AVX512(&v[0], words, &list[0], len(list), &out[0])
	case AVX2:
		equalInt64AVX2(&v[0], words, &list[0], len(list), &out[0])
	default:
		equalPortable(v, words, list, out)
	}
}
