package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// selections are sets of rows of which about a share is allowed: by lot, around one row,
// and by lot but for rows that are deleted in runs.
func selections(f *Flat, share float64) map[string]*bitset.Set {
	n, r := f.Len(), rng(41)
	lot, around, runs := bitset.New(n), bitset.New(n), bitset.New(n)
	for row := range n {
		if r.Float64() < share {
			lot.Add(row)
		}
		if row/50%3 != 0 && r.Float64() < min(1, share*1.5) {
			runs.Add(row)
		}
	}
	var s Scratch
	centre := f.vector(uint32(r.IntN(n)))
	for _, near := range f.Search(centre, int(share*float64(n)), nil, &s) {
		around.Add(int(near.Row))
	}
	return map[string]*bitset.Set{"by lot": lot, "around a row": around, "in runs": runs}
}

// withTwins makes some rows copies of others.
func withTwins(base []float32, dim int) []float32 {
	for i := 7; i < len(base)/dim; i += 11 {
		copy(base[i*dim:(i+1)*dim], base[(i-7)*dim:])
	}
	return base
}

func TestFilteredGraphsFindTheNearestAllowedRows(t *testing.T) {
	const n, asked, ef = 4500, 40, 30
	metrics := map[string][]Metric{"heaps": {L2, Cosine, IP}, "twins": {IP}, "turned": {Cosine}}
	shapes := map[string]func(r *rand.Rand) (dim int, base []float32){
		"heaps":  func(r *rand.Rand) (int, []float32) { return 12, clustered(r, n+asked, 12) },
		"twins":  func(r *rand.Rand) (int, []float32) { return 10, withTwins(clustered(r, n+asked, 10), 10) },
		"turned": func(r *rand.Rand) (int, []float32) { return 90, flattish(r, n+asked, 90, 12) },
	}
	for name, make := range shapes {
		for _, m := range metrics[name] {
			if raceEnabled && name != "twins" {
				continue
			}
			dim, base := make(rng(43))
			base, queries := base[:n*dim], base[n*dim:]
			g, b := buildCodes(t, m, dim, base)
			if g.lists == nil {
				t.Fatal("no lists")
			}
			f := newFlat(t, dim, m, base)
			opened := reopened(t, b, base)
			for _, share := range []float64{0.99, 0.6, 0.5, 0.25, 0.1, 0.01, 0.001} {
				for shape, allowed := range selections(f, share) {
					t.Run(fmt.Sprintf("%s/%s/%v/%s", name, m, share, shape), func(t *testing.T) {
						q := Query{K: 10, Effort: ef, Allowed: allowed}
						wantRecall(t, g, f, queries, q, 0.93)
						wantRecall(t, opened, f, queries, q, 0.93)
						wantBatchRecall(t, g, f, queries, q, 0.93)
					})
				}
			}
		}
	}
}

// wantBatchRecall is wantRecall for a batch.
func wantBatchRecall(t *testing.T, x Searcher, f *Flat, queries []float32, q Query, least float64) {
	t.Helper()
	var s, exact Scratch
	sum, answered := 0.0, make([]int, len(queries)/f.dim)
	x.SearchBatch(queries, &q, &s, func(i int, got []Neighbor) {
		answered[i]++
		want := f.Search(queries[i*f.dim:][:f.dim], q.K, q.Allowed, &exact)
		wantSorted(t, got, q.Allowed)
		if len(got) != len(want) {
			t.Fatalf("query %d: %d rows, want %d", i, len(got), len(want))
		}
		sum += recall(got, want)
	})
	if slices.Min(answered) != 1 || slices.Max(answered) != 1 {
		t.Fatalf("answered %v times", answered)
	}
	if mean := sum / float64(len(answered)); mean < least {
		t.Errorf("recall of a batch of %+v is %.3f, want %.3f", q, mean, least)
	}
}

