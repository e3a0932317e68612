package wal

import (
	"sync"
	"time"

	"github.com/querynode/querynode/mq"
)

// maxTimestamp is in the year 3084. A stored message beyond it is not
// believed: following it would use up the timestamps that are left.
const maxTimestamp = 1<<63 - 1

// Physical is mq.Physical: who writes to a log need not know of the queue.
func Physical(ts uint64) int64 { return mq.Physical(ts) }

// FromTime is mq.FromTime.
func FromTime(t time.Time) uint64 { return mq.FromTime(t) }

// Time is mq.Time.
func Time(ts uint64) time.Time { return mq.Time(ts) }

// Clock gives out strictly increasing timestamps. It follows the wall clock;
// when that stands or jumps back only the logical part grows, running over into
// the physical one after 2^18 in a millisecond. WALs that share one give out
// timestamps that are unique and ordered across their pchannels: of two appends,
// one of which began after the other was acknowledged, it has the later one. The
// zero Clock is ready to use.
type Clock struct {
	mu   sync.Mutex
	last uint64
}

// observe makes every later timestamp greater than ts.
func (c *Clock) observe(ts uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, ts)
}

// next returns a new timestamp. back tells that the wall clock is behind by
// more than the timestamps given out can explain: it has jumped.
func (c *Clock) next(now time.Time) (ts uint64, back bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ts = FromTime(now)
	if ts <= c.last {
		back = Physical(c.last)-Physical(ts) > 1
		ts = c.last + 1
	}
	c.last = ts
	return ts, back
}
