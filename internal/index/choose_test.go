package index

import (
	"math"
	"strings"
	"testing"
)

// ofLengths are rows in all directions whose lengths are those that length draws.
func ofLengths(seed uint64, n, dim int, length func(row int) float64) []float32 {
	r := rng(seed)
	base := make([]float32, n*dim)
	for row := range n {
		by := length(row) / math.Sqrt(float64(dim))
		for d := range dim {
			base[row*dim+d] = float32(by * r.NormFloat64() / (1 + float64(d)/4)) // few directions suit a graph
		}
	}
	return base
}

func TestAutoIndexLooksForProductsWithLongRowsInLists(t *testing.T) {
	const n, dim = 5000, 48
	r := rng(71)
	for _, c := range []struct {
		name   string
		metric Metric
		length func(row int) float64
		kind   Kind
	}{
		{"one length", IP, func(int) float64 { return 1 }, KindHNSWSQ},
		{"lengths that differ by a half", IP, func(int) float64 { return 1 + r.Float64()/2 }, KindHNSWSQ},
		{"one long row", IP, func(row int) float64 { return 1 + 1e4*float64(row/(n-1)) }, KindHNSWSQ},
		{"lengths that differ by e and more", IP, func(int) float64 { return math.Exp(r.NormFloat64()) }, KindScaNN},
		{"one long row in a hundred", IP, func(row int) float64 { return 1 + 11*float64(row%100/99) }, KindScaNN},
		{"lengths that do not count", Cosine, func(int) float64 { return math.Exp(r.NormFloat64()) }, KindHNSWSQ},
		{"nothing", IP, func(int) float64 { return 0 }, KindHNSWSQ},
		{"lengths whose squares are no numbers", IP, func(int) float64 { return 1e25 }, KindHNSWSQ},
	} {
		got, why := Choose(Spec{Kind: KindAuto, Metric: c.metric, Dim: dim}, ofLengths(72, n, dim, c.length))
		if got.Kind != c.kind || got.Kind == KindScaNN && !strings.Contains(why, "so long that they count") {
			t.Errorf("%s: %s, %s", c.name, got.Kind, why)
		}
	}
}

// TestListsFindWhatIsNearestByProductsOfLongRows: what counts are the few long rows, and codes are made for them.
func TestListsFindWhatIsNearestByProductsOfLongRows(t *testing.T) {
	const n, dim = 20_000, 48
	r := rng(73)
	base := ofLengths(74, n, dim, func(int) float64 { return 0.05 * math.Exp(1.2*r.NormFloat64()) })
	queries := ofLengths(75, 200, dim, func(int) float64 { return 1 })
	f := newFlat(t, dim, IP, base)
	b := build(t, Spec{Kind: KindAuto, Metric: IP, Dim: dim}, base)
	if i := b.Info(); i.Kind != KindScaNN {
		t.Fatalf("%s, %s", i.Kind, i.Why)
	}
	wantRecall(t, b.Searcher(), f, queries, Query{K: 10}, 0.95)
	wantRecall(t, b.Searcher(), f, queries, Query{K: 10, Effort: listsFor(n)}, 0.99)
}

// TestAGraphIsGivenUpForListsThatAreSoonerRead: by what either was measured to need.
func TestAGraphIsGivenUpForListsThatAreSoonerRead(t *testing.T) {
	const n, dim = 12_000, 48
	r := rng(76)
	base := make([]float32, n*dim)
	for i := range base {
		if i%dim < 21 {
			base[i] = float32(r.NormFloat64())
		}
	}
	f := newFlat(t, dim, L2, base)
	b := build(t, Spec{Kind: KindAuto, Metric: L2, Dim: dim}, base)
	if i := b.Info(); i.Kind != KindScaNN || !strings.Contains(i.Why, "sooner read") {
		t.Errorf("%s, %s, %v", i.Kind, i.Why, i.Params)
	}
	wantRecall(t, b.Searcher(), f, base[:20*dim], Query{K: 10}, 0.9)
}

// graphThatWalks is a graph that was measured to walk so far for usualRecall and for costMost.
func graphThatWalks(effort95, effort99 uint32) *sqGraph {
	g := &sqGraph{space: space{dim: 64}, rows: 100_000, code: &coder{stride: 64}}
	g.shares = shareTable{
		{rows: calibrateK, effort: effort95, found: shareAll * 975 / 1000},
		{rows: calibrateK, effort: effort99, found: shareAll * 995 / 1000},
	}
	return g
}

