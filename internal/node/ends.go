package node

import (
	"context"
	"sync"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// logEnds asks the queue where logs end, on behalf of reads. A queue that is slow is asked one
// question a log at a time: reads that come meanwhile share the next.
type logEnds struct {
	mu struct {
		sync.Mutex
		next map[string]*logEnd // by pchannel; nil: being asked, and nobody waits for the next
	}
}

// logEnd is a question, and its answer once done is closed.
type logEnd struct {
	done chan struct{}
	last uint64 // timestamp of the newest message
	err  error
}

func (q *logEnd) answer(last uint64, err error) {
	q.last, q.err = last, err
	close(q.done)
}

// wait returns the timestamp of the newest message.
func (q *logEnd) wait(ctx context.Context, pchannel string) (uint64, error) {
	select {
	case <-q.done:
		return q.last, errclass.Wrap(q.err, errclass.Retryable, "end of the log of %s", pchannel)
	case <-ctx.Done():
		return 0, errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for the end of the log of %s", pchannel)
	}
}

// askEnd returns a question that has not been asked yet.
func (n *Node) askEnd(pchannel string) *logEnd {
	e := &n.logEnds
	e.mu.Lock()
	next, asking := e.mu.next[pchannel]
	if next != nil {
		e.mu.Unlock()
		return next
	}
	q := &logEnd{done: make(chan struct{})}
	if asking {
		e.mu.next[pchannel] = q
	} else {
		e.mu.next[pchannel] = nil
	}
	e.mu.Unlock()
	if asking {
		return q
	}
	err := n.group.Go("end of log "+pchannel, func(ctx context.Context) error {
		for q := q; q != nil; q = e.following(pchannel) {
			var last uint64
			err := lifecycle.Call("end of log "+pchannel, func() (err error) {
				last, err = n.lookAtEnd(ctx, pchannel)
				return err
			})
			q.answer(last, err)
		}
		return nil
	})
	if err != nil { // the node is closing
		q.answer(0, err)
		for more := e.following(pchannel); more != nil; more = e.following(pchannel) {
			more.answer(0, err)
		}
	}
	return q
}

// following returns the question to ask next about a log; nil if nobody waits for one, and
// whoever comes next is to ask.
func (e *logEnds) following(pchannel string) *logEnd {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.mu.next[pchannel]
	if q == nil {
		delete(e.mu.next, pchannel)
	} else {
		e.mu.next[pchannel] = nil
	}
	return q
}

func (n *Node) lookAtEnd(ctx context.Context, pchannel string) (uint64, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	b, err := n.o.Queue.Bounds(ctx, pchannel)
	return b.Last.Timestamp, err
}
