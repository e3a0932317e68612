// Package sparse searches sparse vectors by inner product: an inverted index, which
// has a list of rows and values for each dimension, and a walk over the lists of a
// query that leaves out rows that cannot be among the nearest.
//
// The walk is MaxScore (Turtle and Flood, Query evaluation: strategies and
// optimizations, 1995): lists are ordered by how much they can add to a score.
// Rows that are only in lists which together cannot reach the score of the k-th row
// so far are never looked at; in the others the rest of the lists is looked up only
// as long as it can matter. The result is exact.
//
// Rows that are texts are scored by BM25: the bounds are then those of a row that
// has the word as often, and is as short, as any in its list.
//
// Values are not negative. A row that shares no dimension with the query has the
// score 0 and is not found.
package sparse
