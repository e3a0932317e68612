package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

func buildIVFFor(tb testing.TB, kind Kind, m Metric, dim, lists int, base []float32) *ivf {
	tb.Helper()
	k := vec.Detect()
	x, err := buildIVF(context.Background(), Spec{Kind: kind, Metric: m, Dim: dim, Lists: lists}, base, BuildOptions{Workers: 2, Kernels: &k})
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

var ivfTestKinds = []Kind{KindIVFFlat, KindIVFSQ8, KindScaNN}

func TestEveryRowIsInOneList(t *testing.T) {
	const dim, n = 20, 2000
	base := clustered(rng(1), n, dim)
	x := buildIVFFor(t, KindIVFSQ8, L2, dim, 30, base)
	seen := make([]int, n)
	for pos, row := range x.ids {
		if row == noRow {
			if !math.IsInf(float64(x.bytes.bias[pos]), 1) {
				t.Fatalf("position %d has no row, but a finite bias", pos)
			}
			continue
		}
		seen[row]++
	}
	for row, times := range seen {
		if times != 1 {
			t.Fatalf("row %d is in %d lists", row, times)
		}
	}
	if x.first[0] != 0 || int(x.first[x.lists.n]) != x.numBlocks() || !slices.IsSorted(x.first) {
		t.Fatalf("lists start at %v of %d blocks", x.first, x.numBlocks())
	}
}

func TestEveryListReadFindsEverything(t *testing.T) {
	for _, kind := range ivfTestKinds {
		for _, m := range []Metric{L2, IP, Cosine} {
			for _, dim := range []int{3, 17, 64} {
				base := clustered(rng(2), 600, dim)
				x := buildIVFFor(t, kind, m, dim, 20, base)
				wantRecall(t, x, newFlat(t, dim, m, base), clustered(rng(3), 20, dim), Query{K: 10, Effort: 20}, 0.97)
			}
		}
	}
}

// TestBatchesAreSharedAndRight searches more queries than one block takes.
func TestBatchesAreSharedAndRight(t *testing.T) {
	const dim, n = 24, 3000
	base, queries := clustered(rng(4), n, dim), clustered(rng(5), batchQueries+50, dim)
	for _, m := range []Metric{L2, IP, Cosine} {
		x := buildIVFFor(t, KindScaNN, m, dim, 40, base)
		f := newFlat(t, dim, m, base)
		some := bitset.New(n)
		for row := 0; row < n; row += 2 {
			some.Add(row)
		}
		for _, allowed := range []*bitset.Set{nil, some} {
			var s, exact Scratch
			sum, calls, checked := 0.0, 0, 0
			x.SearchBatch(queries, &Query{K: 5, Effort: 8, Allowed: allowed}, &s, func(i int, rows []Neighbor) {
				if calls++; i%16 != 0 {
					return
				}
				checked++
				wantSorted(t, rows, allowed)
				sum += recall(rows, f.Search(queries[i*dim:][:dim], 5, allowed, &exact))
			})
			if calls != batchQueries+50 || sum/float64(checked) < 0.9 {
				t.Errorf("%s: %d answers, recall %.3f", m, calls, sum/float64(checked))
			}
			if vec.Detect().Level() == vec.AVX512 && s.Stats().Hops >= 60*8 {
				t.Errorf("%s: %d list reads for the last queries: lists were not shared", m, s.Stats().Hops)
			}
		}
	}
}

func TestKernelsOfEveryLevelFindTheSame(t *testing.T) {
	const dim = 40
	base, queries := clustered(rng(6), 600, dim), clustered(rng(7), 60, dim)
	for l := vec.Portable; l <= vec.Supported(); l++ {
		k, err := vec.New(l)
		if err != nil {
			continue // of another architecture
		}
		for _, kind := range ivfTestKinds {
			x, err := buildIVF(context.Background(), Spec{Kind: kind, Metric: L2, Dim: dim, Lists: 16}, base, BuildOptions{Workers: 1, Kernels: &k})
			if err != nil {
				t.Fatal(err)
			}
			f := newFlat(t, dim, L2, base)
			var s, exact Scratch
			sum := 0.0
			x.SearchBatch(queries, &Query{K: 10, Effort: 8}, &s, func(i int, rows []Neighbor) {
				sum += recall(rows, f.Search(queries[i*dim:][:dim], 10, nil, &exact))
			})
			if sum < 54 {
				t.Errorf("%s at %s: recall %.3f", kind, l, sum/60)
			}
		}
	}
}

func TestFewRowsInManyLists(t *testing.T) {
	for _, kind := range ivfTestKinds {
		for _, n := range []int{0, 1, 2, 5, 33} {
			for _, dim := range []int{1, 20} {
				base := clustered(rng(8), n, dim)
				x := buildIVFFor(t, kind, Cosine, dim, 1000, base)
				var s Scratch
				for range 2 {
					if got := x.Search(make([]float32, dim), &Query{K: 10}, &s); len(got) != min(n, 10) {
						t.Errorf("%s: %d of %d rows of dimension %d found", kind, len(got), n, dim)
					}
				}
				x.SearchBatch(make([]float32, 5*dim), &Query{K: 3}, &s, func(i int, rows []Neighbor) {
					if len(rows) != min(n, 3) {
						t.Errorf("%s: %d of %d rows found for vector %d", kind, len(rows), n, i)
					}
				})
				if n > 0 {
					reopened(t, &built{x: x, write: x.WriteTo}, base)
				}
			}
		}
	}
}

func TestAllRowsOfAnInvertedFileEqual(t *testing.T) {
	const dim, n = 18, 500
	base := make([]float32, n*dim)
	for i := range base {
		base[i] = float32(i % dim)
	}
	for _, kind := range ivfTestKinds {
		for _, m := range []Metric{L2, IP, Cosine} {
			for _, v := range [][]float32{base, make([]float32, n*dim)} {
				var s Scratch
				if got := buildIVFFor(t, kind, m, dim, 10, v).Search(v[:dim], &Query{K: 20}, &s); len(got) != 20 {
					t.Errorf("%s %s: %d rows found, want 20", kind, m, len(got))
				}
			}
		}
	}
}

func TestAnInvertedFileRefusesWhatIsNotFinite(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
		base := make([]float32, 400)
		base[77] = bad
		k := vec.Detect()
		if _, err := buildIVF(context.Background(), Spec{Kind: KindScaNN, Metric: L2, Dim: 4}, base, BuildOptions{Kernels: &k}); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%v was indexed: %v", bad, err)
		}
	}
	k := vec.Detect()
	for _, lists := range []int{-1, maxLists + 1} {
		if _, err := buildIVF(context.Background(), Spec{Kind: KindScaNN, Metric: L2, Dim: 4, Lists: lists}, make([]float32, 400), BuildOptions{Kernels: &k}); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%d lists: %v", lists, err)
		}
	}
}

