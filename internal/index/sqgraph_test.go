package index

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// flattish returns vectors that vary in a few directions much more than in the
// others, as those of images and most models do, none of them an axis.
func flattish(r *rand.Rand, n, dim, directions int) []float32 {
	axes := make([]float32, directions*dim)
	for i := range axes {
		axes[i] = float32(r.NormFloat64())
	}
	base := make([]float32, n*dim)
	for i := range n {
		row := base[i*dim : (i+1)*dim]
		for a := range directions {
			x := float32(r.NormFloat64() / float64(1+a/4))
			for d := range row {
				row[d] += x*axes[a*dim+d] + 0.02*float32(r.NormFloat64()) + 0.01
			}
		}
	}
	return base
}

// testEf keeps builds of tests short.
const testEf = 40

func buildCodes(tb testing.TB, m Metric, dim int, base []float32) (*sqGraph, Built) {
	tb.Helper()
	b := build(tb, Spec{Kind: KindHNSWSQ, Metric: m, Dim: dim, M: 8, EfConstruction: testEf}, base)
	g, ok := b.Searcher().(*sqGraph)
	if !ok {
		tb.Fatalf("%+v was built instead", b.Info())
	}
	return g, b
}

func TestVectorsThatVaryInFewDirectionsGetShortCodes(t *testing.T) {
	const n, dim = 2000, 300
	for _, m := range []Metric{L2, IP, Cosine} {
		base := flattish(rng(3), n+20, dim, 30)
		base, queries := base[:n*dim], base[n*dim:]
		g, b := buildCodes(t, m, dim, base)
		if g.code.basis == nil || g.code.stride > 128 || !g.code.mixed() {
			t.Errorf("%s: codes of %d dimensions in %d bytes: %s", m, g.code.head, g.code.stride, b.Info().Why)
		}
		f := newFlat(t, dim, m, base)
		wantRecall(t, g, f, queries, Query{K: 10, Effort: 60}, 0.9)
		wantRecall(t, reopened(t, b, base), f, queries, Query{K: 10, Effort: 60}, 0.9)
	}
}

func TestCodesThatCannotTellRowsApartAreNotUsed(t *testing.T) {
	const n, dim = 1500, 8
	// Two far clouds whose rows are nearer to one another than a code's step.
	r := rng(4)
	base := make([]float32, n*dim)
	for i := range base {
		base[i] = float32(i/dim%2)*1e6 + float32(r.NormFloat64())
	}
	b := build(t, Spec{Kind: KindHNSWSQ, Metric: L2, Dim: dim, EfConstruction: testEf}, base)
	if info := b.Info(); info.Kind != KindHNSW || !strings.Contains(info.Why, "%") {
		t.Errorf("built %+v", info)
	}
}

func TestRowsOfTheSameCodeAreAllFound(t *testing.T) {
	const n, dim = 1200, 6
	r := rng(6)
	base := clustered(r, n, dim)
	for i := range n {
		if i%3 != 0 { // two thirds are copies
			copy(base[i*dim:(i+1)*dim], base[i/100*300%n*dim:][:dim])
		}
	}
	for _, m := range []Metric{L2, IP, Cosine} {
		g, b := buildCodes(t, m, dim, base)
		if g.twins == nil {
			t.Fatal("no twins")
		}
		f := newFlat(t, dim, m, base)
		odd := bitset.New(n)
		for row := 1; row < n; row += 2 {
			odd.Add(row)
		}
		for _, x := range []Searcher{g, reopened(t, b, base)} {
			wantRecall(t, x, f, base[:20*dim], Query{K: 40, Effort: 41}, 0.9)
			wantRecall(t, x, f, base[:20*dim], Query{K: 5, Effort: 20}, 0.9)
			wantRecall(t, x, f, base[:20*dim], Query{K: 5, Effort: 20, Allowed: odd}, 0.9)
		}
	}
}

func TestEqualRowsDoNotHurtCodes(t *testing.T) {
	const n, dim = 700, 5
	for _, value := range []float32{0, 3} {
		base := make([]float32, n*dim)
		for i := range base {
			base[i] = value
		}
		for _, m := range []Metric{L2, IP, Cosine} {
			x := build(t, Spec{Kind: KindHNSWSQ, Metric: m, Dim: dim, EfConstruction: testEf}, base).Searcher()
			wantRecall(t, x, newFlat(t, dim, m, base), base[:dim], Query{K: 20, Effort: 20}, 1)
		}
	}
}

