package server

import (
	"math/bits"
	"sync"
)

// buffers are the buffers of requests and answers: of sizes that are powers of
// two, so that what is told to the ledger is what is held. gRPC's own pool makes
// 1 MiB out of 33 KiB. The zero value is ready.
type buffers struct {
	sizes [largestBuffer + 1]sync.Pool // of *[]byte; by the power
}

// Buffers above 1<<largestBuffer bytes are made as they are asked for, and not kept.
const largestBuffer = 20

// bufferSize is how much memory a buffer for n bytes takes.
func bufferSize(n int) int {
	p := bits.Len(uint(max(n, 1) - 1))
	if p > largestBuffer {
		return n
	}
	return 1 << p
}

// Get returns a buffer of n bytes with whatever is in it.
func (b *buffers) Get(n int) *[]byte {
	p := bits.Len(uint(max(n, 1) - 1))
	if p > largestBuffer {
		buf := make([]byte, n)
		return &buf
	}
	if buf, ok := b.sizes[p].Get().(*[]byte); ok {
		*buf = (*buf)[:n]
		return buf
	}
	buf := make([]byte, n, 1<<p)
	return &buf
}

// Put takes a buffer back that Get returned.
func (b *buffers) Put(buf *[]byte) {
	p := bits.Len(uint(cap(*buf))) - 1
	if p < 0 || p > largestBuffer || cap(*buf) != 1<<p {
		return
	}
	b.sizes[p].Put(buf)
}
