package segments

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

const (
	// listChunk is how many panels are multiplied in one go.
	listChunk = 8
	// kernelQueries is how many queries Panels wants room for, where there is one, and
	// how many read a list together at most.
	kernelQueries = 16
	// listQueries is how many queries search lists together at most.
	listQueries = 64
	// listsAtOnce is how many lists a query that is not alone reads at most before it looks
	// which others are still worth it.
	listsAtOnce = 32
	// fewAllowed: where no more than one of so many rows is allowed, these are scanned.
	fewAllowed = 12
)

// listRank is how many rows are looked at exactly, for k that are wanted.
func listRank(k int) int { return k + k/2 + 16 }

// listScratch is what searches of lists work in.
type listScratch struct {
	queries []listQuery
	unit    []float32
	z       []int8 // of all queries
	some    []int8 // of those that are multiplied with the same
	own     []byte // a panel with the code of a query
	code    []byte
	sums    []int32
	hits    []uint32
	dist    []float32
	turns   []listTurn
	member  [kernelQueries][]uint64 // what queries that read a list together have of it
	keys    []uint64                // what queries have of lists
	found   []index.Neighbor
}

// listQuery is one of the queries that search lists together.
type listQuery struct {
	vector []float32
	inv    float32
	aff    vec.Affine
	limit  float32  // rows that are not nearer are of no use
	most   float32  // nor are estimates that are not below it
	below  float32  // what an estimate has to be below in this round
	home   uint32   // the list of rows equal to the query
	own    float32  // their estimate; -Inf = they need not be told from others
	near   vec.TopK // rows by estimate
	lists  []uint64 // by the least distance they may have
	order  []uint64 // of them, those that were not read
	now    []uint64 // of them, those that are read in this round
	spans  [][2]int // of those, in keys
}

// listTurn is the reading of one list for one query.
type listTurn struct {
	list         uint32
	query, place int32 // which of the lists of its round
}

// listSearch is a search of lists under way. It finds for each of several queries the very same
// as for it alone: a list counts if it may have something that is nearer than what those
// before it have, in the query's own order, and of the rows in lists that count the nearest
// by estimate, whatever the order. What tells lists and rows apart is likely, not sure; but rows
// equal to the query are found for sure: their list, its home, always counts, and they are told from
// others whose codes are the same.
type listSearch struct {
	x       *growingLists
	st      *listsState
	q       *nearestQuery // but for the vector
	base    vectors
	sc      *scratch
	n       int         // rows that count
	allowed *bitset.Set // nil = all
	queries []listQuery
}

// searchLists finds rows in lists that are near each of the vectors, listQueries at most,
// among the first n rows. See listSearch.found.
func (sc *scratch) searchLists(x *growingLists, st *listsState, rows vectors, q *nearestQuery, vectors []float32, n int, allowed *bitset.Set) (*listSearch, error) {
	nq, l := len(vectors)/rows.dim, &sc.coded
	for len(l.queries) < nq {
		l.queries = append(l.queries, listQuery{})
	}
	s := &listSearch{x: x, st: st, q: q, base: rows, sc: sc, n: n, allowed: allowed, queries: l.queries[:nq]}
	one := *q
	for i := range s.queries {
		w := &s.queries[i]
		w.vector = vectors[i*rows.dim:][:rows.dim]
		one.vector = w.vector
		inv, err := sc.prepare(&rows, &one)
		if err != nil {
			return nil, err
		}
		w.inv, w.most = inv, float32(math.Inf(1))
		w.near.Reset(listRank(q.k))
	}
	s.base = rows
	s.prepare()
	hops := s.readLists()
	sc.work.note(wayLists, 0, hops)
	if q.stop != nil && q.stop.Load() {
		return nil, q.cut()
	}
	return s, nil
}

// found returns the nearest to a query. The result is valid until the next one.
func (s *listSearch) found(query int) []index.Neighbor {
	sc, l, w, one := s.sc, &s.sc.coded, &s.queries[query], *s.q
	l.found = w.near.AppendSorted(l.found[:0])
	ids := sc.ids[:0]
	for _, f := range l.found {
		ids = append(ids, f.Row)
	}
	for _, row := range s.st.loose {
		if s.counts(row) {
			ids = append(ids, row)
		}
	}
	one.vector = w.vector
	sc.top.Reset(one.k)
	for all := ids; len(all) > 0; {
		sc.ids = all[:min(len(all), scanBlock)]
		out := sc.out[:len(sc.ids)]
		sc.idDistances(&one, w.inv, s.base, out)
		sc.top.PushAll(sc.ids, out)
		all = all[len(sc.ids):]
	}
	sc.ids = ids
	sc.work.note(wayLists, len(ids), 0)
	l.found = sc.top.AppendSorted(l.found[:0])
	return l.found
}

