// Package index finds the nearest rows of a set of vectors: Flat exactly, HNSW
// approximately. It is data and algorithm only. It starts no goroutine, opens
// no file and knows neither segments nor keys: rows are numbers, filters are
// bitmaps, and the memory of the vectors belongs to the caller.
//
// Distances are such that smaller is nearer (see Metric). A Scratch carries all
// that a search or an insert needs besides the index; each worker has its own.
package index
