//go:build !amd64

package vec

// Supported returns the highest level that this CPU can run.
func Supported() Level { return Portable }

func (Kernels) l2IDs(q, base []float32, dim int, ids []uint32, out *float32) {
	l2IDsPortable(q, base, dim, ids, out)
}

func (Kernels) dotIDs(q, base []float32, dim int, ids []uint32, out *float32) {
	dotIDsPortable(q, base, dim, ids, out)
}

func (Kernels) l2Rows(q, rows []float32, dim, n int, out *float32) {
	l2RowsPortable(q, rows, dim, n, out)
}

func (Kernels) dotRows(q, rows []float32, dim, n int, out *float32) {
	dotRowsPortable(q, rows, dim, n, out)
}

func prefetch([]uint32) {}

func (Kernels) fastScan(codes []byte, quads, blocks int, lut []byte, out []uint32) {
	fastScanPortable(codes, quads, blocks, lut, out)
}

func (k Kernels) fastScanBelow(codes []byte, quads, blocks int, lut []byte, bias []float32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	return k.fastScanBelowBySums(codes, quads, blocks, lut, bias, aff, limit, rows, dist)
}

func (d Distance) rows(q, rows []byte, out []float32) { d.rowsPortable(q, rows, out) }

func (d Distance) ids(q, base []byte, ids []uint32, out []float32) { d.idsPortable(q, base, ids, out) }

func (Kernels) panels(queries []int8, nq, quads int, panels []byte, n int, out []int32) {
	panelsPortable(queries, nq, quads, panels, n, out)
}

func (Kernels) sumsBelow(sums []int32, bias []float32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	return sumsBelowPortable(sums, bias, aff, limit, rows, dist)
}

func (Kernels) sumsNearest(sums []int32, bias []float32, scale float32) (int, float32) {
	return sumsNearestPortable(sums, bias, scale)
}
