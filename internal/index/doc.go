// Package index finds the nearest rows of a set of vectors. Build makes an index
// of a Kind, Open searches its image where it lies, both give a Searcher; Flat and
// HNSW can also be filled row by row. It is data and algorithm only. It opens no
// file and knows neither segments nor keys: rows are numbers, filters are bitmaps,
// and the memory of the vectors belongs to the caller. Goroutines of a build have
// ended when Build returns; nothing else starts any.
//
// Distances are such that smaller is nearer (see Metric). A Scratch carries all
// that a search or an insert needs besides the index; each worker has its own.
package index
