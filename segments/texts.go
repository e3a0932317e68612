package segments

import (
	"context"
	"math"
	"slices"
	"sort"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/sparse"
)

// A search by BM25 weighs each word of a query by how many rows have it, and each
// row by how long it is compared with the others. "The rows" are all rows of the
// collection that the read's timestamp sees: whatever its partitions, its filter and
// whether it leaves growing segments out, deleted and expired rows not among them. So
// a row has the same score in every segment, before and after a flush, a compaction
// or a restart.

// corpus is what is counted of rows that are texts.
type corpus struct {
	rows  int
	words uint64
	with  []int // by word of the query: rows that have it
}

func (c *corpus) add(o *corpus) {
	c.rows += o.rows
	c.words += o.words
	for i, n := range o.with {
		c.with[i] += n
	}
}

// mean is the mean length of a row, in words.
func (c *corpus) mean() float64 { return float64(c.words) / math.Max(1, float64(c.rows)) }

// idf is how much it tells that a row has word i (Robertson and Zaragoza, 2009, with 1
// added so that it is above 0).
func (c *corpus) idf(i int) float64 {
	n := float64(c.with[i])
	return math.Log(1 + (float64(c.rows)-n+0.5)/(n+0.5))
}

// counter counts the words of a field that a function of type BM25 makes.
type counter interface {
	// lengths says how long the rows of a field are: row i has lengths[i+1]-lengths[i] words.
	lengths(fieldID int64) []uint64
	// list is the list of a word in a field.
	list(fieldID int64, word uint32) sparse.List
}

// count counts rows [from, n) of a segment that are not in gone (nil = none is).
func count(s counter, fieldID int64, words []uint32, from, n int, gone *bitset.Set) corpus {
	ends := s.lengths(fieldID)
	c := corpus{rows: n - from, words: ends[n] - ends[from], with: make([]int, len(words))}
	if gone != nil {
		for row := gone.Next(from); row >= 0 && row < n; row = gone.Next(row + 1) {
			c.rows--
			c.words -= ends[row+1] - ends[row]
		}
	}
	for i, w := range words {
		rows := s.list(fieldID, w).Rows
		at := func(row int) int { return sort.Search(len(rows), func(i int) bool { return int(rows[i]) >= row }) }
		rows = rows[at(from):at(n)]
		c.with[i] = len(rows)
		if gone == nil {
			continue
		}
		for _, row := range rows {
			if gone.Has(int(row)) {
				c.with[i]--
			}
		}
	}
	return c
}

// at is the set of those of the first n rows that the state hides at ts; nil if there
// is none.
func (s *deleteState) at(ts uint64, n int) *bitset.Set {
	if !s.any(ts) {
		return nil
	}
	set := bitset.New(n)
	if s.newest() <= ts {
		copy(set.Words(), s.hidden.Words())
		set.Trim()
		return set
	}
	for _, h := range s.entries {
		if h.ts > ts {
			break
		}
		if int(h.row) < n {
			set.Add(int(h.row))
		}
	}
	return set
}

// weighed is r with its queries weighed, and with what scores need: a search by
// BM25. Its queries hold how often a word is in them.
func (x *reader) weighed(ctx context.Context, r *SearchRequest) (*SearchRequest, error) {
	words := slices.Clone(r.Queries.Indices)
	slices.Sort(words)
	words = slices.Compact(words)
	all, err := x.corpus(ctx, r.FieldID, words)
	if err != nil {
		return nil, err
	}
	weighed := *r.Queries
	weighed.Float = make([]float32, len(r.Queries.Float))
	for k, times := range r.Queries.Float {
		i, _ := slices.BinarySearch(words, r.Queries.Indices[k])
		weighed.Float[k] = float32(float64(times) * all.idf(i))
	}
	ix := x.info.index(r.FieldID)
	scores := sparse.NewBM25(ix.K1, ix.B, all.mean())
	out := *r
	out.Queries, out.scores = &weighed, &scores
	return &out, nil
}

// corpus counts in every segment of the snapshot that can be read.
func (x *reader) corpus(ctx context.Context, fieldID int64, words []uint32) (*corpus, error) {
	y := &reader{coll: x.coll, opened: x.opened, info: x.info, read: x.read, snap: x.snap, channels: x.channels, at: x.at, memory: x.memory}
	for _, h := range x.snap.view.segments {
		i := slices.IndexFunc(x.channels, func(t channelTime) bool { return t.ch.name == h.Meta().VChannel })
		if i >= 0 && h.quarantined() == "" && h.visible(x.channels[i].ts) > 0 {
			y.targets = append(y.targets, target{holder: h, ts: x.channels[i].ts})
		}
	}
	parts := make([]corpus, len(y.targets))
	err := y.eachTargetWith(ctx, fieldID, func(_ context.Context, i int, t *target) error {
		n, old := t.visible(t.ts), t.visible(y.expired(t.ts))
		parts[i] = count(t, fieldID, words, old, n, t.hidden().at(t.ts, n))
		return nil
	})
	x.left = x.left || y.left // then y lets go of what both hold
	if err != nil {
		return nil, err
	}
	x.nanos.Add(y.nanos.Load())
	all := &corpus{with: make([]int, len(words))}
	for i := range parts {
		if !y.targets[i].dead { // a search of it fails too, and says so
			all.add(&parts[i])
		}
	}
	return all, nil
}

func (g *Growing) lengths(fieldID int64) []uint64 { return *g.stored(fieldID).sparse.ends.Load() }

func (g *Growing) list(fieldID int64, word uint32) sparse.List {
	return g.stored(fieldID).sparse.list(word)
}

func (s *Sealed) lengths(fieldID int64) []uint64 { return s.stored(fieldID).sparse.index.Ends() }

func (s *Sealed) list(fieldID int64, word uint32) sparse.List {
	return s.stored(fieldID).sparse.index.List(word)
}

// Defaults of VectorIndex.K1 and B.
const (
	DefaultK1 = sparse.DefaultK1
	DefaultB  = sparse.DefaultB
)

// textIndex is how a field that a function of type BM25 makes is indexed if nothing
// is said.
func textIndex() VectorIndex {
	return VectorIndex{Type: indexFlat, Metric: index.BM25, K1: DefaultK1, B: DefaultB}
}

// ofTexts reports whether a function of type BM25 makes the field.
func ofTexts(s *schema.Schema, fieldID int64) bool {
	f, made := s.FunctionOf(fieldID)
	return made && f.Type == schema.BM25
}
