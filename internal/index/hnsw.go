package index

import (
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Limits of HNSWOptions.
const (
	maxDim      = 1 << 16
	maxM        = 512
	maxEf       = 1 << 16
	maxRows     = 1<<31 - 2 // links hold row+1, the pool row<<1
	maxLevel    = 30
	lockStripes = 1 << 10
	// serialRows is how many rows are inserted one after the other, so that many
	// goroutines starting at once do not all link to the same first row.
	serialRows = 256
)

// HNSWOptions describe an HNSW index.
type HNSWOptions struct {
	// Dim is the number of values of a vector. Required.
	Dim int
	// Metric is how near is measured. Required.
	Metric Metric
	// M is the number of links a row gets on insert and may have on each upper
	// level; on level 0 it may have 2M. 0 means 16.
	M int
	// EfConstruction is how many candidates an insert looks at. 0 means 200.
	EfConstruction int
	// Capacity is how many rows there can be. Required. Memory for the links of
	// a row is touched only when the row is inserted.
	Capacity int
	// Seed decides the levels of the rows. 0 is a seed like any other.
	Seed uint64
	// Kernels computes distances. nil means vec.Detect().
	Kernels *vec.Kernels
}

// EnsureDefaults replaces zero values that mean a default.
func (o *HNSWOptions) EnsureDefaults() {
	if o.M == 0 {
		o.M = 16
	}
	if o.EfConstruction == 0 {
		o.EfConstruction = 200
	}
	if o.Kernels == nil {
		k := vec.Detect()
		o.Kernels = &k
	}
}

// Validate lists all that is wrong, in one error of class Invalid. It wants
// EnsureDefaults to have run.
func (o *HNSWOptions) Validate() error {
	var bad []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, errors.Newf(format, args...).Error())
		}
	}
	check(o.Dim >= 1 && o.Dim <= maxDim, "Dim is %d: want 1 to %d", o.Dim, maxDim)
	check(o.Metric.Valid(), "Metric is %d: want %s", o.Metric, strings.Join(metricNames[L2:], ", "))
	check(o.M >= 2 && o.M <= maxM, "M is %d: want 2 to %d", o.M, maxM)
	check(o.EfConstruction >= 1 && o.EfConstruction <= maxEf, "EfConstruction is %d: want 1 to %d", o.EfConstruction, maxEf)
	check(o.Capacity >= 0 && o.Capacity <= maxRows, "Capacity is %d: want 0 to %d", o.Capacity, maxRows)
	if len(bad) > 0 {
		return errclass.New(errclass.Invalid, "HNSW options: %s", strings.Join(bad, "; "))
	}
	return nil
}

// Bytes estimates the memory an index with these options takes when full,
// without the vectors themselves.
func (o HNSWOptions) Bytes() int64 {
	o.EnsureDefaults()
	n, m := int64(o.Capacity), int64(o.M)
	perRow := 4*2*m + 4 + 4 // level 0, offset of the upper levels, twin
	if o.Metric == Cosine {
		perRow += 4
	}
	return n*perRow + 4*n*m/max(m-1, 1) + n/8 + lockStripes*8
}

// HNSW is a hierarchical navigable small world graph (Malkov and Yashunin,
// arXiv:1603.09320) in flat arrays without pointers. Insert and Search may be
// called from any number of goroutines at once; Search takes no lock.
//
// A link is a row number plus one, and 0 ends a list, so that memory fresh from
// the system is a graph without links. Lists are written with atomic stores
// under the row's lock and read with atomic loads without it: a reader may see
// a list half rewritten, which costs it a link at worst. A row is reachable
// only after all its own lists are in place, and is returned only once its
// insert is complete.
type HNSW struct {
	space
	m, m0    int // most links of a row: on the upper levels, on level 0
	ef       int // of inserts
	seed     uint64
	capacity int

	links0   []uint32 // row i at [i*m0, (i+1)*m0)
	upperOff []uint32 // row i has blocks [upperOff[i], upperOff[i+1]): one a level above 0
	upper    []uint32 // block b at [b*m, (b+1)*m)
	twins    []uint32 // see hnsw_twins.go; nil: there are none
	sorted   bool     // chains of twins are in the order of their rows, but for the first of each

	claimed []uint64      // rows whose insert has begun
	ready   []uint64      // rows whose insert is complete; nil: all of them
	rows    atomic.Int64  // how many are complete
	running atomic.Int64  // inserts under way
	zero    atomic.Uint32 // Cosine: the row of length 0 in the graph, plus 1
	entry   atomic.Uint64 // where searches start: (level+1)<<32 | row; 0: nowhere

	top   sync.Mutex   // held by an insert that makes a new top level; before locks
	locks []sync.Mutex // of the lists, by row modulo their number; nil: read only
}

