package segments

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
)

// TestAReadTellsWhatItDid in each segment, if it is asked to.
func TestAReadTellsWhatItDid(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	r.insert(1, seq(0, 3000)...)
	r.handOff(1)
	r.insert(2, seq(3000, 3100)...)
	r.put(3, seq(4000, 4010), 0, false, 8)
	read := Read{Partitions: []int64{7}, Explain: true}
	of := func(res *SearchResult, id int64) SegmentTrace {
		i := slices.IndexFunc(res.Stats.Segments, func(s SegmentTrace) bool { return s.ID == id })
		if i < 0 {
			t.Fatalf("nothing about segment %d: %+v", id, res.Stats.Segments)
		}
		return res.Stats.Segments[i]
	}
	res := r.found(SearchRequest{Read: read, Vectors: vectorOf(5, 1), TopK: 3})
	if s := of(res, 1); !slices.Equal(s.Ways, []string{wayGraph}) || s.Distances == 0 || s.Hops == 0 || s.Matched != 3000 || s.Parts != 1 {
		t.Errorf("by graph: %+v", s)
	}
	if s := of(res, 2); !slices.Equal(s.Ways, []string{wayScan}) || s.Distances != 100 || !s.Growing || s.Search <= 0 {
		t.Errorf("growing: %+v", s)
	}
	if s := of(res, 3); s.Pruned != "partition" || s.Parts != 0 {
		t.Errorf("another partition: %+v", s)
	}
	if st := res.Stats; st.Wall <= 0 || st.Merge <= 0 || st.Output <= 0 {
		t.Errorf("stages %+v", st)
	}
	read.Plan = r.plan("id < 40")
	res = r.found(SearchRequest{Read: read, Vectors: vectorOf(5, 1), TopK: 3})
	if s := of(res, 1); s.Matched != 40 || !slices.Equal(s.Ways, []string{wayScanMatches}) || s.Distances != 40 || s.Filter <= 0 {
		t.Errorf("few matches: %+v", s)
	}
	read.Plan = r.plan("id >= 3000 and price < 30020")
	res = r.found(SearchRequest{Read: read, Vectors: vectorOf(5, 1), TopK: 3})
	if s := of(res, 1); s.Pruned != "statistics" {
		t.Errorf("out of range: %+v", s)
	}
	if s := of(res, 2); s.Matched != 2 {
		t.Errorf("two rows match: %+v", s)
	}
	read.Explain = false
	if res = r.found(SearchRequest{Read: read, Vectors: vectorOf(5, 1), TopK: 3}); res.Stats.Segments != nil || res.Stats.Merge != 0 {
		t.Errorf("nobody asked: %+v", res.Stats)
	}
}

// A graph with a filter says that it read lists of near rows.
func TestAGraphWithAFilterSaysThatItReadLists(t *testing.T) {
	const n, dim = 8000, 4
	r := rand.New(rand.NewPCG(5, 6))
	base := make([]float32, n*dim)
	for i := range base {
		base[i] = float32(r.NormFloat64())
	}
	b, err := index.Build(t.Context(), index.Spec{Kind: index.KindHNSWSQ, Metric: index.L2, Dim: dim, EfConstruction: 20}, base, index.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	half := bitset.New(n)
	for row := 0; row < n; row += 2 {
		half.Add(row)
	}
	sc := &scratch{work: &work{}}
	b.Searcher().Search(base[:dim], &index.Query{K: 3, Effort: 10, Allowed: half}, &sc.index)
	sc.noteIndex(string(index.KindHNSWSQ), true)
	if !slices.Equal(sc.work.ways, []string{wayGraphLists}) || sc.work.distances == 0 {
		t.Errorf("%+v", sc.work)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
