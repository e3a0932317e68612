//go:build !amd64

package vec

func (Kernels) sq8IDs(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	sq8IDsPortable(q, scale, records, ids, out)
}

func (Kernels) sqMixedIDs(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	sqMixedIDsPortable(q, scale, records, ids, out)
}

func (Kernels) topBits(weights []float32) uint32 { return topBitsPortable(weights) }

func (Kernels) halves(high, low []int8, weights []float32, inv float32) {
	halvesPortable(high, low, weights, inv)
}

func (Kernels) below(ids []uint32, dist []float32, limit float32) int {
	return belowPortable(ids, dist, limit)
}

func (Kernels) prefetchRows([]byte, int, int, []uint32, int) {}

func (Kernels) sqFirstLines(line []int8, scale float32, records []byte, stride int, ids []uint32, out []float32) {
	sqFirstLinesPortable(line, scale, records, stride, ids, out)
}

// FirstLinesFast says whether SQFirstLines has a kernel of its own.
func (Kernels) FirstLinesFast() bool { return false }

func (Kernels) topID(ids []uint32) uint32 { return topIDPortable(ids) }

func (Kernels) placesBelow(dist []float32, limit float32, places []uint32) int {
	return placesBelowPortable(dist, limit, places)
}

func (Kernels) minima([]float32, []float32) int { return 0 }
