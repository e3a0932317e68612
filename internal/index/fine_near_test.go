package index

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// rowsNear returns rows at ever larger distances from the vector q, each in a direction of its own, and q itself last. The squares of
// the distances are parts of that of q's length, from a 30,000th to a 20th.
func rowsNear(seed uint64, q []float32, rows int) []float32 {
	r, dim := rng(seed), len(q)
	length := 0.0
	for _, x := range q {
		length += float64(x) * float64(x)
	}
	out := make([]float32, 0, (rows+1)*dim)
	for i := range rows {
		off, square := make([]float64, dim), 0.0
		for d := range off {
			off[d] = r.NormFloat64()
			square += off[d] * off[d]
		}
		by := math.Sqrt(length / 30000 * math.Pow(1500, float64(i)/float64(rows)) / square)
		for d, x := range q {
			out = append(out, float32(float64(x)+by*off[d]))
		}
	}
	return append(out, q...)
}

// TestNearRowsAreToldByTheirCodes: by COSINE all of them; by L2 those of which three digits are right; and by no vector unless it is counted.
func TestNearRowsAreToldByTheirCodes(t *testing.T) {
	const near, others = 200, 400
	for level := vec.Portable; level <= vec.Supported(); level++ {
		for _, dim := range []int{16, 40, 65, 128, 256, 447, 500, 1000} {
			for _, m := range []Metric{L2, Cosine} {
				t.Run(fmt.Sprintf("%s/%s/%d", level, m, dim), func(t *testing.T) {
					base := clustered(rng(uint64(dim)), others, dim)
					q := base[:dim]
					base = append(rowsNear(9, q, near), base[dim:]...)
					sp, f := fineOf(t, m, dim, base)
					sp.kern = kernelsOf(t, level)
					f = newFine(sp, f.mean, f.bits, f.bytes)
					var s Scratch
					f.prepare(q, &s.fine)
					if !s.fine.usable {
						t.Fatal("the query cannot be told by codes")
					}
					byVector := 0
					for first := 0; first <= near; first += 20 {
						ids := make([]uint32, 0, 20)
						for row := first; row < min(first+20, near+1); row++ {
							ids = append(ids, uint32(row))
						}
						got, want := make([]float32, len(ids)), make([]float32, len(ids))
						s.stats = Stats{}
						f.refine(sp, q, sp.scale(q), ids, got, &s)
						byVector += s.stats.Exact
						sp.byID(q, sp.scale(q), ids, want)
						for i, id := range ids {
							off := math.Abs(float64(got[i] - want[i]))
							// Five times what rounding takes in the mean, and what float32 does.
							step, _ := f.tail(id)
							d := float64(want[i])
							if m == Cosine {
								d *= 2
							}
							most := 5*math.Sqrt((float64(step)*float64(step)+s.fine.scale*s.fine.scale)/3*max(d, 0)) + 2e-7*s.fine.square
							switch {
							case d > 0.99*f.near*s.fine.square: // told as all other rows are
								most = 5e-3 * d
							case m == L2:
								most = min(most, 5*nearOff*d)
							}
							if m == Cosine {
								most = most/2 + 5e-7
							}
							if !(off <= most) {
								t.Errorf("row %d: %v, exactly %v: off by %.2g", id, got[i], want[i], off)
							}
							if m == L2 && id == near && got[i] != 0 {
								t.Errorf("the row that is the query is at %v", got[i])
							}
						}
					}
					switch {
					case m == Cosine && byVector > 0:
						t.Errorf("%d of %d rows were told by their vectors", byVector, near+1)
					case m == L2 && (byVector == 0 || f.bits == 16 && byVector > near/4 || byVector > near*9/10):
						t.Errorf("%d of %d rows were told by their vectors with %d bits", byVector, near+1, f.bits)
					}
				})
			}
		}
	}
}

