//go:build !amd64

package vec

func (Kernels) allowed(ids []uint32, set []uint64, masks []uint32) int {
	return allowedPortable(ids, set, masks)
}
