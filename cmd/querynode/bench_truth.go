package main

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// noRow is where a search found fewer rows than were wanted.
const noRow = math.MaxUint32

// truth says how near a row must be to be one of the k nearest.
type truth struct {
	last   []float64 // by query: distance of the last of the k nearest
	wanted []int     // by query: rows that there are
}

// exactDistance is computed in float64, so that it tells near rows apart.
func exactDistance(m index.Metric, q, row []float32) float64 {
	var sum, qq, rr float64
	for i, a := range q {
		a, b := float64(a), float64(row[i])
		if m == index.L2 {
			sum += (a - b) * (a - b)
			continue
		}
		sum, qq, rr = sum+a*b, qq+a*a, rr+b*b
	}
	switch {
	case m == index.IP:
		return -sum
	case m == index.Cosine && qq > 0 && rr > 0:
		return 1 - sum/math.Sqrt(qq*rr)
	case m == index.Cosine:
		return 1
	}
	return sum
}

// recall counts the rows found that are as near as the last of the nearest.
func (t *truth) recall(x *indexBench, found []uint32) float64 {
	k := x.cmd.TopK
	hits, wanted := 0, 0
	for q := range x.queries.rows() {
		rows := found[q*k : (q+1)*k]
		slices.Sort(rows)
		slack := 1e-6 * max(math.Abs(t.last[q]), 1e-9)
		if x.metric == index.Cosine {
			slack = 1e-6
		}
		n := 0
		for i, r := range rows {
			if r != noRow && (i == 0 || rows[i-1] != r) && (x.allowed == nil || x.allowed.Has(int(r))) &&
				exactDistance(x.metric, x.queries.row(q), x.base.row(int(r))) <= t.last[q]+slack {
				n++
			}
		}
		hits, wanted = hits+min(n, t.wanted[q]), wanted+t.wanted[q]
	}
	return float64(hits) / float64(max(wanted, 1))
}

// findTruth makes the filter, and reads or computes the nearest rows.
func (x *indexBench) findTruth(ctx context.Context) error {
	if s := x.cmd.FilterShare; s > 0 && s < 1 {
		x.fig.Share, x.fig.Shape, x.fig.New = s, x.cmd.FilterShape, x.cmd.FilterNew
		x.allowed = x.filter(s)
	}
	n := x.queries.rows()
	x.truth = &truth{last: make([]float64, n), wanted: make([]int, n)}
	rows := x.fig.Rows
	if x.allowed != nil {
		rows = x.allowed.Count()
	}
	k := min(x.cmd.TopK, rows)
	var near func(q int) []int64
	if x.cmd.Truth != "" {
		t, err := readTruth(x.cmd.Truth)
		if err != nil {
			return err
		}
		if len(t.rows)/t.k < n || t.k < k {
			return usage(errors.Newf("--truth has %d neighbours of %d queries, want at least %d of %d", t.k, len(t.rows)/t.k, k, n))
		}
		x.fig.Truth = "file"
		near = func(q int) []int64 { return t.of(q, k) }
	} else {
		rows, err := x.exact(ctx, k)
		if err != nil {
			return err
		}
		near = func(q int) []int64 { return rows[q] }
	}
	for q := range n {
		last := math.Inf(-1)
		for _, r := range near(q) {
			if r < 0 || r >= int64(x.fig.Rows) {
				return usage(errors.Newf("--truth: query %d has row %d, there are %d rows", q, r, x.fig.Rows))
			}
			last = max(last, exactDistance(x.metric, x.queries.row(q), x.base.row(int(r))))
		}
		x.truth.last[q], x.truth.wanted[q] = last, k
	}
	return nil
}