func TestQueriesThatAreNotFiniteDoNoHarm(t *testing.T) {
	const dim = 20
	base := clustered(rng(9), 800, dim)
	for _, kind := range ivfTestKinds {
		for _, m := range []Metric{L2, IP, Cosine} {
			x := buildIVFFor(t, kind, m, dim, 10, base)
			var s Scratch
			for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), 1e38, -1e38, 1e-45} {
				q := make([]float32, 30*dim)
				for i := range q {
					q[i] = bad * float32(i%3)
				}
				x.Search(q[:dim], &Query{K: 5, Effort: 2}, &s)
				x.SearchBatch(q, &Query{K: 5, Effort: 2}, &s, func(int, []Neighbor) {})
			}
		}
	}
}

func TestStopCutsAnInvertedFile(t *testing.T) {
	const dim = 20
	base := clustered(rng(10), 3000, dim)
	for _, kind := range ivfTestKinds {
		x := buildIVFFor(t, kind, L2, dim, 40, base)
		var stop atomic.Bool
		stop.Store(true)
		s := Scratch{Stop: &stop}
		x.Search(base[:dim], &Query{K: 5, Effort: 5}, &s)
		if !s.Stats().Stopped || s.Stats().Hops > 1 {
			t.Errorf("%s: %+v", kind, s.Stats())
		}
		calls := 0
		x.SearchBatch(base[:50*dim], &Query{K: 5, Effort: 5}, &s, func(int, []Neighbor) { calls++ })
		if calls != 50 {
			t.Errorf("%s: %d answers after a stop, want one for each of 50", kind, calls)
		}
	}
}

func TestAnInvertedFileDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const dim = 32
	base := clustered(rng(11), 3000, dim)
	for _, kind := range ivfTestKinds {
		x := buildIVFFor(t, kind, Cosine, dim, 40, base)
		var s Scratch
		q := &Query{K: 10, Effort: 6}
		for _, search := range []func(){
			func() { x.Search(base[:dim], q, &s) },
			func() { x.SearchBatch(base[:64*dim], q, &s, func(int, []Neighbor) {}) },
		} {
			search()
			if n := testing.AllocsPerRun(20, search); n > 0 {
				t.Errorf("%s: %v allocations a search", kind, n)
			}
		}
	}
}

// levels are the portable kernels and the fastest.
func levels() []vec.Kernels { return []vec.Kernels{{}, vec.Detect()} }

func TestPartitionPutsTheSmallestFirst(t *testing.T) {
	r := rng(12)
	for range 2000 {
		keys := make([]uint64, 1+r.IntN(60))
		for i := range keys {
			keys[i] = uint64(r.IntN(20)) // ties
		}
		n := r.IntN(len(keys))
		want := slices.Sorted(slices.Values(keys))
		partition(levels()[r.IntN(2)], keys, n)
		slices.Sort(keys[:n])
		if !slices.Equal(keys[:n], want[:n]) {
			t.Fatalf("first %d are %v, want %v", n, keys[:n], want[:n])
		}
	}
}

// TestTheLongestRowsAreNotCutOff: by IP they are what is looked for.
func TestTheLongestRowsAreNotCutOff(t *testing.T) {
	const dim, n, queries = 32, 10_000, 64
	r := rng(96)
	base := make([]float32, n*dim)
	for row := range slices.Chunk(base, dim) {
		length := float32(math.Exp(r.NormFloat64()))
		for d := range row {
			row[d] = float32(r.NormFloat64()) * length
		}
	}
	vectors := make([]float32, queries*dim)
	for i := range vectors {
		vectors[i] = float32(r.NormFloat64())
	}
	f := newFlat(t, dim, IP, base)
	for _, kind := range []Kind{KindIVFSQ8, KindScaNN} {
		x := buildIVFFor(t, kind, IP, dim, 50, base)
		found := make([][]Neighbor, queries)
		var s Scratch
		x.SearchBatch(vectors, &Query{K: 10, Effort: 50}, &s, func(i int, rows []Neighbor) { found[i] = slices.Clone(rows) })
		least := 0.98
		if kind == KindScaNN && x.kern.Level() != vec.AVX512 {
			least = 0.95 // batches are compared by codes of four bits there
		}
		if recall := recallOf(f, vectors, found, 10); recall < least {
			t.Errorf("%s finds %.3f of the largest products with all lists", kind, recall)
		}
	}
}

// TestCodesAreLearntFromAllRows: the first quarter lies close together, far from what is looked for.
func TestCodesAreLearntFromAllRows(t *testing.T) {
	const dim, n, queries = 32, 20_000, 100
	r := rng(99)
	base := make([]float32, (n+queries)*dim)
	for i := range base {
		if base[i] = float32(r.NormFloat64()); i < n/4*dim {
			base[i] = 10 + base[i]/10
		}
	}
	base, vectors := base[:n*dim], base[n*dim:]
	f := newFlat(t, dim, L2, base)
	x := buildIVFFor(t, KindScaNN, L2, dim, 0, base)
	found := make([][]Neighbor, queries)
	var s Scratch
	for i := range found {
		found[i] = slices.Clone(x.Search(vectors[i*dim:][:dim], &Query{K: 10}, &s))
	}
	if recall := recallOf(f, vectors, found, 10); recall < 0.93 {
		t.Errorf("%.3f are found", recall)
	}
}

