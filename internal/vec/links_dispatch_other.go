//go:build !amd64

package vec

func (Kernels) links(links []uint32, rows int, set []uint64, in bool, ids []uint32) int {
	return linksPortable(links, rows, set, in, ids)
}
