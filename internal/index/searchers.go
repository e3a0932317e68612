package index

import (
	"io"
	"sort"
	"strconv"
)

// within cuts what is not nearer than the radius.
func (q *Query) within(found []Neighbor) []Neighbor {
	if !q.Bounded {
		return found
	}
	return found[:sort.Search(len(found), func(i int) bool { return !(found[i].Distance < q.Radius) })]
}

// one searches a batch one by one.
func one(x Searcher, dim int, vectors []float32, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	for i := range len(vectors) / dim {
		found(i, x.Search(vectors[i*dim:(i+1)*dim], q, s))
	}
}

// flatSearcher is a Flat whose rows are all there.
type flatSearcher struct{ f *Flat }

// Search scans.
func (x *flatSearcher) Search(vector []float32, q *Query, s *Scratch) []Neighbor {
	return q.within(x.f.Search(vector, q.K, q.Allowed, s))
}

// Info describes the rows.
func (x *flatSearcher) Info() Info {
	return Info{Kind: KindFlat, Metric: x.f.metric, Dim: x.f.dim, Rows: x.f.Len(), Bytes: 4 * int64(len(x.f.inv))}
}

// hnswSearcher is an HNSW that nothing is inserted into any more.
type hnswSearcher struct{ h *HNSW }

// Search walks the graph, or scans where that is cheaper.
func (x *hnswSearcher) Search(vector []float32, q *Query, s *Scratch) []Neighbor {
	ef := q.Effort
	if ef <= 0 {
		ef = graphEffort(q.K, q.Recall)
	}
	return q.within(x.h.Search(vector, q.K, ef, q.Allowed, s))
}

// SearchBatch walks for one vector after the other.
func (x *hnswSearcher) SearchBatch(vectors []float32, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	one(x, x.h.dim, vectors, q, s, found)
}

// Info describes the graph.
func (x *hnswSearcher) Info() Info {
	h := x.h
	return Info{
		Kind: KindHNSW, Metric: h.metric, Dim: h.dim, Rows: h.Len(), Bytes: h.Bytes(),
		Params: map[string]string{"M": strconv.Itoa(h.m), "efConstruction": strconv.Itoa(h.ef)},
	}
}

// DefaultEffort is the candidate list of a graph search that did not choose: on
// word vectors, which are hard, it gives a recall of 0.99 at k = 10.
func DefaultEffort(k int) int { return 100 + k }

// built is an index that lives on the Go heap.
type built struct {
	x     Searcher
	why   string
	write func(io.Writer) (int64, error)
}

// Info describes the index.
func (b *built) Info() Info {
	info := b.x.Info()
	info.Why = b.why
	return info
}

// WriteTo writes the image.
func (b *built) WriteTo(w io.Writer) (int64, error) { return b.write(w) }

// Searcher searches the index.
func (b *built) Searcher() Searcher { return b.x }

// Close does nothing: the memory is the collector's.
func (b *built) Close() error { return nil }

func buildFlat(spec Spec, base []float32, why string) (Built, error) {
	x, err := OpenFlat(spec.Dim, spec.Metric, base)
	if err != nil {
		return nil, err
	}
	return &built{x: x, why: why, write: func(io.Writer) (int64, error) { return 0, nil }}, nil
}
