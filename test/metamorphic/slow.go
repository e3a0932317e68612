package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
)

// slowness is how long a call of the storage or the queue takes at most: what runs beside each other meets in
// other orders than where all of them return at once. 0 = no longer than it does.
type slowness time.Duration

// wait takes as long as a call: mostly not at all, often a little, seldom long.
func (s slowness) wait() {
	if s <= 0 {
		return
	}
	most := s
	switch r := rand.IntN(20); {
	case r < 12:
		return
	case r < 19:
		most = max(1, s/20)
	}
	time.Sleep(time.Duration(rand.Int64N(int64(most))))
}

// slowQueue is a queue that takes its time, before it does something and after.
type slowQueue struct {
	*embedded.Queue
	slow slowness
}

// OpenProducer opens a producer that takes its time.
func (q slowQueue) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	q.slow.wait()
	p, err := q.Queue.OpenProducer(ctx, topic, o)
	if err != nil {
		return nil, err
	}
	return slowProducer{p, q.slow}, nil
}

// OpenReader opens a reader that takes its time.
func (q slowQueue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	q.slow.wait()
	r, err := q.Queue.OpenReader(ctx, topic, o)
	if err != nil {
		return nil, err
	}
	return slowReader{r, q.slow}, nil
}

type slowProducer struct {
	mq.Producer
	slow slowness
}

// Append appends, and takes its time.
func (p slowProducer) Append(ctx context.Context, msgs ...mq.Message) ([]mq.Position, error) {
	(p.slow / 4).wait()
	at, err := p.Producer.Append(ctx, msgs...)
	(p.slow / 4).wait()
	return at, err
}

type slowReader struct {
	mq.Reader
	slow slowness
}

// Next returns the next message, and takes its time: less than others, for there are many.
func (r slowReader) Next(ctx context.Context) (mq.Message, error) {
	m, err := r.Reader.Next(ctx)
	(r.slow / 50).wait()
	return m, err
}
