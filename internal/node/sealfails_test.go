package node

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// fillable is a queue that refuses appends while its disk is full.
type fillable struct {
	mq.Queue
	full *atomic.Bool
}

func (q fillable) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	p, err := q.Queue.OpenProducer(ctx, topic, o)
	return fillableProducer{p, q.full}, err
}

type fillableProducer struct {
	mq.Producer
	full *atomic.Bool
}

func (p fillableProducer) Append(ctx context.Context, msgs ...mq.Message) ([]mq.Position, error) {
	if p.full.Load() {
		return nil, errclass.Wrap(syscall.ENOSPC, errclass.Exhausted, "write")
	}
	return p.Producer.Append(ctx, msgs...)
}

// TestWhatIsSealedIsStoredThoughNoSealCanBeWritten: the disk of the log is full, and storing makes room there.
func TestWhatIsSealedIsStoredThoughNoSealCanBeWritten(t *testing.T) {
	w := newWorld(t)
	full := &atomic.Bool{}
	w.queue = func() mq.Queue { return fillable{w.broker.Connect(), full} }
	r := w.open(nil).ready()
	r.create()
	r.insert(between(0, 10)...)
	r.dead.Store(true) // the object storage is away
	_, _, err := r.Flush(within(t), things, false)
	must(t, err)
	r.insert(between(10, 20)...)
	r.has(20) // and so the seal before has been read
	full.Store(true)
	if _, _, err := r.Flush(within(t), things, false); !errclass.Is(err, errclass.Exhausted) {
		t.Fatalf("sealed on a full disk: %v", err)
	}
	r.dead.Store(false)
	eventually(t, "what was sealed before is stored", func() bool { return len(r.sealed()) == 1 })
	eventually(t, "it is told that the rest cannot be sealed", func() bool { return r.FlushesFailing() == 1 })
	full.Store(false)
	eventually(t, "the rest is stored", func() bool { return len(r.sealed()) == 2 })
	r.has(20)
}
