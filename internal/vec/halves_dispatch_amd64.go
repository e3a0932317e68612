package vec

func (k Kernels) halfFast() bool { return k.level >= AVX512 && hasVNNI() }

// halfIDs is called with at least one id.
func (k Kernels) halfIDs(q *HalfQuery, rows *HalfRows, ids []uint32, base, mul, scale float32, out []float32) {
	if !k.halfFast() {
		halfIDsPortable(q, rows, ids, base, mul, scale, out)
		return
	}
	halfIDsVNNI(&q.weights[0], &rows.lines[0], halfStride(rows.dim), &rows.tails[0], &ids[0], len(ids), q.less, base, mul, scale, &out[0])
}
