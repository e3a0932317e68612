package dispatcher

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff returns the wait before try number attempt (0 = the first again):
// lo doubled attempt times, at most hi, of which a random half is taken off.
func backoff(lo, hi time.Duration, attempt int) time.Duration {
	d := lo
	for ; attempt > 0 && d < hi; attempt-- {
		d *= 2
	}
	d = min(d, hi)
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
