package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// vector is a vector field. In the model every vector is a list of numbers: of a
// binary one its bits, of a sparse one its values in sparseDims.
type vector struct {
	name     string
	typ      qnpb.DataType
	dim      int
	index    string
	metric   string
	nullable bool
	searched bool // it has or had an index that finds nearly all: segments keep theirs
	coded    bool // the same of one that computes scores by codes

	// Of one that a function counts from a text:
	of       string // the text field; "" = it is written as it is
	analyzer string
	k1, b    float64
	params   map[string]string // of its index
}

// sparseDims are the dimensions that sparse vectors have.
var sparseDims = []uint32{0, 1, 7, 100, 65_535, 65_536, 1 << 20, 1 << 31, 1<<32 - 2}

const (
	float32s = qnpb.DataType_DATA_TYPE_FLOAT_VECTOR
	float16s = qnpb.DataType_DATA_TYPE_FLOAT16_VECTOR
	bfloats  = qnpb.DataType_DATA_TYPE_BFLOAT16_VECTOR
	int8s    = qnpb.DataType_DATA_TYPE_INT8_VECTOR
	binaries = qnpb.DataType_DATA_TYPE_BINARY_VECTOR
	sparse   = qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR
)

func newVector(r *rand.Rand, number int) vector {
	v := vector{name: fmt.Sprintf("v_%d", number), nullable: r.IntN(5) == 0,
		typ: []qnpb.DataType{float32s, float32s, float32s, float16s, bfloats, int8s, binaries, sparse}[r.IntN(8)]}
	v.dim = []int{2, 3, 8, 16}[r.IntN(4)]
	switch v.typ {
	case binaries:
		v.dim = 8 * (1 + r.IntN(3))
	case sparse:
		v.dim = len(sparseDims)
	}
	v.reindex(r)
	return v
}

