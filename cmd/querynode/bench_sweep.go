package main

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/lifecycle"
)

// efforts are tried, from small to large.
func efforts() []int {
	var out []int
	for e := 1.0; e <= 20_000; e = max(e+1, e*1.08) {
		out = append(out, int(e))
	}
	return out
}

// warm searches for every query once with the effort that the index chooses.
func (x *indexBench) warm(ctx context.Context) error {
	_, err := x.pass(ctx, 0, nil)
	return err
}

// sweep finds the least effort for each recall and measures it.
func (x *indexBench) sweep(ctx context.Context) error {
	grid := efforts()
	seen := map[int]float64{}
	measured := func(effort int) (float64, error) {
		if r, ok := seen[effort]; ok {
			return r, nil
		}
		r, err := x.recall(ctx, effort)
		seen[effort] = r
		x.out.Notef("effort %d: recall %.4f", effort, r)
		return r, err
	}
	for _, want := range x.cmd.Recall {
		lo, hi := -1, len(grid)
		for step, mid := 0, 8; hi-lo > 1; step++ {
			r, err := measured(grid[mid])
			if err != nil {
				return err
			}
			if r >= want {
				hi = mid
			} else {
				lo = mid
			}
			if hi == len(grid) { // still looking for an upper end: do not start with the dearest
				mid = min(lo+max(1, min(16, (hi-lo)/2)), len(grid)-1)
			} else {
				mid = (lo + hi) / 2
			}
			if lo == len(grid)-1 {
				break
			}
		}
		k := recallKey(want)
		x.fig.QPS[k], x.fig.QPSBatch[k] = nil, nil
		if hi == len(grid) {
			continue
		}
		x.fig.Effort[k], x.fig.Found[k] = grid[hi], seen[grid[hi]]
	}
	if x.cmd.Default {
		r, err := measured(0)
		if err != nil {
			return err
		}
		x.fig.Effort[defaultKey], x.fig.Found[defaultKey] = 0, r
	}
	return x.profiled(func() error { return x.measureAll(ctx) })
}

// defaultKey is in place of a recall where the index chose the effort.
const defaultKey = "default"

// settings are the keys of what is measured, in order.
func (x *indexBench) settings() []string {
	var keys []string
	for _, r := range x.cmd.Recall {
		keys = append(keys, recallKey(r))
	}
	if x.cmd.Default {
		keys = append(keys, defaultKey)
	}
	return keys
}

// measureAll measures the effort found for each recall.
func (x *indexBench) measureAll(ctx context.Context) error {
	for _, k := range x.settings() {
		effort, ok := x.fig.Effort[k]
		if !ok {
			continue
		}
		if err := x.measure(ctx, k, effort); err != nil {
			return err
		}
	}
	return nil
}

// countAll notes what a query does at the effort found for each recall.
func (x *indexBench) countAll(ctx context.Context) (err error) {
	for k, effort := range x.fig.Effort {
		if x.fig.Work[k], err = x.count(ctx, effort); err != nil {
			return err
		}
	}
	return x.bounds(ctx)
}

// measure times one setting, one by one and in batches: the best of three.
func (x *indexBench) measure(ctx context.Context, k string, effort int) error {
	bar := x.out.Bar("measure at recall "+k, 6, console.Steps)
	defer bar.Fail()
	for i := range 3 {
		var took []time.Duration
		q, err := x.timed(ctx, func() error {
			_, err := x.pass(ctx, effort, &took)
			return err
		})
		if err != nil {
			return err
		}
		if best := x.fig.QPS[k]; best == nil || q > *best {
			slices.Sort(took)
			x.fig.QPS[k] = &q
			x.fig.P50[k], x.fig.P99[k] = 1000*quantile(took, 0.5), 1000*quantile(took, 0.99)
		}
		bar.Set(int64(2*i + 1))
		if x.cmd.Batch > 0 {
			q, err := x.timed(ctx, func() error { return x.batches(ctx, effort) })
			if err != nil {
				return err
			}
			if best := x.fig.QPSBatch[k]; best == nil || q > *best {
				x.fig.QPSBatch[k] = &q
			}
		}
		bar.Set(int64(2*i + 2))
	}
	bar.Done()
	return nil
}

