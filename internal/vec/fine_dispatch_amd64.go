package vec

import "golang.org/x/sys/cpu"

func (k Kernels) fineIDs(w *FineWeights, base []byte, stride int, ids []uint32, out []int32) {
	if k.level != AVX512 || !cpu.X86.HasAVX512VNNI {
		fineIDsPortable(w, base, stride, ids, out)
		return
	}
	if w.bits == 12 {
		fineIDs12AVX512(&w.weights[0], w.dim, &base[0], stride, &ids[0], len(ids), &out[0])
	} else {
		fineIDs16AVX512(&w.weights[0], w.dim, &base[0], stride, &ids[0], len(ids), &out[0])
	}
	for i := range ids {
		out[2*i] -= w.high
		out[2*i+1] -= w.rest
	}
}

// FineFast says whether FineIDs has a kernel of its own.
func (k Kernels) FineFast() bool { return k.level == AVX512 && cpu.X86.HasAVX512VNNI }
