package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

const (
	// rankMore is how many rows are ranked at first, above those wanted, and
	// rankStep how many between two looks at whether more are worth it.
	rankMore = 3
	rankStep = 4
	// rankSure is how many deviations of the codes' error a row must be behind for
	// it not to be, and rankSurer how many more for each time that twice as many rows
	// are kept, above rankMany times those wanted: who pays for a long walk is not to
	// miss what it has met. With 2.5 for all, 0.002 to 0.005 were missed whatever the effort.
	rankSure, rankSurer, rankMany = 2.5, 0.75, 6
	// rankExact is what rankSure is for KindHNSW: who names it expects what a walk on vectors finds.
	rankExact = 4
)

// sure is how many deviations a row must be behind where so many are kept and k wanted.
func (g *sqGraph) sure(kept, k int) float64 {
	sure := rankSure
	if g.exact {
		sure = rankExact
	}
	if more := float64(kept) / (rankMany * float64(k)); more > 1 {
		sure += rankSurer * math.Log2(more)
	}
	return sure
}

// rank returns the k nearest of the rows in keys by their fine codes. Keys
// are sorted by distance by code; allowed (nil: all) tells which twins count. It
// goes on until no row left is likely to be nearer: how far the codes are off is
// learnt from the rows ranked before.
func (g *sqGraph) rank(vector []float32, sq *sqQuery, keys []uint64, k int, allowed []uint64, s *Scratch) []Neighbor {
	scale := g.scale(vector)
	off := deviation{sure: g.sure(len(keys), k)}
	if g.fine.exists() {
		// While they are on their way, the query is readied for them.
		g.askRows(keys[:min(len(keys), k+rankMore)], s)
		g.fine.prepare(vector, &s.fine)
		off.known, off.zero = s.fine.usable, float64(g.estimate(sq.add+float32(s.fine.add)))
	}
	s.top.Reset(k)
	s.twinSteps = 0
	want := k + rankMore
	for at := 0; at < len(keys); {
		n, taken := 0, 0
		for ; at < len(keys) && taken < want; at++ {
			by := g.estimate(vec.Unkey(keys[at]).Distance)
			equal := 0 // rows taken of those that are equal, which follow one another
			for row, ok := uint32(keys[at]), true; ok; {
				if equal < k && (allowed == nil || has(allowed, row)) {
					if n == len(s.dist) {
						g.weigh(vector, scale, n, &off, s)
						n = 0
					}
					s.ids[n], s.dist2[n] = row, by
					n, taken, equal = n+1, taken+1, equal+1
				}
				if !g.equalNext(row) {
					equal = 0
				}
				row, ok = g.follow(row, s)
			}
		}
		g.weigh(vector, scale, n, &off, s)
		if at == len(keys) || s.top.Full() && float64(g.estimate(vec.Unkey(keys[at]).Distance)) > float64(s.top.Bound())+off.most() {
			break
		}
		want = rankStep
	}
	return g.take(k, s)
}

// askRows asks for the fine codes of the rows in keys, as many as s.ids has room for.
func (g *sqGraph) askRows(keys []uint64, s *Scratch) {
	ids := s.ids[:min(len(keys), len(s.ids))]
	for i := range ids {
		ids[i] = uint32(keys[i])
	}
	g.fine.ask(ids)
}

// weigh computes fine distances of the first n of s.ids, whose codes say s.dist2, for s.top.
func (g *sqGraph) weigh(vector []float32, scale float32, n int, off *deviation, s *Scratch) {
	ids, dist := s.ids[:n], s.dist[:n]
	g.fine.refine(&g.space, vector, scale, ids, dist, s)
	s.stats.Ranked += n
	s.top.PushAll(ids, dist)
	for i, d := range dist {
		off.add(float64(s.dist2[i] - d))
	}
}

func (g *sqGraph) take(k int, s *Scratch) []Neighbor {
	s.out = s.top.AppendSorted(s.out[:0])
	s.out = s.out[:min(k, len(s.out))]
	return s.out
}

// deviation is a running mean and spread (Welford, 1962) of what codes say too much.
type deviation struct {
	n, mean, m2 float64
	sure        float64 // how many deviations are likely at most
	zero        float64 // what codes say too little without being off
	known       bool    // that zero is known
}

func (d *deviation) add(x float64) {
	d.n++
	by := x - d.mean
	d.mean += by / d.n
	d.m2 += by * (x - d.mean)
}

// most is how much a code is likely to say too much. The rows seen are those that
// codes took for the nearest: if codes say too little of them, that need not be so of
// others, and spread is what they are off in either direction.
func (d *deviation) most() float64 {
	square := d.m2 / max(d.n-1, 1)
	if by := d.mean + d.zero; d.known && by < 0 {
		return d.sure*math.Sqrt(square+by*by) - d.zero
	}
	return d.mean + d.sure*math.Sqrt(square)
}
