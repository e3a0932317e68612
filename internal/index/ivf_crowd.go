package index

import (
	"math"
	"math/bits"
)

// A filter's rows may be anywhere, or near one another: those of a category, of a time, of a place. Queries are
// then far from most of them, or at their rim, and the nearest that are allowed are nearly as far as
// many others, in many lists. Which it is shows in how crowded the lists are that have allowed
// rows, whatever the query. How many of these have to be met for 0.95 of the nearest ten is much
// the same for queries amid them, at their rim and far away, and grows with the root of their number.

// Of filters whose rows are near one another.
const (
	// crowdNone is how crowded lists are up to which rows are as good as anywhere, and crowdAll from which
	// on they are near one another: how many times as many allowed rows an allowed row has
	// in its list as there would be if they were anywhere.
	crowdNone, crowdAll = 1.2, 2.7
	// crowdRows times the root of their number is how many are met of rows that are near one
	// another, and crowdShare the part of all rows of which there are no more to meet: of so many,
	// most queries are amid them.
	crowdRows, crowdShare = 11, 0.05
	// crowdRecall is what these are enough for.
	crowdRecall = 0.95
	// crowdMore is how many times the rows are met at least that would be if they were anywhere.
	crowdMore = 2.2
	// crowdSample is how many allowed rows tell how crowded lists are, and crowdLeast how many have to. They
	// are looked for all over the filter crowdPasses times.
	crowdSample, crowdLeast, crowdPasses = 512, 64, 4
)

// crowdTarget is how many allowed rows a search meets whose filter has lists this crowded, if it would meet some
// were the rows anywhere; 0 if they are.
func (p *plan) crowdTarget(crowd float64, x *ivf) int {
	part := min(max((crowd-crowdNone)/(crowdAll-crowdNone), 0), 1)
	if part == 0 {
		return 0
	}
	far := p.more * p.deep * crowdRows * math.Sqrt(min(float64(p.selected), crowdShare*float64(x.n)))
	far = max(far, crowdMore*float64(p.expect), float64(p.target))
	return p.target + int(part*(far-float64(p.target)))
}

// crowdOfFilter is how crowded the lists are that have rows which a filter allows. Where that is not to be told, because there
// is no table yet, or no memory for one, they are taken for crowded: that finds as much, and takes longer.
func (x *ivf) crowdOfFilter(p *plan, s *Scratch) float64 {
	if p.marks != nil {
		return p.marks.crowd
	}
	if of := x.listOf(); of != nil {
		return x.crowdBySample(p.allowed, of, s)
	}
	return crowdAll
}

// crowdOf is how crowded the lists are of which counts rows are allowed.
func (x *ivf) crowdOf(counts []uint32) float64 {
	rows, pairs := 0.0, 0.0
	for _, c := range counts {
		rows, pairs = rows+float64(c), pairs+float64(c)*(float64(c)-1)
	}
	return crowded(rows, pairs, x.evenly())
}

// crowded is how crowded lists are in which so many rows have so many others in their lists, where a
// row has a part of all rows in its list.
func crowded(rows, pairs, even float64) float64 {
	if rows < 2 || even == 0 {
		return 1
	}
	return pairs / (rows * (rows - 1)) / even
}

// evenly is the part of all rows that is in the list of a row.
func (x *ivf) evenly() float64 {
	all, squares := 0.0, 0.0
	for l := range x.lists.n { // lists are not all as long
		size := float64(x.first[l+1] - x.first[l])
		all, squares = all+size, squares+size*size
	}
	return squares / max(all*all, 1)
}

// crowdBySample is about how crowded the lists of allowed rows are; 1 if these are too few to tell.
func (x *ivf) crowdBySample(words []uint64, of *rowList, s *Scratch) float64 {
	words = words[:min(x.n/64, len(words))]
	counts := grown(s.ivf.counts, x.lists.n)
	s.ivf.counts = counts
	clear(counts)
	rows, pairs := 0, 0
	cells, l := min(crowdSample*crowdPasses, len(words)), lot(1)
	for pass := 0; pass < crowdPasses && rows < crowdSample; pass++ {
		for cell := pass; cell < cells; cell += crowdPasses {
			from, to := cell*len(words)/cells, (cell+1)*len(words)/cells
			w := from + l.below(to-from)
			set := words[w]
			if set == 0 {
				continue
			}
			// Not always the first: it may be that of each run of rows that came together.
			turn := l.below(64)
			bit := (bits.TrailingZeros64(bits.RotateLeft64(set, -turn)) + turn) & 63
			c := &counts[of.list[w<<6+bit]]
			rows, pairs = rows+1, pairs+2*int(*c)
			*c++
		}
	}
	if rows < crowdLeast {
		return 1
	}
	return crowded(float64(rows), float64(pairs), of.even)
}
