package mqtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

func testConcurrentAppends(e *env) {
	const writers, batches, size = 8, 12, 3
	p := e.producer(e.Queue, 1)
	var (
		clock atomic.Uint64
		wg    sync.WaitGroup
		mu    sync.Mutex
		where = map[string]string{} // position id -> payload
	)
	ctx := e.ctx()
	for w := range writers {
		wg.Go(func() {
			for b := range batches {
				msgs := make([]mq.Message, size)
				for i := range msgs {
					msgs[i] = mq.Message{Timestamp: clock.Add(1), Payload: fmt.Appendf(nil, "%d/%d/%d", w, b, i)}
				}
				at, err := p.Append(ctx, msgs...)
				if err != nil {
					e.Error(err)
					return
				}
				mu.Lock()
				for i := range at {
					where[at[i].ID] = string(msgs[i].Payload)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if e.Failed() || len(where) != writers*batches*size {
		e.Fatalf("%d different positions, want %d", len(where), writers*batches*size)
	}
	next := [writers]int{}
	r := e.reader(e.Queue, mq.ReaderOptions{})
	for range writers * batches {
		var w, b int
		for i := range size {
			m := e.next(r)
			if where[m.Position.ID] != string(m.Payload) {
				e.Fatalf("position %s was acknowledged for %q and holds %q", m.Position, where[m.Position.ID], m.Payload)
			}
			if i == 0 {
				_, err := fmt.Sscanf(string(m.Payload), "%d/%d/0", &w, &b)
				e.must(err)
			}
			if want := fmt.Sprintf("%d/%d/%d", w, b, i); string(m.Payload) != want {
				e.Fatalf("got %q inside the batch of %q", m.Payload, want)
			}
		}
		if b != next[w] {
			e.Fatalf("writer %d: batch %d comes where %d should", w, b, next[w])
		}
		next[w]++
	}
}

func testEmptyBatch(e *env) {
	p := e.producer(e.Queue, 1)
	at, err := p.Append(e.ctx())
	if err != nil || len(at) != 0 {
		e.Fatalf("got %v, %v", at, err)
	}
	b, err := e.Queue.Bounds(e.ctx(), e.topic)
	if err != nil || b != (mq.Bounds{}) {
		e.Fatalf("an empty batch stored something: %v, %v", b, err)
	}
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), e.append(p, 1)...)
}

func testSizeLimits(e *env) {
	p := e.producer(e.Queue, 1)
	big := e.message("")
	big.Key = strings.Repeat("k", mq.MaxKeyBytes)
	size := 1 << 20
	if e.MaxPayload > 0 {
		size = min(size, e.MaxPayload)
	}
	big.Payload = make([]byte, size)
	for i := range big.Payload {
		big.Payload[i] = byte(i * 7)
	}
	msgs := e.appendAll(p, big)

	long := e.message("x")
	long.Key = strings.Repeat("k", mq.MaxKeyBytes+1)
	_, err := p.Append(e.ctx(), e.message("ok"), long)
	e.wantErr(err, mq.ErrTooLarge)
	if e.MaxPayload > 0 {
		if l, ok := e.Queue.(mq.Limited); !ok || l.MaxPayloadBytes() != e.MaxPayload {
			e.Fatalf("the queue does not say that a payload may have %d bytes", e.MaxPayload)
		}
		limit := e.message("")
		limit.Payload = make([]byte, e.MaxPayload)
		msgs = append(msgs, e.appendAll(p, limit)...)
		over := e.message("")
		over.Payload = make([]byte, e.MaxPayload+1)
		_, err = p.Append(e.ctx(), over)
		e.wantErr(err, mq.ErrTooLarge)
	}
	// The producer goes on, and nothing of the refused batches is there.
	msgs = append(msgs, e.append(p, 1)...)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), msgs...)
}

func testAppendContext(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.append(p, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := p.Append(ctx, e.message("given up"))
	if errors.Is(err, mq.ErrUnknownOutcome) {
		return
	}
	e.wantErr(err, context.Canceled)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), append(msgs, e.append(p, 1)...)...)
	if _, err := e.Queue.OpenReader(ctx, e.topic, mq.ReaderOptions{}); err == nil {
		e.Fatal("OpenReader ignores its context")
	}
	if _, err := e.Queue.OpenProducer(ctx, e.topic, mq.ProducerOptions{Term: 1}); err == nil {
		e.Fatal("OpenProducer ignores its context")
	}
}

// wantFenced appends until the producer is told; nothing may be stored.
func (e *env) wantFenced(p mq.Producer) {
	e.Helper()
	_, err := p.Append(e.ctx(), mq.Message{Timestamp: e.ts + 1, Payload: []byte("by the fenced one")})
	e.wantErr(err, mq.ErrFenced)
}

func testFencing(e *env) {
	a := e.producer(e.Queue, 3)
	msgs := e.append(a, 2)
	b := e.producer(e.Queue, 5)
	e.wantFenced(a)
	msgs = append(msgs, e.append(b, 1)...)
	_, err := e.Queue.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: 4})
	e.wantErr(err, mq.ErrFenced)
	msgs = append(msgs, e.append(b, 1)...) // the refused one did no harm
	e.wantFenced(a)
	e.close(a) // closing a fenced producer is legal and leaves the owner alone
	msgs = append(msgs, e.append(b, 1)...)
	e.close(b)
	_, err = e.Queue.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: 4})
	e.wantErr(err, mq.ErrFenced) // the term stays when the owner goes
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), append(msgs, e.append(e.producer(e.Queue, 6), 1)...)...)
}

func testEqualTerm(e *env) {
	a := e.producer(e.Queue, 0)
	msgs := e.append(a, 1)
	b := e.producer(e.Queue, 0)
	e.wantFenced(a)
	msgs = append(msgs, e.append(b, 1)...)
	e.close(b)
	c := e.producer(e.Queue, 0)
	msgs = append(msgs, e.append(c, 1)...)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), msgs...)
}

func testFencingAcross(e *env) {
	if e.Connect == nil {
		e.Skip("one connection only")
	}
	other := e.Connect(e.T)
	defer e.closeQueue(other)
	a := e.producer(e.Queue, 1)
	msgs := e.append(a, 1)
	b := e.producer(other, 2)
	e.wantFenced(a)
	msgs = append(msgs, e.append(b, 1)...)
	_, err := e.Queue.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: 1})
	e.wantErr(err, mq.ErrFenced)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), msgs...)
}
