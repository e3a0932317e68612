package main

import (
	"context"
	"runtime/debug"
	"time"
)

// sweepAt is the share of what the process may have, in percent, from which on garbage is swept: below those at which growing segments are
// sealed and inserts are refused, which would make room where there is some. sweepPart is the part of it, 1/sweepPart, that garbage has to be.
const (
	sweepAt   = 80
	sweepPart = 16
)

// sweepShare is how many times as long as a sweep took no other is begun, for each looks at all that is live; but no longer than
// sweepRest, since on a busy machine it takes long and costs no more. sweepAgain is when what a sweep has left is looked through again:
// much of it may have been in use at that time only.
const (
	sweepShare = 20
	sweepRest  = 10 * time.Second
	sweepAgain = 30 * time.Second
)

// sweeper collects garbage and gives the memory back to the system, where the collector's own pace would leave it for minutes: it goes by how
// much is allocated, and while everything is refused nothing is.
type sweeper struct {
	asked chan struct{} // capacity 1
	haste chan struct{} // capacity 1: the process has more than it may
	swept chan struct{} // capacity 1: there may be more room now
	sweep func()
}

func newSweeper() *sweeper {
	return &sweeper{asked: make(chan struct{}, 1), haste: make(chan struct{}, 1), swept: make(chan struct{}, 1), sweep: debug.FreeOSMemory}
}

// ask has garbage swept, unless that was done a moment ago; hasty = a second ago.
func (s *sweeper) ask(hasty bool) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	if hasty {
		select {
		case s.haste <- struct{}{}:
		default:
		}
	}
}

// run sweeps when it is asked to, until ctx ends.
func (s *sweeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.asked:
		}
		began := time.Now()
		s.sweep()
		select {
		case s.swept <- struct{}{}:
		default:
		}
		rest := min(sweepRest, sweepShare*time.Since(began))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(memoryInterval):
		}
		select {
		case <-s.haste: // of before
		default:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.haste:
		case <-time.After(rest - memoryInterval):
		}
		select {
		case <-s.asked: // meanwhile; who still wants it asks again
		default:
		}
	}
}

// unaccounted is what a process has besides what is in its ledger. Some of it is no garbage: what a sweep leaves.
type unaccounted struct {
	now  int64
	left int64     // by the last sweep, or the least since
	at   time.Time // of the last sweep
}

// observe takes another look; swept = garbage has been collected since the last one.
func (u *unaccounted) observe(at time.Time, process, ledger int64, swept bool) {
	u.now = process - ledger
	if u.left = min(u.left, u.now); swept {
		u.left, u.at = u.now, at
	}
}

// sweepable reports whether garbage is to be swept: there may be much, and the process has most of what it may have, or something was
// refused because of what it has.
func (u *unaccounted) sweepable(at time.Time, process, limit int64, starved bool) bool {
	much := u.now-u.left > limit/sweepPart || u.now > 2*limit/sweepPart && at.Sub(u.at) >= sweepAgain
	return limit > 0 && much && (starved || process > limit/100*sweepAt)
}
