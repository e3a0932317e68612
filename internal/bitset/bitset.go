// Package bitset is a dense set of row numbers in 64-row words: what a filter
// evaluates to and what an index asks per candidate.
package bitset

import "math/bits"

// Set holds row numbers 0 <= i < Len. The zero Set is empty with Len 0. It is
// not safe for concurrent writes. Bits at and past Len in the last word are 0.
type Set struct {
	words []uint64
	n     int
}

// New returns an empty set over n rows.
func New(n int) *Set { return &Set{words: make([]uint64, (n+63)/64), n: n} }

// Len is the number of rows the set ranges over, not how many it holds.
func (s *Set) Len() int { return s.n }

// Words gives the words themselves, row i at bit i%64 of word i/64. Whoever
// writes them keeps the bits past Len zero (Trim does it).
func (s *Set) Words() []uint64 { return s.words }

// Reset makes s an empty set over n rows, keeping its memory when it is enough.
func (s *Set) Reset(n int) {
	w := (n + 63) / 64
	if cap(s.words) < w {
		s.words = make([]uint64, w)
	} else {
		s.words = s.words[:w]
		clear(s.words)
	}
	s.n = n
}

// Fill adds every row.
func (s *Set) Fill() {
	for i := range s.words {
		s.words[i] = ^uint64(0)
	}
	s.Trim()
}

// Trim zeroes the bits past Len.
func (s *Set) Trim() {
	if r := s.n & 63; r != 0 {
		s.words[len(s.words)-1] &= 1<<r - 1
	}
}

// Add adds row i.
func (s *Set) Add(i int) { s.words[i>>6] |= 1 << (i & 63) }

// Remove removes row i.
func (s *Set) Remove(i int) { s.words[i>>6] &^= 1 << (i & 63) }

// Has reports whether row i is in the set.
func (s *Set) Has(i int) bool { return s.words[i>>6]&(1<<(i&63)) != 0 }

// Count is the number of rows in the set.
func (s *Set) Count() int {
	c := 0
	for _, w := range s.words {
		c += bits.OnesCount64(w)
	}
	return c
}

// And keeps only the rows that are in o as well. o may have another Len.
func (s *Set) And(o *Set) {
	n := min(len(s.words), len(o.words))
	for i, w := range o.words[:n] {
		s.words[i] &= w
	}
	clear(s.words[n:])
}

// Next returns the smallest row >= i in the set, or -1.
func (s *Set) Next(i int) int {
	if i >= s.n {
		return -1
	}
	w := i >> 6
	if x := s.words[w] >> (i & 63); x != 0 {
		return i + bits.TrailingZeros64(x)
	}
	for w++; w < len(s.words); w++ {
		if s.words[w] != 0 {
			return w<<6 + bits.TrailingZeros64(s.words[w])
		}
	}
	return -1
}

// AppendTo appends the rows in ascending order to dst.
func (s *Set) AppendTo(dst []uint32) []uint32 {
	for w, x := range s.words {
		for x != 0 {
			dst = append(dst, uint32(w<<6+bits.TrailingZeros64(x)))
			x &= x - 1
		}
	}
	return dst
}
