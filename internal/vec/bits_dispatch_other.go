//go:build !amd64

package vec

func (Kernels) countBits([]uint64) counted { return counted{} }

func (Kernels) listBits(set []uint64, first int, out []uint32) int {
	return listBitsPortable(set, first, out)
}
