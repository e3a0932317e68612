package main

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/segments"
)

// sweeps runs a sweeper whose sweeps take so long, and do what more says, until the test's bubble has done with it.
func sweeps(t *testing.T, long time.Duration, more func(*sweeper)) (s *sweeper, count *atomic.Int64, end func()) {
	t.Helper()
	s, count = newSweeper(), new(atomic.Int64)
	s.sweep = func() {
		count.Add(1)
		more(s)
		time.Sleep(long)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = s.run(ctx) })
	return s, count, func() {
		cancel()
		all.Wait()
	}
}

// TestWhatWasAskedBeforeASweepEndedIsDone: haste that a sweep has answered hastens no other, and a wish that nobody has any more when the rest
// is over is not met.
func TestWhatWasAskedBeforeASweepEndedIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, count, end := sweeps(t, 5*time.Second, func(s *sweeper) { s.ask(true) })
		for range 1000 { // a hundred seconds
			s.ask(false)
			time.Sleep(100 * time.Millisecond)
		}
		if n := count.Load(); n < 6 || n > 7 {
			t.Errorf("%d sweeps of five seconds in a hundred, want one in fifteen", n)
		}
		end()
	})
	synctest.Test(t, func(t *testing.T) {
		s, count, end := sweeps(t, 5*time.Second, func(*sweeper) {})
		s.ask(false)
		time.Sleep(8 * time.Second) // it rests now
		s.ask(false)
		time.Sleep(time.Minute)
		if n := count.Load(); n != 1 {
			t.Errorf("%d sweeps, want 1: the second wish came while it rested, and only once", n)
		}
		end()
	})
}

// watched is watchMemory of a process with so many bytes, none of which are in the ledger.
func watched(t *testing.T, process *atomic.Int64, limit int64, s *sweeper) (end func()) {
	t.Helper()
	t.Setenv("GOMEMLIMIT", "off") // nothing of the test's own process is set
	t.Setenv("GOGC", "100")
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		_ = watchMemory(ctx, segments.NewLedger(0), limit, s, func() (int64, int64) { return process.Load(), 0 })
	})
	return func() {
		cancel()
		all.Wait()
	}
}

// TestWhatASweepLeavesIsNotSweptAgain before it may have become garbage: that would be all that the node does. What comes on top is.
func TestWhatASweepLeavesIsNotSweptAgain(t *testing.T) {
	const limit = 1600
	var process atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		s, count, end := sweeps(t, 10*time.Millisecond, func(*sweeper) {})
		process.Store(200)
		stop := watched(t, &process, limit, s)
		time.Sleep(5*time.Second + memoryInterval/2) // between two looks from here on
		want := func(what string, n int64) {
			t.Helper()
			if got := count.Load(); got != n {
				t.Errorf("%s: %d sweeps, want %d", what, got, n)
			}
		}
		want("the program alone", 0)
		process.Store(1400)
		time.Sleep(sweepAgain - 2*time.Second)
		want("much that stays", 1)
		process.Store(1550)
		time.Sleep(sweepAgain - 2*time.Second)
		want("and more", 2)
		time.Sleep(4 * time.Second)
		want("by now it may be garbage", 3)
		stop()
		end()
	})
}

// TestSweepsMakeHasteOnlyBeyondTheLimit, where the process may be killed.
func TestSweepsMakeHasteOnlyBeyondTheLimit(t *testing.T) {
	const limit = 1 << 20
	for _, c := range []struct{ from, least, most int64 }{{limit * 85 / 100, 3, 5}, {limit + 1, 7, 10}} {
		var process, garbage atomic.Int64
		synctest.Test(t, func(t *testing.T) {
			s, count, end := sweeps(t, 0, func(*sweeper) {
				time.Sleep(5 * time.Second)
				garbage.Store(0)
				process.Store(c.from)
			})
			process.Store(c.from)
			stop := watched(t, &process, limit, s)
			time.Sleep(5 * time.Second)
			for range 600 { // a minute
				process.Store(c.from + min(garbage.Add(limit/100), limit/10))
				time.Sleep(100 * time.Millisecond)
			}
			if n := count.Load(); n < c.least || n > c.most {
				t.Errorf("from %d of %d on: %d sweeps of five seconds in a minute, want %d to %d", c.from, limit, n, c.least, c.most)
			}
			stop()
			end()
		})
	}
}