func TestPartitionAboutMovesAsManyAsIsEasiest(t *testing.T) {
	r := rng(14)
	exact := 0
	for range 2000 {
		keys := make([]uint64, 2+r.IntN(300))
		for i := range keys {
			keys[i] = uint64(r.IntN(1 + r.IntN(500)))
		}
		least := r.IntN(len(keys) - 1)
		most := least + r.IntN(len(keys)-1-least+1)
		want := slices.Sorted(slices.Values(keys))
		n := partitionAbout(levels()[r.IntN(2)], keys, least, most)
		if n < least || n > most {
			t.Fatalf("%d moved, want %d to %d", n, least, most)
		}
		if n == least {
			exact++
		}
		slices.Sort(keys[:n])
		if !slices.Equal(keys[:n], want[:n]) {
			t.Fatalf("first %d are %v, want %v", n, keys[:n], want[:n])
		}
	}
	if exact > 1500 {
		t.Errorf("%d of 2,000 took no more than the least: room is not used", exact)
	}
}

func TestTheSmallestOfAFewEstimates(t *testing.T) {
	r := rng(15)
	v := ivfScratch{rows: make([]uint32, 400)}
	for range 1000 {
		values := make([]float32, 2+r.IntN(398))
		for i := range values {
			values[i] = float32(r.IntN(200)) - 50 // ties
		}
		n := 1 + r.IntN(min(len(values)-1, 4*smallestFew))
		n -= max(n+n/smallestMore-len(values)+1, 0)
		sorted := slices.Sorted(slices.Values(values))
		if got := v.smallest(levels()[r.IntN(2)], values, n); got < sorted[n-1] || got > sorted[n+n/smallestMore-1] {
			t.Fatalf("number %d of %d is %v, want %v to %v", n, len(values), got, sorted[n-1], sorted[n+n/smallestMore-1])
		}
	}
}

// TestTheEncoderWeighsErrorsAlongTheVector checks what ScaNN's loss is for.
func TestTheEncoderWeighsErrorsAlongTheVector(t *testing.T) {
	const dim, n = 64, 400
	r := rng(13)
	vectors := make([]float32, n*dim)
	for i := range vectors {
		vectors[i] = float32(r.NormFloat64())
	}
	pq := newProducts(dim, pqDims)
	if err := pq.train(context.Background(), 1, vectors); err != nil {
		t.Fatal(err)
	}
	along := map[Metric]float64{}
	zero := make([]float32, dim)
	for _, m := range []Metric{L2, IP} {
		e := newPQEncoder(pq, m)
		code := make([]byte, pq.parts)
		for v := range slices.Chunk(vectors, dim) {
			sq := e.encode(code, v, v, zero)
			dot, norm, stood := 0.0, 0.0, 0.0
			for p, c := range code {
				for j := range 2 {
					y := float64(pq.points[p*32+16*j+int(c)])
					dot += (float64(v[2*p+j]) - y) * float64(v[2*p+j])
					norm += float64(v[2*p+j]) * float64(v[2*p+j])
					stood += y * y
				}
			}
			if math.Abs(stood-float64(sq)) > 1e-3*stood {
				t.Fatalf("norm of what the codes stand for is %v, want %v", sq, stood)
			}
			along[m] += dot * dot / norm
		}
	}
	if along[IP] > along[L2]/2 {
		t.Errorf("errors along the vector are %v for IP, %v for L2", along[IP], along[L2])
	}
}

