package index

import (
	"math"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// A panel has all codes of a record, each at the weight that the query has for it.
func TestAPanelHasTheCodesOfARecord(t *testing.T) {
	r := rng(51)
	for _, c := range []*coder{
		{head: 113, wide: 7, stride: 64}, {head: 186, wide: 62, stride: 128}, {head: 120, wide: 0, stride: 64},
		{head: 118, wide: 4, stride: 128}, {head: 90, wide: 90, stride: 128}, {head: 3, wide: 3, stride: 64},
	} {
		codes, record := make([]byte, c.codes()), make([]byte, c.stride)
		for i := range codes {
			codes[i] = byte(r.IntN(256))
			if i >= c.wide {
				codes[i] &= 15
			}
		}
		if c.mixed() {
			vec.PutSQMixed(record, 0, c.wide, codes)
		} else {
			vec.PutSQ8(record, 0, codes)
		}
		weights, want := make([]float32, c.codes()), 0.0
		for i, code := range codes {
			weights[i] = float32(r.NormFloat64())
			if i < c.wide {
				code &^= 1
			}
			want += float64(weights[i]) * float64(code)
		}
		order, lane := c.panelOrder(), r.IntN(vec.PanelRows)
		panel, by := make([]byte, order.quads*4*vec.PanelRows), make([]float32, 4*order.quads)
		ids := make([]uint32, lane+1) // the same record in all lanes up to it
		vec.Detect().PanelRecords(record, c.stride, ids, order.parts(nil), panel, make([]float32, vec.PanelRows))
		order.weigh(weights, by)
		got := 0.0
		for i, w := range by {
			code := panel[i/4*4*vec.PanelRows+4*lane+i%4]
			if code > vec.PanelMax {
				t.Fatalf("%+v: code %d", order, code)
			}
			got += float64(w) * float64(code)
		}
		if math.Abs(got-want) > 1e-3*(1+math.Abs(want)) {
			t.Errorf("%+v: the sum is %v, want %v", order, got, want)
		}
	}
}

// What a batch has done is what its parts do, however many it is compared in.
func TestABatchTellsAllOfItsWork(t *testing.T) {
	const dim, n, k, ef, queries = 8, 3000, 1000, 1000, 300
	base := clustered(rng(52), n, dim)
	g, _ := buildCodes(t, L2, dim, base)
	if g.kern.Level() != vec.AVX512 {
		t.Skip("batches are not compared with all rows on this processor")
	}
	q := &Query{K: k, Allowed: filterOf(n, func(row int) bool { return row%2 == 0 })}
	c := q.Allowed.Count()
	work := func(from, to int) (st Stats, answers int) {
		var s Scratch
		g.compareBatch(base[from*dim:to*dim], q, k, ef, c, &s, func(int, []Neighbor) { answers++ })
		return s.Stats(), answers
	}
	all, answers := work(0, queries)
	var sum Stats
	for from := 0; from < queries; from += 10 {
		some, _ := work(from, from+10)
		sum.Add(some)
	}
	if all != sum || answers != queries || all.Distances < queries*c {
		t.Errorf("%d answers by %+v, in parts %+v", answers, all, sum)
	}
}
