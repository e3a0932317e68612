package index

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Flat searches exactly, by looking at every row. Searches run at any time and
// in any number, beside one caller of Publish.
type Flat struct {
	space
	rows atomic.Int64
}

// NewFlat returns a Flat over base, whose rows of dim values lie one behind the
// other. It searches no row yet: see Publish. base stays the caller's and must
// outlive the Flat. Errors have class Invalid.
func NewFlat(dim int, metric Metric, base []float32) (*Flat, error) {
	if dim <= 0 {
		return nil, errclass.New(errclass.Invalid, "flat index: dimension %d is not positive", dim)
	}
	if !metric.Valid() {
		return nil, errclass.New(errclass.Invalid, "flat index: metric %d is unknown", metric)
	}
	f := &Flat{space: space{kern: vec.Detect(), metric: metric, dim: dim, base: base}}
	if metric == Cosine {
		f.inv = make([]float32, len(base)/dim)
	}
	return f, nil
}

// Publish makes rows [0, n) searchable. Their values must be in place and not
// change any more. n never shrinks: a smaller one does nothing.
func (f *Flat) Publish(n int) error {
	if n < 0 || n > len(f.base)/f.dim {
		return errclass.New(errclass.Exhausted, "flat index: publish %d rows: there is room for %d", n, len(f.base)/f.dim)
	}
	from := int(f.rows.Load())
	if f.metric == Cosine {
		for row := from; row < n; row++ {
			f.inv[row] = f.kern.InvNorm(f.vector(uint32(row)))
		}
	}
	if n > from {
		f.rows.Store(int64(n))
	}
	return nil
}

// Len is the number of rows that are searchable.
func (f *Flat) Len() int { return int(f.rows.Load()) }

// Search returns the k rows nearest to q among those allowed (nil: all),
// nearest first; fewer if there are fewer. Rows past allowed.Len() are not
// allowed. len(q) is the dimension. The result belongs to s and is good until
// its next use.
func (f *Flat) Search(q []float32, k int, allowed *bitset.Set, s *Scratch) []Neighbor {
	s.begin(0)
	s.stats.Scanned = true
	s.top.Reset(k)
	var words []uint64
	if allowed != nil {
		words = nonNil(allowed.Words())
	}
	f.scan(q, f.scale(q), f.Len(), words, nil, s)
	s.out = s.top.AppendSorted(s.out)
	return s.out
}

// nonNil tells a set without words from no set.
func nonNil(words []uint64) []uint64 {
	if words == nil {
		return []uint64{}
	}
	return words
}
