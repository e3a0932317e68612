package index

import (
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// TestRowsThatAreHardlyEverFoundDoNotGiveAGraphUp: where walks find all of most queries' nearest rows and none of some, it takes much
// more effort to be sure of a recall than to find it, and a graph is told by what it finds.
func TestRowsThatAreHardlyEverFoundDoNotGiveAGraphUp(t *testing.T) {
	const rows, asked = 100_000, 256
	points := measuredShares()
	g := &sqGraph{rows: rows, lists: &sqLists{n: 100}, shares: append(shareTable(nil), points...)}
	m := newShareMeasure(g, points)
	for i, missed := range []int{30, 20, 14, 13, 10, 9, 8, 7, 6, 5} { // of the walks of each effort
		found := calibrateK * (asked - missed)
		m.walks[i] = walksSeen{walks: asked, met: found, found: found, squares: calibrateK * found}
	}
	m.ranks[0] = make([]int, calibrateK*asked)
	m.fill()
	told := g.shares.effort(calibrateK, usualRecall)
	if !walksTooFar(rows, told) {
		t.Fatalf("to be sure, a walk of %d candidates is enough", told)
	}
	if g.walks() != told {
		t.Errorf("%d candidates, not %d, though nothing else is known", g.walks(), told)
	}
	if g.likely = m.likely(usualRecall); g.likely < 25 || g.likely > 40 {
		t.Errorf("0.95 are found with %.0f candidates in the mean", g.likely)
	}
	if walksTooFar(rows, g.walks()) || float64(g.walks()) < g.likely {
		t.Errorf("a graph that finds 0.95 with %.0f candidates is taken to walk %d", g.likely, g.walks())
	}
	g.likely = 10 * float64(told)
	if g.walks() != told {
		t.Errorf("%d candidates are more than it is told to walk, %d", g.walks(), told)
	}
	if likely := newShareMeasure(g, points).likely(usualRecall); likely != 0 {
		t.Errorf("of nothing %.0f candidates are known", likely)
	}
}

// TestAGraphThatMayWalkLessIsComparedWithLists, by what it takes in the mean.
func TestAGraphThatMayWalkLessIsComparedWithLists(t *testing.T) {
	const n, dim = 2000, 48
	kernels := vec.Detect()
	o, spec := BuildOptions{Kernels: &kernels, Workers: 2}, Spec{Kind: KindHNSWSQ, Metric: L2, Dim: dim}
	base := clustered(rng(78), n, dim)
	for _, c := range []struct {
		likely float64
		kind   Kind
	}{{0, KindScaNN}, {1, KindHNSWSQ}, {45, KindScaNN}, {n, KindScaNN}} {
		b, err := buildKind(t.Context(), spec, base, o, "")
		if err != nil {
			t.Fatal(err)
		}
		g := b.Searcher().(*sqGraph)
		g.shares, g.likely = shareTable{{rows: calibrateK, effort: n, found: shareAll * 975 / 1000}}, c.likely
		got, err := buildDoubted(t.Context(), spec, base, o, b, g)
		if err != nil {
			t.Fatal(err)
		}
		if kind := got.Info().Kind; kind != c.kind {
			t.Errorf("%s for a graph that walks %v candidates in the mean", kind, c.likely)
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestListsAndGraphsAreComparedByTheSame: a graph that is told to walk far and finds usualRecall sooner in the mean, with lists of which as much
// is known.
func TestListsAndGraphsAreComparedByTheSame(t *testing.T) {
	graph := graphThatWalks(400, 2000)
	graph.likely = 40
	if !graph.far() || walksTooFar(graph.rows, graph.walks()) {
		t.Fatalf("of a graph that walks %d candidates %v are likely", graph.shares.effort(calibrateK, usualRecall), graph.likely)
	}
	steep := func(lists90, lists95, lists99 uint32) *ivf {
		x := listsThatRead(lists95, lists99)
		for i := range 3 {
			x.efforts[i] = lists90
		}
		return x
	}
	// as is how many lists take that part of the time that the graph does.
	as := func(part float64) (lists uint32) {
		for x := listsThatRead(1, 1); x.costOf(int(lists)+1) <= part*graph.costOf(graph.walks()); lists++ {
		}
		return lists
	}
	even, slower := as(0.95), as(1.3)
	notAll := listsThatRead(even, even)
	notAll.found = 0.97
	for _, c := range []struct {
		name   string
		x      *ivf
		better bool
	}{
		{"a graph that finds no more however far it walks, and lists that do", listsThatRead(even, 2*even), true},
		{"lists that find no more either", notAll, false},
		{"lists that take longer for more", listsThatRead(even, 4000), false},
		{"lists that find more, later", listsThatRead(slower, 2*slower), false},
		{"lists that find it sooner in the mean, and take long to be sure of it", steep(2, 2*even, 3*even), true},
		{"lists that find it as soon in the mean", steep(even, 2*even, 4000), false},
	} {
		if why, better := listsBetter(graph, c.x); better != c.better {
			t.Errorf("%s: %v, %s; %d lists, %v and %v", c.name, better, why, c.x.usualLists(), c.x.costOf(c.x.usualLists()), graph.costOf(graph.walks()))
		}
	}
}