// reindex draws an index and a metric.
func (v *vector) reindex(r *rand.Rand) {
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	if v.of != "" {
		v.index = one("SPARSE_INVERTED_INDEX", "SPARSE_WAND", "AUTOINDEX")
		v.reindexTexts(r)
		return
	}
	v.metric = one("L2", "IP", "COSINE")
	switch v.typ {
	case float32s:
		v.index = one("FLAT", "FLAT", "FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "SCANN", "AUTOINDEX")
		if v.dim < 8 {
			v.index = "FLAT"
		}
	case binaries:
		v.index, v.metric = one("FLAT", "BIN_FLAT"), one("HAMMING", "JACCARD")
	case sparse:
		v.index, v.metric = one("SPARSE_INVERTED_INDEX", "SPARSE_WAND", "AUTOINDEX"), "IP"
	default:
		v.index = one("FLAT", "AUTOINDEX", "HNSW", "HNSW_SQ")
	}
	v.searched = v.searched || v.index != "FLAT" && v.walked() // others are compared one by one
	v.coded = v.coded || v.typ == float32s && v.index != "FLAT" && v.index != "HNSW"
}

// walked reports whether the field can have an index that finds nearly all.
func (v *vector) walked() bool {
	switch v.typ {
	case float16s, bfloats, int8s:
		return v.dim >= 16 // of fewer values there are no codes
	}
	return v.typ == float32s
}

func (v *vector) indexSpec() *qnpb.IndexSpec {
	return &qnpb.IndexSpec{Field: v.name, Type: v.index, Metric: v.metric, Params: v.params}
}

func (v *vector) schema() *qnpb.FieldSchema {
	f := &qnpb.FieldSchema{Name: v.name, Type: v.typ, Nullable: v.nullable, Dim: int32(v.dim)}
	if v.typ == sparse {
		f.Dim = 0
	}
	return f
}

// exact reports whether searches find what is nearest, and not nearly all of it.
func (v *vector) exact() bool { return !v.searched }

// random has values whose products and sums a float32 holds exactly, in every type.
func (v *vector) random(r *rand.Rand) []float64 {
	if v.of != "" {
		return randomWords(r)
	}
	x := make([]float64, v.dim)
	for i := range x {
		switch v.typ {
		case binaries:
			x[i] = float64(r.IntN(2))
		case sparse:
			x[i] = float64(max(0, r.IntN(24)-16)) / 4
		case int8s:
			x[i] = float64(r.IntN(129) - 64)
		default:
			x[i] = float64(r.IntN(129)-64) / 16
		}
	}
	switch v.typ {
	case binaries, sparse:
	case int8s:
		x[r.IntN(v.dim)] = 65 // never the zero vector, which has no direction
	default:
		x[r.IntN(v.dim)] = 4.0625
	}
	return x
}

// score is the score of two vectors; !ok = one does not find the other.
func (v *vector) score(a, b []float64) (score float64, ok bool) {
	var dot, aa, bb, l2 float64
	for i := range a {
		dot += a[i] * b[i]
		aa += a[i] * a[i]
		bb += b[i] * b[i]
		l2 += (a[i] - b[i]) * (a[i] - b[i])
	}
	switch {
	case v.metric == "L2" || v.metric == "HAMMING": // of bits, the number of those that differ
		return l2, true
	case v.metric == "IP":
		return dot, v.typ != sparse || dot > 0
	case v.metric == "COSINE":
		return dot / math.Sqrt(aa*bb), true
	}
	// JACCARD: the share of the bits of either that are not of both.
	if aa+bb == 0 {
		return 0, true
	}
	return 1 - dot/(aa+bb-dot), true
}

// falling reports whether smaller scores are nearer.
func (v *vector) falling() bool {
	return v.metric == "L2" || v.metric == "HAMMING" || v.metric == "JACCARD"
}

// better reports whether score a is nearer than b.
func (v *vector) better(a, b float64) bool {
	if v.falling() {
		return a < b
	}
	return a > b
}

// slack is how far a score may be off: a float32 holds the vectors' sums and
// products exactly, not their roots and quotients. Codes are off by some more.
func (v *vector) slack() float64 {
	if v.of != "" {
		return 5e-4 // of some hundreds at most
	}
	if v.coded {
		if v.metric == "COSINE" {
			return 1e-2
		}
		return 1e-2 * max(1, float64(v.dim)/4)
	}
	if v.metric == "COSINE" || v.metric == "JACCARD" {
		return 2e-6
	}
	return 0
}

// bytes are vectors as the API wants them, of the types that are sent as bytes.
func (v *vector) bytes(vectors [][]float64) *qnpb.ByteVectors {
	out := &qnpb.ByteVectors{Dim: int32(v.dim)}
	for _, x := range vectors {
		for i, f := range x {
			switch v.typ {
			case float16s:
				out.Raw = binary.LittleEndian.AppendUint16(out.Raw, toHalf(f))
			case bfloats:
				out.Raw = binary.LittleEndian.AppendUint16(out.Raw, uint16(math.Float32bits(float32(f))>>16))
			case int8s:
				out.Raw = append(out.Raw, byte(int8(f)))
			case binaries:
				if i%8 == 0 {
					out.Raw = append(out.Raw, 0)
				}
				out.Raw[len(out.Raw)-1] |= byte(f) << (7 - i%8)
			}
		}
	}
	return out
}

// toHalf is a number that binary16 holds exactly and without a subnormal.
func toHalf(f float64) uint16 {
	if f == 0 {
		return 0
	}
	bits := math.Float64bits(f)
	return uint16(bits>>63)<<15 | uint16(int(bits>>52&0x7ff)-1023+15)<<10 | uint16(bits>>42&0x3ff)
}

func fromHalf(h uint16) float64 {
	if h&0x7fff == 0 {
		return 0
	}
	return math.Float64frombits(uint64(h>>15)<<63 | uint64(int(h>>10&0x1f)-15+1023)<<52 | uint64(h&0x3ff)<<42)
}

func floatsOf(dim int, vectors [][]float64) *qnpb.FloatVectors {
	out := &qnpb.FloatVectors{Dim: int32(dim)}
	for _, x := range vectors {
		for _, f := range x {
			out.Values = append(out.Values, float32(f))
		}
	}
	return out
}

func sparseOf(vectors [][]float64) *qnpb.SparseVectors {
	out := &qnpb.SparseVectors{}
	for _, x := range vectors {
		n := uint32(0)
		for i, f := range x {
			if f != 0 {
				out.Indices, out.Values, n = append(out.Indices, sparseDims[i]), append(out.Values, float32(f)), n+1
			}
		}
		out.Lengths = append(out.Lengths, n)
	}
	return out
}

// data are the vectors of rows as the API wants them; of a null, zeros.
func (v *vector) data(rows []*row, at int) *qnpb.FieldData {
	d := &qnpb.FieldData{Field: v.name}
	var vectors [][]float64
	for _, x := range rows {
		value := x.vectors[at]
		if v.nullable {
			d.Valid = append(d.Valid, value != nil)
		}
		if value == nil {
			value = make([]float64, v.dim)
		}
		vectors = append(vectors, value)
	}
	switch v.typ {
	case float32s:
		d.Values = &qnpb.FieldData_Vectors{Vectors: floatsOf(v.dim, vectors)}
	case sparse:
		d.Values = &qnpb.FieldData_SparseVectors{SparseVectors: sparseOf(vectors)}
	default:
		d.Values = &qnpb.FieldData_ByteVectors{ByteVectors: v.bytes(vectors)}
	}
	return d
}

// vectorText is a vector in an answer.
func vectorText(x []float64) string { return fmt.Sprint(x) }

// decode lists the vectors of an answer, as texts.
func (v *vector) decode(d *qnpb.FieldData) (out []string) {
	switch d := d.GetValues().(type) {
	case *qnpb.FieldData_Vectors:
		for x := range slices.Chunk(d.Vectors.GetValues(), v.dim) {
			value := make([]float64, v.dim)
			for i, f := range x {
				value[i] = float64(f)
			}
			out = append(out, vectorText(value))
		}
	case *qnpb.FieldData_SparseVectors:
		at := 0
		for _, n := range d.SparseVectors.GetLengths() {
			value := make([]float64, v.dim)
			for range n {
				value[slices.Index(sparseDims, d.SparseVectors.GetIndices()[at])] = float64(d.SparseVectors.GetValues()[at])
				at++
			}
			out = append(out, vectorText(value))
		}
	case *qnpb.FieldData_ByteVectors:
		raw := d.ByteVectors.GetRaw()
		for len(raw) > 0 {
			value := make([]float64, v.dim)
			for i := range value {
				switch v.typ {
				case float16s:
					value[i], raw = fromHalf(binary.LittleEndian.Uint16(raw)), raw[2:]
				case bfloats:
					value[i], raw = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw))<<16)), raw[2:]
				case int8s:
					value[i], raw = float64(int8(raw[0])), raw[1:]
				case binaries:
					value[i] = float64(raw[0] >> (7 - i%8) & 1)
					if i%8 == 7 {
						raw = raw[1:]
					}
				}
			}
			out = append(out, vectorText(value))
		}
	}
	return out
}

// query are vectors to search for, in the form the API wants.
type query struct {
	floats *qnpb.FloatVectors
	bytes  *qnpb.ByteVectors
	sparse *qnpb.SparseVectors
	texts  []string
}

// query puts vectors into their form; float16 and bfloat16 may be sent as float32 too.
func (v *vector) query(vectors [][]float64, asFloats bool) query {
	switch {
	case v.of != "":
		var q query
		for _, x := range vectors {
			q.texts = append(q.texts, v.queryText(x))
		}
		return q
	case v.typ == sparse:
		return query{sparse: sparseOf(vectors)}
	case v.typ == float32s, asFloats && v.typ != binaries:
		return query{floats: floatsOf(v.dim, vectors)}
	}
	return query{bytes: v.bytes(vectors)}
}
