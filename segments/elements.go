package segments

import (
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// elementOf is the type of the values of vectors that are neither float32 nor sparse.
func elementOf(t schema.Type) vec.Element {
	switch t {
	case schema.Float16Vector:
		return vec.Float16
	case schema.BFloat16Vector:
		return vec.BFloat16
	case schema.Int8Vector:
		return vec.Int8
	case schema.BinaryVector:
		return vec.Bit
	}
	return 0
}

// distanceOf computes a metric of vectors of t, as far as there is a kernel for it:
// the dot product for IP and Cosine.
func distanceOf(k vec.Kernels, t schema.Type, m index.Metric, dim int) (vec.Distance, error) {
	op := vec.OpDot
	switch m {
	case index.L2:
		op = vec.OpL2
	case index.Hamming:
		op = vec.OpHamming
	case index.Jaccard:
		op = vec.OpJaccard
	}
	return k.Distance(elementOf(t), op, dim)
}

// widen returns a vector of a type as float32, until the next one.
func (sc *scratch) widen(t schema.Type, dim int, raw []byte) []float32 {
	sc.wide = slices.Grow(sc.wide[:0], dim)[:dim]
	elementOf(t).Widen(sc.wide, raw)
	return sc.wide
}

// inverse is 1/norm, 0 for a vector of length 0.
func inverse(norm float32) float32 {
	if norm == 0 {
		return 0
	}
	return 1 / norm
}

// prepare makes sc ready for the vectors of v and returns the inverse norm of the
// query, for Cosine.
func (sc *scratch) prepare(v *vectors, q *nearestQuery) (inv float32, err error) {
	if v.raw == nil {
		if q.metric == index.Cosine {
			inv = sc.kernels.InvNorm(q.vector)
		}
		return inv, nil
	}
	if sc.distance, err = distanceOf(sc.kernels, v.typ, q.metric, v.dim); err != nil {
		return 0, err
	}
	if q.metric == index.Cosine {
		inv = inverse(sc.distance.Norm(q.raw))
	}
	return inv, nil
}

// rawRows is rowDistances for vectors that are not float32.
func (sc *scratch) rawRows(q *nearestQuery, inv float32, v vectors, at int, out []float32) {
	w := sc.distance.RowBytes()
	sc.distance.Rows(q.raw, v.raw[at*w:(at+len(out))*w], out)
	switch q.metric {
	case index.IP:
		for i := range out {
			out[i] = -out[i]
		}
	case index.Cosine:
		for i := range out {
			out[i] = 1 - out[i]*inv*sc.invNorm(v, at+i)
		}
	}
}

// rawIDs is idDistances for vectors that are not float32.
func (sc *scratch) rawIDs(q *nearestQuery, inv float32, v vectors, out []float32) {
	sc.distance.IDs(q.raw, v.raw, sc.ids, out)
	switch q.metric {
	case index.IP:
		for i := range out {
			out[i] = -out[i]
		}
	case index.Cosine:
		for i := range out {
			out[i] = 1 - out[i]*inv*sc.invNorm(v, int(sc.ids[i]))
		}
	}
}

// among returns the rows of allowed (nil = all) among the first n whose vector is
// not null.
func (sc *scratch) among(allowed *bitset.Set, n int, present func(set *bitset.Set)) *bitset.Set {
	sc.present.Reset(n)
	present(&sc.present)
	if allowed != nil {
		sc.present.And(allowed)
	}
	return &sc.present
}

// gatherVectors appends rows of src to dst; those that null reports, if it is not
// nil, become nulls.
func gatherVectors(dst, src *schema.Column, rows []uint32, null func(row uint32) bool) {
	for _, r := range rows {
		at := dst.Rows()
		dst.AppendRow(src, int(r))
		if null == nil || !null(r) {
			continue
		}
		for len(dst.Valid) <= at {
			dst.Valid = append(dst.Valid, true)
		}
		dst.Valid[at] = false
		switch dst.Type { // another row's, see nullSlots
		case schema.FloatVector:
			clear(dst.Float[at*dst.Dim:])
		case schema.Float16Vector, schema.BFloat16Vector, schema.Int8Vector:
			clear(dst.Raw[at*dst.Type.RowBytes(dst.Dim):])
		}
	}
}
