package segments

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

const (
	// listsAfter is the number of rows from which a growing segment gets lists: a
	// scan of fewer takes as long.
	listsAfter = 512
	// listsGrowth is how many times the rows there were have to come before
	// everything is learnt anew, with more lists.
	listsGrowth = 2
	// listRows is how many rows there are for each list when lists are begun.
	listRows  = 64
	mostLists = 1024
	// sampleRows is how many rows at least are learnt from, if there are so many,
	// and sampleBytes the memory they may take.
	sampleRows  = 2048
	sampleBytes = 16 << 20
	// lloydTurns is how often middles are moved to the middle of their rows.
	lloydTurns = 5
	// cosineQueries is how many rows of the sample ask for their cosineNear nearest
	// to learn the cosine of near rows, of which cosineShare is covered.
	cosineQueries = 64
	cosineNear    = 10
	cosineShare   = 0.99
	// coarseRecall is the percentage of the sample's near rows that codes have to
	// find.
	coarseRecall = 97

	// looseLoss is how many times the average loss by rounding may be lost because a
	// row is out of the codes' reach; rows that lose more are loose. If one row of
	// looseShare is loose, everything is learnt anew.
	looseLoss  = 4
	looseShare = 8
	// mostSquare is the square of the length from which a row is loose too: what is added up of several
	// has to be a number.
	mostSquare = 1e34
)

// listsBytes is the memory that n more rows take.
func (c *byteCodes) listsBytes(n int) int64 { return int64(n) * int64(4*c.quads+8) }

// trainLists learns from the first n rows. No row is in a list yet.
func (v *growingVectors) trainLists(n int) *growingLists {
	lists := min(max(n/listRows, 1), mostLists)
	sample := v.sampleRows(n, min(n, max(sampleRows, 32*lists)))
	x := &growingLists{metric: v.metric, trained: n, codes: trainCodes(v.kernels, v.dim, sample)}
	var w assigner
	middles := v.trainMiddles(sample, lists, &w)
	x.middles = newCentres(v.kernels, v.dim, middles)
	if v.metric != index.IP {
		x.borders = v.bordersOf(x.middles, middles)
	}
	v.learnNear(x, sample, &w)
	x.coarse = v.coarse(x.codes, sample)
	st := &listsState{lists: make([]codeList, x.middles.n)}
	for i := range st.lists {
		st.lists[i].near = float32(math.Inf(1))
	}
	x.state.Store(st)
	return x
}

// sampleRows copies some of the first n rows, of length 1 if that is how they are
// compared: one by lot of each run of them, as rows of several kinds may come by turns.
func (v *growingVectors) sampleRows(n, some int) []float32 {
	some = max(1, min(some, sampleBytes/4/v.dim))
	base, out, rng := v.data(), make([]float32, 0, some*v.dim), rand.New(rand.NewPCG(2, uint64(n)))
	for i := range some {
		from, to := i*n/some, (i+1)*n/some
		row := from + rng.IntN(max(to-from, 1))
		out, _ = v.appendUnit(out, base[row*v.dim:][:v.dim])
	}
	if len(out) == 0 {
		out = make([]float32, v.dim)
	}
	return out
}

// appendUnit appends a row as it is compared, unless its length is no number, or too much to add up.
func (v *growingVectors) appendUnit(units, row []float32) ([]float32, bool) {
	at := len(units)
	units = append(units, row...)
	if v.metric == index.Cosine {
		v.kernels.Normalize(units[at:], row)
	}
	if square := v.kernels.Dot(units[at:], units[at:]); !(square <= mostSquare) {
		return units[:at], false
	}
	return units, true
}

