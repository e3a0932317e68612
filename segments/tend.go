package segments

import (
	"context"
	"log/slog"
	"time"
)

// tend makes segments cold while memory is short, and drops what pages have kept.
func (s *Set) tend(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	t := tending{log: s.o.Logger}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.o.Ledger.short:
		}
		s.tendPages(time.Now())
		if t.due(time.Now()) {
			if err := s.coolColdest(ctx); ctx.Err() == nil {
				t.ended(time.Now(), err)
			}
		}
	}
}

// tendPages drops rows that are kept for pages nobody has asked for, and all while
// memory is short.
func (s *Set) tendPages(now time.Time) {
	before := now.Add(-keptFor)
	if s.o.Ledger.Short(coolAt) {
		before = now
	}
	s.pages.sweep(before)
}

// tending is how making segments cold goes: after a failure, as on a disk that is
// full, less and less often, and a line in the log when that begins and when it ends.
type tending struct {
	log     *slog.Logger
	wait    time.Duration // 0 = the last try went well
	retryAt time.Time
}

// mostWait is how long the next try may be away.
const mostWait = time.Minute

func (t *tending) due(now time.Time) bool { return !now.Before(t.retryAt) }

func (t *tending) ended(now time.Time, err error) {
	switch {
	case err == nil && t.wait > 0:
		t.log.Info("segments: segments can be made cold again, or memory is not short any more")
		t.wait, t.retryAt = 0, time.Time{}
	case err != nil:
		if t.wait == 0 {
			t.log.Warn("segments: memory is short and a segment could not be made cold; it is tried again, less and less often", "error", err)
		}
		t.wait = min(max(2*t.wait, time.Second), mostWait)
		t.retryAt = now.Add(t.wait)
	}
}
