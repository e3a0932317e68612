package index

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// finding is a share that finds a part of the nearest rows.
func finding(rows, effort uint32, part float64) share {
	return share{rows: rows, effort: effort, found: uint32(math.Round(shareAll * part))}
}

// For what is wanted, a table is read with a margin: a quarter less is missing.
func TestATableOfSharesTellsTheEffortForWhatIsWanted(t *testing.T) {
	table := shareTable{
		finding(10, 10, 0.8), finding(10, 20, 0.9), finding(10, 40, 0.95), finding(10, 80, 0.99), finding(10, 160, 0.99), finding(10, 320, 0),
		finding(100, 100, 0.9), finding(100, 400, 0.99),
	}
	wanted := func(missing float64) float64 { return 1 - missing/(1-foundMargin) }
	for _, c := range []struct {
		k      int
		recall float64
		want   int
	}{
		{10, 0.5, 10}, {10, wanted(0.2), 10}, {10, wanted(0.1), 20}, {10, wanted(0.05), 40}, {10, wanted(0.01), 80},
		{10, wanted(0.1 * math.Sqrt(0.5)), 29},  // half-way
		{10, wanted(0.005), 160},                // beyond what was measured: from the least that found the most
		{1, wanted(0.05), 40},                   // fewer rows are not measured
		{100, wanted(0.1), 100},                 //
		{32, wanted(0.01), 181},                 // between
		{1000, wanted(0.01), 4000},              // more rows are not measured either
		{10, 1, 1600}, {1 << 30, 0.99, maxRows}, // all there are
	} {
		if got := table.effort(c.k, c.recall); got < c.want-1 || got > c.want+1 {
			t.Errorf("%d rows, recall %.4f: effort %d, want %d", c.k, c.recall, got, c.want)
		}
	}
	for k := 1; k < 300; k += 7 {
		for recall, last := 0.5, 0; recall <= 1; recall += 0.003 {
			got := table.effort(k, recall)
			if got < last || got < table.effort(k-1, recall) {
				t.Fatalf("%d rows: effort %d for a recall of %.3f, %d for less", k, got, recall, last)
			}
			last = got
		}
	}
	for i := range table[:5] {
		table[i].half = table[max(i, 1)-1].found // a step behind
	}
	for _, c := range []struct {
		k      int
		recall float64
		want   int
	}{{10, wanted(0.1), 40}, {10, wanted(0.01), 160}, {100, wanted(0.1), 200}} {
		if got := table.filtered(c.k, c.recall); got < c.want-1 || got > c.want+2 {
			t.Errorf("%d rows, recall %.4f, with a filter: effort %d, want %d", c.k, c.recall, got, c.want)
		}
	}
	for name, none := range map[string]shareTable{"no table": nil, "nothing found": {{rows: 10, effort: 10, lists: 4}}} {
		if got := none.effort(10, 0.9); got != 0 || none.filtered(10, 0.9) != 0 || none.wanted() != "" {
			t.Errorf("%s: effort %d, %q", name, got, none.wanted())
		}
	}
}

// before5 makes an image one of version 4, whose shares do not say what is found.
func before5(tb testing.TB, image []byte) []byte {
	tb.Helper()
	hd, err := decodeSQHeader(image)
	if err != nil {
		tb.Fatal(err)
	}
	table := image[len(image)-int(aligned(hd.sections()[12])):]
	shares := slices.Clone(as[share](table[:4*hd.shares]))
	clear(table)
	for i, p := range shares {
		for j, x := range []uint32{p.rows, p.effort, p.lists} {
			binary.LittleEndian.PutUint32(table[4*(sharePoint4*i+j):], x)
		}
	}
	hd.shares = sharePoint4 * uint32(len(shares))
	image = image[:hd.size()]
	hd.encode(image)
	binary.LittleEndian.PutUint32(image[8:], 4)
	return withChecksum(image)
}

