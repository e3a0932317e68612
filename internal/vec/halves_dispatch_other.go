//go:build !amd64

package vec

func (Kernels) halfFast() bool { return false }

func (Kernels) halfIDs(q *HalfQuery, rows *HalfRows, ids []uint32, base, mul, scale float32, out []float32) {
	halfIDsPortable(q, rows, ids, base, mul, scale, out)
}
