package index

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Of the choice of how many lists are read by default.
const (
	calibrateK       = 10
	calibrateRecall  = 0.96
	calibrateQueries = 128
	calibrateSlow    = 2e9 // products, where all rows are looked at
	calibrateStep    = 16
)

// calibrate finds out how many lists hold most of the nearest rows of some rows,
// which stand for queries.
func (b *ivfBuilder) calibrate() error {
	b.effort = b.lists.n
	n := min(b.n, calibrateQueries)
	if n < 2 {
		return nil
	}
	if b.bytes == nil || b.kern.Level() != vec.AVX512 {
		n = min(n, max(calibrateSlow/(b.n*b.dim), calibrateStep))
	}
	rows := make([]uint32, n)
	for i := range rows {
		rows[i] = uint32((2*i + 1) * b.n / (2 * n))
	}
	// Of each neighbour of a row: how many lists are nearer to the row than the
	// neighbour's.
	var mu sync.Mutex
	var ranks []int
	nearest := make([][]Neighbor, n)
	err := parallel(b.ctx, b.o.Workers, n, calibrateStep, func() func(from, to int) error {
		var s Scratch
		vectors := make([]float32, 0, calibrateStep*b.dim)
		place := make([]int, b.lists.n)
		return func(from, to int) error {
			vectors = vectors[:0]
			for _, row := range rows[from:to] {
				vectors = append(vectors, b.vector(row)...)
			}
			near := nearest[from:to]
			b.exact(vectors, &s, func(i int, found []Neighbor) { near[i] = slices.Clone(found) })
			for i, found := range near {
				b.normalise(vectors[i*b.dim:][:b.dim], &s)
				b.nearestLists(&plan{lists: b.lists.n}, &s)
				b.order(b.lists.n, &s)
				for j, l := range s.ivf.lists {
					place[l] = j
				}
				mu.Lock()
				for _, f := range found {
					if f.Row != rows[from+i] {
						ranks = append(ranks, place[b.list[f.Row]])
					}
				}
				mu.Unlock()
			}
			return nil
		}
	})
	if err != nil || len(ranks) == 0 {
		return err
	}
	slices.Sort(ranks)
	most := ranks[min(int(calibrateRecall*float64(len(ranks))), len(ranks)-1)]
	b.effort = min(2+most+most/10, b.lists.n) // queries are no rows
	b.efforts, err = b.measure(b.strangers(rows, nearest))
	return err
}

// strangers returns vectors that are no rows, but as near to rows as rows are to one another:
// each of some rows, moved as far as its neighbours are from one another, by what lies between two. A row would
// be nearer to the centre of its list, which it is a part of, than a query is. For IP
// neighbours are no measure of what is near, and the rows themselves are returned.
func (b *ivfBuilder) strangers(rows []uint32, nearest [][]Neighbor) []float32 {
	out := make([]float32, 0, len(rows)*b.dim)
	for i, row := range rows {
		v := append(out, b.vector(row)...)[len(out):]
		out = out[:len(out)+b.dim]
		near := slices.DeleteFunc(slices.Clone(nearest[i]), func(n Neighbor) bool { return n.Row == row })
		if len(near) < 2 || b.metric == IP {
			continue
		}
		from, to := b.vector(near[i%len(near)].Row), b.vector(near[(i+1+i/len(near)%(len(near)-1))%len(near)].Row)
		for d := range v {
			v[d] += (to[d] - from[d]) * math.Sqrt2 / 2
		}
	}
	return out
}

