//go:build !amd64

package vec

func (Kernels) withinInt64(v []int64, words int, lo, hi int64, out []uint64) {
	withinPortable(v, words, lo, hi, out)
}

func (Kernels) withinFloat64(v []float64, words int, lo, hi float64, out []uint64) {
	withinPortable(v, words, lo, hi, out)
}

func (Kernels) withinFloat32(v []float32, words int, lo, hi float32, out []uint64) {
	withinPortable(v, words, lo, hi, out)
}

func (Kernels) equalInt64(v []int64, words int, list []int64, out []uint64) {
	equalPortable(v, words, list, out)
}