// counts reports whether a row may be found.
func (s *listSearch) counts(row uint32) bool {
	return int(row) < s.n && (s.allowed == nil || s.allowed.Has(int(row)))
}

// prepare sets how far what each list has is from each query at least.
func (s *listSearch) prepare() {
	l, x, nq := &s.sc.coded, s.x, len(s.queries)
	c, all := x.middles.codes, len(x.middles.bias)
	width, coded := 4*c.quads, 4*x.codes.quads
	l.unit = grown(l.unit, s.base.dim)
	l.z = grown(l.z, (nq+kernelQueries)*coded)
	l.some = grown(l.some, kernelQueries*max(width, coded))
	l.sums = grown(l.sums, kernelQueries*max(all, listChunk*vec.PanelRows))
	l.hits, l.dist = grown(l.hits, max(all, listChunk*vec.PanelRows)), grown(l.dist, max(all, listChunk*vec.PanelRows))
	var affs [kernelQueries]vec.Affine
	var norms [kernelQueries]float32
	for from := 0; from < nq; from += kernelQueries {
		some := s.queries[from:min(from+kernelQueries, nq)]
		for i := range some {
			w := &some[i]
			norms[i] = 1
			if x.metric == index.Cosine {
				c.kern.Normalize(l.unit, w.vector)
			} else {
				copy(l.unit, w.vector)
				norms[i] = c.kern.Norm(w.vector)
			}
			affs[i] = c.query(l.some[i*width:][:width], l.unit, index.L2)
			w.aff = x.codes.query(l.z[(from+i)*coded:][:coded], l.unit, x.metric)
			w.own = s.ownEstimate(w.aff, l.z[(from+i)*coded:])
			w.limit = float32(math.Inf(1))
			if limit, ok := s.q.limitOf(from + i); ok {
				w.limit, w.most = limit, limit+x.codes.doubt(w.aff, x.metric, limit, norms[i])
			}
		}
		c.kern.Panels(l.some, len(some), c.quads, x.middles.panels, all/vec.PanelRows, l.sums)
		for i := range some {
			s.rank(&some[i], l.sums[i*all:][:all], affs[i], norms[i])
		}
	}
}

// ownEstimate is the estimate of rows that are equal to the query, which is in unit, by the very
// steps that make it of theirs; -Inf if they are not the nearest, or looked at themselves.
func (s *listSearch) ownEstimate(aff vec.Affine, z []int8) float32 {
	l, c := &s.sc.coded, s.x.codes
	if s.x.metric == index.IP || s.x.coarse {
		return float32(math.Inf(-1))
	}
	l.own, l.code = grown(l.own, c.panelBytes()), grown(l.code, c.dim)
	var bias [vec.PanelRows]float32
	if square, _ := c.encode(l.code, l.unit); s.x.metric == index.L2 {
		bias[0] = square
	}
	vec.PutPanel(l.own, 0, l.code)
	c.kern.Panels(z, 1, c.quads, l.own, 1, l.sums)
	if c.kern.SumsBelow(l.sums[:vec.PanelRows], bias[:], aff, float32(math.Inf(1)), l.hits, l.dist) == 0 || l.hits[0] != 0 {
		return float32(math.Inf(-1)) // no row whose length is no number is in a list
	}
	return l.dist[0]
}

