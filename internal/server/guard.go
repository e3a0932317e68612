package server

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/segments"
)

// What calls may take beyond the ledger's limit, all of them together: a node that
// is full answers small requests. Deletes, and what operators ask, have as much
// again, since deletes make room.
const (
	callsBeyond    = 16 << 20
	urgentBeyond   = 2 * callsBeyond
	reliefPatience = 50 * time.Millisecond
	// large is what a request that is on its way holds if it is not small, and huge if it is not, say, a delete of many keys.
	large = streamCost + 64<<10
	huge  = streamCost + 1<<20
	// stalled is how long a client may take nothing of its answers before it loses
	// its connection to others that have no memory.
	stalled = 10 * time.Second
)

// guard keeps what connections and their calls hold in the ledger of the node, and
// takes it away from those who hold most when there is no more.
type guard struct {
	ledger  *segments.Ledger
	buffers buffers
	room    chan struct{} // capacity 1: something was given back
	looked  atomic.Int64  // when hangUpOnStalled looked, in Unix nanoseconds

	mu struct {
		sync.Mutex
		conns map[*connection]struct{}
	}
}

func newGuard(l *segments.Ledger) *guard {
	g := &guard{ledger: l, room: make(chan struct{}, 1)}
	g.mu.conns = map[*connection]struct{}{}
	return g
}

// most is how far beyond the limit calls may go.
func most(urgent bool) int64 {
	if urgent {
		return urgentBeyond
	}
	return callsBeyond
}

// connections returns those that are open.
func (g *guard) connections() []*connection {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*connection, 0, len(g.mu.conns))
	for c := range g.mu.conns {
		out = append(out, c)
	}
	return out
}

// gaveBack wakes who waits for room.
func (g *guard) gaveBack() {
	select {
	case g.room <- struct{}{}:
	default:
	}
}

// relieve makes room when bytes came in for which there is none: calls whose
// requests are on their way are refused, see refuseOne. It returns when there is room,
// when nobody is left to refuse, or after a while; c, whose bytes these are, is not
// read from meanwhile.
func (g *guard) relieve(c *connection) {
	g.hangUpOnStalled(time.Now())
	ctx, cancel := context.WithTimeout(context.Background(), reliefPatience)
	defer cancel()
	for c.lacks() != nil {
		g.refuseOne(c)
		select {
		case <-g.room:
		case <-ctx.Done():
			return
		}
	}
}

// refuseOne refuses a request that is on its way: the oldest on the connection that sends
// most. Requests of which little is here come last, for they give back little, and mostly
// the rest of them is about to come; large ones come after huge ones, for they may be deletes. One that is here in whole is never refused: it only waits
// for its turn to be decoded, and deletes are to pass.
func (g *guard) refuseOne(c *connection) {
	why := c.lacks()
	if why == nil {
		return
	}
	conns := g.bySent()
	for _, least := range []int64{huge, large, 0} {
		for _, other := range conns {
			if other.refuseOldest(why, least) {
				return
			}
		}
	}
}

// bySent returns the connections, first that which sends most.
func (g *guard) bySent() []*connection {
	conns := g.connections()
	sent := make(map[*connection]int64, len(conns)) // which changes meanwhile
	for _, c := range conns {
		sent[c] = c.incoming.Load()
	}
	slices.SortFunc(conns, func(a, b *connection) int { return cmp.Compare(sent[b], sent[a]) })
	return conns
}

// hangUpOnStalled closes connections whose clients have not taken anything of their
// answers for long.
func (g *guard) hangUpOnStalled(now time.Time) {
	if last := g.looked.Load(); now.UnixNano()-last < int64(time.Second) || !g.looked.CompareAndSwap(last, now.UnixNano()) {
		return // somebody has just looked
	}
	for _, c := range g.connections() {
		if c.stalledFor(now) > stalled {
			_ = c.Close() // what it held is given back
		}
	}
}

// refused says why there is no memory for a call.
func refused(err error, what string) error {
	return errclass.Mark(errors.Wrap(err, what), errclass.Exhausted)
}
