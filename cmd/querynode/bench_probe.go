package main

import (
	"context"
	"math"
	"math/bits"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

const (
	// probeLine is what processors read memory by.
	probeLine = 64
	// probeMost is the largest memory that is probed: beyond, it makes no difference.
	probeMost = 1 << 30
	// probeRounds is how often a reading is taken; the best counts, since other
	// programs make none of them faster.
	probeRounds = 5
	probeTime   = 12 * time.Millisecond
	// probeAhead is how many reads are asked for at once, as a walk asks for the rows
	// that another one links to.
	probeAhead = 16
)

// probe reads memory as an index does, with nothing to compute: how long that takes is
// the least that a search takes.
type probe struct {
	kernels vec.Kernels
	region  []byte
	free    func() error
}

// newProbe takes n bytes and writes them, so that they are there; huge asks for huge
// pages.
func newProbe(k vec.Kernels, n int, huge bool) (*probe, error) {
	region, free, err := probeRegion(n, huge)
	if err != nil {
		return nil, errors.Wrapf(err, "take %d bytes to read", n)
	}
	for i := 0; i < n; i += probeLine {
		region[i] = byte(i >> 12)
	}
	return &probe{kernels: k, region: region, free: free}, nil
}

// read is how many nanoseconds one of so many goroutines needs for a read of size
// bytes, among the first area bytes, at places that nothing tells beforehand.
func (p *probe) read(ctx context.Context, size, area, threads int) (float64, error) {
	area = min(max(area, size), len(p.region))
	size = min(size, area)
	best := make([]float64, threads)
	err := inParallel(ctx, threads, func(worker int) {
		best[worker] = math.Inf(1)
		r := reader{region: p.region[:area], size: size, seed: uint64(worker+1) * 0x9e3779b97f4a7c15}
		n := max(1, (64<<10)/size)
		for range probeRounds {
			for _, pass := range []func(n int) byte{r.plain, func(n int) byte { return r.asked(p.kernels, n) }} {
				reads, start := 0, time.Now()
				for time.Since(start) < probeTime && ctx.Err() == nil {
					r.sum += pass(n)
					reads += n
				}
				if reads > 0 {
					best[worker] = min(best[worker], float64(time.Since(start).Nanoseconds())/float64(reads))
				}
			}
		}
	})
	sum := 0.0
	for _, ns := range best {
		sum += ns
	}
	return sum / float64(threads), errors.CombineErrors(err, errors.Wrap(ctx.Err(), "probe memory"))
}

// reader reads at random places.
type reader struct {
	region []byte
	size   int
	seed   uint64
	ids    [probeAhead]uint32
	sum    byte // so that nothing is left out
}

// next is the number of a read, of so many.
func (r *reader) next(rows uint64) uint32 {
	r.seed = r.seed*6364136223846793005 + 1442695040888963407
	hi, _ := bits.Mul64(r.seed, rows)
	return uint32(hi)
}

// plain reads n times and leaves it to the processor to read ahead.
func (r *reader) plain(n int) (sum byte) {
	rows := uint64(len(r.region) / r.size)
	for range n {
		sum += touch(r.region[int(r.next(rows))*r.size:][:r.size])
	}
	return sum
}

// asked asks for some reads before it makes them.
func (r *reader) asked(k vec.Kernels, n int) (sum byte) {
	rows := uint64(len(r.region) / r.size)
	lines := (r.size + probeLine - 1) / probeLine
	for n > 0 {
		ids := r.ids[:min(n, probeAhead)]
		for i := range ids {
			ids[i] = r.next(rows)
		}
		k.PrefetchRows(r.region, r.size, lines, ids, 0)
		for _, id := range ids {
			sum += touch(r.region[int(id)*r.size:][:r.size])
		}
		n -= len(ids)
	}
	return sum
}

// touch reads a byte of each line.
func touch(b []byte) (sum byte) {
	for i := 0; i < len(b); i += probeLine {
		sum += b[i]
	}
	return sum + b[len(b)-1]
}
