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
	// crowdNear is how many times the lists are read that would be without a filter, for queries amid rows that are near one
	// another: these may be harder to tell apart than most, and little is allowed besides them that would make up for it. crowdFew is one of
	// how many rows is allowed at most for this to be so; of more, as many are read as without a filter. crowdAmid is the part of the rows of
	// these lists that is allowed at least where a query is amid them.
	crowdNear, crowdFew, crowdAmid = 1.5, 11, 0.4
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

// goAmid sets how many lists are read at least where a query turns out to be amid the allowed rows.
func (p *plan) goAmid(x *ivf) {
	p.amid = p.near
	if p.selected*crowdFew <= x.n {
		p.amid = int(math.Ceil(crowdNear * float64(p.near)))
	}
	p.amid, p.share = min(p.amid, x.lists.n), crowdAmid*float64(x.n)/float64(x.lists.n)
}

// met reports whether so many lists, with so many allowed rows, are enough of those near a query.
func (p *plan) met(lists, rows int) bool {
	return rows >= p.target && (lists >= p.amid || float64(rows) < p.share*float64(lists))
}

// crowdOfFilter is how crowded the lists are that have rows which a filter allows. Where that is not to be told, because there
// is no table yet, or no memory for one, they are taken for crowded: that finds as much, and takes longer.
func (x *ivf) crowdOfFilter(p *plan, s *Scratch) float64 {
	if p.marks != nil {
		return p.marks.crowd
	}
	of := x.listOf(s)
	if of == nil {
		return crowdAll
	}
	if p.selected*rowsFirst > x.n || !x.fine.exists() {
		return x.crowdBySample(x.sampleLists(p.allowed, of, s), of, s)
	}
	p.rows = x.allRows(p, s)
	return x.crowdBySample(x.drawLists(p.rows, min(crowdSample, len(p.rows)), of, s), of, s)
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

// crowdBySample is about how crowded the lists of allowed rows are by those of some; 1 if these are too few to tell.
func (x *ivf) crowdBySample(lists []uint16, of *rowList, s *Scratch) float64 {
	if len(lists) < crowdLeast {
		return 1
	}
	counts := grown(s.ivf.counts, x.lists.n)
	s.ivf.counts = counts
	clear(counts)
	pairs := 0
	for _, l := range lists {
		pairs += 2 * int(counts[l])
		counts[l]++
	}
	return crowded(float64(len(lists)), float64(pairs), of.even)
}

// sampleLists draws allowed rows and leaves the lists they are in in s.ivf.drawn. It does not branch on what a
// word of the filter is: no processor guesses that.
func (x *ivf) sampleLists(words []uint64, of *rowList, s *Scratch) []uint16 {
	words = words[:min(x.n/64, len(words))]
	cells, l := min(crowdSample*crowdPasses, len(words)), lot(1)
	drawn := grown(s.ivf.drawn, crowdSample+cells/crowdPasses+1)
	rows, n := grown(s.ivf.found, len(drawn)), 0
	s.ivf.drawn, s.ivf.found = drawn[:0], rows
	step := uint64(len(words)) << 32 / uint64(max(cells, 1))
	for pass := 0; pass < crowdPasses && n < crowdSample; pass++ {
		for cell := pass; cell < cells; cell += crowdPasses {
			from, to := int(uint64(cell)*step>>32), int(uint64(cell+1)*step>>32)
			w := from + l.below(to-from)
			// Not always the first: it may be that of each run of rows that came together.
			set, turn := words[w], int(l>>lotMiddle)&63
			rows[n] = uint32(w<<6 + (bits.TrailingZeros64(bits.RotateLeft64(set, -turn))+turn)&63)
			n += int((set | -set) >> 63)
		}
	}
	for _, row := range rows[:n] {
		s.ivf.drawn = append(s.ivf.drawn, of.list[row])
	}
	return s.ivf.drawn
}
