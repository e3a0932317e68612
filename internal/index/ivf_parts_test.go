package index

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// inPairs makes product quantisation of x what it was before version 8: two values are a part, however few a row has.
func inPairs(tb testing.TB, x *ivf) {
	tb.Helper()
	b := &ivfBuilder{ivf: x, ctx: context.Background(), o: BuildOptions{Workers: 1}}
	sample, err := b.codeSample(min(b.n, codeSample))
	if err != nil {
		tb.Fatal(err)
	}
	b.residuals(sample)
	b.pq = newProducts(b.width(), pqDims)
	if err := b.pq.train(b.ctx, 1, sample); err != nil {
		tb.Fatal(err)
	}
	b.blocks = make([]byte, b.numBlocks()*b.blockBytes())
	e := b.newListEncoder()
	for l := range b.lists.n {
		e.encode(l)
	}
}

// TestManyListsAreFoundByBytes: where the lists that are read are as many bytes as the centres, these are compared by bytes.
func TestManyListsAreFoundByBytes(t *testing.T) {
	const dim, n, want = 20, 6000, 120
	x, base := manyLists(t, Cosine, dim, n)
	if !x.shortFirst(1) || x.shortFirst(want) || want+want/shortMore+shortSlack > x.lists.n/2 {
		t.Fatalf("short codes first for one list: %v, for %d: %v", x.shortFirst(1), want, x.shortFirst(want))
	}
	var s Scratch
	for v := range slices.Chunk(base[n*dim:], dim) {
		x.normalise(v, &s)
		short := x.lists.short
		x.lists.short = nil
		x.nearestLists(&plan{lists: want}, &s)
		x.order(want, &s)
		by := slices.Clone(s.ivf.lists)
		x.lists.short = short
		x.nearestLists(&plan{lists: want}, &s)
		x.order(want, &s)
		if !slices.Equal(by, s.ivf.lists) {
			t.Fatalf("lists %v, by bytes %v", s.ivf.lists, by)
		}
	}
}

// TestRowsOfFewValuesAreToldApart by codes of four bits for each value: by as many for two values together twice as many rows are ranked.
func TestRowsOfFewValuesAreToldApart(t *testing.T) {
	const n, queries, lists = 6000, 100, 40
	for _, dim := range []int{codedDims, 37, 64} {
		for _, m := range []Metric{L2, IP, Cosine} {
			base, asked := gauss(83, n, dim), gauss(84, queries, dim)
			f, x := newFlat(t, dim, m, base), buildIVFFor(t, KindScaNN, m, dim, lists, base)
			var out bytes.Buffer
			if _, err := x.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(alignedCopy(out.Bytes()), base)
			if err != nil {
				t.Fatal(err)
			}
			wantRecall(t, opened, f, asked, Query{K: 10, Effort: lists}, 0.985)
			wantSame(t, x, opened, asked)
			ranked := func() (rows int) {
				var s Scratch
				for v := range slices.Chunk(asked, dim) {
					x.Search(v, &Query{K: 10, Effort: lists}, &s)
					rows += s.Stats().Ranked
				}
				return rows / queries
			}
			alone := ranked()
			if inPairs(t, x); ranked() < 3*alone/2 {
				t.Errorf("%s, %d values: %d rows are ranked, in pairs %d", m, dim, alone, ranked())
			}
		}
	}
}

// TestASearchOfMostListsRanksMore: where so much is read, codes tell little.
func TestASearchOfMostListsRanksMore(t *testing.T) {
	const n, dim, lists = 3000, 80, 200
	x := buildIVFFor(t, KindScaNN, L2, dim, lists, gauss(85, n, dim))
	rank := func(lists int, allowed *bitset.Set) int {
		p := x.plan(&Query{K: 10, Effort: lists, Allowed: allowed}, new(Scratch))
		return p.rank
	}
	half, all := rank(lists/2, nil), rank(lists, nil)
	if all < half+lists/2 {
		t.Errorf("%d candidates of half of the lists, %d of all", half, all)
	}
	most := bitset.New(n)
	for row := range n - 1 {
		most.Add(row)
	}
	if got := rank(lists, most); got >= all {
		t.Errorf("%d candidates with a filter, which has its own measure of enough, %d without", got, all)
	}
}
