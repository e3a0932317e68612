//go:build !amd64

package vec

func (Kernels) countBits([]uint64) counted { return counted{} }

func (Kernels) listBits(set []uint64, first int, out []uint32) int {
	return listBitsPortable(set, first, out)
}

func (Kernels) pickBits(set []uint64, first int, out []uint32) int {
	return listBitsPortable(set, first, out)
}

func (Kernels) keepListed(rows []uint32, list []uint16, in *[1 << 16]byte, out []uint32) int {
	return keepListedPortable(rows, list, in, out)
}
