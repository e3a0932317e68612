package index

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Scratch is the memory that a search or an insert works in. It grows to what
// the largest index asked for and is reused without allocating. The zero
// Scratch is ready. It serves one call at a time, on any index.
type Scratch struct {
	// Stop, if not nil, is polled every few hops: once true, a search returns
	// what it has so far (see Stats.Stopped). It does not stop an insert.
	Stop *atomic.Bool

	stats Stats

	ids       []uint32  // rows of the batch at hand
	dist      []float32 // their distances
	dist2     []float32 // other distances of theirs
	seen      visited
	pool      []uint64 // the best rows so far, sorted; low bit: already expanded
	twinSteps int      // steps along chains of equal rows in this search
	cand      minHeap  // rows to expand, when there is a filter
	top       vec.TopK // the best allowed rows
	out       []Neighbor
	sq        sqScratch
	fine      fineQuery
	ivf       ivfScratch
	flat      flatBatch
	walk      sqWalk
	ways      []sqWay // walks of a batch
	lists     listScratch
	panels    panelScratch

	through []uint32 // disallowed rows that a walk leads through

	keys     []uint64   // candidates of a selection
	kept     []uint32   // what a selection keeps
	keptDist []float32  // distances to those
	chosen   [][]uint32 // new links of the row being inserted, by level
}

// Stats says what the last search did.
type Stats struct {
	// Distances is the number of distances computed.
	Distances int
	// Ranked is the number of distances by vectors or fine codes among them, where
	// shorter codes come first.
	Ranked int
	// Exact is the number of distances by float32 vectors where fine codes rank: these
	// are not there, or the row is too near for them to tell.
	Exact int
	// Hops is the number of rows whose links were followed, or of lists read.
	Hops int
	// Codes is the number of rows whose codes were read in lists, those that fill
	// blocks up included; once for all queries of a batch that read a list together.
	Codes int
	// Lists is the number of lists of near rows that a search of a graph has read,
	// instead of walking: it has a filter then, or is a batch that shares them. They are among the Hops.
	Lists int
	// Scanned says that rows were scanned exactly, instead of or after a walk.
	Scanned bool
	// Stopped says that Stop cut the search: the result may lack nearer rows.
	Stopped bool
}

// Stats returns what the last search on s did.
func (s *Scratch) Stats() Stats { return s.stats }

// Bytes is the memory that s holds.
func (s *Scratch) Bytes() int {
	n := 4*(cap(s.ids)+cap(s.dist)+cap(s.dist2)+cap(s.seen.touched)+cap(s.through)+cap(s.kept)+cap(s.keptDist)) +
		8*(cap(s.seen.words)+cap(s.pool)+cap(s.cand)+cap(s.out)+cap(s.keys)) + s.top.Bytes() + s.ivf.bytes() + s.flat.bytes() + s.fine.size() + s.lists.bytes() + s.panels.bytes()
	for _, l := range s.chosen {
		n += 4 * cap(l)
	}
	return n
}

// begin readies s for a search whose batches have at most batch rows.
func (s *Scratch) begin(batch int) {
	s.stats = Stats{}
	s.twinSteps = 0
	s.pool = s.pool[:0]
	s.cand = s.cand[:0]
	s.out = s.out[:0]
	batch = max(batch+1, scanChunk)
	s.ids = grown(s.ids, batch)
	s.dist = grown(s.dist, batch)
	s.dist2 = grown(s.dist2, batch)
}

func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func (s *Scratch) stopped() bool {
	if s.Stop != nil && s.Stop.Load() {
		s.stats.Stopped = true
	}
	return s.stats.Stopped
}

// visited is a set of rows that is cheap to empty.
type visited struct {
	words   []uint64
	touched []uint32
	torn    bool // rows are being added that are not in touched yet: a fault may end that
}

// reset empties v and makes room for rows below n.
func (v *visited) reset(n int) {
	words := (n + 63) / 64
	if cap(v.words) < words {
		v.words = make([]uint64, words)
		v.touched = v.touched[:0]
		return
	}
	// What was touched is in the length that v had then.
	if len(v.touched) < len(v.words)/8 && !v.torn {
		for _, row := range v.touched {
			v.words[row>>6] = 0
		}
	} else {
		clear(v.words)
	}
	v.touched, v.torn = v.touched[:0], false
	v.words = v.words[:words]
}

// add adds row, which is below n, and reports whether it was new.
func (v *visited) add(row uint32) bool {
	w, bit := &v.words[row>>6], uint64(1)<<(row&63)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	v.touched = append(v.touched, row)
	return true
}

// minHeap is a binary heap with the smallest key on top.
type minHeap []uint64

func (h *minHeap) push(key uint64) {
	*h = append(*h, key)
	s := *h
	i := len(s) - 1
	for i > 0 {
		p := (i - 1) / 2
		if s[p] <= key {
			break
		}
		s[i] = s[p]
		i = p
	}
	s[i] = key
}

// pop removes and returns the smallest key of a heap that is not empty.
func (h *minHeap) pop() uint64 {
	s := *h
	top, last := s[0], len(s)-1
	key := s[last]
	s = s[:last]
	*h = s
	if last == 0 {
		return top
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && s[c+1] < s[c] {
			c++
		}
		if s[c] >= key {
			break
		}
		s[i] = s[c]
		i = c
	}
	s[i] = key
	return top
}
