package index

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/querynode/querynode/internal/vec"
)

// Of fine codes.
const (
	// fineLeast is the dimension from which rows have fine codes; below, vectors
	// are so short that they are read themselves.
	fineLeast = 16
	// fineShort and fineLong are the dimensions from which on, and below which, a
	// value has 12 bits, not 16: an index of longer rows stays below 0.6 of the memory
	// of a graph on float32 with 16, one of shorter rows above it in any case.
	fineShort, fineLong = 64, 448
	// fineTail is what a row has behind its codes: their step and its bias.
	fineTail = 8
	// fineNear is the part of a query's square that a squared distance must be for 12
	// or 16 bits to be precise enough: it is the difference of such squares.
	fineNear12, fineNear16 = 1.0 / 32, 1.0 / 128
	// fineLost is the part of a row's square that rounding may take for each
	// dimension: a distance as large as the row is off by a thousandth then.
	fineLost = 2.5e-7
)

// fine are the vectors of an index in 12 or 16 bits a value, to rank by what a
// search has found. They stay in memory, and the float32 vectors, two or three times
// the size, need not: those are looked at only where a row is so near by L2 that
// its codes do not tell its distance to two digits, see nearRow.
//
// A vector at unit length (Cosine), less the mean, is c*step, with a step for each
// row, as in LVQ (Aguerrebere et al., arXiv:2304.04759). c is the sum of a high byte
// and a low half of a byte or byte, both signed. A row has its high bytes, its
// low ones, step and bias. With u for what the codes stand for and v for the
// query less the mean:
//
//	L2, Cosine   |q-x|² = |v|² + bias - 2 v·u   bias is |u|² less the square of what rounding did
//	IP           -q·x = -q·mean - q·u
//
// The zero fine has no rows.
type fine struct {
	space  *space
	dist   vec.Distance // of whole rows
	short  vec.Distance // of vectors of bytes
	near   float64      // see fineNear12
	mean   []float32    // dim
	bits   int          // of a value: 12 or 16
	stride int          // bytes of a row
	bytes  []byte
}

// fineBits is how many bits a value has; 0: there are no fine codes.
func fineBits(dim int) int {
	switch {
	case dim < fineLeast || vec.SQ8Stride(dim) > vec.SQ8MaxStride:
		return 0
	case dim >= fineShort && dim < fineLong:
		return 12
	}
	return 16
}

// fineStride is the size of a row.
func fineStride(dim, bits int) int {
	if bits == 0 {
		return 0
	}
	return dim + (dim*(bits-8)+7)/8 + fineTail
}

// newFine returns fine codes in memory that is there already; none if it is empty.
func newFine(sp *space, mean []float32, bits int, bytes []byte) fine {
	if len(bytes) == 0 {
		return fine{}
	}
	f := fine{space: sp, mean: mean, bits: bits, stride: fineStride(sp.dim, bits), bytes: bytes}
	var err error
	if f.dist, err = sp.kern.Distance(vec.Int8, vec.OpDot, f.stride); err != nil {
		return fine{} // never: fineBits has seen to it
	}
	if f.short, err = sp.kern.Distance(vec.Int8, vec.OpDot, sp.dim); err != nil {
		return fine{}
	}
	if f.near = fineNear12; bits == 16 {
		f.near = fineNear16
	}
	return f
}

func (f *fine) exists() bool { return len(f.bytes) > 0 }