func TestDamagedImagesDoNoHarm(t *testing.T) {
	const dim = 20
	base := clustered(rng(14), 600, dim)
	for _, kind := range ivfTestKinds {
		x := buildIVFFor(t, kind, Cosine, dim, 12, base)
		var out bytes.Buffer
		if _, err := x.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		image := out.Bytes()
		for _, n := range []int{0, 8, 127, 128, len(image) - 1} {
			if _, err := Open(alignedCopy(image[:n]), base); !errclass.Is(err, errclass.Corrupt) {
				t.Errorf("%s: %d bytes of %d: %v", kind, n, len(image), err)
			}
		}
		if _, err := Open(alignedCopy(image), base[:10]); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%s: too few vectors: %v", kind, err)
		}
		r := rng(15)
		for range 15 {
			damaged := alignedCopy(image)
			for range 1 + r.IntN(40) {
				damaged[headerBytes+r.IntN(len(damaged)-headerBytes)] = byte(r.Uint32())
			}
			useDamaged(t, damaged, base, dim)
		}
	}
}

// useDamaged opens an image and, if that is possible, searches it every way.
func useDamaged(t *testing.T, image []byte, base []float32, dim int) {
	t.Helper()
	x, err := Open(image, base)
	if err != nil {
		if !errclass.Is(err, errclass.Corrupt) {
			t.Fatalf("%v", err)
		}
		return
	}
	var s Scratch
	some := bitset.New(600)
	for row := range 300 {
		some.Add(row)
	}
	for _, q := range []Query{{K: 5}, {K: 5, Effort: 3}, {K: 5, Allowed: some}, {K: 700}, {K: 9, Bounded: true, Radius: 1}} {
		for _, n := range x.Search(base[:dim], &q, &s) {
			if int(n.Row) >= len(base)/dim {
				t.Fatalf("row %d of %d", n.Row, len(base)/dim)
			}
		}
		x.SearchBatch(base[:40*dim], &q, &s, func(int, []Neighbor) {})
	}
}

func FuzzIVFImage(f *testing.F) {
	const dim, turned = 17, 32
	base, shallow := clustered(rng(16), 600, dim), shallow(rng(17), turnRows, turned, 4, 0.01)
	k := vec.Detect()
	for _, kind := range ivfTestKinds {
		for dim, rows := range map[int][]float32{dim: base, turned: shallow} {
			x, err := buildIVF(context.Background(), Spec{Kind: kind, Metric: L2, Dim: dim, Lists: 5}, rows, BuildOptions{Kernels: &k})
			if err != nil {
				f.Fatal(err)
			}
			var out bytes.Buffer
			if _, err := x.WriteTo(&out); err != nil {
				f.Fatal(err)
			}
			f.Add(out.Bytes(), uint16(16), uint64(5), uint16(3000), uint64(1))
		}
	}
	f.Fuzz(func(t *testing.T, image []byte, at uint16, value uint64, at2 uint16, value2 uint64) {
		b := alignedCopy(image)
		if len(b) >= headerBytes {
			for i, p := range []uint16{at, at2} {
				if int(p)+8 <= len(b) {
					binary.LittleEndian.PutUint64(b[p:], []uint64{value, value2}[i])
				}
			}
			binary.LittleEndian.PutUint32(b[124:], castagnoli(b[:124]))
		}
		for dim, rows := range map[int][]float32{dim: base, turned: shallow} {
			if x, err := Open(b, rows); err == nil && x.Info().Dim == dim {
				useDamaged(t, b, rows, dim)
			}
		}
	})
}

func BenchmarkIVF(b *testing.B) {
	const dim, n, nq = 100, 50_000, 1000
	r := rand.New(rand.NewPCG(1, 9))
	base, queries := clustered(r, n, dim), clustered(r, nq, dim)
	x := buildIVFFor(b, KindScaNN, L2, dim, 0, base)
	var s Scratch
	for _, effort := range []int{8, 32} {
		q := &Query{K: 10, Effort: effort}
		b.Run(fmt.Sprintf("one/lists=%d", effort), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				x.Search(queries[i%nq*dim:][:dim], q, &s)
			}
		})
		b.Run(fmt.Sprintf("batch/lists=%d", effort), func(b *testing.B) {
			for b.Loop() {
				x.SearchBatch(queries, q, &s, func(int, []Neighbor) {})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*nq), "ns/query")
		})
	}
}

