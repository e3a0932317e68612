package index

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// flatBelow is the number of rows up to which Choose wants no index: an exact
// scan of so few rows is as fast as a walk.
const flatBelow = 2_000

// Where the nearest rows are spread in so many directions, a graph visits thousands
// of rows for a recall of 0.95 and an inverted file is ahead. Measured on sets of
// 13, where the graph is ahead by a third, and of 31, where the inverted file is, by a
// third among 5,000 rows and by three times in batches among 340,000. In large
// segments, whose rows are beyond caches, an inverted file is ahead from fewer directions
// on: of a million rows in 21, by a quarter for one query and by nearly two times in
// batches, built in a tenth of the time.
const (
	scannDimension      = 25
	scannLargeDimension = 20
	scannLargeRows      = 500_000
)

// suitsLists says whether so many rows of a local dimension suit an inverted file
// better than a graph.
func suitsLists(rows int, local float64) bool {
	return local >= scannDimension || rows >= scannLargeRows && local >= scannLargeDimension
}

// The directions are those between rows. Of inner products of vectors that all point to one side, and of rows of
// which a few are near to everything, they say too little: there a graph has been seen to walk 100 candidates and
// more for a recall of 0.95, and an inverted file was 2 to 7 times as fast. Of 20,000 rows it is ahead from 75
// candidates on, on 26 sets. Its work grows with the rows, and that of a walk hardly.
const (
	longWalk     = 75
	longWalkRows = 20_000
)

// walksTooFar says whether a graph of so many rows walks too far with an effort.
func walksTooFar(rows, effort int) bool {
	return float64(effort) > longWalk*max(math.Cbrt(float64(rows)/longWalkRows), 1)
}

// likelyMost is how many times the effort that found a recall in the mean a graph is taken to walk at most. What it is told to walk has the
// standard error of few rows in it, and a margin: mostly 1.2 to 1.4 times as much. Where most rows are found at once and some hardly
// ever (texts of which many are nearly equal), it is two to four times as much, and another for each sample.
const likelyMost = 1.5

// far says whether what makes sure of usualRecall is too far.
func (g *sqGraph) far() bool {
	return walksTooFar(g.rows, g.shares.effort(calibrateK, usualRecall))
}

// walks is the effort that a fresh graph is taken to walk with for usualRecall.
func (g *sqGraph) walks() int {
	effort := g.shares.effort(calibrateK, usualRecall)
	if most := int(math.Ceil(likelyMost * g.likely)); most > 0 {
		effort = min(effort, most)
	}
	return effort
}

// longFew is the part of rows that count for products below which an inverted file is better than a graph: of a fifth by a fifth in single
// searches and twice in batches, of one in 150 eight times, where a graph finds 0.95 at most. Of three fifths it is behind
// by a fifth in single searches, and ahead by as much and more in batches.
const longFew = 0.25

// longPart is how large the part of rows is that count for products: those that would, if all of them were as long and the others
// nothing, have the same sum of squares and of their squares. The longest of all are left out: a few rows are found whatever they are in.
func longPart(k vec.Kernels, base []float32, dim int) float64 {
	var squares []float64
	pickRows(len(base)/dim, min(len(base)/dim, lengthRows), func(row int) {
		v := base[row*dim:][:dim]
		squares = append(squares, float64(k.Dot(v, v)))
	})
	slices.Sort(squares)
	squares = squares[:len(squares)-len(squares)/longest]
	sum, fourth := 0.0, 0.0
	for _, x := range squares {
		sum, fourth = sum+x, fourth+x*x
	}
	if part := sum * sum / (float64(len(squares)) * fourth); part >= 0 {
		return part
	}
	return 1 // there are none, or their squares are no numbers
}

// lengthRows is how many rows tell their lengths, longest one of how many is left out.
const lengthRows, longest = 16384, 1000

