package main

import (
	"context"
	"math"
	"os"
	"runtime/pprof"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/index"
)

// readFigures is what a query reads of one kind.
type readFigures struct {
	What  string   `json:"what"`
	Count float64  `json:"reads_per_query"`
	Bytes int      `json:"bytes"` // of a read
	Area  int64    `json:"area_bytes"`
	NS    *float64 `json:"ns,omitempty"` // of a read with nothing to compute
}

// effortFigures is what a query at one recall does, in the mean over all.
type effortFigures struct {
	Rows    float64       `json:"rows_per_query"`    // whose codes, or vectors where there are none, are compared
	Ranked  float64       `json:"ranked_per_query"`  // that are compared once more, by longer codes or vectors
	Vectors float64       `json:"vectors_per_query"` // float32 vectors that are read
	Hops    float64       `json:"hops_per_query"`    // rows followed, lists read
	Bytes   float64       `json:"bytes_per_query"`
	Reads   []readFigures `json:"reads"`
	Bound   *float64      `json:"bound_qps,omitempty"`      // if a query did nothing but these reads
	Share   *float64      `json:"share_of_bound,omitempty"` // the measured QPS, one query a call
}

// count notes what searches at an effort do.
func (x *indexBench) count(ctx context.Context, effort int) (*effortFigures, error) {
	if _, err := x.pass(ctx, effort, nil); err != nil {
		return nil, err
	}
	n, t := float64(x.queries.rows()), x.stats
	per := func(v int) float64 { return math.Round(10*float64(v)/n) / 10 }
	e := &effortFigures{Ranked: per(t.Ranked), Vectors: per(t.Exact), Hops: per(t.Hops)}
	for _, r := range index.ReadsOf(x.search, x.queries.rows(), t) {
		e.Bytes += float64(r.Count) * float64(r.Size) / n
		e.Reads = append(e.Reads, readFigures{What: r.What, Count: per(r.Count), Bytes: r.Size, Area: r.Area})
		if r.What == "vectors" {
			e.Vectors = per(r.Count)
		}
	}
	if e.Rows = per(t.Distances); t.Codes > 0 {
		e.Rows = per(t.Codes)
	}
	e.Bytes = math.Round(e.Bytes)
	return e, nil
}

// bounds measures how long the reads take that searches make, on as many goroutines,
// if that is all they do.
func (x *indexBench) bounds(ctx context.Context) (err error) {
	if !x.cmd.Bound || x.allowed != nil {
		return nil
	}
	most := int64(1)
	for _, e := range x.fig.Work {
		for _, r := range e.Reads {
			most = max(most, r.Area, int64(r.Bytes))
		}
	}
	p, err := newProbe(x.kernels, int(min(most, probeMost)), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, p.free()) }()
	for k, e := range x.fig.Work {
		total := 0.0
		for i := range e.Reads {
			r := &e.Reads[i]
			ns, err := p.read(ctx, r.Bytes, int(min(r.Area, probeMost)), x.cmd.Threads)
			if err != nil {
				return err
			}
			total += r.Count * ns
			ns = tenth(ns)
			r.NS = &ns
		}
		if total > 0 {
			bound := math.Round(1e9 * float64(x.cmd.Threads) / total)
			e.Bound = &bound
			if q := x.fig.QPS[k]; q != nil {
				share := round3(*q / bound)
				e.Share = &share
			}
		}
	}
	return nil
}

// showWork writes what a query does.
func (x *indexBench) showWork() {
	t := &console.Table{Title: "A query, one a call", Columns: []console.Column{console.Right("recall"), console.Right("rows"), console.Right("ranked"),
		console.Right("hops"), console.Right("vectors"), console.Right("KiB read"), console.Right("QPS if it only read"), console.Right("part of that")}}
	for _, k := range x.settings() {
		e := x.fig.Work[k]
		if e == nil {
			continue
		}
		bound, share := "-", "-"
		if e.Bound != nil && e.Share != nil {
			bound, share = console.Count(int64(*e.Bound)), strconv.FormatFloat(*e.Share, 'f', 2, 64)
		}
		t.Add(k, e.Rows, e.Ranked, e.Hops, e.Vectors, tenth(e.Bytes/1024), bound, share)
	}
	x.out.Table(t)
}

// profiled runs fn and writes a processor profile of it, if one is asked for.
func (x *indexBench) profiled(fn func() error) (err error) {
	if x.cmd.CPUProfile == "" {
		return fn()
	}
	f, err := os.Create(x.cmd.CPUProfile)
	if err != nil {
		return errors.Wrap(err, "--cpu-profile")
	}
	defer func() { err = errors.CombineErrors(err, f.Close()) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Wrap(err, "--cpu-profile")
	}
	defer pprof.StopCPUProfile()
	return fn()
}
