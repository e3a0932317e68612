package vec

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// kernel returns the level whose kernels compute d. Integers and bits have
// AVX-512 kernels for what CPUs offer since 2019; AVX2 reads whole registers, so
// rows shorter than one are left to Go.
func (d Distance) kernel() Level {
	switch {
	case d.elem == Float32:
		return d.k.level
	case d.k.level == AVX512 && (d.elem == Int8 || d.elem == Uint4) && cpu.X86.HasAVX512VNNI,
		d.k.level == AVX512 && d.elem == Bit && cpu.X86.HasAVX512VPOPCNTDQ,
		d.k.level == AVX512 && d.elem < Int8:
		return AVX512
	case d.k.level >= AVX2 && cpu.X86.HasF16C && d.bytes >= d.step():
		return AVX2
	}
	return Portable
}

// step is how many bytes of a row AVX2 kernels take at once.
func (d Distance) step() int {
	if d.elem == Bit || d.elem == Uint4 {
		return 32
	}
	return 16
}

func (d Distance) rows(q, rows []byte, out []float32) {
	l := d.kernel()
	switch {
	case l == Portable:
		d.rowsPortable(q, rows, out)
	case d.elem == Float32:
		d.floatRows(l, q, rows, out)
	default:
		f := rowKernels[d.elem-Float16][d.op-OpL2][l-AVX2]
		f(&q[0], &rows[0], d.dim, len(out), &out[0])
	}
}

func (d Distance) ids(q, base []byte, ids []uint32, out []float32) {
	l := d.kernel()
	switch {
	case l == Portable:
		d.idsPortable(q, base, ids, out)
	case d.elem == Float32:
		d.floatIDs(l, q, base, ids, out)
	default:
		f := idKernels[d.elem-Float16][d.op-OpL2][l-AVX2]
		f(&q[0], &base[0], d.dim, &ids[0], len(ids), &out[0])
	}
}

func (d Distance) floatRows(l Level, q, rows []byte, out []float32) {
	f := [2][2]func(q, base *float32, dim, n int, out *float32){{l2RowsAVX2, l2RowsAVX512}, {dotRowsAVX2, dotRowsAVX512}}[d.op-OpL2][l-AVX2]
	f((*float32)(unsafe.Pointer(&q[0])), (*float32)(unsafe.Pointer(&rows[0])), d.dim, len(out), &out[0])
}

func (d Distance) floatIDs(l Level, q, base []byte, ids []uint32, out []float32) {
	f := [2][2]func(q, base *float32, dim int, ids *uint32, n int, out *float32){{l2IDsAVX2, l2IDsAVX512}, {dotIDsAVX2, dotIDsAVX512}}[d.op-OpL2][l-AVX2]
	f((*float32)(unsafe.Pointer(&q[0])), (*float32)(unsafe.Pointer(&base[0])), d.dim, &ids[0], len(ids), &out[0])
}

type (
	rowKernel func(q, base *byte, dim, n int, out *float32)
	idKernel  func(q, base *byte, dim int, ids *uint32, n int, out *float32)
)

// By element from Float16 on, operation and level from AVX2 on.
var (
	rowKernels = [...][4][2]rowKernel{
		{{l2Float16RowsAVX2, l2Float16RowsAVX512}, {dotFloat16RowsAVX2, dotFloat16RowsAVX512}},
		{{l2BFloat16RowsAVX2, l2BFloat16RowsAVX512}, {dotBFloat16RowsAVX2, dotBFloat16RowsAVX512}},
		{{l2Int8RowsAVX2, l2Int8RowsAVX512}, {dotInt8RowsAVX2, dotInt8RowsAVX512}},
		{2: {hammingRowsAVX2, hammingRowsAVX512}, 3: {jaccardRowsAVX2, jaccardRowsAVX512}},
		{{l2Uint4RowsAVX2, l2Uint4RowsAVX512}, {dotUint4RowsAVX2, dotUint4RowsAVX512}},
	}
	idKernels = [...][4][2]idKernel{
		{{l2Float16IDsAVX2, l2Float16IDsAVX512}, {dotFloat16IDsAVX2, dotFloat16IDsAVX512}},
		{{l2BFloat16IDsAVX2, l2BFloat16IDsAVX512}, {dotBFloat16IDsAVX2, dotBFloat16IDsAVX512}},
		{{l2Int8IDsAVX2, l2Int8IDsAVX512}, {dotInt8IDsAVX2, dotInt8IDsAVX512}},
		{2: {hammingIDsAVX2, hammingIDsAVX512}, 3: {jaccardIDsAVX2, jaccardIDsAVX512}},
		{{l2Uint4IDsAVX2, l2Uint4IDsAVX512}, {dotUint4IDsAVX2, dotUint4IDsAVX512}},
	}
)
