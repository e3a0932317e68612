//go:build !amd64 && !arm64

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

// runs reports whether this CPU can run a level.
func runs(l Level) bool { return l == Portable }

func (d Distance) rows(q, rows []byte, out []float32) { d.rowsPortable(q, rows, out) }

func (d Distance) ids(q, base []byte, ids []uint32, out []float32) { d.idsPortable(q, base, ids, out) }
