package index

import (
	"math"
	"strconv"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// KindHNSWSQ is a graph walked on 8-bit codes of the vectors, turned to their
// strongest directions where that makes them shorter. What it finds is put in
// order by codes of 12 or 16 bits; see fine.
const KindHNSWSQ Kind = "HNSW_SQ"

// sqGraph is a navigable small world graph, as HNSW is, over records of 8-bit
// codes. It does not change once built, and its memory is the image of it.
//
// A row has a record, and on level 0 a list of m0 links in another array: a walk
// reads the lists of few rows, but the records of many. A link is a row plus one,
// 0 ends a list.
type sqGraph struct {
	space          // the float32 vectors; inv is part of the image
	fine      fine // the same vectors, to rank by
	exact     bool // KindHNSW: there are no fine codes, rows are ranked by the vectors
	code      *coder
	m, m0, ef int
	seed      uint64
	rows      int
	records   []byte
	links0    []uint32 // row i at [i*m0, (i+1)*m0)
	upperOff  []uint32 // row i has blocks [upperOff[i], upperOff[i+1])
	upper     []uint32 // block b at [b*m, (b+1)*m)
	twins     []uint32 // next row with the same code plus 1; nil: there are none
	lists     *sqLists // nil: there are none
	seeded    bool     // walks begin in lists, too
	nearOnly  bool     // and at no other row
	ending    ending
	filters   *filterCache[knownFilter]
	shares    shareTable // what walks find, and how many lists do in place of one
	usual     usualEffort
	likely    float64 // while it is fresh: the effort that found usualRecall in the mean of what was measured; 0: it is not known
	glanced   bool    // first lines of records tell which rows are worth more; false: that is not known, too
	start     uint32  // row where walks begin
	top       int     // level of start; -1: there are no rows
	bytes     int64
	why       string
}

// list returns the links of a row on a level; nothing if it is not there.
func (g *sqGraph) list(row uint32, level int) []uint32 {
	if level == 0 {
		return g.links0[int(row)*g.m0:][:g.m0]
	}
	block := int(g.upperOff[row]) + level - 1
	if at := block * g.m; level > 0 && block < int(g.upperOff[row+1]) && at+g.m <= len(g.upper) {
		return g.upper[at:][:g.m]
	}
	return nil
}

func (g *sqGraph) level(row uint32) int { return int(g.upperOff[row+1]) - int(g.upperOff[row]) }

// Info describes the graph.
func (g *sqGraph) Info() Info {
	info := Info{
		Kind: g.kind(), Metric: g.metric, Dim: g.dim, Rows: g.rows, Bytes: g.bytes, Why: g.why,
		Params: map[string]string{
			"M": strconv.Itoa(g.m), "efConstruction": strconv.Itoa(g.ef),
			"codes": strconv.Itoa(g.code.head), "codes8Bit": strconv.Itoa(g.code.wide), "codeBytes": strconv.Itoa(g.code.stride),
		},
	}
	if !g.exact {
		info.Params["fineBits"] = strconv.Itoa(g.fine.bits)
	}
	if lists := g.shares.find(calibrateK, DefaultEffort(calibrateK)); lists > 0 {
		info.Params["batchLists"] = strconv.Itoa(lists) // read by a batch for the recall of the default effort
	}
	if wanted := g.shares.wanted(); wanted != "" {
		info.Params["recall"] = wanted
	}
	return info
}

func (g *sqGraph) kind() Kind {
	if g.exact {
		return KindHNSW
	}
	return KindHNSWSQ
}

// sqQuery is a query ready for records.
type sqQuery struct {
	halves []int8
	scale  float32
	add    float32 // makes distances from different queries comparable
}

// sqScratch is the part of a Scratch that only searches by code need.
type sqScratch struct {
	coded  *coded
	of     *coder // whose sizes coded has
	halves []int8
}

// prepare readies s for a query. The result is good until the next one.
func (g *sqGraph) prepare(vector []float32, s *Scratch) sqQuery {
	c := g.code
	if s.sq.of != c {
		s.sq = sqScratch{coded: c.newCoded(), of: c, halves: make([]int8, c.queryLen())}
	}
	q := sqQuery{halves: s.sq.halves}
	q.scale, q.add = c.query(vector, s.sq.coded, q.halves)
	return q
}

// estimate turns a distance by code into one of the metric, but for a term that
// is the same for all rows.
func (g *sqGraph) estimate(d float32) float32 {
	if g.metric == Cosine {
		return d / 2
	}
	return d
}

// descend walks greedily from the start down to level `to`, and returns the
// nearest row found there with its distance by code.
func (g *sqGraph) descend(q *sqQuery, to int, s *Scratch) (uint32, float32) {
	s.ids[0] = g.start
	g.code.distances(q, g.records, s.ids[:1], s.dist)
	s.stats.Distances++
	best := vec.Key(s.dist[0], g.start)
	for level := g.top; level > to; level-- {
		for moved := true; moved; {
			moved = false
			n := 0
			links := g.list(uint32(best), level)
			for i := range links {
				row := atomic.LoadUint32(&links[i]) - 1
				if int(row) >= g.rows || n >= len(s.ids) {
					break
				}
				s.ids[n] = row
				n++
			}
			g.fetch(s.ids[:n])
			g.code.distances(q, g.records, s.ids[:n], s.dist)
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

// Search walks the graph, or scans where that is cheaper, and puts what it has
// found in order by the exact distances.
func (g *sqGraph) Search(vector []float32, q *Query, s *Scratch) []Neighbor {
	if len(vector) != g.dim {
		panic(errors.AssertionFailedf("query of %d values in an index of dimension %d", len(vector), g.dim))
	}
	s.begin(g.m0)
	k, ef := g.effort(q)
	if k <= 0 {
		return s.out
	}
	sq := g.prepare(vector, s)
	if q.Allowed != nil || g.scans(ef) {
		return q.within(g.searchWide(vector, &sq, k, ef, q, s))
	}
	g.begin(&s.walk, sq, ef, s)
	s.walk.endBy(g, vector, k, ef, s)
	s.walk.run(g, s)
	return q.within(g.end(vector, &s.walk, k, nil, s))
}

// exactMore is the part of the rows wanted that a walk for KindHNSW keeps more than it is asked to: with an ef of
// little more than these, codes put rows behind others that are farther, and less would be found than by a walk
// on vectors with the same ef. From an ef of three times the rows wanted on, as much is found without.
const exactMore = 0.5

// effort is what a query asks for, within what there is; k is 0 if that is nothing.
func (g *sqGraph) effort(q *Query) (k, ef int) {
	k = min(q.K, g.rows)
	if ef = q.Effort; ef > 0 && g.exact {
		ef += int(math.Ceil(exactMore * float64(k)))
	}
	if ef <= 0 && q.Recall > 0 {
		if q.Allowed == nil || g.lists != nil {
			ef = g.shares.effort(k, float64(q.Recall))
		} else {
			ef = g.shares.filtered(k, float64(q.Recall))
		}
	}
	if ef <= 0 {
		ef = graphEffort(k, q.Recall)
		if q.Recall <= 0 {
			ef = g.usual.of(ef, q.Allowed != nil && g.lists == nil)
		}
	}
	return k, min(max(ef, k), g.rows)
}

// scans reports whether an unfiltered search for ef rows is no plain walk.
func (g *sqGraph) scans(ef int) bool {
	return ef > poolMost || g.cheaperToScan(g.rows, ef)
}

// end ranks what a walk has found; allowed (nil: all) tells which twins count.
func (g *sqGraph) end(vector []float32, w *sqWalk, k int, allowed []uint64, s *Scratch) []Neighbor {
	s.stats.Distances += w.distances
	s.stats.Hops += w.hops
	for i, key := range w.pool {
		w.pool[i] = vec.Key(poolDistance(key), poolRow(key))
	}
	return g.rank(vector, &w.q, w.pool, k, allowed, s)
}