// NewHNSW returns an empty index over base, which has room for Capacity rows of
// Dim values and stays the caller's. The values of a row are written before its
// Insert and never after. Errors have class Invalid.
func NewHNSW(o HNSWOptions, base []float32) (*HNSW, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if len(base)/o.Dim < o.Capacity {
		return nil, errclass.New(errclass.Invalid, "HNSW: base has %d values: want %d rows of %d", len(base), o.Capacity, o.Dim)
	}
	words := (o.Capacity + 63) / 64
	h := &HNSW{
		space:    space{kern: *o.Kernels, metric: o.Metric, dim: o.Dim, base: base},
		m:        o.M,
		m0:       2 * o.M,
		ef:       o.EfConstruction,
		seed:     o.Seed,
		capacity: o.Capacity,
		links0:   make([]uint32, o.Capacity*2*o.M),
		upperOff: make([]uint32, o.Capacity+1),
		twins:    make([]uint32, o.Capacity),
		claimed:  make([]uint64, words),
		ready:    make([]uint64, words),
		locks:    make([]sync.Mutex, lockStripes),
	}
	if o.Metric == Cosine {
		h.inv = make([]float32, o.Capacity)
	}
	blocks := uint32(0)
	for row := range o.Capacity {
		blocks += uint32(levelOf(uint32(row), o.Seed, o.M))
		h.upperOff[row+1] = blocks
	}
	h.upper = make([]uint32, int(blocks)*o.M)
	return h, nil
}

