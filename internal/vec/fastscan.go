package vec

import (
	"math"
	"unsafe"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./fastscan -out ../../internal/vec/fastscan_amd64.s -stubs ../../internal/vec/fastscan_amd64.go -pkg vec

// Fast-scan adds up, for each of many codes, one byte of a table for each of
// the code's 4-bit parts, without leaving the registers (André, Kermarrec and Le
// Scouarnec, "Cache locality is not enough: high-performance nearest neighbor
// search with product quantization fast scan", VLDB 2015).
//
// Codes lie in blocks of 32, and the parts of a code in quads of four; a code
// whose number of parts is no multiple of four ends in parts whose tables are
// 0. A block is one run of 64 bytes for each quad. In it byte 4*v+s holds part s
// of two vectors: of vector v in its low half, of vector v+16 in its high half.
// A table has 16 bytes for each part, those of a quad one behind the other, so
// that quad g is at 64*g in a table as in a block. This suits processors that
// look up in 64 bytes at once and add up bytes in fours (VPERMB and VPDPBUSD,
// TBL and UDOT); AVX2 takes the quads apart first.
const (
	// FastScanBlock is the number of codes in a block.
	FastScanBlock = 32
	// FastScanQuad is the size of a quad in bytes, of a block and of a table.
	FastScanQuad = 64
	// fastScanMaxQuads keeps every sum below 2^24, which float32 holds exactly.
	fastScanMaxQuads = 1 << 14
)

// FastScanQuads is the number of quads that codes of m parts take.
func FastScanQuads(m int) int { return (m + 3) / 4 }

// PutFastScan writes a code to its place in its block, which has room for all
// its quads: one byte of code for each part, 0 to 15. lane, 0 to 31, is the
// code's number in the block. It overwrites nothing else.
func PutFastScan(block []byte, lane int, code []byte) {
	shift := uint(lane) / 16 * 4
	for i, c := range code {
		at := &block[i/4*FastScanQuad+lane%16*4+i%4]
		*at = *at&^(0x0f<<shift) | c&0x0f<<shift
	}
}

// FastScan writes to out[i] the sum of the table's bytes for code i of codes.
// len(out) is a multiple of FastScanBlock; codes has as many blocks, of the
// given number of quads, and lut has one table for each part. Sums are exact.
func (k Kernels) FastScan(codes []byte, quads int, lut []byte, out []uint32) {
	blocks := len(out) / FastScanBlock
	checkFastScan(codes, quads, blocks, lut)
	if len(out)%FastScanBlock != 0 {
		panic(errors.AssertionFailedf("fast-scan of %d codes, which are no whole blocks", len(out)))
	}
	if blocks > 0 {
		k.fastScan(codes, quads, blocks, lut, out)
	}
}

// Affine turns a sum into a distance: Base + Scale*sum.
type Affine struct{ Scale, Base float32 }

// FastScanBelow finds the codes of blocks whose distance, aff of FastScan's
// sum, plus the code's bias, is less than limit. It writes their numbers and
// distances to rows and dist, which have room for all codes, in ascending order
// of the numbers, and returns how many they are. bias has a value for each code,
// or is nil, which stands for zeros; masks has a word for each block, whose bit i is set
// if code i may be found, or is nil: all may. A distance that is not a number is never
// less.
func (k Kernels) FastScanBelow(codes []byte, quads, blocks int, lut []byte, bias []float32, masks []uint32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	checkFastScan(codes, quads, blocks, lut)
	n := blocks * FastScanBlock
	if len(rows) < n || len(dist) < n || bias != nil && len(bias) < n || masks != nil && len(masks) < blocks {
		panic(errors.AssertionFailedf("fast-scan of %d codes: room for %d rows, %d distances, %d biases, %d masks", n, len(rows), len(dist), len(bias), len(masks)))
	}
	if blocks == 0 {
		return 0
	}
	return k.fastScanBelow(codes, quads, blocks, lut, bias, masks, aff, limit, rows, dist)
}

func checkFastScan(codes []byte, quads, blocks int, lut []byte) {
	if quads < 1 || quads > fastScanMaxQuads || len(lut) < quads*FastScanQuad || blocks < 0 || blocks > len(codes)/(quads*FastScanQuad) {
		panic(errors.AssertionFailedf("fast-scan of %d blocks of %d quads: %d bytes of codes, %d of tables", blocks, quads, len(codes), len(lut)))
	}
}

func fastScanPortable(codes []byte, quads, blocks int, lut []byte, out []uint32) {
	for b := range blocks {
		block, sums := codes[b*quads*FastScanQuad:][:quads*FastScanQuad], out[b*FastScanBlock:][:FastScanBlock]
		clear(sums)
		for g := range quads {
			quad, table := block[g*FastScanQuad:][:FastScanQuad], lut[g*FastScanQuad:][:FastScanQuad]
			for i, c := range quad {
				s := i % 4 * 16
				sums[i/4] += uint32(table[s+int(c&0x0f)])
				sums[i/4+16] += uint32(table[s+int(c>>4)])
			}
		}
	}
}

// fastScanBelowBySums is FastScanBelow for levels without a kernel for it.
func (k Kernels) fastScanBelowBySums(codes []byte, quads, blocks int, lut []byte, bias []float32, masks []uint32, aff Affine, limit float32, rows []uint32, dist []float32) int {
	n := 0
	var sums [FastScanBlock]uint32
	for b := range blocks {
		wanted := uint32(math.MaxUint32)
		if masks != nil {
			if wanted = masks[b]; wanted == 0 {
				continue
			}
		}
		k.fastScan(codes[b*quads*FastScanQuad:], quads, 1, lut, sums[:])
		for i, s := range sums {
			if wanted>>i&1 == 0 {
				continue
			}
			d := float32(s)*aff.Scale + aff.Base
			if bias != nil {
				d += bias[b*FastScanBlock+i]
			}
			if d < limit {
				rows[n], dist[n] = uint32(b*FastScanBlock+i), d
				n++
			}
		}
	}
	return n
}

func firstOrNil[T any](s []T) *T { return unsafe.SliceData(s) }