// trainMiddles clusters the sample (Lloyd's algorithm).
func (v *growingVectors) trainMiddles(sample []float32, lists int, w *assigner) []float32 {
	dim, n := v.dim, len(sample)/v.dim
	lists = min(lists, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	middles := make([]float32, 0, lists*dim)
	for _, row := range rng.Perm(n)[:lists] {
		middles = append(middles, sample[row*dim:][:dim]...)
	}
	counts := make([]int, lists)
	for range lloydTurns {
		x := newCentres(v.kernels, dim, middles)
		clear(counts)
		sums := make([]float32, len(middles))
		x.assign(sample, w, func(row, list int, _ float32) {
			counts[list]++
			for d, y := range sample[row*dim:][:dim] {
				sums[list*dim+d] += y
			}
		})
		for l, count := range counts {
			if count == 0 {
				copy(middles[l*dim:][:dim], sample[rng.IntN(n)*dim:])
				continue
			}
			for d := range dim {
				middles[l*dim+d] = sums[l*dim+d] / float32(count)
			}
		}
	}
	return middles
}

// learnNear learns where near rows are: which cosine they have at most, seen from the middle of
// the list that one of them is in, and how much of the way to them leads straight beyond borders.
func (v *growingVectors) learnNear(x *growingLists, sample []float32, w *assigner) {
	n := len(sample) / v.dim
	lists, own := make([]int, n), make([]float32, n)
	x.middles.assign(sample, w, func(row, list int, square float32) { lists[row], own[row] = list, square })
	queries := min(cosineQueries, n)
	all := len(x.middles.bias)
	z, sums := make([]int8, kernelQueries*4*x.middles.codes.quads), make([]int32, kernelQueries*all)
	near := &nearSample{v: v, sample: sample, dist: make([]float32, n), k: cosineNear}
	var cosines, ways []float32
	for i := range queries {
		row := i * n / queries
		q := sample[row*v.dim:][:v.dim]
		aff := x.middles.distances(q, z, sums)
		norm := v.kernels.Norm(q)
		home, nearest := x.middles.home(sums[:all], aff)
		for _, f := range near.of(row, q) {
			l := lists[f.Row]
			if x.borders != nil {
				beyond := float32(sums[l])*aff.Scale + x.middles.bias[l] - nearest
				ways = append(ways, x.borders.way(home, l, beyond, f.Distance))
			}
			middle := x.middles.bias[l]
			square, r := max(float32(sums[l])*aff.Scale+aff.Base+middle, 0), own[f.Row]
			c := float64(square+r-f.Distance) / (2 * math.Sqrt(float64(square*r)))
			if v.metric == index.IP {
				product := (norm*norm + middle - square) / 2
				c = float64(-f.Distance-product) / math.Sqrt(float64(norm*norm*r))
			}
			if c == c {
				cosines = append(cosines, float32(min(max(c, 0), 1)))
			}
		}
	}
	if x.cosine = 1; len(cosines) > 0 {
		slices.Sort(cosines)
		x.cosine = cosines[int(cosineShare*float64(len(cosines)-1))]
	}
	if len(ways) == 0 {
		x.borders = nil
		return
	}
	x.borders.learn(ways)
}

// coarse reports whether near rows are lost among those whose codes are as near:
// where some lie much nearer to each other than the codes' steps are wide.
func (v *growingVectors) coarse(c *byteCodes, sample []float32) bool {
	dim, n := v.dim, len(sample)/v.dim
	rounded := slices.Clone(sample)
	c.round(rounded)
	exact := &nearSample{v: v, sample: sample, dist: make([]float32, n), k: cosineNear}
	by := &nearSample{v: v, sample: rounded, dist: make([]float32, n), k: listRank(cosineNear)}
	queries, found, all := min(cosineQueries, n), 0, 0
	for i := range queries {
		row := i * n / queries
		q := sample[row*dim:][:dim]
		near := by.of(row, q)
		for _, f := range exact.of(row, q) {
			all++
			if slices.ContainsFunc(near, func(o vec.Neighbor) bool { return o.Row == f.Row }) {
				found++
			}
		}
	}
	return found*100 < coarseRecall*all
}

// nearSample finds what is near a row of a sample.
type nearSample struct {
	v      *growingVectors
	sample []float32
	dist   []float32
	k      int
	top    vec.TopK
	found  []vec.Neighbor
}

// of returns the k rows nearest to q, which is a row, without that one. Their
// distances are squares, or the products' negatives.
func (s *nearSample) of(row int, q []float32) []vec.Neighbor {
	dim := s.v.dim
	if s.v.metric == index.IP {
		s.v.kernels.DotRows(q, s.sample, dim, s.dist)
		for r := range s.dist {
			s.dist[r] = -s.dist[r]
		}
	} else {
		s.v.kernels.L2Rows(q, s.sample, dim, s.dist)
	}
	s.top.Reset(s.k + 1)
	s.top.PushRun(0, s.dist)
	s.found = s.top.AppendSorted(s.found[:0])
	return slices.DeleteFunc(s.found, func(f vec.Neighbor) bool { return int(f.Row) == row })
}

// listWriter puts rows into lists. It is the builder's.
type listWriter struct {
	assigner
	units []float32
	rows  []uint32 // of units
	code  []byte
}

// add puts rows [from, to) into x and publishes them.
func (v *growingVectors) add(x *growingLists, from, to int, w *listWriter) error {
	if err := x.memory.Grow(x.codes.listsBytes(to - from)); err != nil {
		return err
	}
	old := x.state.Load()
	st := &listsState{rows: to, loose: old.loose, lists: slices.Clone(old.lists)}
	st.loose = append(st.loose, v.take(from, to, w)...)
	fresh := make(map[int]*panel, min(len(w.rows), len(st.lists)))
	x.middles.assign(w.units, &w.assigner, func(i, l int, square float32) {
		bias, lost := x.codes.encode(w.code, w.units[i*v.dim:][:v.dim])
		if lost > looseLoss*x.codes.loss {
			st.loose = append(st.loose, w.rows[i])
			return
		}
		if v.metric != index.L2 {
			bias = 0
		}
		list := &st.lists[l]
		p := fresh[l]
		if p == nil {
			p = list.last.copy(x.codes.panelBytes())
			fresh[l], list.last = p, p
		}
		p.put(w.code, bias, w.rows[i])
		r := float32(math.Sqrt(float64(square)))
		list.near, list.far = min(list.near, r), max(list.far, r)
		if p.n == vec.PanelRows {
			list.flush()
			delete(fresh, l)
		}
	})
	x.state.Store(st)
	return nil
}

// take readies rows [from, to) in w, and returns those that no list takes.
func (v *growingVectors) take(from, to int, w *listWriter) (loose []uint32) {
	w.units, w.rows = grown(w.units, (to-from)*v.dim)[:0], w.rows[:0]
	w.code = grown(w.code, v.dim)
	base := v.data()
	for row := from; row < to; row++ {
		var ok bool
		if w.units, ok = v.appendUnit(w.units, base[row*v.dim:][:v.dim]); ok {
			w.rows = append(w.rows, uint32(row))
		} else {
			loose = append(loose, uint32(row))
		}
	}
	return loose
}

// put adds a row.
func (p *panel) put(code []byte, bias float32, row uint32) {
	vec.PutPanel(p.codes, p.n, code)
	p.bias[p.n], p.rows[p.n] = bias, row
	p.n++
}

// flush moves the last panel, which is full, to the others.
func (l *codeList) flush() {
	l.codes = append(l.codes, l.last.codes...)
	l.bias = append(l.bias, l.last.bias[:]...)
	l.rows = append(l.rows, l.last.rows[:]...)
	l.last = nil
}

// copy returns a panel of so many bytes with what p has; p may be nil.
func (p *panel) copy(size int) *panel {
	c := &panel{codes: make([]byte, size)}
	if p != nil {
		copy(c.codes, p.codes)
		c.n, c.bias, c.rows = p.n, p.bias, p.rows
		return c
	}
	for i := range c.bias {
		c.bias[i] = float32(math.Inf(1))
	}
	return c
}
