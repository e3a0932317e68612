package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// Of ranking.
const (
	weighStep = 4
	// So many candidates are put in order at once: most are never weighed.
	weighSort = 32
	// weighDoubt is how many standard deviations of the estimates' errors a
	// candidate may have to gain. Where short codes err by more now and then, more are
	// allowed for by searches that read so many lists that this would be most of what they miss.
	weighDoubt = 3.0
	// mostDoubt is the most there is: whatever is to gain is found.
	mostDoubt = 4.5
	// doubtFrom and doubtTo are the parts of the lists that are read by default at which a search
	// begins to have more doubt, and has as much as is worth it.
	doubtFrom, doubtTo = 1.0, 2.5
)

// doubtOf is the doubt of a search that reads so many lists for the ten nearest rows.
func (x *ivf) doubtOf(lists int) float64 {
	if x.pq == nil || x.doubt <= weighDoubt {
		return weighDoubt
	}
	part := math.Log(float64(lists)/(doubtFrom*float64(x.effort))) / math.Log(doubtTo/doubtFrom)
	return weighDoubt + (x.doubt-weighDoubt)*min(max(part, 0), 1)
}

// rank computes fine distances of the candidates, the most promising first,
// until none of the others is likely to be among the k nearest.
func (x *ivf) rank(vector []float32, p *plan, c *candidates, s *Scratch) []Neighbor {
	return x.rankRest(vector, p, c, x.rankFirst(p, c, s), s)
}

// ranking is how far the ranking of candidates has come.
type ranking struct {
	step, next int // how many are weighed first, and after that
	sorted     int // how many are the best, in order but for those that are weighed first
}

// rankFirst asks for the fine codes of the most promising candidates.
func (x *ivf) rankFirst(p *plan, c *candidates, s *Scratch) ranking {
	// By short codes, three times as many as wanted are always weighed.
	r := ranking{step: p.k + weighStep, next: weighStep}
	if p.short {
		r.step, r.next = 2*p.k+3*weighStep, 2*weighStep
	}
	if r.step+weighStep <= scanChunk {
		// All of these are weighed, in whatever order.
		r.step = firstFew(x.kern, c.keys, r.step)
		x.askPlaces(c.keys[:r.step], s)
		if r.sorted = r.step; r.step < min(len(c.keys), c.want) {
			// While they are on their way, those that may be weighed next are put in order.
			r.sorted = sortNext(x.kern, c.keys, r.sorted, r.step+r.next)
		}
		x.askRows(c.keys[:r.step], s)
	}
	return r
}

// rankRest is rank for candidates with which rankFirst has begun.
func (x *ivf) rankRest(vector []float32, p *plan, c *candidates, r ranking, s *Scratch) []Neighbor {
	scale, depth := x.scale(vector), min(len(c.keys), c.want)
	step, next, sorted := r.step, r.next, r.sorted
	if x.fine.exists() {
		x.fine.prepare(vector, &s.fine)
	}
	s.top.Reset(p.k)
	var sum, squares, count float64
	for from := 0; from < depth; step = next {
		if from+step > sorted {
			sorted = sortNext(x.kern, c.keys, sorted, from+step)
		}
		keys := c.keys[from:min(from+min(step, scanChunk), len(c.keys))]
		if from > p.k {
			mean := sum / count
			doubt := p.doubt * math.Sqrt(max(squares/count-mean*mean, 0))
			if p.allowed != nil {
				// The best of many far rows are those whose estimates err most.
				mean = min(mean, 0)
			}
			if float64(vec.Unkey(keys[0]).Distance)+mean-doubt > float64(s.top.Bound()) {
				break
			}
		}
		if from += len(keys); from < depth {
			x.askRows(c.keys[from:min(from+next, sorted)], s)
		}
		ids := s.ids[:0]
		for _, key := range keys {
			if row := x.ids[uint32(key)]; int(row) < x.n {
				ids = append(ids, row)
			}
		}
		x.fine.refine(&x.space, vector, scale, ids, s.dist, s)
		s.stats.Distances += len(ids)
		s.stats.Ranked += len(ids)
		s.top.PushAll(ids, s.dist[:len(ids)])
		for i, d := range s.dist[:len(ids)] {
			e := float64(d - vec.Unkey(keys[i]).Distance)
			sum, squares, count = sum+e, squares+e*e, count+1
		}
	}
	return x.ranked(vector, p, s)
}

// askPlaces asks for the rows of candidates, by number.
func (x *ivf) askPlaces(keys []uint64, s *Scratch) {
	places := s.ivf.rows[:min(len(keys), len(s.ivf.rows))]
	for i := range places {
		places[i] = uint32(keys[i])
	}
	x.kern.PrefetchRows(raw(x.ids), 4, 1, places, 0)
}

// askRows asks for the fine codes of candidates.
func (x *ivf) askRows(keys []uint64, s *Scratch) {
	rows := s.ivf.rows[:min(len(keys), len(s.ivf.rows))]
	for i := range rows {
		rows[i] = x.ids[uint32(keys[i])]
	}
	x.fine.ask(rows)
}

// firstFew moves about n of the smallest keys to the front, n at least if there are so
// many, and returns how many.
func firstFew(kern vec.Kernels, keys []uint64, n int) int {
	if len(keys) <= n+weighStep {
		return len(keys)
	}
	return partitionAbout(kern, keys, n, n+weighStep)
}

// sortNext puts keys in order as far as want at least, where the first ones are
// already, and returns how far.
func sortNext(kern vec.Kernels, keys []uint64, sorted, want int) int {
	to := min(max(want, sorted+weighSort), len(keys))
	rest := keys[sorted:]
	if to < len(keys) {
		partition(kern, rest, to-sorted)
	}
	kern.Sort(rest[:to-sorted])
	return to
}