// put writes the row of a vector; flat is room for as many values.
func (f *fine) put(row uint32, v, flat []float32) {
	scale := float32(1)
	if f.space.metric == Cosine {
		scale = f.space.kern.InvNorm(v)
	}
	peak := float32(0)
	for i, x := range v {
		flat[i] = x*scale - f.mean[i]
		peak = max(peak, flat[i], -flat[i])
	}
	low := f.bits - 8
	half := int32(1) << (low - 1)
	top := float32(fineTop(f.bits))
	to := f.bytes[int(row)*f.stride:][:f.stride]
	clear(to)
	inv, step := top/peak, peak/top
	if exact := exactStep(flat[:len(v)], step); exact > 0 {
		inv, step = 1/exact, exact
	}
	if !(inv <= math.MaxFloat32) {
		inv, step = 0, 0
	}
	square, lost, length := 0.0, 0.0, 0.0
	for i, x := range flat[:len(v)] {
		// Adding and taking away 1.5*2^23 rounds to the nearest integer.
		y := x*inv + 12582912
		c := int32(y - 12582912)
		high := (c + half) >> low
		to[i] = byte(high)
		if rest := byte(c - high<<low); low == 8 {
			to[len(v)+i] = rest
		} else {
			to[len(v)+i/2] |= rest & 15 << (4 * (i & 1))
		}
		u := float64(step) * float64(c)
		square, lost = square+u*u, lost+(float64(x)-u)*(float64(x)-u)
		length += float64(v[i]*scale) * float64(v[i]*scale)
	}
	bias := square - lost
	switch {
	case f.space.metric == IP:
		bias = 0
	case scale == 0:
		bias++ // without a direction, it is at the distance of a cosine of 0
	}
	if !(math.Abs(bias) <= math.MaxFloat32 && lost <= fineLost*float64(len(v))*length) {
		bias = math.NaN() // not to be told by codes
	}
	tail := to[f.stride-fineTail:]
	binary.LittleEndian.PutUint32(tail, math.Float32bits(step))
	binary.LittleEndian.PutUint32(tail[4:], math.Float32bits(float32(bias)))
}

// fineTop is the largest code of so many bits: a signed byte and as large a rest as may be.
func fineTop(bits int) float64 { return float64(int(127)<<(bits-8) + 1<<(bits-9) - 1) }

// exactStep is the least power of two from a step on if all values are multiples of it, as whole numbers are: codes of them lose
// nothing. 0: they are not.
func exactStep(values []float32, step float32) float32 {
	fraction, exp := math.Frexp(float64(step))
	if !(step > 0 && step <= math.MaxFloat32/2) {
		return 0
	}
	if fraction == 0.5 { // it is one
		exp--
	}
	exact := math.Ldexp(1, exp)
	inv := float32(1 / exact)
	for _, x := range values {
		if y := x * inv; y != float32(math.Trunc(float64(y))) {
			return 0
		}
	}
	return float32(exact)
}

// fineQuery is a query for fine codes, and room for distances.
type fineQuery struct {
	flat     []float32
	halves   []int8
	high     []byte // as long as a row: the upper halves of the weights for high bytes
	low      []byte // the lower halves for high bytes, for low bytes of 16 bits the upper ones
	rows     []byte // low halves of bytes, unpacked
	a, b, c  []float32
	weights  vec.FineWeights // in place of high, low and rows, where there is a kernel for it
	sums     []int32
	scale    float64
	add      float64 // what all distances have in common
	square   float64 // |v|²
	own      float64 // see ownSquare, once ownKnown
	lowest   [1]float32
	vague    []uint32 // rows that only vectors tell, which of those asked for they are, and how far
	vagueAt  []int
	exact    []float32
	ownKnown bool
	usable   bool
	half     vec.HalfQuery // of the upper halves of weights, if halved
	halved   bool
}

func (q *fineQuery) size() int {
	return 4*(cap(q.flat)+cap(q.a)+cap(q.b)+cap(q.c)) + cap(q.halves) + cap(q.high) + cap(q.low) + cap(q.rows) + 4*cap(q.sums) + q.weights.Bytes() + q.half.Bytes() + 4*cap(q.vague) + 8*cap(q.vagueAt) + 4*cap(q.exact)
}

// prepare readies q for a vector.
func (f *fine) prepare(vector []float32, q *fineQuery) {
	sp, n := f.space, len(vector)
	q.flat, q.ownKnown = grown(q.flat, n), false
	scale := sp.scale(vector)
	if sp.metric == IP {
		copy(q.flat, vector)
		q.add = -float64(sp.kern.Dot(vector, f.mean))
	} else {
		flat, mean := q.flat[:n], f.mean[:n]
		for i, x := range vector {
			flat[i] = x*scale - mean[i]
		}
	}
	square := sp.kern.Dot(q.flat, q.flat)
	q.square = float64(square)
	if sp.metric != IP {
		q.add = q.square
	}
	half := vec.SQ8Stride(n)
	q.halves = grown(q.halves, 2*half)
	q.scale = float64(sp.kern.SetSQ8(q.halves, q.flat))
	// Without a direction or with numbers too large, only vectors tell.
	q.halved = false
	q.usable = scale != 0 && q.scale > 0 && square <= math.MaxFloat32
	high, low := q.halves[vec.SQ8Bias:][:n], q.halves[half+vec.SQ8Bias:][:n]
	q.high, q.low = grown(q.high, f.stride), grown(q.low, f.stride)
	clear(q.high[copy(q.high, bytesOf(high)):])
	if sp.kern.FineFast() {
		q.weights.Set(high, low, f.bits)
		return
	}
	clear(q.low[copy(q.low, bytesOf(low)):])
	if f.bits == 16 {
		double(q.low[:n])
		copy(q.low[n:], q.high[:n])
	}
}