// filter allows a share of the rows.
func (x *indexBench) filter(share float64) *bitset.Set {
	n := x.fig.Rows
	want := max(1, int(math.Round(share*float64(n))))
	set := bitset.New(n)
	rng := rand.New(rand.NewPCG(7, 11))
	order := rng.Perm(n)
	if x.cmd.FilterShape == "clustered" {
		centre := x.base.row(rng.IntN(n))
		away := make([]float64, n)
		for i := range n {
			away[i] = exactDistance(x.metric, centre, x.base.row(i))
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case away[a] < away[b]:
				return -1
			case away[a] > away[b]:
				return 1
			}
			return 0
		})
	}
	for _, r := range order[:want] {
		set.Add(r)
	}
	return set
}

// filters returns what gives each search of a worker its filter. One that is new differs in the bits behind the
// last row, which no row has: what it allows is the same.
func (x *indexBench) filters() func() *bitset.Set {
	if x.allowed == nil || !x.cmd.FilterNew {
		return func() *bitset.Set { return x.allowed }
	}
	words := (x.fig.Rows + 63) / 64
	set := bitset.New(64 * (words + 1))
	copy(set.Words(), x.allowed.Words())
	return func() *bitset.Set {
		set.Words()[words] = x.met.Add(1)
		return set
	}
}

// truthBlock is the number of rows that all queries are compared with before the
// next ones are read from memory.
const truthBlock = 2048

// exact finds the k nearest allowed rows of each query. A few more are taken by
// float32 distances, and the nearest of them by exact ones.
func (x *indexBench) exact(ctx context.Context, k int) ([][]int64, error) {
	bar := x.out.Bar("exact search", int64(x.fig.Rows), console.Rows)
	defer bar.Fail()
	n := x.queries.rows()
	tops := make([]vec.TopK, n)
	for i := range tops {
		tops[i].Reset(k + 32)
	}
	var inv []float32
	if x.metric == index.Cosine {
		inv = make([]float32, x.fig.Rows)
	}
	for from := 0; from < x.fig.Rows; from += truthBlock {
		if err := ctx.Err(); err != nil {
			return nil, errors.Wrap(err, "exact search")
		}
		to := min(from+truthBlock, x.fig.Rows)
		for r := from; r < to && inv != nil; r++ {
			inv[r] = x.kernels.InvNorm(x.base.row(r))
		}
		var next atomic.Int64
		if err := inParallel(ctx, x.cmd.Threads, func(int) {
			out := make([]float32, to-from)
			for q := int(next.Add(1) - 1); q < n; q = int(next.Add(1) - 1) {
				x.offer(q, from, out, inv, &tops[q])
			}
		}); err != nil {
			return nil, err
		}
		bar.Set(int64(to))
	}
	bar.Done()
	near := make([][]int64, n)
	for q := range near {
		type candidate struct {
			row      int64
			distance float64
		}
		var all []candidate
		for _, c := range tops[q].AppendSorted(nil) {
			all = append(all, candidate{int64(c.Row), exactDistance(x.metric, x.queries.row(q), x.base.row(int(c.Row)))})
		}
		slices.SortStableFunc(all, func(a, b candidate) int {
			if a.distance < b.distance {
				return -1
			}
			if a.distance > b.distance {
				return 1
			}
			return 0
		})
		for _, c := range all[:min(k, len(all))] {
			near[q] = append(near[q], c.row)
		}
	}
	return near, nil
}

// offer compares one query with the rows from, from+1, ...
func (x *indexBench) offer(q, from int, out, inv []float32, top *vec.TopK) {
	rows := x.base.values[from*x.base.dim : (from+len(out))*x.base.dim]
	if x.metric == index.L2 {
		x.kernels.L2Rows(x.queries.row(q), rows, x.base.dim, out)
	} else {
		x.kernels.DotRows(x.queries.row(q), rows, x.base.dim, out)
		for i := range out {
			out[i] = -out[i]
			if inv != nil {
				out[i] *= inv[from+i]
			}
		}
	}
	if x.allowed == nil {
		top.PushRun(uint32(from), out)
		return
	}
	for i, d := range out {
		if x.allowed.Has(from + i) {
			top.Push(uint32(from+i), d)
		}
	}
}