// levelOf draws the top level of a row: level l or more with probability M^-l.
// It depends on nothing else, so the memory of the upper levels is laid out
// before the first insert and needs no allocator.
func levelOf(row uint32, seed uint64, m int) int {
	x := mix(seed + mix(uint64(row)+0x9e3779b97f4a7c15))
	level := 0
	for bar := ^uint64(0) / uint64(m); x < bar && level < maxLevel; bar /= uint64(m) {
		level++
	}
	return level
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Len is the number of rows that searches can find.
func (h *HNSW) Len() int { return int(h.rows.Load()) }

// Capacity is the number of rows there can be.
func (h *HNSW) Capacity() int { return h.capacity }

// Dim is the number of values of a vector.
func (h *HNSW) Dim() int { return h.dim }

// Metric is how near is measured.
func (h *HNSW) Metric() Metric { return h.metric }

// Bytes is the memory of the graph, without the vectors. That of an index
// opened from an image is part of the image.
func (h *HNSW) Bytes() int64 {
	return 4*int64(len(h.links0)+len(h.upperOff)+len(h.upper)+len(h.twins)+len(h.inv)) +
		8*int64(len(h.claimed)+len(h.ready)+len(h.locks))
}

// list returns the links of a row on a level; nil if the row does not reach it.
// Nothing in an image is trusted to be within bounds.
func (h *HNSW) list(row uint32, level int) []uint32 {
	if level == 0 {
		return h.links0[int(row)*h.m0:][:h.m0]
	}
	block := int(h.upperOff[row]) + level - 1
	if block >= int(h.upperOff[row+1]) || (block+1)*h.m > len(h.upper) {
		return nil
	}
	return h.upper[block*h.m:][:h.m]
}

// level is the top level of a row.
func (h *HNSW) level(row uint32) int {
	return int(h.upperOff[row+1]) - int(h.upperOff[row])
}

// isReady reports whether the insert of row is complete.
func (h *HNSW) isReady(row uint32) bool {
	return h.ready == nil || atomic.LoadUint64(&h.ready[row>>6])>>(row&63)&1 != 0
}

// start returns the row and level where walks begin; ok is false while there is none.
func (h *HNSW) start() (row uint32, level int, ok bool) {
	e := h.entry.Load()
	return uint32(e), int(e>>32) - 1, e != 0
}

// gather writes the linked rows that were not seen yet to s.ids, marks them as
// seen, and returns how many they are. Whether a row is new is as good as
// random, so nothing branches on it.
func (h *HNSW) gather(links []uint32, s *Scratch) int {
	n, ids, seen := 0, s.ids, s.seen.words
	s.seen.torn = true
	for i := range links {
		link := atomic.LoadUint32(&links[i])
		if link == 0 {
			break
		}
		row := link - 1
		if int(row) >= h.capacity || n >= len(ids) {
			break // only a damaged image has such links
		}
		word := &seen[row>>6]
		old := *word
		*word = old | 1<<(row&63)
		ids[n] = row
		n += int(^(old >> (row & 63)) & 1)
	}
	s.seen.touched, s.seen.torn = append(s.seen.touched, ids[:n]...), false
	return n
}

// poolKey orders the pool by distance and row and leaves the low bit, which
// says that a row's links were followed.
func poolKey(distance float32, row uint32) uint64 { return vec.Key(distance, row<<1) }

func poolRow(key uint64) uint32 { return uint32(key) >> 1 }

func poolDistance(key uint64) float32 { return vec.Unkey(key).Distance }

// descend walks greedily from the start down to level `to`, and returns the
// nearest row found there.
func (h *HNSW) descend(q []float32, scale float32, row uint32, from, to int, s *Scratch) (uint32, float32) {
	s.ids[0] = row
	h.byID(q, scale, s.ids[:1], s.dist)
	s.stats.Distances++
	best := vec.Key(s.dist[0], row)
	for level := from; level > to; level-- {
		for moved := true; moved; {
			moved = false
			n := 0
			links := h.list(uint32(best), level)
			for i := range links {
				link := atomic.LoadUint32(&links[i])
				if link == 0 {
					break
				}
				if int(link-1) < h.capacity {
					s.ids[n] = link - 1
					n++
				}
			}
			h.byID(q, scale, s.ids[:n], s.dist)
			s.stats.Distances += n
			s.stats.Hops++
			for i, id := range s.ids[:n] {
				if key := vec.Key(s.dist[i], id); key < best {
					best, moved = key, true
				}
			}
		}
	}
	return uint32(best), vec.Unkey(best).Distance
}

// walk explores a level from s.pool on, keeping the ef nearest rows in it,
// sorted. The rows of the pool are marked as seen already.
func (h *HNSW) walk(q []float32, scale float32, level, ef int, s *Scratch) {
	pool := s.pool
	for at := 0; at < len(pool); {
		if pool[at]&1 != 0 {
			at++
			continue
		}
		pool[at] |= 1
		n := h.gather(h.list(poolRow(pool[at]), level), s)
		if at+1 < len(pool) { // likely the next one
			vec.Prefetch(h.list(poolRow(pool[at+1]), level))
		}
		h.byID(q, scale, s.ids[:n], s.dist)
		s.stats.Distances += n
		at++
		for i, id := range s.ids[:n] {
			key := poolKey(s.dist[i], id)
			if len(pool) >= ef {
				if key >= pool[ef-1] {
					continue
				}
				pool = pool[:ef-1]
			}
			pos := insertAt(pool, key)
			pool = append(pool, 0)
			copy(pool[pos+1:], pool[pos:])
			pool[pos] = key
			at = min(at, pos)
		}
		if s.stats.Hops++; s.stats.Hops&15 == 0 && s.stopped() {
			break
		}
	}
	s.pool = pool
}

// insertAt returns the place of key in the sorted pool, without branches that
// the processor would guess wrong half of the time.
func insertAt(pool []uint64, key uint64) int {
	lo, n := 0, len(pool)
	for n > 0 {
		half := n >> 1
		_, less := bits.Sub64(pool[lo+half], key, 0)
		mask := -int(less)
		lo += (half + 1) & mask
		n = half + (n-2*half-1)&mask
	}
	return lo
}
