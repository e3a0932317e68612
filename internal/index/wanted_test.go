package index

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func TestEffortsFollowWhatIsWanted(t *testing.T) {
	// Twice the work leaves half as much out.
	e, _, err := measureEfforts(1, 1000, func(effort int) (float64, error) { return 1 - 1/float64(1+effort), nil })
	if err != nil || !e.valid(1000) {
		t.Fatalf("%v, %v", e, err)
	}
	last := 0
	for _, c := range []struct {
		recall     float64
		from, most int
	}{{0.1, 4, 8}, {0.8, 4, 8}, {0.9, 9, 15}, {0.925, 13, 18}, {0.95, 19, 28}, {0.99, 99, 140}, {0.995, 199, 290}, {1, 900, 4000}} {
		got := e.of(c.recall)
		if got < c.from || got > c.most || got < last {
			t.Errorf("effort %d for a recall of %v, want %d to %d", got, c.recall, c.from, c.most)
		}
		last = got
	}
	var none efforts
	if none.of(0.9) != 0 || !none.valid(10) {
		t.Error("what knows nothing says something")
	}
	// What never finds enough takes the most that was tried, without trying all.
	tried := 0
	e, found, err := measureEfforts(1, 1<<20, func(int) (float64, error) { tried++; return 0.93, nil })
	if err != nil || e.of(0.9) != 1 || e.of(0.99) == 0 || tried > 20 || found != 0.93 {
		t.Errorf("%v after %d tries, %v, %v", e, tried, found, err)
	}
}

// TestLittleWorkThatFindsMuchIsNotAllThereIs: a search that finds too few rows in few lists
// reads many more, and finds more than one that finds just enough of them.
func TestLittleWorkThatFindsMuchIsNotAllThereIs(t *testing.T) {
	e, _, err := measureEfforts(1, 1000, func(effort int) (float64, error) {
		if effort < 6 {
			return 0.976, nil
		}
		return 1 - 1/float64(effort), nil
	})
	if err != nil || !e.valid(1000) {
		t.Fatalf("%v, %v", e, err)
	}
	for _, wanted := range []float64{0.9, 0.95, 0.99} {
		if effort := e.of(wanted); 1-1/float64(effort) < wanted || effort < 6 {
			t.Errorf("%d lists are to find %v", effort, wanted)
		}
	}
}

// TestAsMuchIsFoundAsIsWanted of rows that are no rows of the index.
func TestAsMuchIsFoundAsIsWanted(t *testing.T) {
	const dim, n, queries = 24, 20_000, 300
	base := clustered(rng(95), n+queries, dim)
	base, vectors := base[:n*dim], base[n*dim:]
	for _, kind := range []Kind{KindIVFFlat, KindIVFSQ8, KindScaNN} {
		x := buildIVFFor(t, kind, L2, dim, 400, base)
		var b bytes.Buffer
		if _, err := x.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		image := alignedCopy(b.Bytes())
		opened, err := Open(image, base)
		if err != nil {
			t.Fatal(err)
		}
		f := newFlat(t, dim, L2, base)
		work := 0
		for _, wanted := range []float32{0.8, 0.9, 0.95, 0.99} {
			found, lists := 0.0, 0
			for i := range queries {
				var s, exact Scratch
				v := vectors[i*dim:][:dim]
				found += recall(opened.Search(v, &Query{K: 10, Recall: wanted}, &s), f.Search(v, 10, nil, &exact)) / queries
				lists += s.Stats().Hops
			}
			if found < float64(wanted)-0.05 || lists <= work {
				t.Errorf("%s: recall %.3f in %d lists, %v is wanted", kind, found, lists/queries, wanted)
			}
			work = lists
		}
		// An image from before there were efforts has its default.
		if x.pq != nil {
			inPairs(t, x)
			b.Reset()
			if _, err := x.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			image = alignedCopy(b.Bytes())
		}
		clear(image[68:100])
		binary.LittleEndian.PutUint32(image[8:], 4)
		binary.LittleEndian.PutUint32(image[124:], castagnoli(image[:124]))
		old, err := Open(image, base)
		if err != nil {
			t.Fatal(err)
		}
		if p := old.(*ivf).plan(&Query{K: 10, Recall: 0.8}, new(Scratch)); p.lists != x.effort {
			t.Errorf("%s: %d lists of an old image, want %d", kind, p.lists, x.effort)
		}
		binary.LittleEndian.PutUint32(image[8:], ivfVersion)
		binary.LittleEndian.PutUint32(image[68:], 1<<30)
		binary.LittleEndian.PutUint32(image[124:], castagnoli(image[:124]))
		if _, err := Open(image, base); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("%s: %v, want class Corrupt", kind, err)
		}
	}
}

// TestMoreIsDoneForMoreThatIsWanted by every kind of index.
func TestMoreIsDoneForMoreThatIsWanted(t *testing.T) {
	const dim, n = 24, 12_000
	base := clustered(rng(96), n, dim)
	for _, kind := range []Kind{KindHNSW, KindHNSWSQ, KindIVFFlat, KindIVFSQ8, KindScaNN} {
		b := build(t, Spec{Kind: kind, Metric: L2, Dim: dim}, base)
		work := func(recall float32) (n int) {
			var s Scratch
			for i := range 20 {
				b.Searcher().Search(base[i*dim:][:dim], &Query{K: 10, Recall: recall}, &s)
				n += s.Stats().Distances + s.Stats().Codes + s.Stats().Ranked
			}
			return n
		}
		if some, more := work(0.9), work(0.999); more <= some {
			t.Errorf("%s: %d for 0.9, %d for 0.999", kind, some, more)
		}
	}
}

// TestEffortsOfTiesAreValid: a share is found by just the effort that is the most.
func TestEffortsOfTiesAreValid(t *testing.T) {
	for most := 2; most < 600; most++ {
		for _, w := range wantedRecalls() {
			e, _, err := measureEfforts(1, most, func(effort int) (float64, error) {
				if effort == most {
					return withMargin(w), nil
				}
				return 0.5, nil
			})
			if err != nil || !e.valid(most) {
				t.Fatalf("%v of %d, %v", e, most, err)
			}
		}
	}
}

// TestAGraphOfManyDirectionsDoesMoreByDefault: what is usual elsewhere finds too little where rows differ in
// all directions alike, or where a filter leaves half of the largest products.
func TestAGraphOfManyDirectionsDoesMoreByDefault(t *testing.T) {
	if raceEnabled {
		t.Skip("no more goroutines than elsewhere, and slow")
	}
	const dim, n, queries = 96, 12_000, 100
	r := rng(98)
	base := make([]float32, (n+queries)*dim)
	for i := range base {
		base[i] = float32(r.NormFloat64())
	}
	base, vectors := base[:n*dim], base[n*dim:]
	f := newFlat(t, dim, L2, base)
	g, b := buildCodes(t, L2, dim, base)
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	share := func(q *Query) float64 {
		var s Scratch
		found := make([][]Neighbor, queries)
		for i := range queries {
			found[i] = append([]Neighbor{}, g.Search(vectors[i*dim:][:dim], q, &s)...)
		}
		return recallOf(f, vectors, found, 10)
	}
	usual, before := share(&Query{K: 10}), share(&Query{K: 10, Effort: DefaultEffort(10)})
	if usual < 0.95 || before > 0.9 {
		t.Errorf("by default %.3f are found, by an effort of %d %.3f", usual, DefaultEffort(10), before)
	}
}
