package vec

import "golang.org/x/sys/cpu"

// hasVNNI says whether AVX-512 comes with 8-bit dot products.
func hasVNNI() bool { return cpu.X86.HasAVX512VNNI }

func (k Kernels) sq8IDs(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	switch {
	case k.level >= AVX512 && hasVNNI():
		sq8IDsVNNI(&q[0], &records[0], len(q)/sq8Parts, &ids[0], len(ids), scale, &out[0])
	case k.level >= AVX2:
		sq8IDsAVX2(&q[0], &records[0], len(q)/sq8Parts, &ids[0], len(ids), scale, &out[0])
	default:
		sq8IDsPortable(q, scale, records, ids, out)
	}
}

func (k Kernels) sqMixedIDs(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	switch {
	case k.level >= AVX512 && hasVNNI():
		sqMixedIDsVNNI(&q[0], &records[0], len(q)/sqMixedParts, &ids[0], len(ids), scale, &out[0])
	case k.level >= AVX2:
		sqMixedIDsAVX2(&q[0], &records[0], len(q)/sqMixedParts, &ids[0], len(ids), scale, &out[0])
	default:
		sqMixedIDsPortable(q, scale, records, ids, out)
	}
}

func (k Kernels) sqFirstLines(line []int8, scale float32, records []byte, stride int, ids []uint32, out []float32) {
	if !k.FirstLinesFast() {
		sqFirstLinesPortable(line, scale, records, stride, ids, out)
		return
	}
	sqFirstLinesVNNI(&line[0], &records[0], stride, &ids[0], len(ids), scale, &out[0])
}

// FirstLinesFast says whether SQFirstLines has a kernel of its own.
func (k Kernels) FirstLinesFast() bool { return k.level >= AVX512 && hasVNNI() }

// topIDLeast is how many ids are worth a call.
const topIDLeast = 32

func (k Kernels) topID(ids []uint32) uint32 {
	if k.level >= AVX512 && len(ids) >= topIDLeast {
		return topIDAVX512(&ids[0], len(ids))
	}
	return topIDPortable(ids)
}

// topBits is called with at least one weight.
func (k Kernels) topBits(weights []float32) uint32 {
	if k.level >= AVX512 {
		return sq8TopAVX512(&weights[0], len(weights))
	}
	return topBitsPortable(weights)
}

// halves is called with at least one weight.
func (k Kernels) halves(high, low []int8, weights []float32, inv float32) {
	if k.level >= AVX512 {
		sq8HalvesAVX512(&high[0], &low[0], &weights[0], len(weights), inv)
		return
	}
	halvesPortable(high, low, weights, inv)
}

func (k Kernels) below(ids []uint32, dist []float32, limit float32) int {
	if k.level >= AVX512 {
		return belowAVX512(&ids[0], &dist[0], len(ids), limit)
	}
	return belowPortable(ids, dist, limit)
}

func (k Kernels) placesBelow(dist []float32, limit float32, places []uint32) int {
	if k.level >= AVX512 {
		return placesBelowAVX512(&dist[0], len(dist), limit, &places[0])
	}
	return placesBelowPortable(dist, limit, places)
}

// minima does as many as it has a kernel for and returns how many.
func (k Kernels) minima(dist, least []float32) int {
	n := len(dist) &^ (MinimaStep - 1)
	if k.level < AVX512 || n == 0 {
		return 0
	}
	minimaAVX512(&dist[0], n, &least[0], len(least))
	return n
}

func (k Kernels) prefetchRows(base []byte, stride, lines int, ids []uint32, add int) {
	prefetchRowsAMD64(&base[0], stride, lines, &ids[0], len(ids), add)
}
