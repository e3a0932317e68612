#include "textflag.h"

// Kernels for NEON. A kernel is one of the macros below, which work on one row,
// within a loop over rows that lie one behind the other (ROWS) or are named by
// ids (IDS). In a macro R0 walks over the query and R1 over the row; R2 is the
// number of elements, which the macro uses up; the distance ends in F0.
//
// The assembler has no names for some instructions: these are their encodings.

// FSUB Vd.4S, Vn.4S, Vm.4S
#define FSUB4(m, n, d) WORD $(0x4ea0d400 | (m)<<16 | (n)<<5 | (d))

// FADD Vd.4S, Vn.4S, Vm.4S
#define FADD4(m, n, d) WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d))

// FADDP Vd.4S, Vn.4S, Vm.4S
#define FADDP4(m, n, d) WORD $(0x6e20d400 | (m)<<16 | (n)<<5 | (d))

// SSUBL, SSUBL2 Vd.8H, Vn.8B or its upper half, Vm.8B or its upper half
#define SSUBL(m, n, d) WORD $(0x0e202000 | (m)<<16 | (n)<<5 | (d))
#define SSUBL2(m, n, d) WORD $(0x4e202000 | (m)<<16 | (n)<<5 | (d))

// SMULL, SMULL2 Vd.8H, Vn.8B or its upper half, Vm.8B or its upper half
#define SMULL(m, n, d) WORD $(0x0e20c000 | (m)<<16 | (n)<<5 | (d))
#define SMULL2(m, n, d) WORD $(0x4e20c000 | (m)<<16 | (n)<<5 | (d))

// SMLAL, SMLAL2 Vd.4S, Vn.4H or its upper half, Vm.4H or its upper half
#define SMLAL(m, n, d) WORD $(0x0e608000 | (m)<<16 | (n)<<5 | (d))
#define SMLAL2(m, n, d) WORD $(0x4e608000 | (m)<<16 | (n)<<5 | (d))

// SADALP Vd.4S, Vn.8H: adds pairs to d
#define SADALP(n, d) WORD $(0x4e606800 | (n)<<5 | (d))

// UADDLP Vd.8H, Vn.16B: adds pairs
#define UADDLP(n, d) WORD $(0x6e202800 | (n)<<5 | (d))

// UADALP Vd.4S, Vn.8H: adds pairs to d
#define UADALP(n, d) WORD $(0x6e606800 | (n)<<5 | (d))

// SCVTF Sd, Sn
#define SCVTFS(n, d) WORD $(0x5e21d800 | (n)<<5 | (d))

#define ZERO4 \
	VEOR V0.B16, V0.B16, V0.B16 \
	VEOR V1.B16, V1.B16, V1.B16 \
	VEOR V2.B16, V2.B16, V2.B16 \
	VEOR V3.B16, V3.B16, V3.B16

// SUMF adds up V0 to V3 and F20 in F0.
#define SUMF \
	FADD4(1, 0, 0) \
	FADD4(3, 2, 2) \
	FADD4(2, 0, 0) \
	FADDP4(0, 0, 0) \
	FADDP4(0, 0, 0) \
	FADDS F20, F0, F0

// SUMI adds up V0 to V3, of integers, and R9 in F0.
#define SUMI \
	VADD  V1.S4, V0.S4, V0.S4 \
	VADD  V3.S4, V2.S4, V2.S4 \
	VADD  V2.S4, V0.S4, V0.S4 \
	VADDV V0.S4, V0 \
	VMOV  V0.S[0], R10 \
	ADDW  R9, R10, R10 \
	SCVTFWS R10, F0

#define DOTF32 \
	ZERO4 \
	FMOVS $0, F20 \
f16: \
	CMP  $16, R2 \
	BLT  f4 \
	VLD1.P 64(R0), [V4.S4, V5.S4, V6.S4, V7.S4] \
	VLD1.P 64(R1), [V16.S4, V17.S4, V18.S4, V19.S4] \
	VFMLA V4.S4, V16.S4, V0.S4 \
	VFMLA V5.S4, V17.S4, V1.S4 \
	VFMLA V6.S4, V18.S4, V2.S4 \
	VFMLA V7.S4, V19.S4, V3.S4 \
	SUB  $16, R2 \
	B    f16 \
f4: \
	CMP  $4, R2 \
	BLT  f1 \
	VLD1.P 16(R0), [V4.S4] \
	VLD1.P 16(R1), [V16.S4] \
	VFMLA V4.S4, V16.S4, V0.S4 \
	SUB  $4, R2 \
	B    f4 \
