//go:build !amd64

package vec

func (Kernels) keys(dist []float32, rows []uint32, add uint32, keys []uint64) {
	keysPortable(dist, rows, add, keys)
}

func (Kernels) splits() bool { return false }

func (Kernels) split(keys []uint64, pivot uint64) int { return splitPortable(keys, pivot) }

func (Kernels) sortFew([]uint64) bool { return false }