// TestNearRowsOfWholeNumbersAreToldByTheirCodes: of counts and bytes nothing is rounded, whatever is largest in a row, and few are so near
// that what is rounded of the query counts.
func TestNearRowsOfWholeNumbersAreToldByTheirCodes(t *testing.T) {
	const dim, near = 128, 60
	r := rng(21)
	base := make([]float32, 0, (near+200)*dim)
	q := make([]float32, dim)
	for d := range q {
		q[d] = float32(r.IntN(300))
	}
	q[0] = 1500 // steps of 12 bits would be two thirds
	for i := range near {
		row := slices.Clone(q)
		for range 3 + i { // squared distances from 75 on
			row[1+r.IntN(dim-1)] += 5
		}
		base = append(base, row...)
	}
	for range 200 * dim {
		base = append(base, float32(r.IntN(300)))
	}
	base[len(base)-1] = 5000 // of which not all is told
	sp, f := fineOf(t, L2, dim, base)
	var s Scratch
	f.prepare(q, &s.fine)
	ids, got, want := make([]uint32, near), make([]float32, near), make([]float32, near)
	for i := range ids {
		ids[i] = uint32(i)
	}
	f.refine(sp, q, 1, ids, got, &s)
	sp.byID(q, 1, ids, want)
	for i := range ids {
		if math.Abs(float64(got[i]-want[i])) > 0.02*float64(want[i]) {
			t.Errorf("row %d: %v, exactly %v", i, got[i], want[i])
		}
	}
	if s.stats.Exact > 0 {
		t.Errorf("%d of %d rows were told by their vectors", s.stats.Exact, near)
	}
}

// TestNearDuplicatesAreFound: rows that are so much nearer to one another than they are long that float32 hardly has their distances from
// codes are told by their vectors.
func TestNearDuplicatesAreFound(t *testing.T) {
	const points, copies, dim, k = 300, 20, 50, 10
	r := rng(12)
	var base, queries []float32
	for range points {
		at := gauss(r.Uint64(), 1, dim)
		for c := range copies + 1 {
			for _, x := range at {
				v := x + float32(1e-3*r.NormFloat64())
				if c < copies {
					base = append(base, v)
				} else {
					queries = append(queries, v)
				}
			}
		}
	}
	f := newFlat(t, dim, L2, base)
	x := buildIVFFor(t, KindScaNN, L2, dim, 20, base)
	var s Scratch
	found := 0
	for i := range points {
		q := queries[i*dim:][:dim]
		got := slices.Clone(x.Search(q, &Query{K: k, Effort: 20}, &s))
		for _, want := range f.Search(q, k, nil, &s) { // by their rows: distances are what may be wrong
			if slices.ContainsFunc(got, func(n Neighbor) bool { return n.Row == want.Row }) {
				found++
			}
		}
	}
	if most := points * k; found < most*995/1000 {
		t.Errorf("%d of the %d nearest are found in all lists", found, most)
	}
}

// TestADistanceOfANearRowIsThatOfAllBits: of what is added up nothing is left out that does not vanish as the row comes near. The sums
// that rows at a distance are told by leave out the product of what is lowest in both.
func TestADistanceOfANearRowIsThatOfAllBits(t *testing.T) {
	for _, dim := range []int{40, 128, 600} {
		base := clustered(rng(uint64(dim)), 300, dim)
		_, f := fineOf(t, L2, dim, base)
		var q fineQuery
		query := base[3*dim:][:dim]
		f.prepare(query, &q)
		ids, out := []uint32{3, 4, 5}, make([]float32, 3)
		f.distances(&q, ids, out)
		for i, id := range ids {
			// All of it in float64, from the row's codes and the query's weights themselves.
			step, bias := f.tail(id)
			row := f.bytes[int(id)*f.stride:][:f.stride]
			half := len(q.halves) / 2
			var product, own float64
			for d := range dim {
				weight := float64(128*int(q.halves[vec.SQ8Bias+d]) + int(q.halves[half+vec.SQ8Bias+d]))
				code := 256*int(int8(row[d])) + int(int8(row[min(dim+d, len(row)-1)]))
				if f.bits == 12 {
					code = 16*int(int8(row[d])) + int(int8(signed(row[dim+d/2]>>(4*(d&1))&15)))
				}
				product += weight * float64(code)
				p := q.scale * weight
				own += p*p - (p-float64(q.flat[d]))*(p-float64(q.flat[d]))
			}
			want := own + float64(bias) - 2*q.scale*float64(step)*product
			if got, _ := f.nearRow(&q, i, id); math.Abs(float64(got)-want) > 1e-6*math.Abs(want)+1e-9*q.square {
				t.Errorf("%d values, row %d: %v, by all bits %v", dim, id, got, want)
			}
		}
	}
}

func kernelsOf(tb testing.TB, level vec.Level) vec.Kernels {
	tb.Helper()
	k, err := vec.New(level)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}
