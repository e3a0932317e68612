#include "textflag.h"

// The Go assembler has no names for AMX: these are the encodings of what the
// comments say.

// ldtilecfg (AX)
#define LDTILECFG BYTE $0xc4; BYTE $0xe2; BYTE $0x78; BYTE $0x49; BYTE $0x00

// tilerelease
#define TILERELEASE BYTE $0xc4; BYTE $0xe2; BYTE $0x78; BYTE $0x49; BYTE $0xc0

// tilezero tmm0, tmm1; tmm2, tmm3
#define ZERO01 BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xc0; BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xc8
#define ZERO23 BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xd0; BYTE $0xc4; BYTE $0xe2; BYTE $0x7b; BYTE $0x49; BYTE $0xd8

// tileloadd tmm4, (R8)(R10*1); tmm5, (R9)(R10*1)
#define LOADA0 BYTE $0xc4; BYTE $0x82; BYTE $0x7b; BYTE $0x4b; BYTE $0x24; BYTE $0x10
#define LOADA1 BYTE $0xc4; BYTE $0x82; BYTE $0x7b; BYTE $0x4b; BYTE $0x2c; BYTE $0x11

// tileloadd tmm6, (R11)(R13*1); tmm7, (R12)(R13*1)
#define LOADB0 BYTE $0xc4; BYTE $0x82; BYTE $0x7b; BYTE $0x4b; BYTE $0x34; BYTE $0x2b
#define LOADB1 BYTE $0xc4; BYTE $0x82; BYTE $0x7b; BYTE $0x4b; BYTE $0x3c; BYTE $0x2c

// tilestored (DI)(SI*1), tmm0; 64(DI)(SI*1), tmm1; (DX)(SI*1), tmm2; 64(DX)(SI*1), tmm3
#define STORE0 BYTE $0xc4; BYTE $0xe2; BYTE $0x7a; BYTE $0x4b; BYTE $0x04; BYTE $0x37
#define STORE1 BYTE $0xc4; BYTE $0xe2; BYTE $0x7a; BYTE $0x4b; BYTE $0x4c; BYTE $0x37; BYTE $0x40
#define STORE2 BYTE $0xc4; BYTE $0xe2; BYTE $0x7a; BYTE $0x4b; BYTE $0x14; BYTE $0x32
#define STORE3 BYTE $0xc4; BYTE $0xe2; BYTE $0x7a; BYTE $0x4b; BYTE $0x5c; BYTE $0x32; BYTE $0x40

// tdpbsud: tmm0 += tmm4 * tmm6, signed by unsigned bytes; tmm1 += tmm4 * tmm7;
// tmm2 += tmm5 * tmm6; tmm3 += tmm5 * tmm7
#define DOT0 BYTE $0xc4; BYTE $0xe2; BYTE $0x4a; BYTE $0x5e; BYTE $0xc4
#define DOT1 BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5e; BYTE $0xcc
#define DOT2 BYTE $0xc4; BYTE $0xe2; BYTE $0x4a; BYTE $0x5e; BYTE $0xd5
#define DOT3 BYTE $0xc4; BYTE $0xe2; BYTE $0x42; BYTE $0x5e; BYTE $0xdd

// func panelsAMX(queries *int8, tiles int, quads int, panels *byte, n int, out *int32, rows int, conf *byte)
TEXT ·panelsAMX(SB), NOSPLIT, $16-64
	MOVQ conf+56(FP), AX
	LDTILECFG
	MOVQ quads+16(FP), R10
	SHLQ $2, R10            // bytes of a query
	MOVQ n+32(FP), SI
	SHLQ $7, SI             // bytes of a query's results
	MOVQ $128, R13
	MOVQ out+40(FP), DI

tiles2:
	CMPQ tiles+8(FP), $2
	JL   tiles1
	MOVQ SI, DX
	SHLQ $4, DX
	ADDQ DI, DX
	MOVQ DI, saved-8(SP)
	MOVQ DX, saved-16(SP)
	MOVQ panels+24(FP), R11
	MOVQ n+32(FP), CX

panel2:
	MOVQ queries+0(FP), R8
	MOVQ R10, R9
	SHLQ $4, R9
	ADDQ R8, R9
	MOVQ quads+16(FP), BX
	ZERO01
	ZERO23

block2:
	LEAQ 64(R11), R12
	LOADA0
	LOADB0
	DOT0
	LOADB1
	DOT1
	LOADA1
	DOT2
	DOT3
	MOVQ rows+48(FP), AX
	SUBQ AX, BX
	LEAQ (R8)(AX*4), R8
	LEAQ (R9)(AX*4), R9
	SHLQ $7, AX
	ADDQ AX, R11
	TESTQ BX, BX
	JNZ  block2

	STORE0
	STORE1
	STORE2
	STORE3
	ADDQ $128, DI
	ADDQ $128, DX
	DECQ CX
	JNZ  panel2

	MOVQ saved-16(SP), DI
	MOVQ SI, DX
	SHLQ $4, DX
	ADDQ DX, DI
	MOVQ R10, AX
	SHLQ $5, AX
	ADDQ AX, queries+0(FP)
	SUBQ $2, tiles+8(FP)
	JMP  tiles2

tiles1:
	CMPQ tiles+8(FP), $1
	JL   done
	MOVQ panels+24(FP), R11
	MOVQ n+32(FP), CX

panel1:
	MOVQ queries+0(FP), R8
	MOVQ quads+16(FP), BX
	ZERO01

block1:
	LEAQ 64(R11), R12
	LOADA0
	LOADB0
	DOT0
	LOADB1
	DOT1
	MOVQ rows+48(FP), AX
	SUBQ AX, BX
	LEAQ (R8)(AX*4), R8
	SHLQ $7, AX
	ADDQ AX, R11
	TESTQ BX, BX
	JNZ  block1

	STORE0
	STORE1
	ADDQ $128, DI
	DECQ CX
	JNZ  panel1

done:
	TILERELEASE
	RET
