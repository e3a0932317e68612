package vec

import (
	"math"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./tables -out ../../internal/vec/tables_amd64.s -stubs ../../internal/vec/tables_amd64.go -pkg vec

const (
	// TablePart is the number of codes that a part of two dimensions has.
	TablePart = 16
	// tablePoints is the number of values of a part's points.
	tablePoints = 2 * TablePart
)

// Tables writes the tables of a query for fast-scan, one of 16 bytes for each
// part, to lut, and returns what makes distances of their sums: about factor
// times the product of q and the points that a code stands for. A part is two
// values of q; its points are 32 values, all first and then all second ones.
// len(points) says how many parts there are; q has two values for each, values
// room for 16, lut too. Only where all products are equal, or one is no number, is
// Scale 0.
func (k Kernels) Tables(points, q []float32, factor float32, values []float32, lut []byte) Affine {
	parts := len(points) / tablePoints
	if len(q) < 2*parts || len(values) < TablePart*parts || len(lut) < TablePart*parts {
		panic(errors.AssertionFailedf("tables of %d parts: %d values, room for %d and %d", parts, len(q), len(values), len(lut)))
	}
	if parts == 0 {
		return Affine{}
	}
	base, most := k.tableValues(points, q, factor, values[:TablePart*parts])
	if !(most > 0 && most <= math.MaxFloat32) {
		clear(lut[:TablePart*parts])
		return Affine{Base: base}
	}
	k.tableBytes(values[:TablePart*parts], 255/most, lut)
	return Affine{Scale: most / 255, Base: base}
}

func tableValuesPortable(points, q []float32, factor float32, values []float32) (base, most float32) {
	for p := range len(values) / TablePart {
		x, y := q[2*p]*factor, q[2*p+1]*factor
		px, py := points[p*tablePoints:][:TablePart], points[p*tablePoints+TablePart:][:TablePart]
		out := values[p*TablePart:][:TablePart]
		lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
		for c := range out {
			v := x*px[c] + y*py[c]
			out[c] = v
			lo, hi = min(lo, v), max(hi, v)
		}
		for c := range out {
			out[c] -= lo
		}
		base += lo
		most = max(most, hi-lo)
	}
	return base, most
}

func tableBytesPortable(values []float32, inv float32, lut []byte) {
	for i, v := range values {
		lut[i] = byte(min(max(v*inv+0.5, 0), 255))
	}
}