// timed repeats a pass over all queries for a while and returns queries a second.
func (x *indexBench) timed(ctx context.Context, pass func() error) (float64, error) {
	start, cpu, busy := time.Now(), cpuTime(), busyTime()
	passes := 0
	for passes == 0 || time.Since(start).Seconds() < x.cmd.Seconds {
		if err := pass(); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, errors.Wrap(err, "measure")
		}
		passes++
	}
	took := time.Since(start)
	if others := (busyTime() - busy - (cpuTime() - cpu)).Seconds() / took.Seconds(); others > x.fig.ForeignCPU {
		x.fig.ForeignCPU = math.Round(100*others) / 100
	}
	return math.Round(float64(passes*x.queries.rows()) / took.Seconds()), nil
}

// inParallel runs fn on n goroutines and waits.
func inParallel(ctx context.Context, n int, fn func(worker int)) error {
	if n == 1 {
		fn(0)
		return nil
	}
	g := lifecycle.NewGroup(ctx, nil)
	var running sync.WaitGroup
	for i := range n {
		running.Add(1)
		if err := g.Go("search", func(context.Context) error {
			defer running.Done()
			fn(i)
			return nil
		}); err != nil {
			running.Done()
			return err
		}
	}
	running.Wait()
	return g.Close(context.WithoutCancel(ctx))
}

// pass searches for each query once. It returns the rows found and notes what the
// searches did, or appends how long each took.
func (x *indexBench) pass(ctx context.Context, effort int, took *[]time.Duration) ([]uint32, error) {
	k := x.cmd.TopK
	var found []uint32
	if took == nil {
		found = make([]uint32, x.queries.rows()*k)
		for i := range found {
			found[i] = noRow
		}
	}
	var next atomic.Int64
	times := make([][]time.Duration, x.cmd.Threads)
	stats := make([]index.Stats, x.cmd.Threads)
	err := inParallel(ctx, x.cmd.Threads, func(worker int) {
		var s index.Scratch
		q, allowed := index.Query{K: k, Effort: effort}, x.filters()
		mine := make([]time.Duration, 0, x.queries.rows())
		last := time.Now()
		for i := int(next.Add(1) - 1); i < x.queries.rows(); i = int(next.Add(1) - 1) {
			q.Allowed = allowed()
			hits := x.search.Search(x.queries.row(i), &q, &s)
			if took == nil {
				for j, h := range hits[:min(len(hits), k)] {
					found[i*k+j] = h.Row
				}
				stats[worker].Add(s.Stats())
				continue
			}
			now := time.Now()
			mine, last = append(mine, now.Sub(last)), now
		}
		times[worker] = mine
	})
	if took != nil {
		*took = append(*took, slices.Concat(times...)...)
		return found, err
	}
	x.stats = index.Stats{}
	for _, s := range stats {
		x.stats.Add(s)
	}
	return found, err
}

// batches searches for each query once, many in a call.
func (x *indexBench) batches(ctx context.Context, effort int) error {
	n, dim := x.queries.rows(), x.queries.dim
	share := min(x.cmd.Batch, (n+x.cmd.Threads-1)/x.cmd.Threads)
	var next atomic.Int64
	if x.scratch == nil {
		x.scratch = make([]index.Scratch, x.cmd.Threads) // reused, as a node does
	}
	return inParallel(ctx, x.cmd.Threads, func(worker int) {
		s := &x.scratch[worker]
		q, allowed := index.Query{K: x.cmd.TopK, Effort: effort}, x.filters()
		for from := int(next.Add(int64(share))) - share; from < n; from = int(next.Add(int64(share))) - share {
			q.Allowed = allowed()
			x.search.SearchBatch(x.queries.values[from*dim:min(from+share, n)*dim], &q, s, func(int, []index.Neighbor) {})
		}
	})
}

// recall is the share of the nearest rows that a pass finds.
func (x *indexBench) recall(ctx context.Context, effort int) (float64, error) {
	found, err := x.pass(ctx, effort, nil)
	if err != nil {
		return 0, err
	}
	return x.truth.recall(x, found), ctx.Err()
}