// manyLists builds an inverted file with short codes of its centres.
func manyLists(t *testing.T, m Metric, dim, n int) (*ivf, []float32) {
	t.Helper()
	base := clustered(rng(31), n+20, dim)
	x := buildIVFFor(t, KindScaNN, m, dim, shortLeast, base[:n*dim])
	if x.lists.short == nil {
		t.Fatal("no short codes of centres")
	}
	return x, base
}

func TestListsAreFoundByShortCodes(t *testing.T) {
	const dim, n, want = 33, 6000, 40
	for _, m := range []Metric{L2, IP, Cosine} {
		x, base := manyLists(t, m, dim, n)
		var s Scratch
		same := 0
		for v := range slices.Chunk(base[n*dim:], dim) {
			x.normalise(v, &s)
			short := x.lists.short
			x.lists.short = nil
			x.nearestLists(&plan{lists: want}, &s)
			x.order(want, &s)
			by := slices.Clone(s.ivf.lists)
			x.lists.short = short
			x.roomForLists(&s)
			x.nearestByShort(want, want+want/shortMore+shortSlack, &s)
			x.order(want, &s)
			if len(s.ivf.lists) != want || len(s.ivf.dots) != want {
				t.Fatalf("%s: %d lists, %d products, want %d", m, len(s.ivf.lists), len(s.ivf.dots), want)
			}
			for i, l := range s.ivf.lists {
				if dot := x.kern.Dot(s.ivf.unit, x.lists.vectors[int(l)*dim:][:dim]); math.Abs(float64(dot-s.ivf.dots[i])) > 1e-4*(1+math.Abs(float64(dot))) {
					t.Fatalf("%s: product %v with centre %d, which is %v", m, s.ivf.dots[i], l, dot)
				}
				if slices.Contains(by, l) {
					same++
				}
			}
			slices.Sort(s.ivf.lists)
			if len(slices.Compact(s.ivf.lists)) != want {
				t.Fatalf("%s: a list comes twice", m)
			}
		}
		if same < 20*want*9/10 {
			t.Errorf("%s: %d of %d lists are those that bytes find", m, same, 20*want)
		}
	}
}

func TestAnImageOfTheVersionBeforeIsSearched(t *testing.T) {
	const dim, n = 20, 4000
	x, base := manyLists(t, Cosine, dim, n)
	f := newFlat(t, dim, Cosine, base[:n*dim])
	inPairs(t, x)
	x.lists.short = nil
	var out bytes.Buffer
	if _, err := x.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	if v := binary.LittleEndian.Uint32(out.Bytes()[8:]); v != 2 {
		t.Fatalf("an image without short codes has version %d", v)
	}
	old, err := Open(alignedCopy(out.Bytes()), base[:n*dim])
	if err != nil {
		t.Fatal(err)
	}
	wantRecall(t, old, f, base[n*dim:], Query{K: 10}, 0.95)
}

func TestNoAllocationWhileAnInvertedFileIsSearched(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const dim, n = 40, 6000
	x, base := manyLists(t, L2, dim, n)
	some := bitset.New(n)
	for row := 0; row < n; row += 3 {
		some.Add(row)
	}
	for _, allowed := range []*bitset.Set{nil, some} {
		var s Scratch
		q := &Query{K: 10, Effort: 30, Allowed: allowed}
		queries := base[n*dim:]
		search := func() { x.Search(queries[:dim], q, &s) }
		batch := func() { x.SearchBatch(queries, q, &s, func(int, []Neighbor) {}) }
		for _, run := range []func(){search, batch} {
			run()
			if got := testing.AllocsPerRun(5, run); got > 0 {
				t.Errorf("%v allocations in a search", got)
			}
		}
	}
}