f1: \
	CBZ  R2, fsum \
	FMOVS.P 4(R0), F4 \
	FMOVS.P 4(R1), F5 \
	FMADDS F4, F20, F5, F20 \
	SUB  $1, R2 \
	B    f1 \
fsum: \
	SUMF

#define L2F32 \
	ZERO4 \
	FMOVS $0, F20 \
f16: \
	CMP  $16, R2 \
	BLT  f4 \
	VLD1.P 64(R0), [V4.S4, V5.S4, V6.S4, V7.S4] \
	VLD1.P 64(R1), [V16.S4, V17.S4, V18.S4, V19.S4] \
	FSUB4(16, 4, 4) \
	FSUB4(17, 5, 5) \
	FSUB4(18, 6, 6) \
	FSUB4(19, 7, 7) \
	VFMLA V4.S4, V4.S4, V0.S4 \
	VFMLA V5.S4, V5.S4, V1.S4 \
	VFMLA V6.S4, V6.S4, V2.S4 \
	VFMLA V7.S4, V7.S4, V3.S4 \
	SUB  $16, R2 \
	B    f16 \
f4: \
	CMP  $4, R2 \
	BLT  f1 \
	VLD1.P 16(R0), [V4.S4] \
	VLD1.P 16(R1), [V16.S4] \
	FSUB4(16, 4, 4) \
	VFMLA V4.S4, V4.S4, V0.S4 \
	SUB  $4, R2 \
	B    f4 \
f1: \
	CBZ  R2, fsum \
	FMOVS.P 4(R0), F4 \
	FMOVS.P 4(R1), F5 \
	FSUBS F5, F4, F4 \
	FMADDS F4, F20, F4, F20 \
	SUB  $1, R2 \
	B    f1 \
fsum: \
	SUMF

#define DOTI8 \
	ZERO4 \
	MOVD $0, R9 \
i16: \
	CMP  $16, R2 \
	BLT  i1 \
	VLD1.P 16(R0), [V4.B16] \
	VLD1.P 16(R1), [V5.B16] \
	SMULL(5, 4, 6) \
	SMULL2(5, 4, 7) \
	SADALP(6, 0) \
	SADALP(7, 1) \
	SUB  $16, R2 \
	B    i16 \
i1: \
	CBZ  R2, isum \
	MOVB.P 1(R0), R10 \
	MOVB.P 1(R1), R11 \
	MULW R10, R11, R11 \
	ADDW R11, R9, R9 \
	SUB  $1, R2 \
	B    i1 \
isum: \
	SUMI

#define L2I8 \
	ZERO4 \
	MOVD $0, R9 \
i16: \
	CMP  $16, R2 \
	BLT  i1 \
	VLD1.P 16(R0), [V4.B16] \
	VLD1.P 16(R1), [V5.B16] \
	SSUBL(5, 4, 6) \
	SSUBL2(5, 4, 7) \
	SMLAL(6, 6, 0) \
	SMLAL2(6, 6, 1) \
	SMLAL(7, 7, 2) \
	SMLAL2(7, 7, 3) \
	SUB  $16, R2 \
	B    i16 \
i1: \
	CBZ  R2, isum \
	MOVB.P 1(R0), R10 \
	MOVB.P 1(R1), R11 \
	SUBW R11, R10, R10 \
	MULW R10, R10, R10 \
	ADDW R10, R9, R9 \
	SUB  $1, R2 \
	B    i1 \
isum: \
	SUMI

#define HAMMING \
	ZERO4 \
	MOVD $0, R9 \
i16: \
	CMP  $16, R2 \
	BLT  i1 \
	VLD1.P 16(R0), [V4.B16] \
	VLD1.P 16(R1), [V5.B16] \
	VEOR V4.B16, V5.B16, V4.B16 \
	VCNT V4.B16, V4.B16 \
	UADDLP(4, 4) \
	UADALP(4, 0) \
	SUB  $16, R2 \
	B    i16 \
i1: \
	CBZ  R2, isum \
	MOVBU.P 1(R0), R10 \
	MOVBU.P 1(R1), R11 \
	EOR  R10, R11, R11 \
	FMOVD R11, F4 \
	VCNT V4.B8, V4.B8 \
	VMOV V4.B[0], R11 \
	ADDW R11, R9, R9 \
	SUB  $1, R2 \
	B    i1 \