func TestGraphsDoAsMuchAsFindsWhatIsWanted(t *testing.T) {
	const dim, n, queries = 16, 8000, 150
	const lost = 0.01 + 1.0/queries // one query may miss its cluster
	base := clustered(rng(97), n+queries, dim)
	base, vectors := base[:n*dim], base[n*dim:]
	wants := []int{3, 10, 25}
	if raceEnabled {
		wants = wants[1:2]
	}
	g, b := buildCodes(t, Cosine, dim, base)
	opened := reopened(t, b, base)
	f := newFlat(t, dim, Cosine, base)
	half := bitset.New(n)
	for row := 0; row < n; row += 2 {
		half.Add(row)
	}
	for _, k := range wants {
		last := 0
		for _, wanted := range []float32{0.8, 0.9, 0.95, 0.98} {
			q := Query{K: k, Recall: wanted}
			_, ef := opened.(*sqGraph).effort(&q)
			if _, same := g.effort(&q); ef != same || ef < last || ef != g.shares.effort(k, float64(wanted)) {
				t.Errorf("%d rows, recall %v: effort %d, %d before it was opened, %d for less", k, wanted, ef, same, last)
			}
			// Which walks are long differs by graph, since workers build it at the same time: where one of the rows that
			// stood for queries is hard to reach, the most that is wanted takes as much as was guessed.
			if guess := graphEffort(k, wanted); wanted < 0.95 && ef >= guess {
				t.Errorf("%d rows, recall %v: effort %d, and %d would be guessed", k, wanted, ef, guess)
			}
			last = ef
			wantRecall(t, opened, f, vectors, q, float64(wanted)-lost)
			q.Allowed = half
			wantRecall(t, opened, f, vectors, q, float64(wanted)-lost-0.01)
		}
	}
	if opened.Info().Params["recall"] == "" {
		t.Errorf("it does not tell: %v", opened.Info().Params)
	}
}

func TestImagesFromBeforeItWasKnownWhatWalksFindDoAsTheyDid(t *testing.T) {
	g, image, base, _ := listImage(t)
	x, err := Open(before5(t, alignedCopy(image)), base)
	if err != nil {
		t.Fatal(err)
	}
	old := x.(*sqGraph)
	if len(old.shares) != len(g.shares) || old.shares.find(10, 64) == 0 || old.shares.find(10, 64) != g.shares.find(10, 64) {
		t.Errorf("lists of an old image: %v, of a new one: %v", old.shares, g.shares)
	}
	q := Query{K: 10, Recall: 0.99}
	if _, ef := old.effort(&q); ef != graphEffort(10, 0.99) || old.Info().Params["recall"] != "" {
		t.Errorf("effort %d, %v", ef, old.Info().Params)
	}
	if _, ef := g.effort(&q); ef == graphEffort(10, 0.99) {
		t.Error("as much for a new one")
	}
}

// What is measured for rows of the graph is what it does for others, where most rows are
// equal to some, too: a walk is for a row that it does not meet, nor those equal to it.
func TestWhatWalksFindIsMeasured(t *testing.T) {
	const dim, n, queries, k = 8, 8000, 300, 10
	for name, base := range map[string][]float32{
		"one of a kind": clustered(rng(98), n+queries, dim),
		"many equal":    append(withTwins(clustered(rng(99), n, dim), dim), clustered(rng(99), n+queries, dim)[n*dim:]...),
	} {
		if raceEnabled && name != "many equal" {
			continue
		}
		base, vectors := base[:n*dim], base[n*dim:]
		g, _ := buildCodes(t, L2, dim, base)
		f := newFlat(t, dim, L2, base)
		for _, p := range g.shares {
			if int(p.rows) != k || p.found == 0 {
				continue
			}
			var s Scratch
			found := make([][]Neighbor, queries)
			for i := range queries {
				found[i] = slices.Clone(g.Search(vectors[i*dim:][:dim], &Query{K: k, Effort: int(p.effort)}, &s))
			}
			if by, is := float64(p.found)/shareAll, recallOf(f, vectors, found, k); by > is+0.03 || by < is-0.08 {
				t.Errorf("%s: effort %d finds %.3f, measured %.3f", name, p.effort, is, by)
			}
		}
		if g.shares[0].found == 0 {
			t.Errorf("%s: nothing was measured", name)
		}
	}
}
