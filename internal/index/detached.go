package index

import (
	"context"
	"encoding/binary"
	"math"
)

// Graph reports whether a graph may come of so many rows of a Detached index; false: KindFlat will, whatever they are.
func (s Spec) Graph(rows int) bool {
	return s.Kind != KindFlat && s.Recall < 1 && (s.Kind != KindAuto || rows > flatBelow) && fineBits(s.Dim) > 0
}

// buildDetached builds a graph that ranks by its fine codes alone, or KindFlat if there
// are none, or if they cannot tell.
func buildDetached(ctx context.Context, spec Spec, base []float32, o BuildOptions) (Built, error) {
	rows, why := len(base)/spec.Dim, ""
	if !spec.Graph(rows) {
		return buildFlat(spec, base, "all are wanted, or so few rows or values are scanned as fast as a graph is walked")
	}
	if spec.Kind == KindHNSW {
		why = "HNSW of vectors that are not of float32"
	}
	spec.Kind = KindHNSWSQ
	b, err := buildGraph(ctx, spec, base, o, why)
	if err != nil {
		return nil, err
	}
	if g, ok := b.Searcher().(*sqGraph); ok && g.fine.tellsAll(rows) {
		return b, nil
	}
	if err := b.Close(); err != nil {
		return nil, err
	}
	return buildFlat(spec, base, "codes do not tell the rows apart")
}

// tellsAll reports whether there are fine codes, and no row needs its vector to be ranked.
func (f *fine) tellsAll(rows int) bool {
	if !f.exists() {
		return false
	}
	for row := range rows {
		bias := binary.LittleEndian.Uint32(f.bytes[(row+1)*f.stride-4:])
		if x := math.Float32frombits(bias); x != x {
			return false
		}
	}
	return true
}

// detached reports whether there are no vectors to rank by.
func (sp *space) detached() bool { return len(sp.base) == 0 }
