package expr

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestDivisorsDivideAsTheProcessorDoes, also where numbers are next to multiples of the divisor,
// and at the ends of what there is.
func TestDivisorsDivideAsTheProcessorDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	divisors := []int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1, 1<<62 - 1, 1 << 62, 1<<62 + 1, -1 << 62}
	for i := int64(2); i < 300; i++ {
		divisors = append(divisors, i, -i)
	}
	for s := range 62 {
		divisors = append(divisors, 2<<s, 2<<s+1, 2<<s-1|2, -(2 << s))
	}
	for range 2000 {
		if c := int64(rng.Uint64()) >> rng.IntN(62); c < -1 || c > 1 {
			divisors = append(divisors, c)
		}
	}
	for _, c := range divisors {
		d := newDivisor(c)
		var n [64]int64
		for i := range n {
			switch i % 4 {
			case 0:
				n[i] = int64(rng.Uint64()) >> rng.IntN(63)
			case 1:
				n[i] = []int64{0, 1, -1, math.MinInt64, math.MinInt64 + 1, math.MaxInt64, c, -c, c - 1, c + 1}[rng.IntN(10)]
			default: // near multiples, up to the ends
				n[i] = math.MaxInt64/c*c>>rng.IntN(63)/c*c + rng.Int64N(3) - 1
			}
		}
		q, r := n, n
		d.quotients(&q)
		d.rests(&r)
		for i, x := range n {
			if q[i] != x/c || r[i] != x%c {
				t.Fatalf("%d by %d: %d and %d left, want %d and %d", x, c, q[i], r[i], x/c, x%c)
			}
		}
	}
}

// TestArithmeticWithAConstantIsThatOfEachRow: what is too large has no value, and the rows beside it have theirs.
func TestArithmeticWithAConstantIsThatOfEachRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	edges := []int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1, 1 << 62, -1 << 62, 3037000500, 0, 1, -1, 2, -2}
	for round := range 3000 {
		y := edges[rng.IntN(len(edges))]
		if round%2 == 0 {
			y = int64(rng.Uint64()) >> rng.IntN(63)
		}
		for _, op := range []arithOp{opAdd, opSub, opMul, opDiv, opMod, opBitAnd, opBitOr, opBitXor} {
			r := register{valid: ^uint64(0)}
			for i := range r.i {
				if r.i[i] = int64(rng.Uint64()) >> (20 + rng.IntN(43)); rng.IntN(100) < round%3 {
					r.i[i] = edges[rng.IntN(len(edges))]
				}
			}
			in := r.i
			r.arithIntBy(op, y)
			for i, x := range in {
				want, ok := arithInt(op, x, y)
				if got := r.valid>>i&1 == 1; got != ok || ok && r.i[i] != want {
					t.Fatalf("%d %s %d: %d, %v, want %d, %v", x, op, y, r.i[i], got, want, ok)
				}
			}
		}
	}
}