// rank lists the lists that may have something, with the least distance that they may have
// from a query. The home comes before all others.
func (s *listSearch) rank(w *listQuery, sums []int32, aff vec.Affine, norm float32) {
	x, l := s.x, &s.sc.coded
	w.lists = w.lists[:0]
	c, reach := x.middles.codes, x.reach(aff, w.most)
	var b beyond
	off := x.codes.doubt(w.aff, x.metric, 0, norm) // of estimates, which are what a list has to beat
	home, nearest := x.middles.home(sums, aff)
	w.home = uint32(home)
	if s.st.lists[home].some() {
		w.lists = append(w.lists, vec.Key(float32(math.Inf(-1)), w.home))
	}
	if x.borders != nil {
		b = x.borders.from(home, nearest+aff.Base, w.limit, x.borders.lean(s.q), c.borderDoubt(aff), x.metric)
		reach = min(reach, b.square)
	}
	hits := c.kern.SumsBelow(sums, x.middles.bias, aff, reach, l.hits, l.dist)
	for j, i := range l.hits[:hits] {
		list := &s.st.lists[i]
		if i == w.home || !list.some() {
			continue
		}
		behind := float32(math.Inf(-1))
		if x.borders != nil {
			var ok bool
			if behind, ok = b.least(i, l.dist[j]); !ok {
				continue
			}
		}
		square := max(l.dist[j], 0)
		least := x.least(list, square, norm, x.middles.bias[i]) - c.doubt(aff, index.L2, square, norm)
		if least = max(least, behind-off); least < w.most {
			w.lists = append(w.lists, vec.Key(least, i))
		}
	}
	w.order = w.lists
}

// reach is the square of a distance from a middle beyond which no list has anything that
// is nearer than most, wherever in it: whatever |x-c| is, |q-x|² is (1 - cos²) |q-c|² at
// least, of which doubt takes some. Most lists are told by it, without a look at them.
func (x *growingLists) reach(aff vec.Affine, most float32) float32 {
	share := 1 - x.cosine*x.cosine
	if x.metric == index.Cosine {
		share /= 2
	}
	if x.metric == index.IP || !(share > 0) {
		return float32(math.Inf(1))
	}
	// The doubt of a square s is flat + slope √s: share s - slope √s - flat = most.
	c := x.middles.codes
	flat := c.doubt(aff, index.L2, 0, 1)
	slope := c.doubtSlope()
	under := slope*slope + 4*share*(most+flat)
	if under < 0 {
		under = 0 // nothing is as near as that; what is nearest may be looked at
	}
	root := (slope + float32(math.Sqrt(float64(under)))) / (2 * share)
	return 1.001 * root * root
}

// least is how far at least what is near in a list is from a query of length
// norm, whose distance from the middle has the given square, in the metric's terms.
func (x *growingLists) least(l *codeList, square, norm, middle float32) float32 {
	if x.metric == index.IP {
		product := (norm*norm + middle - square) / 2
		return -product - x.cosine*norm*l.far
	}
	along := x.cosine * float32(math.Sqrt(float64(square)))
	by := min(max(along, l.near), l.far)
	d := square + by*by - 2*along*by
	if x.metric == index.Cosine {
		return d / 2
	}
	return d
}

// worth reports whether a list may have something for a query.
func (w *listQuery) worth(list uint64) bool {
	return vec.Unkey(list).Distance < min(w.most, w.near.Bound())
}

// readLists reads the lists that may have something, and returns how many they were for
// all queries.
func (s *listSearch) readLists() (hops int) {
	for i := range s.queries { // the best one first: it tells which others are worth it
		w, first := &s.queries[i], 0
		for j, key := range w.order {
			if key < w.order[first] {
				first = j
			}
		}
		if len(w.order) > 0 {
			w.order[0], w.order[first] = w.order[first], w.order[0]
		}
		w.next(1)
	}
	hops = s.round()
	for i := range s.queries {
		w := &s.queries[i]
		w.order = slices.DeleteFunc(w.order, func(key uint64) bool { return !w.worth(key) })
		slices.Sort(w.order)
	}
	for lists := 1; s.q.stop == nil || !s.q.stop.Load(); lists = min(2*lists, listsAtOnce) {
		if len(s.queries) == 1 { // there is nobody to share with
			lists = 1
		}
		for i := range s.queries {
			s.queries[i].next(lists)
		}
		n := s.round()
		if hops += n; n == 0 {
			break
		}
	}
	return hops
}

// next takes the next lists that are worth it, n at most.
func (w *listQuery) next(n int) {
	n = min(n, len(w.order))
	if i := slices.IndexFunc(w.order[:n], func(key uint64) bool { return !w.worth(key) }); i >= 0 {
		n, w.order = i, w.order[:i] // those behind are farther
	}
	w.now, w.order = w.order[:n], w.order[n:]
	w.spans = grown(w.spans, n)
	w.below = min(w.most, math.Nextafter32(w.near.Bound(), float32(math.Inf(1))))
}

