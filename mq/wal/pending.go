package wal

import (
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// request is one append on its way.
type request struct {
	msg     mq.Message
	size    int64 // what it counts for in the bounds
	deletes bool  // it makes room

	// done is closed once receipt and err are set.
	done    chan struct{}
	receipt Receipt
	err     error
	told    func(timestamp uint64) // see WAL.Follow; nil = nobody asks

	// Guarded by pending.mu.
	stage      stage
	prev, next *request
}

type stage uint8

const (
	waiting stage = iota // for room
	queued               // for the writer
	taken                // by the writer
	gone                 // taken out by its caller or by the end of the service
)

// requestOverhead is about what a request costs beside key and payload.
const requestOverhead = 256

func newRequest(m mq.Message, t Type) *request {
	return &request{msg: m, size: int64(len(m.Key) + len(m.Payload) + requestOverhead), deletes: t == Delete, done: make(chan struct{})}
}

// answer is called once, by whoever has taken r out of the lists.
func (r *request) answer(receipt Receipt, err error) {
	r.receipt, r.err = receipt, err
	if err == nil || errors.Is(err, mq.ErrUnknownOutcome) {
		r.tell(r.msg.Timestamp)
	} else {
		r.tell(0)
	}
	close(r.done)
}

// tell says which timestamp the entry has if it is stored, 0 = it is not and will not be.
func (r *request) tell(timestamp uint64) {
	if r.told != nil {
		r.told(timestamp)
	}
}

// answered reports whether answer has been called; for the writer, which calls it.
func (r *request) answered() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// fifo is a list of requests through their own links, so that one in the
// middle leaves at no cost.
type fifo struct {
	head, tail *request
	n          int
	bytes      int64
}

func (l *fifo) push(r *request) {
	r.prev, r.next = l.tail, nil
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
	l.n++
	l.bytes += r.size
}

func (l *fifo) unlink(r *request) {
	if r.prev == nil {
		l.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	l.n--
	l.bytes -= r.size
}

// pending holds the appends between their callers and the writer. Room is held
// from being queued until being answered. Those without room wait in a second
// queue, which is bounded too; none overtakes.
type pending struct {
	maxEntries, maxWaiting int
	maxBytes               int64
	wake                   chan struct{} // holds one token while there may be something to take

	mu struct {
		sync.Mutex
		closed  bool
		queued  fifo
		waiting fifo
		entries int   // with room: queued or taken
		bytes   int64 // of those
		round   *round
	}
}

func newPending(o Options) *pending {
	return &pending{
		maxEntries: o.MaxPendingEntries, maxBytes: o.MaxPendingBytes, maxWaiting: max(o.MaxWaiting, 0),
		wake: make(chan struct{}, 1),
	}
}

// errNoService is what add returns after close; WAL.refusal knows the reason.
var errNoService = errors.New("wal: no service")

// add queues r, or lets it wait for room, or refuses it.
func (p *pending) add(r *request) error {
	if r.size > p.maxBytes {
		return errclass.Wrap(mq.ErrTooLarge, errclass.Invalid, "append of %d bytes, the queue has room for %d", r.size, p.maxBytes)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.closed:
		return errNoService
	case p.mu.waiting.n == 0 && p.fitsLocked(r):
		p.admitLocked(r)
	case p.mayWaitLocked(r):
		r.stage = waiting
		p.mu.waiting.push(r)
	default:
		return errclass.New(errclass.Exhausted, "%d appends (%d bytes) are pending and %d wait for room",
			p.mu.entries, p.mu.bytes, p.mu.waiting.n)
	}
	return nil
}

// deletesBeyond is the part, 1/deletesBeyond, of the bounds by which deletes may go beyond them to wait for room: inserts
// that take all there is do not keep them out.
const deletesBeyond = 4

func (p *pending) mayWaitLocked(r *request) bool {
	n, bytes := p.maxWaiting, p.maxBytes
	if r.deletes {
		n, bytes = n+n/deletesBeyond, bytes+bytes/deletesBeyond
	}
	return p.mu.waiting.n < n && p.mu.waiting.bytes+r.size <= bytes
}

func (p *pending) fitsLocked(r *request) bool {
	return p.mu.entries < p.maxEntries && p.mu.bytes+r.size <= p.maxBytes
}

func (p *pending) admitLocked(r *request) {
	r.stage = queued
	p.mu.queued.push(r)
	p.mu.entries++
	p.mu.bytes += r.size
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// releaseLocked gives back the room of r and lets those in that fit now.
func (p *pending) releaseLocked(r *request) {
	p.mu.entries--
	p.mu.bytes -= r.size
	p.promoteLocked()
}

func (p *pending) promoteLocked() {
	for w := p.mu.waiting.head; w != nil && p.fitsLocked(w); w = p.mu.waiting.head {
		p.mu.waiting.unlink(w)
		p.admitLocked(w)
	}
}

// take moves the oldest requests to the writer: at most n of them, and at most
// bytes unless the first alone is larger. into is reused.
func (p *pending) take(into []*request, n int, bytes int64) []*request {
	p.mu.Lock()
	defer p.mu.Unlock()
	into = into[:0]
	for r := p.mu.queued.head; r != nil && len(into) < n; r = p.mu.queued.head {
		if bytes -= r.size; bytes < 0 && len(into) > 0 {
			break
		}
		p.mu.queued.unlink(r)
		r.stage = taken
		into = append(into, r)
	}
	return into
}

// release gives back the room of requests that were taken.
func (p *pending) release(rs []*request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range rs {
		p.releaseLocked(r)
	}
}

// drop takes r out for its caller. It returns the stage that r was in: if that
// is taken, or gone, somebody else answers r.
func (p *pending) drop(r *request) stage {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := r.stage
	switch was {
	case waiting:
		p.mu.waiting.unlink(r)
		r.stage = gone
		p.promoteLocked() // r may have stood before smaller ones
	case queued:
		p.mu.queued.unlink(r)
		r.stage = gone
		p.releaseLocked(r)
	}
	return was
}

// close makes add return errNoService and hands all that was not taken to the
// caller, who must answer it.
func (p *pending) close() []*request {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.closed = true
	var out []*request
	for _, l := range []*fifo{&p.mu.queued, &p.mu.waiting} {
		for r := l.head; r != nil; r = l.head {
			l.unlink(r)
			if r.stage == queued {
				p.mu.entries--
				p.mu.bytes -= r.size
			}
			r.stage = gone
			out = append(out, r)
		}
	}
	return out
}

// join returns the round of barriers that the writer has not taken yet.
func (p *pending) join() (*round, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, errNoService
	}
	if p.mu.round == nil {
		p.mu.round = &round{done: make(chan struct{})}
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return p.mu.round, nil
}

// takeRound hands the barriers that wait to the caller, who must answer them;
// nil if there are none.
func (p *pending) takeRound() *round {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.mu.round
	p.mu.round = nil
	return r
}

// load returns the number and bytes of those with room, and of those without.
func (p *pending) load() (entries int, bytes int64, waiting int, waitingBytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.entries, p.mu.bytes, p.mu.waiting.n, p.mu.waiting.bytes
}
