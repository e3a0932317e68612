package sparse

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// rows makes n sparse vectors of few dimensions, of which low ones are common and
// have small values, as words do.
func rows(r *rand.Rand, n, dims, most int) (indptr []int64, indices []uint32, data []float32) {
	indptr = []int64{0}
	for range n {
		set := map[uint32]bool{}
		for range r.IntN(most + 1) {
			set[uint32(r.IntN(dims)*r.IntN(dims)/dims)] = true
		}
		var some []uint32
		for d := range set {
			some = append(some, d)
		}
		slices.Sort(some)
		for _, d := range some {
			indices, data = append(indices, d), append(data, r.Float32()*float32(d+1))
		}
		indptr = append(indptr, int64(len(indices)))
	}
	return indptr, indices, data
}

func terms(x *Index, dims []uint32, weights []float32) (out []Term) {
	for i, d := range dims {
		out = append(out, Term{List: x.List(d), Weight: weights[i]})
	}
	return out
}

// brute looks at every row.
func brute(indptr []int64, indices []uint32, data []float32, dims []uint32, weights []float32, q *Query) []vec.Neighbor {
	var top vec.TopK
	top.Reset(q.K)
	for row := q.From; row < q.To; row++ {
		if q.Allowed != nil && !q.Allowed.Has(row) {
			continue
		}
		sum := 0.0
		for k := indptr[row]; k < indptr[row+1]; k++ {
			if i := slices.Index(dims, indices[k]); i >= 0 {
				sum += float64(weights[i]) * float64(data[k])
			}
		}
		if d := -float32(sum); sum > 0 && (q.Keeps == nil || q.Keeps(d)) {
			top.Push(uint32(row), d)
		}
	}
	return top.AppendSorted(nil)
}

func same(a, b []vec.Neighbor) bool {
	return slices.EqualFunc(a, b, func(x, y vec.Neighbor) bool {
		diff := x.Distance - y.Distance
		return diff*diff <= 1e-10*x.Distance*x.Distance
	})
}

func TestTheNearestAreThoseOfBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s Searcher
	scored, all := 0, 0
	for round := range 300 {
		n := 1 + r.IntN(500)
		indptr, indices, data := rows(r, n, 1+r.IntN(60), 8)
		x, err := Build(indptr, indices, data)
		if err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			x = reopened(t, x)
		}
		q := &Query{K: 1 + r.IntN(20), To: n}
		if round%3 == 0 {
			q.From, q.To = r.IntN(n), 1+r.IntN(n)
		}
		if round%4 == 0 {
			q.Allowed = &bitset.Set{}
			q.Allowed.Reset(n)
			for i := range n {
				if r.IntN(1+round%7) == 0 {
					q.Allowed.Add(i)
				}
			}
		}
		if round%5 == 0 {
			q.Keeps = func(d float32) bool { return d >= -20 }
		}
		var dims []uint32
		var weights []float32
		for range 1 + r.IntN(12) {
			if d := uint32(r.IntN(60)); !slices.Contains(dims, d) {
				dims, weights = append(dims, d), append(weights, r.Float32())
			}
		}
		got, want := s.Search(terms(x, dims, weights), q), brute(indptr, indices, data, dims, weights, q)
		if !same(got, want) {
			t.Fatalf("round %d: %v, want %v", round, got, want)
		}
		scored, all = scored+s.Scored(), all+n
	}
	if scored >= all/2 {
		t.Errorf("%d of %d rows were scored: nothing was left out", scored, all)
	}
}

// TestMostRowsAreLeftOut when a rare dimension decides.
func TestMostRowsAreLeftOut(t *testing.T) {
	var indptr []int64
	var indices []uint32
	var data []float32
	const n = 10_000
	for i := range n {
		indptr = append(indptr, int64(len(indices)))
		indices, data = append(indices, 1), append(data, 0.1)
		if i%100 == 0 {
			indices, data = append(indices, 2), append(data, 5)
		}
	}
	x, err := Build(append(indptr, int64(len(indices))), indices, data)
	if err != nil {
		t.Fatal(err)
	}
	var s Searcher
	got := s.Search(terms(x, []uint32{1, 2}, []float32{1, 1}), &Query{K: 10, To: n})
	if len(got) != 10 || got[9].Row != 900 || s.Scored() > 200+900 {
		t.Fatalf("%v, %d rows scored", got, s.Scored())
	}
}

// saturating is a Scorer as texts have it: a word counts less the more often it
// is there.
type saturating struct{}

func (saturating) Bound(t *Term) float32 { return 2 * t.Weight }
func (saturating) Score(t *Term, _ uint32, value float32) float32 {
	return 2 * t.Weight * value / (value + 1)
}

func TestAnotherScore(t *testing.T) {
	x, err := Build([]int64{0, 2, 3, 4}, []uint32{1, 2, 1, 2}, []float32{1, 1, 100, 1})
	if err != nil {
		t.Fatal(err)
	}
	var s Searcher
	got := s.Search(terms(x, []uint32{1, 2}, []float32{1, 10}), &Query{K: 2, To: 3, Scorer: saturating{}})
	if len(got) != 2 || got[0].Row != 0 || got[0].Distance != -11 || got[1].Row != 2 || got[1].Distance != -10 {
		t.Fatalf("%v", got)
	}
}