// distances writes the distances of a query and the rows ids to out, in which
// those it cannot tell are not a number.
func (f *fine) distances(q *fineQuery, ids []uint32, out []float32) {
	if f.space.kern.FineFast() {
		f.distancesAtOnce(q, ids, out)
		return
	}
	q.a, q.b = grown(q.a, len(ids)), grown(q.b, len(ids))
	f.dist.IDs(q.high, f.bytes, ids, q.a)
	f.dist.IDs(q.low, f.bytes, ids, q.b)
	if f.bits == 12 {
		f.unpack(q, ids)
	}
	for i, id := range ids {
		step, bias := f.tail(id)
		out[i] = f.distance(q, step, bias, f.sumOf(q, i))
	}
}

// sumOf is the product of the query's weights and the i-th row's codes but for that of the lows of both.
func (f *fine) sumOf(q *fineQuery, i int) float64 {
	switch {
	case f.space.kern.FineFast():
		high, rest := float64(q.sums[2*i]), float64(q.sums[2*i+1])
		if f.bits == 16 {
			return 128 * (256*high + rest)
		}
		return 16 * (128*high + rest)
	case f.bits == 12:
		return 16*(128*float64(q.a[i])+float64(q.b[i])) + 128*float64(q.c[i])
	}
	return 128 * (256*float64(q.a[i]) + float64(q.b[i]))
}

// distance makes a distance of the product of a row and the query's weights.
func (f *fine) distance(q *fineQuery, step, bias float32, sum float64) float32 {
	dot := q.scale * float64(step) * sum
	switch f.space.metric {
	case IP:
		return float32(q.add + float64(bias) - dot)
	case Cosine:
		return float32((q.add + float64(bias) - 2*dot) / 2)
	}
	return float32(q.add + float64(bias) - 2*dot)
}

// distancesAtOnce is distances by a kernel that reads each row once.
func (f *fine) distancesAtOnce(q *fineQuery, ids []uint32, out []float32) {
	q.sums = grown(q.sums, 2*len(ids))
	f.space.kern.FineIDs(&q.weights, f.bytes, f.stride, ids, q.sums)
	for i, id := range ids {
		step, bias := f.tail(id)
		out[i] = f.distance(q, step, bias, f.sumOf(q, i))
	}
}

// coarseAhead is how many bytes of rows are asked for while as many are compared, coarseLine
// the size of what is asked for at once: rows come from anywhere.
const coarseAhead, coarseLine = 4096, 64

// coarse is refine by the high bytes of rows and the upper halves of weights: it
// reads two thirds of a row, and is good to two digits.
func (f *fine) coarse(sp *space, vector []float32, scale float32, ids []uint32, out []float32, s *Scratch) {
	if len(ids) == 0 {
		return
	}
	q := &s.fine
	q.a = grown(q.a, len(ids))
	step, lines := max(coarseAhead/f.stride&^3, 4), f.stride/coarseLine+1
	sp.kern.PrefetchRows(f.bytes, f.stride, lines, ids[:min(step, len(ids))], 0)
	for from := 0; from < len(ids); from += step {
		to := min(from+step, len(ids))
		sp.kern.PrefetchRows(f.bytes, f.stride, lines, ids[to:min(to+step, len(ids))], 0)
		f.dist.IDs(q.high, f.bytes, ids[from:to], q.a[from:to])
	}
	factor := q.scale * 128 * float64(int(1)<<(f.bits-8))
	if sp.metric != IP {
		factor *= 2
	}
	for i, id := range ids {
		tail := f.bytes[int(id)*f.stride+f.stride-fineTail:][:fineTail]
		step := math.Float32frombits(binary.LittleEndian.Uint32(tail))
		bias := math.Float32frombits(binary.LittleEndian.Uint32(tail[4:]))
		d := q.add + float64(bias) - factor*float64(step)*float64(q.a[i])
		if sp.metric == Cosine {
			d /= 2
		}
		if out[i] = float32(d); d != d {
			sp.byID(vector, scale, ids[i:i+1], out[i:i+1])
		}
	}
}

