package vec

import (
	"encoding/binary"
	"unsafe"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./fine -out ../../internal/vec/fine_amd64.s -stubs ../../internal/vec/fine_amd64.go -pkg vec

// fineWide is what the parts of weights are padded to, in bytes.
const fineWide = 64

// FineWeights are a query for rows of codes of 12 or 16 bits a value. A row starts
// with the high byte of each value, signed. With 12 bits, signed halves of bytes
// follow, of an even value in the lower half; with 16, signed low bytes. Weights have
// two halves, high, a signed byte, and low, from -64 to 63; the product of a row and weights is
//
//	12 bits   16*(128*high + rest)    rest = highs of the row by low weights, and 8 times its lows by high ones
//	16 bits   128*(256*high + rest)   rest = twice highs by low weights, and lows by high ones
//
// of the sums high and rest that IDs writes; lows by low weights are left out. The
// zero FineWeights is of no values.
type FineWeights struct {
	dim, bits  int
	weights    []int8
	high, rest int32 // what sums have too much, for rows are multiplied as unsigned bytes
}

// Bytes is the memory that w holds.
func (w *FineWeights) Bytes() int { return cap(w.weights) }

// Set takes the halves of a query's weights. len(high) is that of low; bits is 12 or 16.
func (w *FineWeights) Set(high, low []int8, bits int) {
	if len(low) != len(high) || bits != 12 && bits != 16 {
		panic(errors.AssertionFailedf("%d high and %d low weights for %d bits", len(high), len(low), bits))
	}
	n := len(high)
	w.dim, w.bits = n, bits
	lows := n
	if bits == 12 {
		lows = (n + 1) / 2
	}
	size := 2*fineWide*((n+fineWide-1)/fineWide) + 2*fineWide*((lows+fineWide-1)/fineWide)
	if cap(w.weights) < size {
		w.weights = make([]int8, size)
	}
	w.weights = w.weights[:size]
	clear(w.weights)
	// As the rows are read: of each 64 high bytes, high weights and low ones.
	sumHigh, sumLow := sumOf(high), sumOf(low)
	at := w.weights
	for i := 0; i < n; i += fineWide {
		copy(at[:fineWide], high[i:])
		copy(at[fineWide:2*fineWide], low[i:])
		if bits == 16 {
			double(at[fineWide : 2*fineWide])
		}
		at = at[2*fineWide:]
	}
	if bits == 16 {
		sumLow *= 2
		copy(at, high)
		w.high, w.rest = 128*sumHigh, 128*(sumLow+sumHigh)
		return
	}
	for i, x := range high {
		j := i / 2
		at[j/fineWide*2*fineWide+i%2*fineWide+j%fineWide] = x
	}
	w.high, w.rest = 128*sumHigh, 128*sumLow+64*sumHigh
}

// sumOf adds up, eight at a time.
func sumOf(h []int8) int32 {
	const evens = 0x00ff00ff00ff00ff
	sum, n := int32(0), len(h)
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(h))), n)
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b) ^ 0x8080808080808080 // 128 more than they are
		sum += int32((x&evens+x>>8&evens)*0x0001000100010001>>48) - 8*128
	}
	for _, x := range b {
		sum += int32(int8(x))
	}
	return sum
}

// double doubles numbers from -64 to 63, of which there are a multiple of 8.
func double(h []int8) {
	for b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(h))), len(h)); len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)<<1&0xfefefefefefefefe)
	}
}

// FineIDs writes the sums of row ids[i] of base, whose rows of stride bytes lie one behind
// the other, to out[2*i] and out[2*i+1]: high and rest. It fetches rows ahead of use.
func (k Kernels) FineIDs(w *FineWeights, base []byte, stride int, ids []uint32, out []int32) {
	if least := w.rowBytes(); stride < max(least, 1) || len(out) < 2*len(ids) || w.dim < 1 {
		panic(errors.AssertionFailedf("%d rows of %d bytes, of which %d values take %d: room for %d sums", len(ids), stride, w.dim, least, len(out)))
	}
	rows := len(base) / stride
	for _, id := range ids {
		if int(id) >= rows {
			panic(errors.AssertionFailedf("row %d of %d", id, rows))
		}
	}
	if len(ids) == 0 {
		return
	}
	k.fineIDs(w, base, stride, ids, out)
}

// rowBytes is the size of a row's values.
func (w *FineWeights) rowBytes() int { return w.dim + (w.dim*(w.bits-8)+7)/8 }

func fineIDsPortable(w *FineWeights, base []byte, stride int, ids []uint32, out []int32) {
	n := w.dim
	for i, id := range ids {
		row := base[int(id)*stride:][:w.rowBytes()]
		var high, rest, tail int32
		at := w.weights
		for d := 0; d < n; d += fineWide {
			for j, b := range row[d:min(d+fineWide, n)] {
				high += int32(int8(b)) * int32(at[j])
				rest += int32(int8(b)) * int32(at[fineWide+j])
			}
			at = at[2*fineWide:]
		}
		if w.bits == 16 {
			for j, b := range row[n:] {
				tail += int32(int8(b)) * int32(at[j])
			}
		} else {
			for d := range n {
				j := d / 2
				half := int8(row[n+j]>>(4*(d%2))<<4) >> 4
				tail += 8 * int32(half) * int32(at[j/fineWide*2*fineWide+d%2*fineWide+j%fineWide])
			}
		}
		out[2*i], out[2*i+1] = high, rest+tail
	}
}