// measure finds out how many lists find how much of what is nearest to some vectors, and
// how much doubt that takes.
func (b *ivfBuilder) measure(vectors []float32) (efforts, error) {
	n := len(vectors) / b.dim
	nearest := make([][]Neighbor, n)
	each := func(do func(s *Scratch, from, to int)) error {
		return parallel(b.ctx, b.o.Workers, n, calibrateStep, func() func(from, to int) error {
			var s Scratch
			return func(from, to int) error {
				do(&s, from, to)
				return nil
			}
		})
	}
	err := each(func(s *Scratch, from, to int) {
		b.exact(vectors[from*b.dim:to*b.dim], s, func(i int, found []Neighbor) { nearest[from+i] = slices.Clone(found[:min(calibrateK, len(found))]) })
	})
	if err != nil {
		return efforts{}, err
	}
	share := func(effort int) (float64, error) {
		var found, all atomic.Int64
		err := each(func(s *Scratch, from, to int) {
			for i := from; i < to; i++ { // one by one, for which codes are shorter than in batches
				got := b.Search(vectors[i*b.dim:][:b.dim], &Query{K: calibrateK, Effort: effort}, s)
				found.Add(int64(shared(nearest[i], got)))
				all.Add(int64(len(nearest[i])))
			}
		})
		return float64(found.Load()) / float64(max(all.Load(), 1)), err
	}
	if err := b.measureDoubt(share); err != nil {
		return efforts{}, err
	}
	least, err := b.leastLists(vectors, each)
	if err != nil {
		return efforts{}, err
	}
	e, found, err := measureEfforts(least, b.lists.n, share)
	b.found = found
	return e, err
}

// Of the least number of lists that are read.
const (
	leastMost  = 32
	leastShare = 0.95
)

// leastLists is how many lists have enough candidates for most of some vectors, leastMost at most. Where fewer are read a search begins anew with
// four times as many, and again, which takes longer: long rows are in lists of a few.
func (b *ivfBuilder) leastLists(vectors []float32, each func(do func(s *Scratch, from, to int)) error) (int, error) {
	need := make([]int, len(vectors)/b.dim)
	err := each(func(s *Scratch, from, to int) {
		for i := from; i < to; i++ {
			s.begin(0)
			p := b.plan(&Query{K: calibrateK, Effort: leastMost}, s)
			b.normalise(vectors[i*b.dim:][:b.dim], s)
			b.nearestLists(&p, s)
			b.order(p.lists, s)
			rows := 0
			for _, l := range s.ivf.lists {
				if need[i]++; need[i] == leastMost {
					break
				}
				for _, row := range b.ids[int(b.first[l])*vec.PanelRows : int(b.first[l+1])*vec.PanelRows] {
					if row != noRow {
						rows++
					}
				}
				if rows >= p.enough {
					break
				}
			}
		}
	})
	if err != nil || len(need) == 0 {
		return 1, err
	}
	slices.Sort(need)
	return min(max(need[int(leastShare*float64(len(need)-1))], 1), b.lists.n), nil
}

// Of the measuring of doubt.
const (
	doubtLists = 4      // times the lists that are read by default, of which little is missed
	doubtMiss  = 0.0005 // what may be missed for want of doubt; of so few vectors, nothing
	doubtLeast = 3.5    // is worth it wherever little is to be missed
	doubtStep  = 0.5
)

// measureDoubt finds the least doubt that misses hardly more than the most does.
func (b *ivfBuilder) measureDoubt(shareAt func(effort int) (float64, error)) error {
	if b.pq == nil {
		return nil
	}
	effort := min(doubtLists*b.effort, b.lists.n)
	b.doubt = mostDoubt
	most, err := shareAt(effort)
	if err != nil {
		return err
	}
	for b.doubt = doubtLeast; b.doubt < mostDoubt; b.doubt += doubtStep {
		if share, err := shareAt(effort); err != nil || share >= most-doubtMiss {
			return err
		}
	}
	return nil
}

// shared is how many rows are in both.
func shared(a, b []Neighbor) (n int) {
	for _, x := range a {
		if slices.ContainsFunc(b, func(y Neighbor) bool { return x.Row == y.Row }) {
			n++
		}
	}
	return n
}

// exact finds the nearest of all rows, or nearly so, of each of the vectors.
func (b *ivfBuilder) exact(vectors []float32, s *Scratch, found func(i int, rows []Neighbor)) {
	q := &Query{K: calibrateK + 1, Effort: b.lists.n}
	if b.bytes != nil && b.kern.Level() == vec.AVX512 {
		b.SearchBatch(vectors, q, s, found)
		return
	}
	for i := range len(vectors) / b.dim {
		s.begin(0)
		found(i, b.scanAll(vectors[i*b.dim:][:b.dim], &plan{k: min(q.K, b.n)}, s))
	}
}
