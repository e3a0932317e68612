//go:build !amd64

package vec

func (Kernels) fastScan(codes []byte, quads, blocks int, lut []byte, out []uint32) {
	fastScanPortable(codes, quads, blocks, lut, out)
}

func (k Kernels) fastScanBelow(codes []byte, quads, blocks int, lut []byte, bias []float32, masks []uint32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	return k.fastScanBelowBySums(codes, quads, blocks, lut, bias, masks, aff, limit, rows, dist)
}

func (Kernels) panels(queries []int8, nq, quads int, panels []byte, n int, out []int32) {
	panelsPortable(queries, nq, quads, panels, n, out)
}

func (Kernels) sumsBelow(sums []int32, bias []float32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	return sumsBelowPortable(sums, bias, aff, limit, rows, dist)
}

func (Kernels) sumsNearest(sums []int32, bias []float32, scale float32) (int, float32) {
	return sumsNearestPortable(sums, bias, scale)
}

func (Kernels) quantize(q, step []float32, z []int8) float32 { return quantizePortable(q, step, z) }
