// Command bound generates what BenchmarkBound of internal/vec measures a machine
// with: loops that do nothing but arithmetic, or nothing but loads.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// chains is how many operations are under way at once: more than latency times
// throughput of any processor.
const chains = 12

func main() {
	ConstraintExpr("amd64")
	for _, wide := range []bool{true, false} {
		name, width, vector := "AVX512", 64, func() reg.VecVirtual { return ZMM() }
		if !wide {
			name, width, vector = "AVX2", 32, func() reg.VecVirtual { return YMM() }
		}
		emit("peakFMA"+name, wide, vector, func(_ Mem, acc, one reg.VecVirtual) { VFMADD231PS(one, one, acc) }, 0,
			"does 12*n fused multiply-adds of whole registers")
		emit("peakReads"+name, wide, vector, func(m Mem, acc, _ reg.VecVirtual) {
			if wide {
				VPORD(m, acc, acc)
			} else {
				VPOR(m, acc, acc)
			}
		}, width, "reads 12*n whole registers from p on")
	}
	emit("peakDotsAVX512", true, func() reg.VecVirtual { return ZMM() },
		func(_ Mem, acc, one reg.VecVirtual) { VPDPBUSD(one, one, acc) }, 0,
		"does 12*n sums of products of bytes in whole registers. It needs VNNI")
	Generate()
}

// emit emits a function that repeats an operation; stride is how far it moves on
// in memory for each.
func emit(name string, wide bool, vector func() reg.VecVirtual, op func(m Mem, acc, one reg.VecVirtual), stride int, what string) {
	sig := "func(n int)"
	if stride > 0 {
		sig = "func(p *byte, n int)"
	}
	TEXT(name, NOSPLIT, sig)
	Pragma("noescape")
	Doc(name + " " + what + ".")
	n := Load(Param("n"), GP64())
	p := GP64()
	if stride > 0 {
		Load(Param("p"), p)
	}
	one := vector()
	var acc [chains]reg.VecVirtual
	for i := range acc {
		acc[i] = vector()
	}
	for _, v := range append(acc[:], one) {
		if wide {
			VPXORD(v, v, v)
		} else {
			VPXOR(v, v, v)
		}
	}
	Label("loop")
	for i, a := range acc {
		op(Mem{Base: p, Disp: i * stride}, a, one)
	}
	if stride > 0 {
		ADDQ(I32(int32(chains*stride)), p)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
