package segments

import (
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
)

// TestAnswersHaveABound: a few small numbers ask for gigabytes. What is sure to be too
// large is refused before anything is searched; the rest as it grows.
func TestAnswersHaveABound(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 2000)...)
	var vectors []float32
	for i := range int64(50) {
		vectors = append(vectors, vectorOf(i, 3)...)
	}
	far := float32(1e9)
	search := func(q SearchRequest, nq, k int) error {
		q.Vectors, q.TopK = vectors[:nq*dim], k
		_, err := r.search(q)
		return err
	}
	hybrid := func(read Read, nq, k int) error {
		one := SubSearch{FieldID: vectorField, Vectors: vectors[:nq*dim], TopK: k, Metric: index.L2}
		_, err := r.coll.HybridSearch(t.Context(), &HybridRequest{Read: read, Searches: []SubSearch{one, one}, NQ: nq, TopK: k, Ranker: Ranker{RRF: 60}})
		return err
	}
	// A hit is 12 bytes, its key and its score; with its price 20, its vector has 32 more.
	const hit = 12
	bound := func(bytes int64, fields ...int64) Read { return Read{MaxBytes: bytes, OutputFields: fields} }
	filtered := func(bytes int64, fields ...int64) Read {
		read := bound(bytes, fields...)
		read.Plan = r.plan("id >= 0")
		return read
	}
	cases := []struct {
		name     string
		read     func() error
		searched bool // before it was refused
		refused  bool
	}{
		{"no bound", func() error { return search(SearchRequest{}, 50, 2000) }, true, false},
		{"just so much", func() error { return search(SearchRequest{Read: bound(50 * 2000 * hit)}, 50, 2000) }, true, false},
		{"a byte more", func() error { return search(SearchRequest{Read: bound(50*2000*hit - 1)}, 50, 2000) }, false, true},
		{"more is wanted than there is", func() error { return search(SearchRequest{Read: bound(50 * 2000 * hit)}, 50, 9000) }, true, false},
		{"numbers come along", func() error { return search(SearchRequest{Read: bound(100*20-1, priceField)}, 1, 100) }, false, true},
		{"vectors come along", func() error { return search(SearchRequest{Read: bound(100*44-1, vectorField)}, 1, 100) }, false, true},
		{"texts come along", func() error { return search(SearchRequest{Read: bound(100*hit+50, colorField)}, 1, 100) }, true, true},
		{"a filter leaves all", func() error { return search(SearchRequest{Read: filtered(50*2000*hit - 1)}, 50, 2000) }, true, true},
		{"all are in the range", func() error { return search(SearchRequest{Read: bound(50*2000*hit - 1), Radius: &far}, 50, 2000) }, true, true},
		{"groups", func() error {
			return search(SearchRequest{Read: bound(100*3*hit - 1), Group: &Grouping{FieldID: priceField}}, 10, 30)
		}, true, true},
		{"groups, few", func() error {
			return search(SearchRequest{Read: bound(100*3*hit + 100*3*8), Group: &Grouping{FieldID: priceField}}, 10, 30)
		}, true, false},
		{"several searches", func() error { return hybrid(bound(50*2000*hit-1), 50, 2000) }, false, true},
		{"several searches of what fits", func() error { return hybrid(bound(50*2000*hit), 50, 2000) }, true, false},
	}
	for _, c := range cases {
		before := r.pool.Stats().Submitted
		err := c.read()
		if searched := r.pool.Stats().Submitted != before; searched != c.searched {
			t.Errorf("%s: searched is %t", c.name, searched)
		}
		switch {
		case !c.refused:
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		case err == nil || errclass.Of(err) != errclass.Invalid || !strings.Contains(err.Error(), "nq is ") || !strings.Contains(err.Error(), "fewer vectors"):
			t.Errorf("%s: %v, want a refusal that says what to do", c.name, err)
		}
	}
}
