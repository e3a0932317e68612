package node

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// slowEnds is a queue that is asked where logs end, and answers when it is let.
type slowEnds struct {
	mq.Queue
	asked, most, now *atomic.Int64
	answer           chan uint64
}

func (q slowEnds) Bounds(ctx context.Context, _ string) (mq.Bounds, error) {
	q.asked.Add(1)
	q.most.Store(max(q.most.Load(), q.now.Add(1)))
	defer q.now.Add(-1)
	select {
	case at, ok := <-q.answer:
		if !ok {
			return mq.Bounds{}, errclass.New(errclass.Internal, "no more")
		}
		return mq.Bounds{Last: mq.Position{Timestamp: at}}, nil
	case <-ctx.Done():
		return mq.Bounds{}, ctx.Err()
	}
}

// TestReadsShareTheQuestionWhereALogEnds: a queue that is slow is not asked more often for it,
// and no read is answered by a question that was asked before it came.
func TestReadsShareTheQuestionWhereALogEnds(t *testing.T) {
	w := newWorld(t)
	q := slowEnds{asked: &atomic.Int64{}, most: &atomic.Int64{}, now: &atomic.Int64{}, answer: make(chan uint64)}
	w.queue = func() mq.Queue { q.Queue = w.broker.Connect(); return q }
	n := w.open(dispatched)
	first := n.askEnd(topic)
	eventually(t, "the question is asked", func() bool { return q.now.Load() == 1 })
	var waiting sync.WaitGroup
	later := make([]*logEnd, 50)
	for i := range later {
		later[i] = n.askEnd(topic)
		waiting.Go(func() {
			if at, err := later[i].wait(within(t), topic); err != nil || at != 8 {
				t.Errorf("a later read has %d, %v", at, err)
			}
		})
	}
	q.answer <- 7
	if at, err := first.wait(within(t), topic); err != nil || at != 7 {
		t.Errorf("the first read has %d, %v", at, err)
	}
	q.answer <- 8
	waiting.Wait()
	if asked, most := q.asked.Load(), q.most.Load(); asked != 2 || most != 1 {
		t.Errorf("asked %d times, %d at once", asked, most)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	last := n.askEnd(topic)
	if _, err := last.wait(ctx, topic); !errclass.Is(err, errclass.Retryable) {
		t.Errorf("a read that has gone: %v", err)
	}
	close(q.answer)
	if _, err := last.wait(within(t), topic); !errclass.Is(err, errclass.Retryable) {
		t.Errorf("a queue that fails: %v", err)
	}
	n.close()
	if _, err := n.askEnd(topic).wait(within(t), topic); err == nil {
		t.Error("a node that is closed knows where the log ends")
	}
}
