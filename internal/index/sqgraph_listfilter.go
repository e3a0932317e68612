package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// How a search by lists ends.
const (
	// listSure times the logarithm of 1 plus the ef of a walk is how many deviations
	// the rows of a list have to be too far by.
	listSure = 0.6
	// listLeast times ef rows are looked at at least: where a filter cuts through the first lists,
	// these tell little of the others.
	listLeast = 4
)

// Of searches whose filter allows rows that are near to one another: how many times as much effort they make, and
// how many times as much as by lot the lists that were read differ in how many of their rows are allowed.
const listUneven, listUnevenFrom = 2, 3

// How many lists are put in order at first: listFirst, and listShare for each row of
// which one is allowed.
const (
	listFirst, listShare = 24, 12
	listPicks            = 64 // centres that tell how near so many lists are
	listSpans            = 64
)

// listMost is the part of the rows from which on a walk through disallowed ones is as good.
const listMost = 0.7

// What reading lists costs, in nanoseconds: whatever they are, for each that there is,
// for each that is read, for each row looked at, here as in a scan, and for each of a list, allowed or not, of which
// it is not known which are; and about how many
// rows are looked at for an ef of 1, of all and of fewer.
const (
	listFixed, listKnown, listRead, listRow = 4000, 2.5, 40, 8
	listLink                                = 0.9
	listLooks, listPower                    = 35, 0.3
)

// scansAllowed reports whether c allowed rows are scanned sooner than the lists near
// a query are read.
func (g *sqGraph) scansAllowed(c, ef int) bool {
	n, share := float64(g.lists.n), float64(c)/float64(max(g.rows, 1))
	looks := listLooks * float64(ef) * math.Pow(share, listPower)
	reads := min(n, n*looks/float64(max(c, 1)))
	return listRow*float64(c) <= listFixed+listKnown*n+listRead*reads+listRow*looks
}

// Of what is read.
const (
	listChunk = 256 // rows that are waited for at most
	listWait  = 32  // and before they are looked at
)

// listScratch is what a search by lists works in.
type listScratch struct {
	z      []int8 // the query for the centres
	sums   []int32
	rows   []uint32
	dist   []float32
	bias   []float32  // of centres
	lists  int        // that there are, with rows that are allowed if that is known
	aff    vec.Affine // of sums
	length float32    // what distances of lists are to be multiplied by
	sample []uint64   // distances of some lists
	below  float32    // lists below it have been in near
	near   []uint32   // lists
	by     []float32  // their distances
	ids    []uint32   // rows whose records are on their way
	of     []float32  // distances of their lists
	least  float32    // see listLeast
	sure   float32    // see listSure
	enough float32    // distance of a list from which on none is read
	off    offset     // of rows from their lists
	uneven unevenness // of rows that are allowed among lists
	cands  candidates
	glance glanceScratch
}

func (f *listScratch) bytes() int {
	return cap(f.z) + 4*(cap(f.sums)+cap(f.rows)+cap(f.dist)+cap(f.ids)+cap(f.of)) + 4*(cap(f.near)+cap(f.by)) + 8*(cap(f.sample)+cap(f.cands.keys)) + f.glance.bytes()
}

// codeRank is how many of the rows nearest by code are kept to be ranked, by a search of
// the effort of a walk that keeps ef.
func codeRank(k, ef int) int { return max(k+k/2+16, min(ef, k+poolMost)) }

// collect keeps the nearest of the rows ids by code.
func (g *sqGraph) collect(sq *sqQuery, ids []uint32, s *Scratch) {
	c := &s.lists.cands
	for len(ids) > 0 {
		n := min(len(ids), len(s.dist))
		out := s.dist[:n]
		g.code.distances(sq, g.records, ids[:n], out)
		s.stats.Distances += n
		near := n
		if c.limit < math.MaxFloat32 {
			near = g.kern.Below(ids[:n], out, c.limit)
		}
		for i, id := range ids[:near] {
			c.keys = append(c.keys, vec.Key(out[i], id))
		}
		c.trim(g.kern)
		ids = ids[n:]
	}
}

