//go:build !amd64

package vec

func (Kernels) fineIDs(w *FineWeights, base []byte, stride int, ids []uint32, out []int32) {
	fineIDsPortable(w, base, stride, ids, out)
}

// FineFast says whether FineIDs has a kernel of its own.
func (Kernels) FineFast() bool { return false }