// listsThatRead is an inverted file of the same rows.
func listsThatRead(lists95, lists99 uint32) *ivf {
	x := &ivf{space: space{dim: 64}, n: 100_000, lists: &centres{n: listsFor(100_000)}, found: 0.995}
	for i, w := range wantedRecalls() {
		if x.efforts[i] = lists95; w > usualRecall {
			x.efforts[i] = lists99
		}
	}
	return x
}

func TestAGraphIsKeptUnlessListsAreSurelyFaster(t *testing.T) {
	at, lists := graphThatWalks, listsThatRead
	short := lists(20, 60)
	short.found = 0.985 // with as many lists as were tried
	for _, c := range []struct {
		name     string
		g        *sqGraph
		x        *ivf
		doubtful bool
		faster   bool
	}{
		{"a short walk", at(15, 40), lists(5, 10), false, false},
		{"a long walk, few lists", at(100, 300), lists(20, 60), true, true},
		{"a long walk, lists that never find as much", at(100, 300), short, true, false},
		{"a long walk, as many lists", at(100, 300), lists(350, 900), true, false},
		{"what codes do not tell apart", at(100, 300), lists(20, 1562), true, false},
		{"lists of which nothing is known", at(100, 300), lists(0, 0), true, false},
		{"a graph of which nothing is known", &sqGraph{space: space{dim: 64}, rows: 3000, code: &coder{stride: 64}}, lists(5, 10), false, false},
	} {
		if got := c.g.doubtful(); got != c.doubtful {
			t.Errorf("%s: doubtful: %v", c.name, got)
		}
		if !c.doubtful {
			continue
		}
		if _, got := listsFaster(c.g, c.x); got != c.faster {
			t.Errorf("%s: faster: %v", c.name, got)
		}
	}
}

// TestShortListsAreNotReadAnew: where lists are of a few rows, a search that asks for one reads as many as have enough at once.
func TestShortListsAreNotReadAnew(t *testing.T) {
	const n, dim, asked = 20_000, 48, 200
	r := rng(77)
	base := ofLengths(78, n, dim, func(int) float64 { return 0.05 * math.Exp(1.5*r.NormFloat64()) })
	queries := ofLengths(79, asked, dim, func(int) float64 { return 1 })
	x := build(t, Spec{Kind: KindScaNN, Metric: IP, Dim: dim}, base).Searcher().(*ivf)
	least := int(x.efforts[0])
	if least < 2 || least > leastMost {
		t.Fatalf("%d lists have enough rows", least)
	}
	var s Scratch
	once := 0
	for i := range asked {
		s.begin(0)
		p := x.plan(&Query{K: 10, Effort: 1}, &s)
		x.Search(queries[i*dim:][:dim], &Query{K: 10, Effort: 1}, &s)
		if p.lists != least {
			t.Fatalf("%d lists are read, want %d", p.lists, least)
		}
		if s.Stats().Hops == least {
			once++
		}
	}
	if once < asked*2/3 {
		t.Errorf("%d of %d searches read lists once", once, asked)
	}
	if p := x.plan(&Query{K: 10, Effort: leastMost + 1}, &s); p.lists != leastMost+1 {
		t.Errorf("%d lists are read of %d asked for", p.lists, leastMost+1)
	}
}

// TestListsThatFindTooLittleAreNotTaken: among rows of very unlike lengths what is near to a row is in no lists near to it, or codes do not
// tell it apart, and reading all of them does not help.
func TestListsThatFindTooLittleAreNotTaken(t *testing.T) {
	const n, dim = 10_000, 48
	for _, c := range []struct {
		metric Metric
		spread float64
		flat   float64 // values are alike in all directions with 0
	}{{IP, 5, 0.25}, {L2, 1, 0}} {
		r := rng(76)
		rows := func(n int) []float32 {
			base := make([]float32, n*dim)
			for row := range n {
				by := math.Exp(c.spread * r.NormFloat64())
				for d := range dim {
					base[row*dim+d] = float32(by * r.NormFloat64() / (1 + float64(d)*c.flat))
				}
			}
			return base
		}
		base, queries := rows(n), rows(200)
		spec := Spec{Kind: KindAuto, Metric: c.metric, Dim: dim}
		if kind, why := Choose(spec, base); kind.Kind != KindScaNN {
			t.Fatalf("%s is not looked for in lists: %s, %s", c.metric, kind.Kind, why)
		}
		b := build(t, spec, base)
		if i := b.Info(); i.Kind == KindScaNN || !strings.Contains(i.Why, "all lists of an inverted file find") {
			t.Errorf("%s: %s, %s", c.metric, i.Kind, i.Why)
		}
		wantRecall(t, b.Searcher(), newFlat(t, dim, c.metric, base), queries, Query{K: 10}, 0.95)
	}
}
