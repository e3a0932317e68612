package vec

// Kernels of neon_arm64.s: distances of q and each of n rows, which lie one
// behind the other at base or are named by ids, in the order of out.

//go:noescape
func l2RowsNEON(q *float32, base *float32, dim int, n int, out *float32)

//go:noescape
func dotRowsNEON(q *float32, base *float32, dim int, n int, out *float32)

//go:noescape
func l2Int8RowsNEON(q *byte, base *byte, dim int, n int, out *float32)

//go:noescape
func dotInt8RowsNEON(q *byte, base *byte, dim int, n int, out *float32)

//go:noescape
func hammingRowsNEON(q *byte, base *byte, dim int, n int, out *float32)

//go:noescape
func l2IDsNEON(q *float32, base *float32, dim int, ids *uint32, n int, out *float32)

//go:noescape
func dotIDsNEON(q *float32, base *float32, dim int, ids *uint32, n int, out *float32)

//go:noescape
func l2Int8IDsNEON(q *byte, base *byte, dim int, ids *uint32, n int, out *float32)

//go:noescape
func dotInt8IDsNEON(q *byte, base *byte, dim int, ids *uint32, n int, out *float32)

//go:noescape
func hammingIDsNEON(q *byte, base *byte, dim int, ids *uint32, n int, out *float32)

// prefetchNEON asks for the cache lines of the n bytes at p.
//
//go:noescape
func prefetchNEON(p *uint32, n int)
