package vec

//go:generate go -C ../../tools/avo run ./within -out ../../internal/vec/within_amd64.s -stubs ../../internal/vec/within_amd64.go -pkg vec

// Columns of numbers against constants. The results are bitmaps: out has a word
// for each 64 values, and values that do not fill a word get none. The number of
// words filled is returned; what is left is for the caller.

// WithinInt64 sets bit i of out where lo <= v[i] <= hi.
func (k Kernels) WithinInt64(v []int64, lo, hi int64, out []uint64) (words int) {
	if words = min(len(v)/64, len(out)); words > 0 {
		k.withinInt64(v, words, lo, hi, out)
	}
	return words
}

// WithinFloat64 sets bit i of out where lo <= v[i] <= hi; a NaN is never within.
func (k Kernels) WithinFloat64(v []float64, lo, hi float64, out []uint64) (words int) {
	if words = min(len(v)/64, len(out)); words > 0 {
		k.withinFloat64(v, words, lo, hi, out)
	}
	return words
}

// WithinFloat32 sets bit i of out where lo <= v[i] <= hi; a NaN is never within.
func (k Kernels) WithinFloat32(v []float32, lo, hi float32, out []uint64) (words int) {
	if words = min(len(v)/64, len(out)); words > 0 {
		k.withinFloat32(v, words, lo, hi, out)
	}
	return words
}

// EqualInt64 sets bit i of out where v[i] is one of list.
func (k Kernels) EqualInt64(v, list []int64, out []uint64) (words int) {
	words = min(len(v)/64, len(out))
	switch {
	case words == 0:
	case len(list) == 0:
		clear(out[:words])
	default:
		k.equalInt64(v, words, list, out)
	}
	return words
}

func withinPortable[T int64 | float64 | float32](v []T, words int, lo, hi T, out []uint64) {
	for w := range words {
		var bits uint64
		for i, x := range v[w*64:][:64] {
			if x >= lo && x <= hi {
				bits |= 1 << i
			}
		}
		out[w] = bits
	}
}

func equalPortable(v []int64, words int, list []int64, out []uint64) {
	for w := range words {
		var bits uint64
		for i, x := range v[w*64:][:64] {
			for _, y := range list {
				if x == y {
					bits |= 1 << i
				}
			}
		}
		out[w] = bits
	}
}