// collected ranks what collect has kept. Twins are rows of their own there.
func (g *sqGraph) collected(vector []float32, sq *sqQuery, k int, s *Scratch) []Neighbor {
	c := &s.lists.cands
	c.cut(g.kern)
	g.kern.Sort(c.keys)
	if g.twins == nil {
		return g.rank(vector, sq, c.keys, k, nil, s)
	}
	alone := *g
	alone.twins = nil
	return alone.rank(vector, sq, c.keys, k, nil, s)
}

// centreDots readies the search for listsBelow: it compares the query with all centres.
func (g *sqGraph) centreDots(known *knownFilter, s *Scratch) {
	f, c := &s.lists, g.lists.codes
	all := len(c.bias)
	f.z, f.sums = grown(f.z, queriesRoom*4*c.quads), grown(f.sums, queriesRoom*all)
	f.rows, f.dist = grown(f.rows, all), grown(f.dist, all)
	f.aff, f.length = g.forCentres(f.z[:4*c.quads], s)
	g.kern.Panels(f.z, 1, c.quads, c.panels, all/vec.PanelRows, f.sums)
	f.below = float32(math.Inf(-1))
	f.bias, f.lists, f.sample = c.bias, g.lists.n, f.sample[:0]
	if known != nil {
		f.bias, f.lists = known.bias, len(known.some)
	}
	for i := 0; i < f.lists; i += max(f.lists/listPicks, 1) {
		l := i
		if known != nil {
			l = int(known.some[i])
		}
		f.sample = append(f.sample, vec.Key(float32(f.sums[l])*f.aff.Scale+f.aff.Base+c.bias[l], 0))
	}
}

// forCentres writes what stands for the query that was prepared last, in products with
// centres, to z. It returns what makes distances of these, and what those are then to be multiplied by.
func (g *sqGraph) forCentres(z []int8, s *Scratch) (aff vec.Affine, length float32) {
	c := g.lists.codes
	head := s.sq.coded.head[:c.dim]
	if g.metric != IP {
		return c.prepare(g.kern, z, head, L2), 1
	}
	aff, length = c.prepare(g.kern, z, head, IP), 1
	if square := g.kern.Dot(head, head); square > 0 {
		// What a list is nearer than its centre is for a query of length 1.
		length = float32(math.Sqrt(float64(square)))
		aff.Scale, aff.Base = aff.Scale/length, aff.Base/length
	}
	return aff, length
}

// nextLists leaves about want more lists in s.lists.near, nearest first or nearly so,
// and reports whether there are any.
func (g *sqGraph) nextLists(want int, s *Scratch) bool {
	f, all := &s.lists, len(g.lists.codes.bias)
	limit := float32(math.Inf(1))
	if at := want*len(f.sample)/max(f.lists, 1) + 1; at < len(f.sample) {
		partition(g.kern, f.sample, at)
		limit = vec.Unkey(slices.Max(f.sample[:at])).Distance
	}
	n := g.kern.SumsBelow(f.sums[:all], f.bias, f.aff, limit, f.rows, f.dist)
	from := f.below
	f.below = limit
	m, least := 0, float32(math.Inf(1))
	for i, d := range f.dist[:n] {
		f.rows[m], f.dist[m] = f.rows[i], d
		if d >= from && int(f.rows[m]) < g.lists.n {
			least = min(least, d)
			m++
		}
	}
	f.sort(f.rows[:m], f.dist[:m], least, limit)
	return m > 0 || limit < math.MaxFloat32
}

// sort puts lists into f.near by the part of the span from least to limit that their
// distance is in: that is order enough.
func (f *listScratch) sort(lists []uint32, dist []float32, least, limit float32) {
	if limit > math.MaxFloat32 {
		limit = least
		for _, d := range dist {
			limit = max(limit, d)
		}
	}
	var start [listSpans + 1]uint32
	by := listSpans / max(limit-least, 1e-30)
	span := func(d float32) int { return min(max(int((d-least)*by), 0), listSpans-1) }
	for _, d := range dist {
		start[span(d)+1]++
	}
	for i := range listSpans {
		start[i+1] += start[i]
	}
	f.near, f.by = grown(f.near, len(lists)), grown(f.by, len(lists))
	for i, l := range lists {
		at := &start[span(dist[i])]
		f.near[*at], f.by[*at] = l, dist[i]
		*at++
	}
}

