package index

import (
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// sharedRows returns what a batch finds that reads so many lists together.
func sharedRows(g *sqGraph, queries []float32, q *Query, lists int, s *Scratch) [][]Neighbor {
	found := make([][]Neighbor, len(queries)/g.dim)
	g.shareBatch(queries, q, min(q.K, g.rows), q.Effort, lists, s, func(i int, rows []Neighbor) {
		found[i] = append([]Neighbor{}, rows...)
	})
	return found
}

// recallOf is the part of the k nearest rows that was found; rows as near are as good.
func recallOf(f *Flat, queries []float32, found [][]Neighbor, k int) float64 {
	hits := 0
	var s Scratch
	for i, rows := range found {
		v := queries[i*f.dim:][:f.dim]
		truth := slices.Clone(f.Search(v, k, nil, &s))
		far := truth[len(truth)-1].Distance
		far += float32(math.Abs(float64(far)))*1e-3 + 1e-6
		for _, n := range rows[:min(k, len(rows))] {
			if n.Distance <= far {
				hits++
			}
		}
	}
	return float64(hits) / float64(k*len(found))
}

func TestBatchesThatShareListsFindWhatWalksFind(t *testing.T) {
	const n, asked, k = 6000, 60, 10
	for name, c := range map[string]struct {
		m    Metric
		dim  int
		base func(rows, dim int) []float32
	}{
		"heaps":            {L2, 12, func(rows, dim int) []float32 { return clustered(rng(61), rows, dim) }},
		"twins":            {Cosine, 10, func(rows, dim int) []float32 { return withTwins(clustered(rng(62), rows, dim), dim) }},
		"turned":           {Cosine, 90, func(rows, dim int) []float32 { return flattish(rng(63), rows, dim, 12) }},
		"long and short":   {IP, 20, func(rows, dim int) []float32 { return clustered(rng(64), rows, dim) }},
		"of several lines": {L2, 130, func(rows, dim int) []float32 { return flattish(rng(65), rows, dim, 125) }},
	} {
		if raceEnabled && name != "twins" {
			continue
		}
		base := c.base(n+asked, c.dim)
		base, queries := base[:n*c.dim], base[n*c.dim:]
		g, b := buildCodes(t, c.m, c.dim, base)
		f := newFlat(t, c.dim, c.m, base)
		var s Scratch
		for _, ef := range []int{12, 40, 100} {
			walked := make([][]Neighbor, asked)
			for i := range asked {
				walked[i] = slices.Clone(g.Search(queries[i*c.dim:][:c.dim], &Query{K: k, Effort: ef}, &s))
			}
			lists := g.shares.find(k, ef)
			// Products are not asked for by vectors like the rows; twins may be more than are ranked by code.
			if walks := g.scans(ef) || c.m == IP; walks != (lists == 0) && name != "twins" {
				t.Fatalf("%s: an effort of %d is worth %d lists: %d", name, ef, lists, g.shares)
			}
			if lists == 0 {
				continue
			}
			found := sharedRows(g, queries, &Query{K: k, Effort: ef}, lists, &s)
			if got, want := recallOf(f, queries, found, k), recallOf(f, queries, walked, k); got < want-0.03 {
				t.Errorf("%s: effort %d: %d lists find %.3f, walks %.3f", name, ef, lists, got, want)
			}
			if st := s.Stats(); st.Lists == 0 || st.Codes == 0 || st.Ranked == 0 || st.Scanned {
				t.Errorf("%s: %+v", name, st)
			}
		}
		all := sharedRows(g, queries, &Query{K: k}, g.lists.n, &s)
		if got := recallOf(f, queries, all, k); got < 0.995 {
			t.Errorf("%s: all lists find %.3f", name, got)
		}
		for i, rows := range all {
			if len(rows) != k || !slices.IsSortedFunc(rows, func(a, b Neighbor) int { return int(sign(a.Distance - b.Distance)) }) {
				t.Fatalf("%s: query %d: %v", name, i, rows)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListsThatFindLessAreNotRead: of rows on a plane a coarse code stands for dozens of rows.
func TestListsThatFindLessAreNotRead(t *testing.T) {
	if vec.Detect().Level() != vec.AVX512 {
		t.Skip("batches walk")
	}
	const n, asked, k, dim = 20_000, 64, 10, 2
	r := rng(97)
	base := make([]float32, (n+asked)*dim)
	for i := range base {
		base[i] = r.Float32()
	}
	base, queries := base[:n*dim], base[n*dim:]
	g, b := buildCodes(t, L2, dim, base)
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	var s Scratch
	found := make([][]Neighbor, asked)
	g.SearchBatch(queries, &Query{K: k}, &s, func(i int, rows []Neighbor) { found[i] = slices.Clone(rows) })
	if recall := recallOf(newFlat(t, dim, L2, base), queries, found, k); recall < 0.95 {
		t.Errorf("a batch finds %.3f", recall)
	}
}

func sign(x float32) float32 {
	switch {
	case x < 0:
		return -1
	case x > 0:
		return 1
	}
	return 0
}

// A batch large enough reads lists; a small one, one with a filter, or one that wants
// more rows than is known of walks.
func TestBatchesShareListsWhereThatIsFaster(t *testing.T) {
	if vec.Detect().Level() != vec.AVX512 {
		t.Skip("batches walk")
	}
	g, _, base, dim := listImage(t)
	batch := func(n int, q Query) Stats {
		var s Scratch
		done := 0
		g.SearchBatch(base[:n*dim], &q, &s, func(_ int, rows []Neighbor) {
			if len(rows) != q.K {
				t.Fatalf("%d rows of %d", len(rows), q.K)
			}
			done++
		})
		if done != n {
			t.Fatalf("%d of %d queries", done, n)
		}
		return s.Stats()
	}
	if g.scans(70) {
		t.Fatal("an effort of 70 is a scan")
	}
	if batch(2000, Query{K: 10, Effort: 70}).Lists == 0 {
		t.Error("2,000 queries walked")
	}
	for name, st := range map[string]Stats{
		"4 queries":  batch(4, Query{K: 10, Effort: 70}),
		"a small ef": batch(2000, Query{K: 1, Effort: 1}),
		"too large":  batch(20, Query{K: shareWanted + 1, Effort: shareWanted + 1}),
	} {
		if st.Lists > 0 {
			t.Errorf("%s: read lists", name)
		}
	}
	most := bitset.New(g.rows)
	for row := range g.rows {
		if row%10 != 0 {
			most.Add(row)
		}
	}
	if st := batch(300, Query{K: 10, Effort: 70, Allowed: most}); st.Codes > 0 {
		t.Error("a batch with a filter shared lists")
	}
}

func TestBatchesThatShareListsEndWhenTheyAreStopped(t *testing.T) {
	g, _, base, dim := listImage(t)
	var stop atomic.Bool
	s := Scratch{Stop: &stop}
	stop.Store(true)
	calls := make([]int, 1500)
	g.shareBatch(base[:len(calls)*dim], &Query{K: 5}, 5, 5, 10, &s, func(i int, _ []Neighbor) { calls[i]++ })
	for i, n := range calls {
		if n != 1 {
			t.Fatalf("query %d was answered %d times", i, n)
		}
	}
	if !s.Stats().Stopped {
		t.Error("nobody said that it was stopped")
	}
}

// Numbers too large for codes, queries without a direction, and lists with too few
// rows are searched for alone.
func TestQueriesThatCannotShareAreSearchedForAlone(t *testing.T) {
	g, _, base, dim := listImage(t)
	queries := slices.Clone(base[:3*dim])
	for i := range dim {
		queries[i] = 3e38
	}
	var s Scratch
	found := sharedRows(g, queries, &Query{K: 20, Effort: 40}, 2, &s)
	for i, rows := range found[1:] {
		if len(rows) != 20 || rows[0].Distance > 1e-3 {
			t.Errorf("query %d: %v", i+1, rows)
		}
	}
	if found[0] == nil {
		t.Error("the large one was not answered")
	}
	if rows := sharedRows(g, base[:dim], &Query{K: g.rows, Effort: g.rows}, 1, &s)[0]; len(rows) != g.rows {
		t.Errorf("%d rows of all", len(rows))
	}
}

func TestATableOfSharesIsReadBetweenItsPoints(t *testing.T) {
	worth := func(rows, effort, lists uint32) share { return share{rows: rows, effort: effort, lists: lists} }
	table := shareTable{worth(10, 10, 4), worth(10, 40, 16), worth(10, 160, 64), worth(10, 400, 128), worth(100, 100, 80), worth(100, 400, 160)}
	for _, c := range []struct{ k, ef, want int }{
		{10, 10, 4}, {10, 20, 8}, {10, 40, 16}, {10, 80, 32}, {10, 160, 64}, {3, 20, 8}, {1, 1, 4},
		{10, 401, 0}, {100, 100, 80}, {100, 60, 80}, {100, 200, 114}, {101, 200, 0}, {32, 40, 36},
	} {
		if got := table.find(c.k, c.ef); got != c.want && (c.want == 0 || got < c.want-1 || got > c.want+1) {
			t.Errorf("%d rows, effort %d: %d lists, want %d", c.k, c.ef, got, c.want)
		}
	}
	if got := (shareTable{worth(10, 10, 4), worth(10, 40, 0)}).find(10, 20); got != 0 {
		t.Errorf("%d lists where nothing is known", got)
	}
	if got := shareTable(nil).find(10, 20); got != 0 {
		t.Errorf("%d lists of no table", got)
	}
}

// before4 makes an image one of version 3.
func before4(tb testing.TB, image []byte) []byte {
	tb.Helper()
	hd, err := decodeSQHeader(image)
	if err != nil {
		tb.Fatal(err)
	}
	if hd.shares == 0 {
		tb.Fatal("no shares")
	}
	hd.shares = 0
	image = image[:hd.size()]
	hd.encode(image)
	binary.LittleEndian.PutUint32(image[8:], 3)
	return withChecksum(image)
}

func TestSharesAreKeptInAnImage(t *testing.T) {
	g, image, base, _ := listImage(t)
	x, err := Open(image, base)
	if err != nil {
		t.Fatal(err)
	}
	if got := x.(*sqGraph).shares; len(got) == 0 || !slices.Equal(got, g.shares) || x.Info().Params["batchLists"] == "" {
		t.Errorf("built with %d, opened with %d: %v", g.shares, got, x.Info().Params)
	}
	if x, err = Open(before4(t, alignedCopy(image)), base); err != nil {
		t.Fatal(err)
	}
	if old := x.(*sqGraph); old.lists == nil || len(old.shares) > 0 || old.shares.listsFor(1000, 10, 100, old) > 0 || x.Info().Params["batchLists"] != "" {
		t.Error("shares in an image that has none")
	}
}

func TestDamagedSharesAreRefused(t *testing.T) {
	_, image, base, _ := listImage(t)
	hd, err := decodeSQHeader(image)
	if err != nil {
		t.Fatal(err)
	}
	sizes := hd.sections()
	at := len(image) - int(aligned(sizes[12]))
	few, _ := measuredShares().part()
	last := at + 4*sharePoint*(len(few)-1) // for so few rows
	le := binary.LittleEndian
	for name, change := range map[string]func(b []byte){
		"more shares than any":     func(b []byte) { le.PutUint32(b[116:], 1<<20) },
		"a part of a share":        func(b []byte) { le.PutUint32(b[116:], hd.shares-1) },
		"shares of no lists":       func(b []byte) { le.PutUint32(b[100:], 0); le.PutUint32(b[104:], 0) },
		"shares of version 4":      func(b []byte) { b[8] = 4 },
		"more lists than there":    func(b []byte) { le.PutUint32(b[at+8:], hd.lists+1) },
		"as many as there are not": func(b []byte) { le.PutUint32(b[at+8:], math.MaxUint32) },
		"less for more effort":     func(b []byte) { le.PutUint32(b[at+28:], 1); le.PutUint32(b[at+8:], 2) },
		"less effort":              func(b []byte) { le.PutUint32(b[at+24:], le.Uint32(b[at+4:])) },
		"no rows":                  func(b []byte) { le.PutUint32(b[at:], 0) },
		"rows in the wrong order":  func(b []byte) { le.PutUint32(b[at:], 11) },
		"an effort out of reach":   func(b []byte) { le.PutUint32(b[at+24:], 1<<31) },
		"more found than is there": func(b []byte) { le.PutUint32(b[last+12:], shareAll+1) },
		"less found for more":      func(b []byte) { le.PutUint32(b[at+12:], 9); le.PutUint32(b[at+32:], 8) },
		"more found of half":       func(b []byte) { le.PutUint32(b[last+16:], shareAll+1) },
		"less of half for more":    func(b []byte) { le.PutUint32(b[at+16:], 9); le.PutUint32(b[at+36:], 8) },
		"shares in an old version": func(b []byte) { b[8] = 3 },
	} {
		bad := alignedCopy(image)
		change(bad)
		if _, err := Open(withChecksum(bad), base); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamagedListsDoNotHurtABatchThatSharesThem(t *testing.T) {
	_, image, base, dim := listImage(t)
	hd, err := decodeSQHeader(image)
	if err != nil {
		t.Fatal(err)
	}
	sizes := hd.sections()
	end := len(image) - int(aligned(sizes[12]))
	from := end - int(aligned(sizes[11]))
	var s Scratch
	for seed := range uint64(20) {
		bad, r := alignedCopy(image), rng(seed)
		for range 400 {
			binary.LittleEndian.PutUint32(bad[from+r.IntN((end-from)/4)*4:], r.Uint32()>>(r.IntN(32)))
		}
		x, err := Open(bad, base)
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range sharedRows(x.(*sqGraph), base[:50*dim], &Query{K: 10, Effort: 20}, 5, &s) {
			for _, n := range rows {
				if int(n.Row) >= len(base)/dim {
					t.Fatalf("row %d", n.Row)
				}
			}
		}
	}
}
