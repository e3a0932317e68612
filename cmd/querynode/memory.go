package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/querynode/querynode/segments"
)

// memoryInterval is how often the ledger hears what is really in use, and memoryPause
// how soon again when much has been taken meanwhile.
const (
	memoryInterval = time.Second
	memoryPause    = 20 * time.Millisecond
)

// watchMemory reconciles the ledger with the memory of the process, leaves the
// Go heap what others do not take, since growing vectors are outside of it, and has
// garbage swept before it is taken for memory that is in use. used is memoryInUse.
func watchMemory(ctx context.Context, l *segments.Ledger, limit int64, s *sweeper, used func() (process, goBytes int64)) error {
	own := os.Getenv("GOMEMLIMIT") == "" // else somebody else has set it
	pace := os.Getenv("GOGC") == ""
	collector := newCollector()
	rest, swept := unaccounted{left: math.MaxInt64, at: time.Now()}, false
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	for {
		process, goBytes := used()
		l.Observe(process, limit)
		now := time.Now()
		if rest.observe(now, process, l.Total(), swept); rest.sweepable(now, process, limit, l.Starved()) {
			s.ask(process > limit)
		}
		swept = false
		if own {
			collector.keepBelow(heapLimit(limit, process-goBytes))
		}
		if pace {
			collector.keepTo(gcPercent(limit, liveHeap()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			continue
		case <-s.swept:
			swept = true
			continue
		case <-l.Moved():
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(memoryPause):
		}
	}
}

// memoryInUse is what the process has, and what of it Go has.
func memoryInUse() (process, goBytes int64) {
	goBytes = goMemory()
	return max(anonymousMemory(), goBytes), goBytes
}

// collector sets what the collector of garbage goes by. Each setting stops all
// goroutines for a moment, so what is nearly in force already is not set again.
type collector struct {
	setPercent func(int) int
	setLimit   func(int64) int64
	percent    int   // in force
	limit      int64 // in force
}

func newCollector() *collector {
	const usual = 100 // what Go starts with
	return &collector{setPercent: debug.SetGCPercent, setLimit: debug.SetMemoryLimit, percent: usual, limit: math.MaxInt64}
}

// keepTo sets by how much the heap may grow, unless that is about what it is.
func (c *collector) keepTo(percent int) {
	if by := percent - c.percent; max(by, -by) > c.percent/16 {
		c.percent = percent
		c.setPercent(percent)
	}
}

// keepBelow sets the limit of the heap, unless that is about what it is.
func (c *collector) keepBelow(limit int64) {
	if by := limit - c.limit; max(by, -by) > c.limit/64 {
		c.limit = limit
		c.setLimit(limit)
	}
}

// heapLimit is what the Go heap may take of the limit when others take so much. It
// never gets so small that collecting garbage is all that is done.
func heapLimit(limit, others int64) int64 { return max(limit-others, limit/4) }

// gcPercent is by how much the heap may grow over what is live before garbage is
// collected. A node whose data is in mapped files has little that is live and would
// collect several times a second; 1/16 of its limit, at most 128 MiB, is left to
// garbage instead.
func gcPercent(limit, live int64) int {
	const usual, most, spare = 100, 1000, 128 << 20
	return int(max(usual, min(most, 100*min(limit/16, spare)/max(live, 1))))
}

// liveHeap is what the last collection of garbage left.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64())
}

// goMemory is the memory that the Go runtime has from the system.
func goMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 || s[1].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
