package pool

import (
	"slices"
	"time"
)

// Stats is the pool at one moment. Counters start at New. Every admitted task
// is in one place: Submitted = Completed + Failed + Panicked + Goexited +
// Expired + Cancelled + Queued + Running.
type Stats struct {
	Workers   int
	QueueLen  int   // bound of Queued
	Queued    int   // admitted, waiting for a worker
	Running   int   // on a worker now
	CostInUse int64 // of queued and running tasks
	MaxCost   int64 // 0 = no bound

	Submitted uint64 // admitted
	Completed uint64 // returned nil
	Failed    uint64 // returned an error
	Panicked  uint64 // panicked or faulted
	Goexited  uint64 // called runtime.Goexit
	Expired   uint64 // admitted, then dropped unrun because the context ended
	Cancelled uint64 // admitted, then dropped unrun because of Close

	Rejected Rejections
	Wait     Histogram     // from admission to the start of Run
	Run      Histogram     // of Run
	MeanRun  time.Duration // moving average, the base of the retry hint; 0 before the first task
}

// Rejections counts tasks that were not admitted, by reason.
type Rejections struct {
	Full    uint64 // no room by count
	Cost    uint64 // no room by cost, or too costly for the whole pool
	Expired uint64 // the context had ended before Submit
	Nested  uint64 // submitted from inside the pool
	Closed  uint64
	Invalid uint64 // no Run, or an unknown lane
}

// Histogram counts durations. Counts[i] is how many were at most Bounds[i] and
// more than the bound before; the last count has no upper bound.
type Histogram struct {
	Counts [len(bounds) + 1]uint64
	Sum    time.Duration
}

var bounds = [...]time.Duration{
	10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond, 300 * time.Microsecond,
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
	100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
}

// Bounds returns the upper bounds of a Histogram's counts, ascending.
func Bounds() []time.Duration { return slices.Clone(bounds[:]) }

// Total is how many durations were counted.
func (h *Histogram) Total() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

func (h *Histogram) add(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += d
}

// Stats returns the present figures, all of the same moment.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.stats
	s.Workers, s.QueueLen, s.MaxCost = p.opts.Workers, p.opts.QueueLen, p.opts.MaxCost
	s.Queued, s.Running = p.mu.queue.len, p.mu.running.len
	return s
}
