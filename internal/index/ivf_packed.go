package index

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// packMost is the part of all rows, one of so many, up to which the codes of the rows
// that a filter allows are packed. They are a tenth of an index, so those of a filter
// take a hundredth at most.
const packMost = 8

// rowCodes are 4-bit codes of some rows, one behind the other.
type rowCodes struct {
	blocks []byte
	bias   []float32 // +Inf behind the last row
	at     []uint32  // their positions in the index
}

// newRowCodes has room for so many rows, and so many bytes for a block of them.
func newRowCodes(rows, size int) rowCodes {
	blocks := numPanels(rows)
	c := rowCodes{blocks: make([]byte, blocks*size), bias: make([]float32, blocks*vec.FastScanBlock), at: make([]uint32, 0, rows)}
	for i := rows; i < len(c.bias); i++ {
		c.bias[i] = float32(math.Inf(1))
	}
	return c
}

// take adds hits in blocks from one on to the candidates, by their numbers among the codes.
func (c *rowCodes) take(kern vec.Kernels, v *ivfScratch, block, hits int) {
	keys := &v.cands.keys
	n := len(*keys)
	*keys = slices.Grow(*keys, hits)[:n+hits]
	kern.Keys(v.dist[:hits], v.rows, uint32(block*vec.FastScanBlock), (*keys)[n:])
	v.cands.trim(kern)
}

// place replaces the numbers of candidates among the codes by their positions in the index.
func (c *rowCodes) place(keys []uint64) {
	for i, key := range keys {
		keys[i] = key&^math.MaxUint32 | uint64(c.at[uint32(key)])
	}
}

// packed are the codes of the rows that a filter allows, in the order of the lists: of
// lists in which few rows are allowed, few bytes are read, and
// those of one row in ten stay in the cache from search to search.
type packed struct {
	rowCodes
	first []uint32 // list l has rows [first[l], first[l+1])
}

// pack packs the codes of allowed rows; nil if it is stopped.
func (x *ivf) pack(m *marks, stop func() bool) *packed {
	size := x.blockBytes()
	c := &packed{rowCodes: newRowCodes(m.selected, size), first: make([]uint32, 1, x.lists.n+1)}
	for l := range x.lists.n {
		if stop() {
			return nil
		}
		for b := x.first[l]; b < x.first[l+1]; b++ {
			for mask := m.masks[b]; mask != 0; mask &= mask - 1 {
				lane, n := bits.TrailingZeros32(mask), len(c.at)
				packLane(c.blocks[n/vec.FastScanBlock*size:][:size], n%vec.FastScanBlock, x.blocks[int(b)*size:][:size], lane)
				at := b*vec.FastScanBlock + uint32(lane)
				c.bias[n] = x.pqBias[at]
				c.at = append(c.at, at)
			}
		}
		c.first = append(c.first, uint32(len(c.at)))
	}
	return c
}

// packLane copies a code from a block for fast-scan to a lane of another that holds zeros.
func packLane(to []byte, lane int, from []byte, as int) {
	const half = vec.FastScanBlock / 2
	put, get := 4*(lane/half), 4*(as/half)
	to, from = to[4*(lane%half):], from[4*(as%half):]
	for i := 0; i+4 <= len(from) && i+4 <= len(to); i += vec.FastScanQuad {
		quad := binary.LittleEndian.Uint32(from[i:]) >> get & 0x0f0f0f0f
		binary.LittleEndian.PutUint32(to[i:], binary.LittleEndian.Uint32(to[i:])|quad<<put)
	}
}

// Of lists that are read in one go, since blocks have rows of several.
const (
	spreadMost  = 64      // allowed rows they have on average at most
	spreadBytes = 1 << 20 // packed codes at most: those of more are asked for list by list
	spreadChunk = 16      // blocks after which what is found bounds the rest
)

// spreads reports whether lists are so read.
func (c *packed) spreads(m *marks) bool {
	return c != nil && m.selected <= spreadMost*m.lists && len(c.blocks) <= spreadBytes
}

// readSpread adds what packed codes of the lists promise to the candidates. The part of a
// distance that is of the list is added to the biases of its rows.
func (x *ivf) readSpread(c *packed, aff vec.Affine, p *plan, s *Scratch) {
	v, factor, met := &s.ivf, x.factor(), 0
	blocks := len(c.bias) / vec.FastScanBlock
	v.masks, v.bias = grown(v.masks, blocks), grown(v.bias, len(c.bias))
	clear(v.masks)
	for i := 0; i < p.near || !p.met(i, met); i++ {
		if i == len(v.lists) {
			if x.order(listStep, s); i == len(v.lists) {
				break
			}
		}
		first, last := c.first[v.lists[i]], c.first[v.lists[i]+1]
		base := factor * v.dots[i]
		to := v.bias[first:last]
		for j, b := range c.bias[first:last] {
			to[j] = b + base
		}
		for n := first; n < last; {
			end := min(last, n&^(vec.FastScanBlock-1)+vec.FastScanBlock)
			v.masks[n/vec.FastScanBlock] |= uint32(1<<(end-n)-1) << (n % vec.FastScanBlock)
			n = end
		}
		met += int(last - first)
		s.stats.Hops++
	}
	size, quads := x.blockBytes(), vec.FastScanQuads(x.pq.parts)
	for from := 0; from < blocks && !s.stopped(); {
		if v.masks[from] == 0 {
			from++
			continue
		}
		n := min(spreadChunk, len(v.rows)/vec.FastScanBlock, blocks-from)
		at := from * vec.FastScanBlock
		hits := x.kern.FastScanBelow(c.blocks[from*size:], quads, n, v.lut, v.bias[at:], v.masks[from:], aff, v.cands.limit, v.rows, v.dist)
		c.take(x.kern, v, from, hits)
		from += n
	}
	c.place(v.cands.keys)
	s.stats.Codes += met
}

// span is the blocks that hold rows of a list, and of which lanes.
func (c *packed) span(l uint32, masks []uint32) (from, to int, _ []uint32) {
	first, last := int(c.first[l]), int(c.first[l+1])
	from, to = first/vec.FastScanBlock, numPanels(last)
	masks = grown(masks, max(to-from, 1))
	for i := range masks {
		masks[i] = math.MaxUint32
	}
	masks[0] <<= first % vec.FastScanBlock
	if end := last % vec.FastScanBlock; end != 0 {
		masks[len(masks)-1] &= 1<<end - 1
	}
	return from, to, masks
}
