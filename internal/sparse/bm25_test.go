package sparse

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// texts makes n rows of words, of which low ones are common, of any length.
func texts(r *rand.Rand, n, words, longest int) (indptr []int64, indices []uint32, data []float32) {
	indptr = []int64{0}
	for range n {
		times := map[uint32]float32{}
		for range r.IntN(1 + r.IntN(longest)) {
			times[uint32(float64(words)*math.Pow(r.Float64(), 3))]++
		}
		first := len(indices)
		for w := range times {
			indices = append(indices, w)
		}
		slices.Sort(indices[first:])
		for _, w := range indices[first:] {
			data = append(data, times[w])
		}
		indptr = append(indptr, int64(len(indices)))
	}
	return indptr, indices, data
}

// formula is BM25 as it is written down, of every row.
func formula(indptr []int64, indices []uint32, data []float32, dims []uint32, weights []float32, k1, b, mean float64) []float64 {
	out := make([]float64, len(indptr)-1)
	for row := range out {
		length := 0.0
		for _, v := range data[indptr[row]:indptr[row+1]] {
			length += float64(v)
		}
		for k := indptr[row]; k < indptr[row+1]; k++ {
			if i := slices.Index(dims, indices[k]); i >= 0 {
				tf := float64(data[k])
				out[row] += float64(weights[i]) * (tf * (k1 + 1)) / (tf + k1*(1-b+b*length/mean))
			}
		}
	}
	return out
}

func TestTextsAreScoredByBM25(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var s Searcher
	scored, all := 0, 0
	for round := range 400 {
		n := 1 + r.IntN(600)
		indptr, indices, data := texts(r, n, 80, 1+r.IntN(60))
		x, err := BuildTexts(indptr, indices, data)
		if err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			x = reopened(t, x)
		}
		mean := float64(x.Ends()[n])/float64(n) + 0.1
		k1, b := []float64{1.2, 0, 3}[round%3], []float64{0.75, 0, 1}[round/3%3]
		var dims []uint32
		var weights []float32
		for range 1 + r.IntN(10) {
			if d := uint32(r.IntN(80)); !slices.Contains(dims, d) {
				dims, weights = append(dims, d), append(weights, 0.01+5*r.Float32())
			}
		}
		bm := NewBM25(k1, b, mean)
		bm.Ends = x.Ends()
		q := &Query{K: 1 + r.IntN(20), To: n, Scorer: &bm}
		got := s.Search(terms(x, dims, weights), q)
		scored, all = scored+s.Scored(), all+n
		var top vec.TopK
		top.Reset(q.K)
		want := formula(indptr, indices, data, dims, weights, k1, b, mean)
		for row, score := range want {
			if score > 0 {
				top.Push(uint32(row), -float32(score))
			}
		}
		if !same(got, top.AppendSorted(nil)) {
			t.Fatalf("round %d: %v, want %v", round, got, top.AppendSorted(nil))
		}
		err = s.Each(terms(x, dims, weights), q, func(rows []uint32, distances []float32) error {
			for i, row := range rows {
				if d := float64(-distances[i]) - want[row]; math.Abs(d) > 1e-5*want[row] {
					t.Errorf("round %d: row %d has %v, want %v", round, row, -distances[i], want[row])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if scored >= all/2 {
		t.Errorf("%d of %d rows were scored: nothing was left out", scored, all)
	}
}

// TestNoRowIsBetterThanItsBound: what is left out by it cannot be among the nearest.
func TestNoRowIsBetterThanItsBound(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	indptr, indices, data := texts(r, 2000, 50, 300)
	x, err := BuildTexts(indptr, indices, data)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][2]float64{{1.2, 0.75}, {0, 0.5}, {3, 0}, {2, 1}} {
		bm := NewBM25(p[0], p[1], 70)
		bm.Ends = x.Ends()
		for d := range uint32(50) {
			term := Term{List: x.List(d), Weight: 3}
			bound := bm.Bound(&term)
			for i, row := range term.Rows {
				if got := bm.Score(&term, row, term.Values[i]); float64(got) > float64(bound)*slack {
					t.Fatalf("word %d, row %d: %v, but the bound is %v", d, row, got, bound)
				}
			}
		}
	}
}

func TestTextsHaveWholeCounts(t *testing.T) {
	for _, v := range []float32{0, 0.5, 1.5, maxTimes * 2} {
		if _, err := BuildTexts([]int64{0, 1}, []uint32{1}, []float32{v}); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("a word that is there %v times: %v", v, err)
		}
	}
	x, err := Build([]int64{0, 1}, []uint32{1}, []float32{0.5})
	if err != nil || x.Ends() != nil {
		t.Errorf("an index of no texts: %v, %v", x.Ends(), err)
	}
}

func TestDamagedImagesOfTexts(t *testing.T) {
	indptr, indices, data := texts(rand.New(rand.NewPCG(3, 4)), 30, 20, 9)
	x, err := BuildTexts(indptr, indices, data)
	if err != nil {
		t.Fatal(err)
	}
	good := image(t, x)
	for n := range good {
		if _, err := Open(good[:n]); !errclass.Is(err, errclass.Corrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			bad := aligned(good)
			bad[i] ^= bit
			if y, err := Open(bad); err == nil {
				searchTexts(y)
			}
		}
	}
	bad := aligned(good)
	copy(bad[8:], []byte{9})
	if _, err := Open(bad); !errclass.Is(err, errclass.Unimplemented) {
		t.Errorf("a later version: %v", err)
	}
}

// searchTexts searches whatever opened.
func searchTexts(x *Index) []vec.Neighbor {
	var s Searcher
	q := &Query{K: 5, To: x.Rows()}
	if x.Ends() != nil {
		bm := NewBM25(DefaultK1, DefaultB, 4)
		bm.Ends = x.Ends()
		q.Scorer = &bm
	}
	return s.Search(terms(x, []uint32{0, 1, 2, 3}, []float32{1, 2, 3, 4}), q)
}

func BenchmarkSearchTexts(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	indptr, indices, data := texts(r, 100_000, 50_000, 200)
	x, err := BuildTexts(indptr, indices, data)
	if err != nil {
		b.Fatal(err)
	}
	bm := NewBM25(DefaultK1, DefaultB, float64(x.Ends()[100_000])/100_000)
	bm.Ends = x.Ends()
	var all []Term
	for _, d := range []uint32{3, 40, 1000, 9000, 20_000} {
		l := x.List(d)
		all = append(all, Term{List: l, Weight: float32(math.Log(1 + (100_000-float64(len(l.Rows))+0.5)/(float64(len(l.Rows))+0.5)))})
	}
	var s Searcher
	b.ResetTimer()
	for b.Loop() {
		s.Search(all, &Query{K: 10, To: 100_000, Scorer: &bm})
	}
	b.ReportMetric(float64(s.Scored()), "rows/op")
}