func TestASearchIsStopped(t *testing.T) {
	n := 10 * stopEvery
	indptr, indices, data := make([]int64, 0, n+1), make([]uint32, n), make([]float32, n)
	for i := range n {
		indptr, data[i] = append(indptr, int64(i)), float32(i+1)
	}
	x, err := Build(append(indptr, int64(n)), indices, data)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	stop.Store(true)
	var s Searcher
	s.Search(terms(x, []uint32{0}, []float32{1}), &Query{K: 1, To: n, Stop: &stop})
	if s.Scored() >= stopEvery {
		t.Fatalf("%d rows", s.Scored())
	}
}

func TestRowsThatAreNone(t *testing.T) {
	inf := float32(1e38)
	for name, c := range map[string]struct {
		indptr  []int64
		indices []uint32
		data    []float32
	}{
		"no offsets":      {},
		"first not 0":     {[]int64{1, 1}, []uint32{1}, []float32{1}},
		"end too far":     {[]int64{0, 2}, []uint32{1}, []float32{1}},
		"descending":      {[]int64{0, 1, 0, 1}, []uint32{1}, []float32{1}},
		"out of range":    {[]int64{0, 9, 1}, []uint32{1}, []float32{1}},
		"negative offset": {[]int64{0, -1, 1}, []uint32{1}, []float32{1}},
		"lengths":         {[]int64{0, 1}, []uint32{1}, nil},
		"twice":           {[]int64{0, 2}, []uint32{1, 1}, []float32{1, 1}},
		"negative":        {[]int64{0, 1}, []uint32{1}, []float32{-1}},
		"infinite":        {[]int64{0, 1}, []uint32{1}, []float32{inf * inf}},
	} {
		if _, err := Build(c.indptr, c.indices, c.data); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	x, err := Build([]int64{0, 0, 0}, nil, nil)
	if err != nil || x.Rows() != 2 || len(x.List(0).Rows) != 0 {
		t.Fatalf("%+v, %v", x, err)
	}
	reopened(t, x)
}

func image(t testing.TB, x *Index) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := x.WriteTo(&b); err != nil || n != x.Bytes() {
		t.Fatal(n, err)
	}
	return aligned(b.Bytes())
}

// aligned copies b to where numbers of 8 bytes lie.
func aligned(b []byte) []byte {
	words := make([]uint64, len(b)/8+1)
	out := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(b))
	copy(out, b)
	return out
}

func reopened(t testing.TB, x *Index) *Index {
	t.Helper()
	y, err := Open(image(t, x))
	if err != nil {
		t.Fatal(err)
	}
	return y
}

func TestDamagedImages(t *testing.T) {
	indptr, indices, data := rows(rand.New(rand.NewPCG(3, 4)), 30, 20, 5)
	x, err := Build(indptr, indices, data)
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
		bad := aligned(good)
		bad[i] ^= 0x80
		y, err := Open(bad)
		if err == nil && i >= 24 && i < 40 {
			t.Errorf("byte %d of the header flipped: opened", i)
		}
		if err == nil { // another value, a row without values more
			var s Searcher
			s.Search(terms(y, []uint32{1, 2, 3}, []float32{1, 2, 3}), &Query{K: 3, To: 30})
		}
	}
}

// FuzzOpen: an image that opens can be searched.
func FuzzOpen(f *testing.F) {
	indptr, indices, data := rows(rand.New(rand.NewPCG(3, 4)), 10, 9, 4)
	x, err := Build(indptr, indices, data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image(f, x))
	indptr, indices, data = texts(rand.New(rand.NewPCG(3, 4)), 10, 9, 4)
	if x, err = BuildTexts(indptr, indices, data); err != nil {
		f.Fatal(err)
	}
	f.Add(image(f, x))
	f.Fuzz(func(t *testing.T, b []byte) {
		y, err := Open(aligned(b))
		if err != nil {
			if c := errclass.Of(err); c != errclass.Corrupt && c != errclass.Unimplemented {
				t.Fatalf("class %v: %v", c, err)
			}
			return
		}
		for _, n := range searchTexts(y) {
			if int(n.Row) >= y.Rows() {
				t.Fatalf("row %d of %d", n.Row, y.Rows())
			}
		}
	})
}

func BenchmarkSearch(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	indptr, indices, data := rows(r, 100_000, 30_000, 120)
	x, err := Build(indptr, indices, data)
	if err != nil {
		b.Fatal(err)
	}
	var dims []uint32
	var weights []float32
	for len(dims) < 32 {
		if d := uint32(r.IntN(30_000) * r.IntN(30_000) / 30_000); !slices.Contains(dims, d) {
			dims, weights = append(dims, d), append(weights, r.Float32())
		}
	}
	var s Searcher
	b.ResetTimer()
	for b.Loop() {
		s.Search(terms(x, dims, weights), &Query{K: 10, To: 100_000})
	}
	b.ReportMetric(float64(s.Scored()), "rows/op")
}