func TestVectorsWithoutADirectionAreAtACosineOf0(t *testing.T) {
	const n, dim = 900, 12
	base := clustered(rng(7), n, dim)
	for row := range n {
		if row%7 == 0 {
			clear(base[row*dim : (row+1)*dim])
		}
	}
	g, _ := buildCodes(t, Cosine, dim, base)
	f := newFlat(t, dim, Cosine, base)
	wantRecall(t, g, f, base[dim:7*dim], Query{K: 30, Effort: 30}, 0.9)
	wantRecall(t, g, f, make([]float32, dim), Query{K: 10, Effort: 30}, 1) // everything is equally far
}

// A filter may leave only rows far from the query: the walk finds them all the same.
func TestAFilterMayLeaveOnlyFarRows(t *testing.T) {
	const n, dim = 20_000, 6
	base := make([]float32, n*dim)
	r := rng(12)
	for i := range base {
		base[i] = float32(r.NormFloat64())
		if i%dim == 0 {
			base[i] = float32(i/dim) / n * 40 // a long tube: row numbers follow it
		}
	}
	g, _ := buildCodes(t, L2, dim, base)
	far := bitset.New(n)
	for row := n / 2; row < n; row++ {
		far.Add(row)
	}
	f := newFlat(t, dim, L2, base)
	queries := base[:20*dim]
	wantRecall(t, g, f, queries, Query{K: 10, Effort: 40, Allowed: far}, 0.9)
	var s Scratch
	g.Search(queries[:dim], &Query{K: 10, Effort: 40, Allowed: far}, &s)
	if st := s.Stats(); st.Scanned || st.Distances > n/4 {
		t.Errorf("%+v: want a walk among the allowed rows", st)
	}
}

func TestSmallGraphsOfCodes(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 20} {
		base := clustered(rng(8), n, 3)
		b := build(t, Spec{Kind: KindHNSWSQ, Metric: L2, Dim: 3}, base)
		x := reopened(t, b, base)
		var s Scratch
		for _, k := range []int{0, 1, n, n + 5} {
			if got := x.Search([]float32{1, 2, 3}, &Query{K: k}, &s); len(got) != min(k, n) {
				t.Errorf("%d rows, k %d: %v", n, k, got)
			}
		}
	}
}

func TestEveryRowIsReachable(t *testing.T) {
	const n, dim = 4000, 10
	g, _ := buildCodes(t, L2, dim, clustered(rng(9), n, dim))
	reached := make([]bool, n)
	stack := []uint32{g.start}
	for reached[g.start] = true; len(stack) > 0; {
		row := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, link := range g.list(row, 0) {
			if link > 0 && !reached[link-1] {
				reached[link-1] = true
				stack = append(stack, link-1)
			}
		}
	}
	lost := 0
	for _, ok := range reached {
		if !ok {
			lost++
		}
	}
	if g.twins == nil && lost > 0 {
		t.Errorf("%d rows are not reachable", lost)
	}
}

func TestABuildRefusesValuesThatAreNotFinite(t *testing.T) {
	for _, x := range []float64{math.NaN(), math.Inf(1)} {
		base := clustered(rng(10), 9000, 3)
		base[3*4001+1] = float32(x)
		_, err := Build(context.Background(), Spec{Kind: KindHNSWSQ, Metric: L2, Dim: 3, EfConstruction: testEf}, base, BuildOptions{})
		if errclass.Of(err) != errclass.Invalid {
			t.Errorf("%v: %v", x, err)
		}
	}
}

func TestHugeAndTinyValuesDoNotBreakCodes(t *testing.T) {
	for _, scale := range []float32{1e-30, 1e-18, 1e12, 1e18, 1e30} {
		base := clustered(rng(11), 600, 4)
		for i := range base {
			base[i] *= scale
		}
		for _, m := range []Metric{L2, IP, Cosine} {
			x := build(t, Spec{Kind: KindHNSWSQ, Metric: m, Dim: 4, EfConstruction: testEf}, base).Searcher()
			var s Scratch
			if got := x.Search(base[:4], &Query{K: 10, Effort: 20}, &s); len(got) != 10 {
				t.Errorf("%s times %g: %v", m, scale, got)
			}
		}
	}
}

