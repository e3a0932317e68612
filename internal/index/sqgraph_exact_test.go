package index

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
)

// TestHNSWFindsWhatAWalkOnVectorsDoes: with any ef, the graph on codes that stands for HNSW finds as much as the graph
// on vectors does, but for a hundredth, in batches too, with filters and for any number of rows wanted, and its distances are those of a scan.
func TestHNSWFindsWhatAWalkOnVectorsDoes(t *testing.T) {
	const n, dim, searches = 6000, 128, 100
	wants := []int{1, 3, 10, 100}
	if raceEnabled {
		wants = wants[:1]
	}
	for _, m := range []Metric{L2, IP, Cosine} {
		base := flattish(rng(21), n+searches, dim, 8)
		base, queries := base[:n*dim], base[n*dim:]
		spec := Spec{Kind: KindHNSW, Metric: m, Dim: dim, M: 8, EfConstruction: 100}
		b := build(t, spec, base)
		if info := b.Info(); info.Kind != KindHNSW || info.Params["M"] != "8" || info.Params["efConstruction"] != "100" || info.Params["codes"] == "" {
			t.Fatalf("%s: built %+v", m, info)
		}
		onVectors, err := buildHNSW(t.Context(), spec, base, BuildOptions{Workers: 1}, "")
		if err != nil {
			t.Fatal(err)
		}
		f, x := newFlat(t, dim, m, base), reopened(t, b, base)
		var exact Scratch
		exactly := func(q []float32, rows []Neighbor) (found []Neighbor) {
			found = f.Search(q, 30, nil, &exact)
			at := map[uint32]float32{}
			for _, g := range found {
				at[g.Row] = g.Distance
			}
			for _, g := range rows {
				if d, ok := at[g.Row]; ok && math.Abs(float64(d-g.Distance)) > 1e-6*(1+math.Abs(float64(d))) {
					t.Fatalf("%s: row %d at %v, a scan says %v", m, g.Row, g.Distance, d)
				}
			}
			return found
		}
		share := func(x Searcher, query Query) float64 {
			var s Scratch
			sum := 0.0
			for i := range searches {
				q := queries[i*dim:][:dim]
				got := x.Search(q, &query, &s)
				exactly(q, got)
				sum += recall(got, f.Search(q, query.K, query.Allowed, &exact))
			}
			return sum / searches
		}
		for _, every := range []int{1, 2, 10} {
			var allowed *bitset.Set
			if every > 1 {
				allowed = bitset.New(n)
				for row := 0; row < n; row += every {
					allowed.Add(row)
				}
			}
			for _, k := range wants {
				for _, ef := range []int{10, 16, 32, 100, 400} {
					if ef < k || ef < 32 && (k < 10 || every > 1) { // little is asked for there
						continue
					}
					q := Query{K: k, Effort: ef, Allowed: allowed}
					if codes, vectors := share(x, q), share(onVectors.Searcher(), q); codes < vectors-0.01 {
						t.Errorf("%s, one row in %d: of %d rows with an ef of %d codes find %.3f, vectors %.3f", m, every, k, ef, codes, vectors)
					}
				}
			}
		}
		var s Scratch
		found := 0.0
		x.SearchBatch(queries, &Query{K: 10, Recall: 0.95}, &s, func(i int, rows []Neighbor) {
			found += recall(rows, exactly(queries[i*dim:][:dim], rows)[:10])
		})
		if found < 0.95*searches {
			t.Errorf("%s: a batch finds %.3f", m, found/searches)
		}
	}
}

// TestAWalkThatIsToFindAllDoes: the nearest are not lost between a long walk and the answer, nor are rows of which codes
// say less than of the others.
func TestAWalkThatIsToFindAllDoes(t *testing.T) {
	const n, dim, searches = 5000, 64, 300
	r := rng(22)
	base := flattish(r, n+searches, dim, 8)
	for i := 0; i < n*dim; i++ {
		if i/dim%20 == 0 {
			base[i] += 0.4 * float32(r.NormFloat64()) // off the directions that codes tell
		}
	}
	base, queries := base[:n*dim], base[n*dim:]
	for kind, least := range map[Kind]float64{KindHNSW: 0.9999, KindHNSWSQ: 0.9995} {
		x, f := build(t, Spec{Kind: kind, Metric: L2, Dim: dim, EfConstruction: 100}, base).Searcher(), newFlat(t, dim, L2, base)
		var s, exact Scratch
		sum := 0.0
		for q := range slices.Chunk(queries, dim) {
			sum += recall(x.Search(q, &Query{K: 10, Effort: 400}, &s), f.Search(q, 10, nil, &exact))
		}
		if sum /= searches; sum < least {
			t.Errorf("%s finds %.4f, want %v", kind, sum, least)
		}
	}
}

func TestHNSWOfShortVectorsWalksOnThem(t *testing.T) {
	const n, dim = 500, fineLeast - 1
	base := clustered(rng(23), n, dim)
	if x, ok := build(t, Spec{Kind: KindHNSW, Metric: L2, Dim: dim}, base).Searcher().(*hnswSearcher); !ok {
		t.Errorf("built %T", x)
	}
}

// TestImagesOfHNSWAreNotMistaken: builds before version 7 do not take them for HNSW_SQ, and such an image has no fine codes.
func TestImagesOfHNSWAreNotMistaken(t *testing.T) {
	const n, dim = 300, 20
	base := clustered(rng(24), n, dim)
	image := func(kind Kind) []byte {
		var out bytes.Buffer
		if _, err := build(t, Spec{Kind: kind, Metric: L2, Dim: dim}, base).WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		return alignedCopy(out.Bytes())
	}
	exact, coded := image(KindHNSW), image(KindHNSWSQ)
	if v, w := exact[8], coded[8]; v != 7 || w != 5 {
		t.Errorf("versions %d and %d", v, w)
	}
	older := alignedCopy(exact)
	older[8] = 6
	withChecksum(older)
	both := alignedCopy(coded)
	both[8] = 7
	binary.LittleEndian.PutUint32(both[44:], binary.LittleEndian.Uint32(both[44:])|sqExact)
	withChecksum(both)
	for name, bad := range map[string][]byte{"a version that has none": older, "with fine codes": both} {
		if _, err := Open(bad, base); errclass.Of(err) != errclass.Corrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}