// round reads the lists that the queries have taken, and returns how many are read for
// them: of those that a query has taken it may not need all.
func (s *listSearch) round() (hops int) {
	l := &s.sc.coded
	l.turns, l.keys = l.turns[:0], l.keys[:0]
	for i := range s.queries {
		for j, key := range s.queries[i].now {
			l.turns = append(l.turns, listTurn{uint32(key), int32(i), int32(j)})
		}
	}
	if len(s.queries) > 1 {
		slices.SortFunc(l.turns, func(a, b listTurn) int { return int(a.list) - int(b.list) })
	}
	for turns := l.turns; len(turns) > 0; {
		n := 1
		for n < min(len(turns), kernelQueries) && turns[n].list == turns[0].list {
			n++
		}
		s.readList(turns[:n])
		turns = turns[n:]
	}
	for i := range s.queries {
		w := &s.queries[i]
		for j, list := range w.now {
			if !w.worth(list) {
				w.order = w.order[:0]
				break
			}
			for _, key := range l.keys[w.spans[j][0]:w.spans[j][1]] {
				w.near.PushKey(key)
			}
			hops++
		}
	}
	return hops
}

// readList reads a list for some queries.
func (s *listSearch) readList(turns []listTurn) {
	l, list, width := &s.sc.coded, &s.st.lists[turns[0].list], 4*s.x.codes.quads
	z := l.z[int(turns[0].query)*width:]
	if len(turns) > 1 {
		z = l.some
		for i, t := range turns {
			copy(z[i*width:], l.z[int(t.query)*width:][:width])
		}
	}
	for i := range turns {
		l.member[i] = l.member[i][:0]
	}
	size := s.x.codes.panelBytes()
	for from, panels := 0, len(list.codes)/size; from < panels; from += listChunk {
		n, at := min(listChunk, panels-from), from*vec.PanelRows
		s.readPanels(turns, z, list.codes[from*size:], n, list.bias[at:], list.rows[at:])
	}
	if p := list.last; p != nil {
		s.readPanels(turns, z, p.codes, 1, p.bias[:], p.rows[:])
	}
	for i, t := range turns {
		from := len(l.keys)
		l.keys = append(l.keys, l.member[i]...)
		s.queries[t.query].spans[t.place] = [2]int{from, len(l.keys)}
	}
}

func (s *listSearch) readPanels(turns []listTurn, z []int8, codes []byte, n int, bias []float32, rows []uint32) {
	l, c, count := &s.sc.coded, s.x.codes, n*vec.PanelRows
	s.sc.work.note(wayLists, count*len(turns), 0)
	if s.x.coarse {
		s.readRows(turns, bias[:count], rows)
		return
	}
	c.kern.Panels(z, len(turns), c.quads, codes, n, l.sums)
	for i, t := range turns {
		w, own := &s.queries[t.query], float32(math.Inf(-1))
		below := w.below
		if t.list == w.home {
			own = w.own
			below = max(below, math.Nextafter32(own, float32(math.Inf(1))))
		}
		hits := c.kern.SumsBelow(l.sums[i*count:][:count], bias, w.aff, below, l.hits, l.dist)
		for j, at := range l.hits[:hits] {
			row, d := rows[at], l.dist[j]
			if !s.counts(row) {
				continue
			}
			if d == own && slices.Equal(s.base.base[int(row)*s.base.dim:][:s.base.dim], w.vector) {
				d = float32(math.Inf(-1)) // others with the same code may be many
			}
			l.member[i] = append(l.member[i], vec.Key(d, row))
		}
	}
}

// readRows looks at the rows of panels themselves.
func (s *listSearch) readRows(turns []listTurn, bias []float32, rows []uint32) {
	sc, one := s.sc, *s.q
	sc.ids = sc.ids[:0]
	for i, b := range bias {
		if row := rows[i]; b < float32(math.Inf(1)) && s.counts(row) {
			sc.ids = append(sc.ids, row)
		}
	}
	out := sc.out[:len(sc.ids)]
	for i, t := range turns {
		w := &s.queries[t.query]
		one.vector = w.vector
		sc.idDistances(&one, w.inv, s.base, out)
		for j, row := range sc.ids {
			if out[j] < w.below {
				sc.coded.member[i] = append(sc.coded.member[i], vec.Key(out[j], row))
			}
		}
	}
}
