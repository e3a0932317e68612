package expr

import "math/bits"

// divisor divides by a constant by a multiplication, which takes a third of the time.
type divisor struct {
	mul   uint64
	size  uint64 // of the constant, without its sign; 2 or more
	shift uint8
	sign  int64 // -1 if the constant is negative, else 0
}

// newDivisor is for a constant other than -1, 0 and 1.
//
// With l bits for the constant d, mul is the least number above 2^(63+l)/d: for n up to 2^63,
// mul*n exceeds n/d*2^(63+l) by at most 2^(63+l)/d, which takes no n that is not a multiple of
// d to the next quotient (Granlund and Montgomery, 1994).
func newDivisor(c int64) divisor {
	sign := c >> 63
	d := divisor{size: uint64(c^sign) - uint64(sign), sign: sign}
	d.shift = uint8(bits.Len64(d.size-1) - 1)
	d.mul, _ = bits.Div64(1<<d.shift, 0, d.size)
	d.mul++
	return d
}

// quotients replaces each number by what Go's / makes of it.
func (d divisor) quotients(r *[64]int64) {
	for i, x := range r {
		sign := x >> 63
		hi, _ := bits.Mul64(d.mul, uint64(x^sign)-uint64(sign))
		sign ^= d.sign
		r[i] = int64(hi>>(d.shift&63)) ^ sign - sign
	}
}

// rests replaces each number by what Go's % makes of it.
func (d divisor) rests(r *[64]int64) {
	for i, x := range r {
		sign := x >> 63
		n := uint64(x^sign) - uint64(sign)
		hi, _ := bits.Mul64(d.mul, n)
		r[i] = int64(n-hi>>(d.shift&63)*d.size) ^ sign - sign
	}
}
