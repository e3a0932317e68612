package index

import (
	"context"
	"fmt"
	"math"
	"slices"

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
		effort := walked(b, err)
		if !walksTooFar(len(base)/spec.Dim, effort) {
			return b, err
		}
		if err := b.Close(); err != nil {
			return nil, err
		}
		spec.Kind = KindScaNN
		return buildKind(ctx, spec, base, o, fmt.Sprintf("a graph would walk %d candidates for a recall of %v", effort, usualRecall))
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

// walked is with what effort a graph that was built finds usualRecall; 0 if it is none, or does not know.
func walked(b Built, err error) int {
	if err != nil {
		return 0
	}
	g, ok := b.Searcher().(*sqGraph)
	if !ok {
		return 0
	}
	return g.shares.effort(calibrateK, usualRecall)
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
		return fine + dim/4 + 4
	case kind == KindHNSWSQ:
		return usualLinks
	}
	return 4
}
