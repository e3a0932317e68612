package index

import "github.com/querynode/querynode/internal/vec"

// garbageOf is one of how many bytes that a build takes from the heap is garbage that is still there.
const garbageOf = 8

// BuildBytes is about how much memory Build takes at most for so many rows with so many workers (0 = 1), in bytes, besides the rows: what it trains on, and the
// index until it is closed. It is reckoned for rows that are told apart by a few hundred directions if they have many values, as embeddings are; of others
// that a graph keeps in longer codes, or an inverted file in all their values, a build may take up to twice as much.
func BuildBytes(spec Spec, rows, workers int) int64 {
	if rows <= 0 || spec.Dim <= 0 {
		return 0
	}
	if spec.Detached {
		if !spec.Graph(rows) {
			return 0
		}
		spec.Kind = KindHNSWSQ
	}
	switch spec.Kind {
	case KindAuto:
		if rows <= flatBelow || spec.Recall >= 1 {
			return 0
		}
		graph, lists := spec, spec
		graph.Kind, lists.Kind = KindHNSWSQ, KindScaNN
		both := BuildBytes(lists, rows, workers) // beside a graph that may be slower
		if spec.RowBytes <= 0 && hasCodes(KindScaNN, spec.Dim) {
			both += graphImageBytes(sqDefaults(graph), rows)
		}
		return max(BuildBytes(graph, rows, workers), both)
	case KindHNSW, KindHNSWSQ:
		return graphBytes(sqDefaults(spec), rows, workers)
	case KindIVFFlat, KindIVFSQ8, KindScaNN:
		return listsBytes(spec, rows, workers)
	}
	return 0
}

// trainingBytes is what finding out takes how few values and codes tell rows apart.
func trainingBytes(dim, rows int, turned bool) int64 {
	d, n := int64(dim), int64(min(rows, trainRows))
	bytes := min(4*n*d, sampledCopied) + sampledBlock + 4*checkRows*(n+d)
	if !turned {
		return bytes + n*int64(vec.SQ8Stride(dim))
	}
	head := min(d, mostHead)
	return bytes + 4*d*d + 4*covarianceRows*d + 2*4*head*d + head*int64(vec.SQ8Stride(dim)) + n*int64(vec.SQ8Stride(int(head)))
}

// graphImageBytes is what a graph takes once it is built.
func graphImageBytes(spec Spec, rows int) int64 {
	links := HNSWOptions{Dim: spec.Dim, Metric: spec.Metric, M: spec.M, EfConstruction: spec.EfConstruction, Capacity: rows}.Bytes()
	row := codeStride(spec.Dim, rows) + int64(fineStride(spec.Dim, fineBits(spec.Dim))) + 8 // its place in lists
	return links + int64(rows)*row
}

// codeStride is about how long the record of a row in a graph is.
func codeStride(dim, rows int) int64 {
	stride := int64(vec.SQ8Stride(dim))
	if mayTurn(dim, rows) {
		stride = min(stride, int64(vec.SQ8Stride(mostHead)))
	}
	return stride
}

// mayTurn says whether a graph may be searched by values of turned vectors.
func mayTurn(dim, rows int) bool {
	return dim > vec.SQ8Line-vec.SQ8Bias && dim <= mostTurn && (dim <= longTurn || rows >= longLeast)
}

// graphBytes is what building a graph takes.
func graphBytes(spec Spec, rows, workers int) int64 {
	n, m := int64(rows), int64(spec.M)
	links := HNSWOptions{Dim: spec.Dim, Metric: spec.Metric, M: spec.M, EfConstruction: spec.EfConstruction, Capacity: rows}.Bytes()
	if spec.Kind == KindHNSW && spec.Dim < fineLeast {
		return links + links/garbageOf
	}
	turned, stride := mayTurn(spec.Dim, rows), codeStride(spec.Dim, rows)
	heap := max(trainingBytes(spec.Dim, rows, turned), kmeansBytes(rows, listsFor(rows), min(spec.Dim, sqListDims), workers)) // one after the other
	keep := 2 * int(m)
	wide := 4*int64(keep+slackOf(keep)) + 3*stride + 8 + 4*sqListDims + 4 + 4 // links, a record, the row as a query and its terms; head, list and place
	image := int64(0)
	if spec.Kind == KindHNSWSQ {
		image = int64(fineStride(spec.Dim, fineBits(spec.Dim)))
	}
	return heap + heap/garbageOf + links + n*(wide+image+stride)
}

// listsBytes is what an inverted file takes.
func listsBytes(spec Spec, rows, workers int) int64 {
	lists := spec.Lists
	if lists == 0 {
		lists = listsFor(rows)
	}
	lists = max(min(lists, rows), 1)
	n, width, first := int64(rows), int64(spec.Dim), int64(0)
	codes := hasCodes(spec.Kind, spec.Dim)
	if codes && rows >= turnRows && spec.Dim >= 2*codedDims && spec.Dim <= mostTurn && (spec.Dim <= longTurn || rows >= longLeast) {
		first = trainingBytes(spec.Dim, rows, true)
		if spec.Dim > 2*mostHead {
			width = mostHead
		}
	}
	kmeans := kmeansBytes(rows, lists, int(width), workers)
	if !codes && spec.Metric != Cosine && kmeansRows(rows, lists) == rows {
		kmeans -= 4 * n * width // no sample is copied
	}
	first = max(first, kmeans)                    // one after the other
	positions := n + int64(lists)*vec.PanelRows/2 // lists end where a panel does
	heap := 4*n + 4*positions                     // the list of each row, and where it is
	if spec.Metric == Cosine || spec.Metric == IP && codes {
		heap += 4 * n // what makes a row's length 1, or its square
	}
	if codes {
		first = max(first, 4*min(n, codeSample)*width)
		row := 4 + 4 + width + width/int64(partDims(int(width)))/2 + 8 // biases, a byte for each value, 4 bits for each part
		heap += positions*row + n*int64(fineStride(spec.Dim, fineBits(spec.Dim)))
	}
	return heap + first + (heap+first)/garbageOf
}

// kmeansBytes is what k-means takes: vectors, centres and their codes, in this round and the one before, and what each goroutine sums up.
func kmeansBytes(rows, lists, dim, workers int) int64 {
	c, d, n := int64(lists), int64(dim), kmeansRows(rows, lists)
	w := int64(max(min(workers, (n+assignBlock-1)/assignBlock), 1)) // no more have something to do
	return 4*int64(n)*d + c*d*(4+2*2+4*w) + w*assignBlock*(4*c+d)
}
