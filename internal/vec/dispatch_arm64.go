package vec

import "unsafe"

// Supported returns the highest level that this CPU can run: every arm64 has
// NEON.
func Supported() Level { return NEON }

// runs reports whether this CPU can run a level.
func runs(l Level) bool { return l == Portable || l == NEON }

// Here the arguments are checked already: at least one row, dim > 0.

func (k Kernels) l2IDs(q, base []float32, dim int, ids []uint32, out *float32) {
	if k.level == NEON {
		l2IDsNEON(&q[0], &base[0], dim, &ids[0], len(ids), out)
		return
	}
	l2IDsPortable(q, base, dim, ids, out)
}

func (k Kernels) dotIDs(q, base []float32, dim int, ids []uint32, out *float32) {
	if k.level == NEON {
		dotIDsNEON(&q[0], &base[0], dim, &ids[0], len(ids), out)
		return
	}
	dotIDsPortable(q, base, dim, ids, out)
}

func (k Kernels) l2Rows(q, rows []float32, dim, n int, out *float32) {
	if k.level == NEON {
		l2RowsNEON(&q[0], &rows[0], dim, n, out)
		return
	}
	l2RowsPortable(q, rows, dim, n, out)
}

func (k Kernels) dotRows(q, rows []float32, dim, n int, out *float32) {
	if k.level == NEON {
		dotRowsNEON(&q[0], &rows[0], dim, n, out)
		return
	}
	dotRowsPortable(q, rows, dim, n, out)
}

func prefetch(s []uint32) { prefetchNEON(&s[0], 4*len(s)) }

func (d Distance) rows(q, rows []byte, out []float32) {
	n, to := len(out), &out[0]
	fq, fr := (*float32)(unsafe.Pointer(&q[0])), (*float32)(unsafe.Pointer(&rows[0]))
	switch {
	case d.k.level != NEON:
		d.rowsPortable(q, rows, out)
	case d.elem == Float32 && d.op == OpL2:
		l2RowsNEON(fq, fr, d.dim, n, to)
	case d.elem == Float32:
		dotRowsNEON(fq, fr, d.dim, n, to)
	case d.elem == Int8 && d.op == OpL2:
		l2Int8RowsNEON(&q[0], &rows[0], d.dim, n, to)
	case d.elem == Int8:
		dotInt8RowsNEON(&q[0], &rows[0], d.dim, n, to)
	case d.op == OpHamming:
		hammingRowsNEON(&q[0], &rows[0], d.dim, n, to)
	default:
		d.rowsPortable(q, rows, out)
	}
}

func (d Distance) ids(q, base []byte, ids []uint32, out []float32) {
	n, to := len(ids), &out[0]
	fq, fb := (*float32)(unsafe.Pointer(&q[0])), (*float32)(unsafe.Pointer(&base[0]))
	switch {
	case d.k.level != NEON:
		d.idsPortable(q, base, ids, out)
	case d.elem == Float32 && d.op == OpL2:
		l2IDsNEON(fq, fb, d.dim, &ids[0], n, to)
	case d.elem == Float32:
		dotIDsNEON(fq, fb, d.dim, &ids[0], n, to)
	case d.elem == Int8 && d.op == OpL2:
		l2Int8IDsNEON(&q[0], &base[0], d.dim, &ids[0], n, to)
	case d.elem == Int8:
		dotInt8IDsNEON(&q[0], &base[0], d.dim, &ids[0], n, to)
	case d.op == OpHamming:
		hammingIDsNEON(&q[0], &base[0], d.dim, &ids[0], n, to)
	default:
		d.idsPortable(q, base, ids, out)
	}
}