// searchLists looks at the allowed rows, c of them, of the lists near the query, until
// it is not likely that those of the next list are among the k nearest: how much nearer
// than its list a row is by code is learnt from the rows before. It ranks as many as a walk of the effort ef, and reads with the
// effort of one of reads. known may be nil.
func (g *sqGraph) searchLists(vector []float32, sq *sqQuery, k, ef, reads, c int, allowed []uint64, known *knownFilter, s *Scratch) []Neighbor {
	f := &s.lists
	f.cands.reset(codeRank(k, ef))
	s.top.Reset(max(k, calibrateK)) // what was measured ends by the farthest of so many: the nearest alone would end far too soon
	f.off, f.enough = offset{}, float32(math.Inf(1))
	f.uneven = unevenness{share: float32(c) / float32(g.rows)}
	f.effort(float64(reads))
	f.ids, f.of = grown(f.ids, listChunk)[:0], grown(f.of, listChunk)
	g.centreDots(known, s)
	want := listFirst + int(listShare*float64(g.rows)/float64(max(c, 1)))
	for ; g.nextLists(want, s); want *= 3 {
		if g.readLists(sq, allowed, known, float64(reads), s) || s.stats.Stopped {
			break
		}
	}
	g.collectFirst(sq, len(f.ids), s)
	if len(f.cands.keys) < min(k, c) && !s.stats.Stopped {
		return g.scanCodes(vector, sq, k, ef, allowed, s) // numbers too large for codes
	}
	return g.collected(vector, sq, k, s)
}

// readLists reads the lists in s.lists.near and reports whether that is enough.
func (g *sqGraph) readLists(sq *sqQuery, allowed []uint64, known *knownFilter, ef float64, s *Scratch) bool {
	f, rows := &s.lists, min(g.rows, 64*len(allowed))
	for i, l := range f.near {
		by := f.by[i] * f.length
		if by > f.enough {
			if f.uneven.met || !f.uneven.is() {
				return true
			}
			// Go on with more effort.
			f.uneven.met = true
			f.effort(listUneven * ef)
			f.enough = s.top.Bound() + f.off.most(f.sure)
			if f.off.n < f.least {
				f.enough = float32(math.Inf(1))
			}
			if by > f.enough {
				return true
			}
		}
		links := g.lists.list(l)
		if known != nil {
			some := known.rows[known.first[l]:known.first[l+1]]
			f.uneven.learn(len(some), len(links))
			g.await(sq, some, by, s)
		} else {
			if i+2 < len(f.near) {
				vec.Prefetch(g.lists.list(f.near[i+2]))
			}
			f.uneven.learn(g.awaitAllowed(sq, links, rows, allowed, by, s), len(links))
		}
		s.stats.Lists++
		if s.stats.Hops++; s.stats.Hops&15 == 0 && s.stopped() {
			return true
		}
	}
	return false
}

// await asks for the records of the allowed rows of a list at a distance, and looks at
// those that were asked for before.
func (g *sqGraph) await(sq *sqQuery, rows []uint32, by float32, s *Scratch) {
	f := &s.lists
	for len(rows) > 0 {
		n := min(len(rows), listChunk)
		from := g.room(sq, n, s)
		f.ids = append(f.ids, rows[:n]...)
		rows = rows[n:]
		g.awaited(sq, from, by, s)
	}
}

// awaitAllowed is await for those of the rows linked to, below a limit, that are in a set.
func (g *sqGraph) awaitAllowed(sq *sqQuery, links []uint32, rows int, allowed []uint64, by float32, s *Scratch) (found int) {
	f := &s.lists
	for len(links) > 0 {
		part := links[:min(len(links), listChunk)]
		links = links[len(part):]
		from := g.room(sq, len(part), s)
		n := g.kern.Links(part, rows, allowed, true, f.ids[from:from+len(part)])
		f.ids = f.ids[:from+n]
		found += n
		g.awaited(sq, from, by, s)
	}
	return found
}