// sqImages are images of small graphs: with twins, turned, neither, with lists, ranked by vectors.
func sqImages(tb testing.TB) (images [][]byte, bases [][]float32) {
	tb.Helper()
	for _, c := range []struct {
		m    Metric
		dim  int
		base []float32
	}{
		{L2, 4, append(clustered(rng(1), 200, 4), make([]float32, 80)...)},
		{Cosine, 90, flattish(rng(2), 150, 90, 5)},
		{IP, 3, clustered(rng(3), 70, 3)},
		{L2, 3, clustered(rng(4), sqListLeast, 3)}, // with lists
		{Cosine, 20, clustered(rng(5), 300, 20)},   // ranked by vectors
	} {
		spec := Spec{Kind: KindHNSWSQ, Metric: c.m, Dim: c.dim, M: 8, EfConstruction: testEf}
		if c.dim == 20 {
			spec.Kind = KindHNSW
		}
		b := build(tb, spec, c.base)
		var out bytes.Buffer
		if _, err := b.WriteTo(&out); err != nil {
			tb.Fatal(err)
		}
		images, bases = append(images, out.Bytes()), append(bases, c.base)
	}
	return images, bases
}

// FuzzOpenCodes damages images behind the checksum of the header and in it, and
// searches what opens.
func FuzzOpenCodes(f *testing.F) {
	images, bases := sqImages(f)
	f.Add(uint8(0), uint32(200), uint8(3), uint32(0), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(uint8(1), uint32(24), uint8(40), uint32(0), []byte{9})
	f.Add(uint8(2), uint32(80), uint8(1), uint32(7), []byte{0, 0, 0, 1})
	size := uint32(len(images[3]))
	table := size - uint32(aligned(uint64(4*sharePoint*len(measuredShares()))))
	f.Add(uint8(3), table, uint8(2), uint32(0), []byte{10, 0, 0, 0, 40, 0, 0, 0, 9})                      // the table of shares
	f.Add(uint8(3), table+12, uint8(1), uint32(0), []byte{0xff, 0xff, 0xff, 0xff})                        // more found than there is
	f.Add(uint8(3), table+4, uint8(1), uint32(0), []byte{0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 1, 0, 0, 0}) // much effort for little
	f.Add(uint8(3), table-4*sqListLeast, uint8(60), uint32(0), []byte{1, 0xff, 0xff})                     // links of lists
	f.Add(uint8(3), uint32(116), uint8(2), size-table, []byte{0, 0, 0, 0})                                // no table
	f.Add(uint8(3), uint32(8), uint8(2), uint32(0), []byte{4})                                            // a table of another version
	f.Add(uint8(4), uint32(44), uint8(1), uint32(0), []byte{0})                                           // ranked by fine codes that are not there
	f.Add(uint8(131), uint32(64), uint8(1), uint32(0), []byte{0, 0, 0, 0})                                // without vectors
	f.Fuzz(func(t *testing.T, which uint8, at uint32, times uint8, cut uint32, bad []byte) {
		image, base := images[int(which)%len(images)], bases[int(which)%len(images)]
		image = alignedCopy(image)
		if len(bad) > 0 {
			for i := range int(times) {
				copy(image[(int(at)+i*131)%len(image):], bad)
			}
		}
		if len(image) >= headerBytes && times%2 == 0 {
			withChecksum(image)
		}
		image = image[:len(image)-int(cut)%len(image)]
		have := base
		if which >= 128 { // without its vectors
			have = nil
		}
		x, err := Open(image, have)
		if err != nil {
			return
		}
		dim := x.Info().Dim
		var s Scratch
		some := bitset.New(100)
		for row := 0; row < 100; row += 2 {
			some.Add(row)
		}
		for _, q := range []Query{{K: 5, Effort: 5}, {K: 20, Effort: 20, Allowed: some}, {K: 3, Effort: 2000}, {K: 30, Recall: 0.99}} {
			for _, n := range x.Search(make([]float32, dim), &q, &s) {
				if int(n.Row) >= len(base)/dim {
					t.Fatalf("row %d of %d", n.Row, len(base)/dim)
				}
			}
		}
		if g, ok := x.(*sqGraph); ok && g.lists != nil && g.rows > 0 {
			for _, rows := range sharedRows(g, base[:min(9, g.rows)*dim], &Query{K: 4, Effort: 8}, min(3, g.lists.n), &s) {
				for _, n := range rows {
					if int(n.Row) >= len(base)/dim {
						t.Fatalf("row %d of %d", n.Row, len(base)/dim)
					}
				}
			}
		}
	})
}

func TestOpenSaysWhatIsWrongWithAnImage(t *testing.T) {
	images, bases := sqImages(t)
	good := images[1]
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		class  errclass.Class
	}{
		"a newer version":      {func(b []byte) []byte { b[8] = sqVersion + 1; return withChecksum(b) }, errclass.Unimplemented},
		"a wrong checksum":     {func(b []byte) []byte { b[20]++; return b }, errclass.Corrupt},
		"a length cut short":   {func(b []byte) []byte { return b[:len(b)-1] }, errclass.Corrupt},
		"more rows than bytes": {func(b []byte) []byte { b[52] = 1; return withChecksum(b) }, errclass.Corrupt},
		"a foreign metric":     {func(b []byte) []byte { b[20] = 77; return withChecksum(b) }, errclass.Corrupt},
		"codes out of range":   {func(b []byte) []byte { b[80] = 91; return withChecksum(b) }, errclass.Corrupt},
		"a start out of range": {func(b []byte) []byte { b[40], b[41] = 0xff, 0xff; return withChecksum(b) }, errclass.Corrupt},
	} {
		if _, err := Open(c.change(alignedCopy(good)), bases[1]); errclass.Of(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(alignedCopy(good), bases[1][1:]); errclass.Of(err) != errclass.Invalid {
		t.Errorf("too few vectors: %v", err)
	}
	if _, err := Open(alignedCopy(append([]byte{0}, good...))[1:], bases[1]); errclass.Of(err) != errclass.Invalid {
		t.Errorf("an odd address: %v", err)
	}
}

func TestCodesForDotProductsReachRowsLongerThanTheSample(t *testing.T) {
	const n, dim, long = trainRows + 500, 16, 1.3
	base := make([]float32, n*dim)
	r := rng(31)
	for i := range base {
		// Most values are small, a few are not.
		base[i] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()/4))
	}
	row, most := 0, slices.Max(base)
	for i := 0; i*n/trainRows == row; i++ {
		row++ // the first that is not part of the sample
	}
	v := base[row*dim:][:dim]
	v[3] = long * most
	k := vec.Detect()
	got, err := trainCoder(t.Context(), base, dim, IP, BuildOptions{Workers: 1, Kernels: &k})
	if err != nil || !got.ok {
		t.Fatal(got.why, err)
	}
	c := got.coder
	w, record, q := c.newCoded(), make([]byte, c.stride), sqQuery{halves: make([]int8, c.queryLen())}
	c.record(v, w, record)
	q.scale, q.add = c.query(v, w, q.halves)
	out := make([]float32, 1)
	c.distances(&q, record, []uint32{0}, out)
	by, is := float64(out[0]+q.add-k.Dot(v, c.mean)), -float64(k.Dot(v, v))
	if math.Abs(by-is) > 0.03*math.Abs(is) {
		t.Errorf("distance by code %v, by vector %v", by, is)
	}
}