// unpack writes the products of the query and the low halves of bytes of the rows
// ids to q.c.
func (f *fine) unpack(q *fineQuery, ids []uint32) {
	n := f.space.dim
	packed := (n + 1) / 2
	q.rows, q.c = grown(q.rows, len(ids)*n+16), grown(q.c, len(ids))
	for i, id := range ids {
		spreadRow(q.rows[i*n:], f.bytes[int(id)*f.stride+n:][:packed])
	}
	f.short.Rows(q.high[:n], q.rows[:len(ids)*n], q.c)
}

// spreadRow makes signed bytes of the halves of the bytes of a row.
func spreadRow(to, from []byte) {
	for ; len(from) >= 8; from, to = from[8:], to[16:] {
		x := binary.LittleEndian.Uint64(from)
		binary.LittleEndian.PutUint64(to, spread(uint32(x)))
		binary.LittleEndian.PutUint64(to[8:], spread(uint32(x>>32)))
	}
	for j, b := range from {
		to[2*j], to[2*j+1] = signed(b&15), signed(b>>4)
	}
}

// bytesOf views signed bytes as bytes.
func bytesOf(b []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}

// double doubles signed bytes between -64 and 63.
func double(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		binary.LittleEndian.PutUint64(b, x<<1&0xfefefefefefefefe)
	}
	for i := range b {
		b[i] <<= 1
	}
}

// spread makes a signed byte of each half of a byte.
func spread(packed uint32) uint64 {
	x := uint64(packed)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	return x | (x&0x0808080808080808)*0x1e // the sign reaches into the upper half
}

func signed(half byte) byte { return half | half&8*0x1e }

// askMost is how many lines are asked for at once: more do not fit the first cache.
const askMost = 256

// ask asks for rows, or their beginnings if they are long.
func (f *fine) ask(rows []uint32) {
	if f.exists() && len(rows) > 0 {
		f.space.kern.PrefetchRows(f.bytes, f.stride, min((f.stride+63)/64, max(askMost/len(rows), 1)), rows, 0)
	}
}

// refine writes distances of the rows ids to out: by fine codes if there are any and
// they can tell, by the vectors otherwise.
func (f *fine) refine(sp *space, vector []float32, scale float32, ids []uint32, out []float32, s *Scratch) {
	q := &s.fine
	if f.exists() && sp.detached() {
		f.refineDetached(scale, ids, out, q)
		return
	}
	if !f.exists() || !q.usable {
		s.stats.Exact += len(ids)
		sp.byID(vector, scale, ids, out)
		return
	}
	f.distances(q, ids, out)
	limit := float32(-math.MaxFloat32)
	switch sp.metric {
	case L2:
		limit = float32(q.square * f.near)
	case Cosine:
		limit = float32(q.square * f.near / 2)
	}
	vague, at := q.vague[:0], q.vagueAt[:0]
	for i, d := range out[:len(ids)] {
		if d >= limit {
			continue
		}
		good := false
		if sp.metric != IP && !f.vague(q, ids[i], d) {
			out[i], good = f.nearRow(q, i, ids[i])
		}
		if !good {
			vague, at = append(vague, ids[i]), append(at, i)
		}
	}
	q.vague, q.vagueAt = vague, at
	if len(vague) == 0 {
		return
	}
	s.stats.Exact += len(vague)
	q.exact = grown(q.exact, len(vague))
	sp.byID(vector, scale, vague, q.exact) // together, so that each is on its way while those before are compared
	for j, i := range at {
		out[i] = q.exact[j]
	}
}

// refineDetached is refine where there are no vectors: what codes cannot tell counts as far, and by COSINE all rows are alike to
// a query without a direction.
func (f *fine) refineDetached(scale float32, ids []uint32, out []float32, q *fineQuery) {
	if scale == 0 {
		clear(out[:len(ids)])
		return
	}
	f.distances(q, ids, out)
	for i, d := range out[:len(ids)] {
		if !(d <= math.MaxFloat32) {
			out[i] = math.MaxFloat32
		}
	}
}
