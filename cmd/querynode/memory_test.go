package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/segments"
)

// TestWhatIsInForceIsNotSetAgain: the node looks each second, and each setting
// stops all goroutines.
func TestWhatIsInForceIsNotSetAgain(t *testing.T) {
	var percents []int
	var limits []int64
	c := newCollector()
	c.setPercent = func(p int) int { percents = append(percents, p); return 0 }
	c.setLimit = func(l int64) int64 { limits = append(limits, l); return 0 }
	if c.percent != 100 || c.limit != math.MaxInt64 {
		t.Errorf("at first %d %%, %d bytes", c.percent, c.limit)
	}
	for _, p := range []int{100, 100, 640, 640, 630, 670, 1000, 1000, 100, 103, 107} {
		c.keepTo(p)
	}
	if want := []int{640, 1000, 100, 107}; !slices.Equal(percents, want) {
		t.Errorf("percents %v, want %v", percents, want)
	}
	for _, l := range []int64{6400, 6400, 6350, 6450, 6000, 6000, 6400} {
		c.keepBelow(l)
	}
	if want := []int64{6400, 6000, 6400}; !slices.Equal(limits, want) {
		t.Errorf("limits %v, want %v", limits, want)
	}
}

// TestGarbageIsSweptOnceThereIsMuch: what the process has besides the ledger is swept when it is much more than a sweep left, and the process
// has most of what it may have or something was refused because of it.
func TestGarbageIsSweptOnceThereIsMuch(t *testing.T) {
	const limit = 1600
	start := time.Now()
	u := unaccounted{left: math.MaxInt64, at: start}
	for i, c := range []struct {
		second          int
		process, ledger int64
		swept, starved  bool
		want            bool
	}{
		{process: 300, ledger: 200},   // 100 are the program's own
		{process: 1400, ledger: 1250}, // hardly more
		{process: 1400, ledger: 1150, want: true},
		{process: 1200, ledger: 700}, // nobody is short
		{process: 1200, ledger: 700, starved: true, want: true},
		{second: 1, process: 1400, ledger: 1100, swept: true, starved: true}, // it was no garbage
		{second: 2, process: 1500, ledger: 1150, starved: true},
		{second: 2, process: 1500, ledger: 1050, want: true},
		{second: 3, process: 300, ledger: 200},
		{second: 4, process: 1400, ledger: 1150, starved: true, want: true}, // of the 300 much had been garbage
		{second: 5, process: 1400, ledger: 1150, swept: true, starved: true},
		{second: 34, process: 1400, ledger: 1150, starved: true},
		{second: 35, process: 1400, ledger: 1150, starved: true, want: true}, // by now it may be garbage
		{second: 35, process: 1400, ledger: 1250, starved: true},             // what there is is little
		{second: 36, process: math.MaxInt64 / 2, starved: true, want: true},
		{second: 36, ledger: math.MaxInt64 / 2, starved: true},
	} {
		at := start.Add(time.Duration(c.second) * time.Second)
		u.observe(at, c.process, c.ledger, c.swept)
		if got := u.sweepable(at, c.process, limit, c.starved); got != c.want {
			t.Errorf("look %d at %d of %d, %d in the ledger: %v", i, c.process, limit, c.ledger, got)
		}
	}
	if (&unaccounted{now: 100}).sweepable(start, 100, 0, true) {
		t.Error("without a limit there is nothing to sweep for")
	}
}

// TestSweepsRest: who asks again and again gets a sweep, and the next one when the first has long been over.
func TestSweepsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, sweeps, long := newSweeper(), 0, 200*time.Millisecond
		s.sweep = func() { sweeps++; time.Sleep(long) }
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = s.run(ctx) })
		insist := func(hasty bool) (n int) {
			before := sweeps
			for range 1000 { // a hundred seconds
				s.ask(hasty)
				time.Sleep(100 * time.Millisecond)
			}
			synctest.Wait()
			return sweeps - before
		}
		if n := insist(false); n < 20 || n > 25 {
			t.Errorf("%d sweeps of a fifth of a second in a hundred", n)
		}
		long = 5 * time.Second
		if n := insist(false); n < 6 || n > 7 {
			t.Errorf("%d sweeps of five seconds in a hundred", n)
		}
		if n := insist(true); n < 15 || n > 18 {
			t.Errorf("%d hasty sweeps of five seconds in a hundred", n)
		}
		cancel()
		all.Wait()
	})
}

// TestGarbageIsNotInTheWay: what was let go of is still with the process, and the collector has no reason to look for it, for nobody allocates
// anything. What is refused because of it finds room.
func TestGarbageIsNotInTheWay(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "off") // nothing is set that would have garbage collected
	t.Setenv("GOGC", "100")
	// What Go has alone: a race detector's shadow of other tests' memory is no garbage and stays.
	used := func() (process, goBytes int64) { return goMemory(), goMemory() }
	debug.FreeOSMemory()
	most := max(64<<20, goMemory()/4)
	heap := make([]byte, most)
	for i := range heap {
		heap[i] = 1
	}
	runtime.GC() // heap is live, for all that the collector knows
	l := segments.NewLedger(0)
	held := l.Force(segments.KindGrowing, most)
	limit := goMemory() + most/4
	s := newSweeper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = s.run(ctx) })
	all.Go(func() { _ = watchMemory(ctx, l, limit, s, used) })
	defer all.Wait()
	defer cancel()
	for process, _ := l.Observed(); process == 0; process, _ = l.Observed() {
		runtime.Gosched()
	}
	if _, err := l.Reserve(segments.KindScratch, most/2); err == nil {
		t.Fatal("there is room while all is in use")
	}
	runtime.KeepAlive(heap)
	heap = nil
	held.Release()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l.Observe(goMemory(), limit) // else what was given back counts as gone
		_, err := l.Reserve(segments.KindScratch, most/2)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