isum: \
	SUMI

// ROWS works on n rows at base; R4 is the size of a row in bytes, 1<<shift for
// each element.
#define ROWS(shift, body) \
	MOVD base+8(FP), R3 \
	MOVD dim+16(FP), R4 \
	LSL  $shift, R4, R4 \
	MOVD n+24(FP), R5 \
	MOVD out+32(FP), R6 \
row: \
	CBZ  R5, done \
	MOVD q+0(FP), R0 \
	MOVD R3, R1 \
	MOVD dim+16(FP), R2 \
	body \
	FMOVS.P F0, 4(R6) \
	ADD  R4, R3, R3 \
	SUB  $1, R5 \
	B    row \
done: \
	RET

// IDS works on the rows of base that n ids name, and asks for the first lines of
// the next row before it works on one.
#define IDS(shift, body) \
	MOVD base+8(FP), R3 \
	MOVD dim+16(FP), R4 \
	LSL  $shift, R4, R4 \
	MOVD ids+24(FP), R7 \
	MOVD n+32(FP), R5 \
	MOVD out+40(FP), R6 \
row: \
	CBZ  R5, done \
	MOVWU.P 4(R7), R8 \
	MUL  R4, R8, R8 \
	ADD  R3, R8, R1 \
	CMP  $1, R5 \
	BEQ  last \
	MOVWU (R7), R8 \
	MUL  R4, R8, R8 \
	ADD  R3, R8, R8 \
	PRFM (R8), PLDL1KEEP \
	PRFM 64(R8), PLDL1KEEP \
	PRFM 128(R8), PLDL1KEEP \
	PRFM 192(R8), PLDL1KEEP \
last: \
	MOVD q+0(FP), R0 \
	MOVD dim+16(FP), R2 \
	body \
	FMOVS.P F0, 4(R6) \
	SUB  $1, R5 \
	B    row \
done: \
	RET

// func l2RowsNEON(q *float32, base *float32, dim int, n int, out *float32)
TEXT ·l2RowsNEON(SB), NOSPLIT, $0-40
	ROWS(2, L2F32)

// func dotRowsNEON(q *float32, base *float32, dim int, n int, out *float32)
TEXT ·dotRowsNEON(SB), NOSPLIT, $0-40
	ROWS(2, DOTF32)

// func l2Int8RowsNEON(q *byte, base *byte, dim int, n int, out *float32)
TEXT ·l2Int8RowsNEON(SB), NOSPLIT, $0-40
	ROWS(0, L2I8)

// func dotInt8RowsNEON(q *byte, base *byte, dim int, n int, out *float32)
TEXT ·dotInt8RowsNEON(SB), NOSPLIT, $0-40
	ROWS(0, DOTI8)

// func hammingRowsNEON(q *byte, base *byte, dim int, n int, out *float32)
TEXT ·hammingRowsNEON(SB), NOSPLIT, $0-40
	ROWS(0, HAMMING)

// func l2IDsNEON(q *float32, base *float32, dim int, ids *uint32, n int, out *float32)
TEXT ·l2IDsNEON(SB), NOSPLIT, $0-48
	IDS(2, L2F32)

// func dotIDsNEON(q *float32, base *float32, dim int, ids *uint32, n int, out *float32)
TEXT ·dotIDsNEON(SB), NOSPLIT, $0-48
	IDS(2, DOTF32)

// func l2Int8IDsNEON(q *byte, base *byte, dim int, ids *uint32, n int, out *float32)
TEXT ·l2Int8IDsNEON(SB), NOSPLIT, $0-48
	IDS(0, L2I8)

// func dotInt8IDsNEON(q *byte, base *byte, dim int, ids *uint32, n int, out *float32)
TEXT ·dotInt8IDsNEON(SB), NOSPLIT, $0-48
	IDS(0, DOTI8)

// func hammingIDsNEON(q *byte, base *byte, dim int, ids *uint32, n int, out *float32)
TEXT ·hammingIDsNEON(SB), NOSPLIT, $0-48
	IDS(0, HAMMING)

// func prefetchNEON(p *uint32, n int)
TEXT ·prefetchNEON(SB), NOSPLIT, $0-16
	MOVD p+0(FP), R0
	MOVD n+8(FP), R1
line:
	PRFM (R0), PLDL1KEEP
	ADD  $64, R0
	SUBS $64, R1
	BGT  line
	RET
