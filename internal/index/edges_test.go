package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
)

// tenants makes rows in so many clusters, row i in cluster i % clusters.
func tenants(n, dim, clusters int) []float32 {
	r := rng(91)
	centres, base := make([]float32, clusters*dim), make([]float32, n*dim)
	for i := range centres {
		centres[i] = 2 * float32(r.NormFloat64())
	}
	for i := range base {
		base[i] = centres[i/dim%clusters*dim+i%dim] + float32(r.NormFloat64())
	}
	return base
}

// TestTheRowsOfATenantAreFoundFromAnywhere: the rows that a filter allows are in few of the
// lists, elsewhere than the query, and the filter is known.
func TestTheRowsOfATenantAreFoundFromAnywhere(t *testing.T) {
	const n, dim, clusters, lists = 36_000, 24, 50, 750
	base := tenants(n, dim, clusters)
	for _, kind := range []Kind{KindScaNN, KindIVFSQ8} {
		x := buildIVFFor(t, kind, L2, dim, lists, base)
		f := newFlat(t, dim, L2, base)
		var s, exact Scratch
		found := 0.0
		for tenant := 0; tenant < clusters; tenant += 10 {
			q := &Query{K: 10, Allowed: filterOf(n, func(row int) bool { return (row%clusters+clusters-tenant)%clusters < 3 })}
			learn(t, x, base[:dim], q, &s)
			for i := range 10 {
				v := base[((tenant+clusters/2)%clusters+i*clusters)*dim:][:dim]
				got := x.Search(v, q, &s)
				wantSorted(t, got, q.Allowed)
				found += recall(got, f.Search(v, q.K, q.Allowed, &exact)) / clusters
			}
		}
		if found < 0.8 {
			t.Errorf("%s: recall %.3f", kind, found)
		}
	}
}

func TestKeysThatAreAllTheLargestAreParted(t *testing.T) {
	for _, kern := range levels() {
		keys := make([]uint64, 256)
		for i := range keys {
			keys[i] = math.MaxUint64
		}
		keys[100], keys[200] = 5, 7
		partition(kern, keys, 6)
		if keys[0]+keys[1] != 12 {
			t.Errorf("%s: %v are not the smallest", kern, keys[:6])
		}
	}
}

// TestCandidatesOfABatchAreBounded, however many rows each query wants.
func TestCandidatesOfABatchAreBounded(t *testing.T) {
	const n, dim, queries, most = 17_000, 16, 64, 12 << 20
	base := clustered(rng(92), n, dim)
	x := buildIVFFor(t, KindIVFSQ8, L2, dim, 100, base)
	var s Scratch
	calls := 0
	x.SearchBatch(base[:queries*dim], &Query{K: 16_384, Effort: 100}, &s, func(_ int, rows []Neighbor) {
		if calls++; len(rows) != 16_384 {
			t.Fatalf("%d rows", len(rows))
		}
	})
	if calls != queries || s.Bytes() > most {
		t.Errorf("%d queries answered, in %d bytes", calls, s.Bytes())
	}
}

// TestAnIndexOfNoRowsIsOpenedAgain, of each kind.
func TestAnIndexOfNoRowsIsOpenedAgain(t *testing.T) {
	for _, kind := range []Kind{KindHNSW, KindHNSWSQ, KindIVFFlat, KindIVFSQ8, KindScaNN} {
		for _, dim := range []int{3, 31, 200} {
			b, err := Build(context.Background(), Spec{Kind: kind, Metric: Cosine, Dim: dim}, nil, BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var image bytes.Buffer
			if _, err = b.WriteTo(&image); err != nil {
				t.Fatal(err)
			}
			x, err := Open(alignedCopy(image.Bytes()), nil)
			if err != nil {
				t.Errorf("%s of dimension %d: %v", kind, dim, err)
				continue
			}
			var s Scratch
			q := &Query{K: 10, Allowed: bitset.New(0)}
			found := len(x.Search(make([]float32, dim), q, &s))
			x.SearchBatch(make([]float32, 20*dim), q, &s, func(_ int, rows []Neighbor) { found += len(rows) })
			if err := b.Close(); found != 0 || err != nil {
				t.Errorf("%s of dimension %d: %d rows of none, %v", kind, dim, found, err)
			}
		}
	}
}

func TestAnImageThatHasNoPlaceForItsRowsIsRefused(t *testing.T) {
	x := buildIVFFor(t, KindIVFFlat, L2, 4, 1, nil)
	var b bytes.Buffer
	if _, err := x.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	image := alignedCopy(b.Bytes())
	binary.LittleEndian.PutUint64(image[40:], 5000) // rows, in no block
	binary.LittleEndian.PutUint32(image[124:], castagnoli(image[:124]))
	if _, err := Open(image, make([]float32, 4*5000)); !errclass.Is(err, errclass.Corrupt) {
		t.Errorf("%v, want class Corrupt", err)
	}
}