// Choose says what KindAuto means for the rows in base, and why.
func Choose(spec Spec, base []float32) (Spec, string) {
	rows := len(base) / spec.Dim
	if spec.Recall >= 1 {
		spec.Kind = KindFlat
		return spec, "all of the nearest rows are wanted"
	}
	if rows <= flatBelow {
		spec.Kind = KindFlat
		return spec, "so few rows are scanned as fast as a graph is walked"
	}
	if spec.Metric == IP && hasCodes(KindScaNN, spec.Dim) {
		if part := longPart(vec.Detect(), base, spec.Dim); part < longFew {
			spec.Kind = KindScaNN
			return spec, fmt.Sprintf("an inverted file suits products with rows of which %.3g %% are so long that they count", 100*part)
		}
	}
	spec.Kind = KindHNSWSQ
	local := localDimension(vec.Detect(), base, spec.Dim, spec.Metric)
	if suitsLists(rows, local) {
		spec.Kind = KindScaNN
		return spec, fmt.Sprintf("an inverted file suits %d rows of a local intrinsic dimension of %.0f", rows, local)
	}
	return spec, fmt.Sprintf("a graph suits a local intrinsic dimension of %.0f", local)
}

// buildChosen builds what suits the rows best of what takes no more memory than there is
// to be: first what Choose says, then what takes less.
func buildChosen(ctx context.Context, spec Spec, base []float32, o BuildOptions) (Built, error) {
	best, why := Choose(spec, base)
	if spec.RowBytes <= 0 {
		b, err := buildKind(ctx, best, base, o, why)
		if err != nil {
			return nil, err
		}
		switch x := b.Searcher().(type) {
		case *sqGraph:
			return buildDoubted(ctx, spec, base, o, b, x)
		case *ivf:
			if !x.finds(usualRecall) {
				return buildInstead(ctx, spec, base, o, b, x)
			}
		}
		return b, nil
	}
	rows, kinds := max(len(base)/spec.Dim, 1), []Kind{best.Kind, KindScaNN, KindHNSWSQ, KindIVFFlat}
	if best.Kind == KindFlat {
		kinds = nil
	}
	for i, kind := range kinds {
		if slices.Contains(kinds[:i], kind) || leastBytes(kind, spec.Dim) > spec.RowBytes {
			continue
		}
		if kind != best.Kind {
			why = fmt.Sprintf("%s is the fastest that takes no more than %d bytes a row", kind, spec.RowBytes)
		}
		spec.Kind = kind
		b, err := buildKind(ctx, spec, base, o, why)
		if err != nil {
			return nil, err
		}
		if b.Info().Bytes <= int64(rows)*int64(spec.RowBytes) {
			return b, nil
		}
		if err := b.Close(); err != nil {
			return nil, err
		}
	}
	if best.Kind != KindFlat {
		why = fmt.Sprintf("no index takes as little as %d bytes a row", spec.RowBytes)
	}
	spec.Kind = KindFlat
	return buildKind(ctx, spec, base, o, why)
}

// buildDoubted returns b, a graph, or an inverted file in place of it that is faster.
func buildDoubted(ctx context.Context, spec Spec, base []float32, o BuildOptions, b Built, g *sqGraph) (Built, error) {
	if !g.far() && !g.doubtful() {
		return b, nil
	}
	spec.Kind = KindScaNN
	x, err := buildIVF(ctx, spec, base, o)
	if err != nil {
		return nil, errors.CombineErrors(err, b.Close())
	}
	why, better := listsBetter(g, x)
	if !better {
		return b, nil
	}
	if err := b.Close(); err != nil {
		return nil, err
	}
	return &built{x: x, why: why, write: x.WriteTo}, nil
}

// buildInstead returns a graph in place of b, an inverted file that finds too little however many lists are read: of rows of very
// unlike lengths, which lie in all directions, the longest are near to everything, or nothing is near to the short ones.
func buildInstead(ctx context.Context, spec Spec, base []float32, o BuildOptions, b Built, x *ivf) (Built, error) {
	found := x.found
	if err := b.Close(); err != nil {
		return nil, err
	}
	spec.Kind = KindHNSWSQ
	return buildKind(ctx, spec, base, o, fmt.Sprintf("all lists of an inverted file find %.3g of the nearest", found))
}

// usualLinks are the bytes of a row's links in a graph whose M was not chosen.
const usualLinks = 4 * 2 * 16

// leastBytes is what an index of a kind takes by row at least: what cannot fit is not built.
func leastBytes(kind Kind, dim int) int {
	fine := fineStride(dim, fineBits(dim))
	switch {
	case kind == KindHNSWSQ && fine > 0:
		return fine + vec.SQ8Line + usualLinks // a record, and links
	case kind == KindScaNN && fine > 0:
		return fine + dim/partDims(dim)/2 + 4
	case kind == KindHNSWSQ:
		return usualLinks
	}
	return 4
}