// Each way to search with a filter is taken where it is the cheapest.
func TestAFilterChoosesItsWay(t *testing.T) {
	const n, dim = 40_000, 8
	base := clustered(rng(44), n+20, dim)
	base, queries := base[:n*dim], base[n*dim:]
	g, _ := buildCodes(t, L2, dim, base)
	var s Scratch
	none := func(int, []Neighbor) {}
	for name, c := range map[string]struct {
		every          int
		batch          int
		lists, scanned bool
	}{
		"nearly all": {1, 1, false, false},
		"a third":    {3, 1, true, false},
		"a batch":    {3, 20, false, true},
		"a few":      {300, 1, false, true},
	} {
		allowed := bitset.New(n)
		for row := 1; row < n; row += c.every {
			allowed.Add(row)
		}
		g.SearchBatch(queries[:c.batch*dim], &Query{K: 5, Effort: 20, Allowed: allowed}, &s, none)
		if c.batch >= panelLeast && !g.comparesAll(c.batch, allowed.Count(), 20) {
			continue // on this processor
		}
		if st := s.Stats(); st.Scanned != c.scanned || (st.Lists > 0) != c.lists {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// before3 is an image as versions before 3 were: without lists.
func before3(tb testing.TB, image []byte) []byte {
	tb.Helper()
	le := binary.LittleEndian
	hd, err := decodeSQHeader(image)
	if err != nil {
		tb.Fatal(err)
	}
	if hd.lists == 0 {
		tb.Fatal("no lists")
	}
	hd.lists, hd.listDims, hd.shares = 0, 0, 0
	image = image[:hd.size()]
	hd.encode(image)
	le.PutUint32(image[8:], 2)
	return withChecksum(image)
}

func listImage(tb testing.TB) (g *sqGraph, image []byte, base []float32, dim int) {
	tb.Helper()
	const n = 5000
	dim = 6
	base = withTwins(clustered(rng(45), n, dim), dim)
	g, b := buildCodes(tb, L2, dim, base)
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		tb.Fatal(err)
	}
	return g, out.Bytes(), base, dim
}

func TestImagesFromBeforeThereWereListsAreSearchedWithFilters(t *testing.T) {
	_, image, base, dim := listImage(t)
	f := newFlat(t, dim, L2, base)
	x, err := Open(before3(t, alignedCopy(image)), base)
	if err != nil {
		t.Fatal(err)
	}
	if x.(*sqGraph).lists != nil {
		t.Fatal("lists in an image that has none")
	}
	for _, share := range []float64{0.5, 0.2, 0.01} {
		for _, allowed := range selections(f, share) {
			wantRecall(t, x, f, base[:40*dim], Query{K: 10, Effort: 40, Allowed: allowed}, 0.9)
		}
	}
}

func TestDamagedListsDoNotHurtASearch(t *testing.T) {
	g, image, base, dim := listImage(t)
	hd, err := decodeSQHeader(image)
	if err != nil {
		t.Fatal(err)
	}
	sizes := hd.sections()
	end := len(image) - int(aligned(sizes[12]))
	from := end - int(aligned(sizes[10])+aligned(sizes[11]))
	half := bitset.New(g.rows + 64) // a set may be longer than the index
	for row := 0; row < half.Len(); row += 2 {
		half.Add(row)
	}
	// Where lists start is checked when an image is opened; nothing else of them can be.
	first := from + 4*(2*int(hd.listDims)+numPanels(int(hd.lists))*vec.PanelRows)
	var s Scratch
	refused := 0
	for seed := range uint64(30) {
		bad, r := alignedCopy(image), rng(seed)
		for range 200 {
			binary.LittleEndian.PutUint32(bad[from+r.IntN((end-from)/4)*4:], r.Uint32()>>(r.IntN(32)))
		}
		if seed%2 == 0 {
			copy(bad[first:], image[first:first+4*len(g.lists.first)])
		}
		x, err := Open(bad, base)
		if err != nil {
			if seed%2 == 0 || !errclass.Is(err, errclass.Corrupt) {
				t.Fatal(err)
			}
			refused++
			continue
		}
		for i := range 5 {
			for _, got := range x.Search(base[i*dim:][:dim], &Query{K: 10, Effort: 20, Allowed: half}, &s) {
				if int(got.Row) >= g.rows || !half.Has(int(got.Row)) {
					t.Fatalf("row %d", got.Row)
				}
			}
		}
	}
	if refused == 0 {
		t.Error("no image whose lists start anywhere was refused")
	}
}

func TestHeadersOfListsAreChecked(t *testing.T) {
	_, image, base, _ := listImage(t)
	for name, change := range map[string]func(b []byte){
		"more lists than rows":        func(b []byte) { binary.LittleEndian.PutUint32(b[100:], 1<<31) },
		"more values than there are":  func(b []byte) { b[104] = 200 },
		"lists by nothing":            func(b []byte) { b[104] = 0 },
		"lists in an earlier version": func(b []byte) { b[8] = 2 },
	} {
		bad := alignedCopy(image)
		change(bad)
		if _, err := Open(withChecksum(bad), base); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
