package index

import "math/bits"

// wordMask has the bits of word w that stand for rows below n.
func wordMask(n, w int) uint64 {
	if left := n - w*64; left < 64 {
		return 1<<max(left, 0) - 1
	}
	return ^uint64(0)
}

// appendRows appends the rows that word w of a set holds.
func appendRows(dst []uint32, w int, set uint64) []uint32 {
	for ; set != 0; set &= set - 1 {
		dst = append(dst, uint32(w<<6+bits.TrailingZeros64(set)))
	}
	return dst
}

// has reports whether a set holds row; rows past its end are not in it.
func has(words []uint64, row uint32) bool {
	w := int(row >> 6)
	return w < len(words) && words[w]>>(row&63)&1 != 0
}
