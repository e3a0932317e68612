package vec

import "unsafe"

// The portable kernels keep four sums so that additions need not wait for one
// another, as the assembly does.

func l2Portable(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	for len(a) >= 4 && len(b) >= 4 {
		d0, d1, d2, d3 := a[0]-b[0], a[1]-b[1], a[2]-b[2], a[3]-b[3]
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		d := x - b[i]
		s0 += d * d
	}
	return (s0 + s1) + (s2 + s3)
}

func dotPortable(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

func l2IDsPortable(q, base []float32, dim int, ids []uint32, out *float32) {
	o := unsafe.Slice(out, len(ids))
	for i, id := range ids {
		o[i] = l2Portable(q, base[int(id)*dim:][:dim])
	}
}

func dotIDsPortable(q, base []float32, dim int, ids []uint32, out *float32) {
	o := unsafe.Slice(out, len(ids))
	for i, id := range ids {
		o[i] = dotPortable(q, base[int(id)*dim:][:dim])
	}
}

func l2RowsPortable(q, rows []float32, dim, n int, out *float32) {
	o := unsafe.Slice(out, n)
	for i := range o {
		o[i] = l2Portable(q, rows[i*dim:][:dim])
	}
}

func dotRowsPortable(q, rows []float32, dim, n int, out *float32) {
	o := unsafe.Slice(out, n)
	for i := range o {
		o[i] = dotPortable(q, rows[i*dim:][:dim])
	}
}
