package vec

import "golang.org/x/sys/cpu"

// Supported returns the highest level that this CPU and its operating system
// can run.
func Supported() Level {
	switch {
	case !cpu.X86.HasAVX2 || !cpu.X86.HasFMA:
		return Portable
	case !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512BW || !cpu.X86.HasAVX512VL:
		return AVX2
	}
	return AVX512
}

// runs reports whether this CPU can run a level.
func runs(l Level) bool { return l <= Supported() }

// Here the arguments are checked already: at least one row, dim > 0.

func (k Kernels) l2IDs(q, base []float32, dim int, ids []uint32, out *float32) {
	switch k.level {
	case AVX512:
		l2IDsAVX512(&q[0], &base[0], dim, &ids[0], len(ids), out)
	case AVX2:
		l2IDsAVX2(&q[0], &base[0], dim, &ids[0], len(ids), out)
	default:
		l2IDsPortable(q, base, dim, ids, out)
	}
}

func (k Kernels) dotIDs(q, base []float32, dim int, ids []uint32, out *float32) {
	switch k.level {
	case AVX512:
		dotIDsAVX512(&q[0], &base[0], dim, &ids[0], len(ids), out)
	case AVX2:
		dotIDsAVX2(&q[0], &base[0], dim, &ids[0], len(ids), out)
	default:
		dotIDsPortable(q, base, dim, ids, out)
	}
}

func (k Kernels) l2Rows(q, rows []float32, dim, n int, out *float32) {
	switch k.level {
	case AVX512:
		l2RowsAVX512(&q[0], &rows[0], dim, n, out)
	case AVX2:
		l2RowsAVX2(&q[0], &rows[0], dim, n, out)
	default:
		l2RowsPortable(q, rows, dim, n, out)
	}
}

func (k Kernels) dotRows(q, rows []float32, dim, n int, out *float32) {
	switch k.level {
	case AVX512:
		dotRowsAVX512(&q[0], &rows[0], dim, n, out)
	case AVX2:
		dotRowsAVX2(&q[0], &rows[0], dim, n, out)
	default:
		dotRowsPortable(q, rows, dim, n, out)
	}
}

func prefetch(s []uint32) { prefetchAMD64(&s[0], 4*len(s)) }

// dots says that the CPU adds up products of bytes (VNNI) and looks bytes up in
// whole registers (VBMI): what most CPUs with AVX-512 since 2019 do.
func (k Kernels) dots() bool {
	return k.level == AVX512 && cpu.X86.HasAVX512VNNI && cpu.X86.HasAVX512VBMI
}

func (k Kernels) fastScan(codes []byte, quads, blocks int, lut []byte, out []uint32) {
	switch {
	case k.dots():
		fastScanAVX512(&codes[0], quads, blocks, &lut[0], &out[0])
	case k.level >= AVX2:
		clear(out)
		fastScanAVX2(&codes[0], quads, blocks, &lut[0], &out[0])
	default:
		fastScanPortable(codes, quads, blocks, lut, out)
	}
}

func (k Kernels) fastScanBelow(codes []byte, quads, blocks int, lut []byte, bias []float32, masks []uint32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	if k.dots() {
		return fastScanBelowAVX512(&codes[0], quads, blocks, &lut[0], firstOrNil(bias), firstOrNil(masks), aff.Scale, aff.Base, limit, &rows[0], &dist[0])
	}
	return k.fastScanBelowBySums(codes, quads, blocks, lut, bias, masks, aff, limit, rows, dist)
}