// room makes room for n rows behind those that are waited for, and returns how many these are.
func (g *sqGraph) room(sq *sqQuery, n int, s *Scratch) int {
	if f := &s.lists; len(f.ids)+n > listChunk {
		g.collectFirst(sq, len(f.ids), s)
	}
	return len(s.lists.ids)
}

// awaited asks for the records of the rows from one on.
func (g *sqGraph) awaited(sq *sqQuery, from int, by float32, s *Scratch) {
	f := &s.lists
	g.fetch(f.ids[from:])
	of := f.of[from:len(f.ids)]
	for j := range of {
		of[j] = by
	}
	if from >= listWait {
		g.collectFirst(sq, from, s)
	}
}

// collectFirst is collect for the first n of the rows that are waited for.
func (g *sqGraph) collectFirst(sq *sqQuery, n int, s *Scratch) {
	f := &s.lists
	if n == 0 {
		return
	}
	ids, out := f.ids[:n], s.dist[:n]
	g.code.distances(sq, g.records, ids, out)
	s.stats.Distances += n
	f.off.learn(out, f.of[:n])
	near := g.kern.Below(ids, out, f.cands.limit)
	bound := s.top.BoundKey()
	for i, id := range ids[:near] {
		key := vec.Key(out[i], id)
		f.cands.keys = append(f.cands.keys, key)
		if key < bound {
			s.top.PushKey(key)
			bound = s.top.BoundKey()
		}
	}
	f.cands.trim(g.kern)
	if s.top.Full() && f.off.n >= f.least {
		f.enough = s.top.Bound() + f.off.most(f.sure)
	}
	rest := copy(f.ids, f.ids[n:])
	copy(f.of, f.of[n:len(f.ids)])
	f.ids = f.ids[:rest]
}

// effort says how much work the search does, as a walk of an ef.
func (f *listScratch) effort(ef float64) {
	f.least, f.sure = float32(listLeast*ef), listSure*float32(math.Log2(1+ef))
}

// unevenness is how unevenly the rows that a filter allows are spread over the lists read.
type unevenness struct {
	share   float32 // of all rows that are allowed
	squares float32 // sum of squares of what lists have more than that share of them
	rows    float32 // allowed or not
	met     bool    // that it is uneven has been taken into account
}

func (p *unevenness) learn(allowed, rows int) {
	more := float32(allowed) - p.share*float32(rows)
	p.squares += more * more
	p.rows += float32(rows)
}

// is reports whether rows are not allowed by lot: those near to one another are, or are not.
func (p *unevenness) is() bool {
	return p.squares > listUnevenFrom*p.share*(1-p.share)*p.rows
}

// offset is a running mean and spread of how much nearer rows are than their lists.
type offset struct{ n, sum, squares float32 }

func (o *offset) learn(rows, lists []float32) {
	var sum, squares [4]float32 // four do not wait for one another
	n := min(len(rows), len(lists)) &^ 3
	lists = lists[:n]
	for i := 3; i < len(lists); i += 4 {
		a, b, c, d := lists[i-3]-rows[i-3], lists[i-2]-rows[i-2], lists[i-1]-rows[i-1], lists[i]-rows[i]
		sum[0], sum[1], sum[2], sum[3] = sum[0]+a, sum[1]+b, sum[2]+c, sum[3]+d
		squares[0], squares[1], squares[2], squares[3] = squares[0]+a*a, squares[1]+b*b, squares[2]+c*c, squares[3]+d*d
	}
	o.n += float32(n)
	o.sum, o.squares = o.sum+sum[0]+sum[1]+sum[2]+sum[3], o.squares+squares[0]+squares[1]+squares[2]+squares[3]
}

// most is how much nearer a row is likely to be at most.
func (o *offset) most(sure float32) float32 {
	mean := o.sum / o.n
	return mean + sure*float32(math.Sqrt(float64(max(o.squares/o.n-mean*mean, 0))))
}