// TestDotProductsFindRowsThatAreMuchLongerThanOthers: lengths that spread like incomes. The longest are
// what is looked for, and codes that reach as far as most values do take them all for the same.
func TestDotProductsFindRowsThatAreMuchLongerThanOthers(t *testing.T) {
	const n, dim, directions = 20_000, 64, 16
	r := rng(34)
	turn := make([]float32, directions*dim)
	for i := range turn {
		turn[i] = float32(r.NormFloat64())
	}
	base := make([]float32, n*dim)
	for v := range slices.Chunk(base, dim) {
		length := math.Exp(0.7 * r.NormFloat64())
		for d := range directions {
			times := float32(length * r.NormFloat64())
			for i := range v {
				v[i] += times * turn[d*dim+i]
			}
		}
	}
	x := build(t, Spec{Kind: KindHNSWSQ, Metric: IP, Dim: dim, EfConstruction: testEf}, base).Searcher()
	wantRecall(t, x, newFlat(t, dim, IP, base), base[:100*dim], Query{K: 10, Effort: 100}, 0.99)
}

func TestSearchByCodesDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const n, dim = 4000, 16
	base := clustered(rng(12), n, dim)
	g, _ := buildCodes(t, L2, dim, base)
	some, half := bitset.New(n), bitset.New(n)
	for i := range n {
		if i%4 == 0 {
			some.Add(i)
		}
		if i%2 == 0 {
			half.Add(i)
		}
	}
	var s Scratch
	none, all := func(int, []Neighbor) {}, &Query{K: 5, Effort: 10}
	for name, search := range map[string]func(){
		"walk":                   func() { g.Search(base[:dim], all, &s) },
		"batch":                  func() { g.SearchBatch(base[:8*dim], all, &s, none) },
		"walk through others":    func() { g.Search(base[:dim], &Query{K: 5, Effort: 10, Allowed: half}, &s) },
		"walk among the allowed": func() { g.Search(base[:dim], &Query{K: 5, Effort: 10, Allowed: some}, &s) },
		"scan":                   func() { g.Search(base[:dim], &Query{K: 5, Effort: 100, Allowed: some}, &s) },
	} {
		if got := testing.AllocsPerRun(20, search); got > 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}
