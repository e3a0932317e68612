package mqtest

import (
	"context"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

func testProducerClose(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.append(p, 1)
	for range 3 {
		e.close(p)
	}
	_, err := p.Append(e.ctx(), e.message("late"))
	e.wantErr(err, mq.ErrClosed)
	q := e.producer(e.Queue, 1)
	e.close(p) // an old handle does not close the new one
	msgs = append(msgs, e.append(q, 1)...)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), msgs...)
}

func testCloseWakesNext(e *env) {
	for range 5 {
		r := e.reader(e.Queue, mq.ReaderOptions{})
		started, done := make(chan struct{}), make(chan error, 1)
		ctx := e.ctx()
		background(func() {
			close(started)
			_, err := r.Next(ctx)
			done <- err
		})
		<-started
		e.close(r)
		e.wantErr(<-done, mq.ErrClosed)
		_, err := r.Next(e.ctx())
		e.wantErr(err, mq.ErrClosed)
		e.close(r)
	}
}

func testQueueClose(e *env) {
	p := e.producer(e.Queue, 1)
	e.append(p, 2)
	r := e.reader(e.Queue, mq.ReaderOptions{Latest: true})
	started, done := make(chan struct{}), make(chan error, 1)
	ctx := e.ctx()
	background(func() {
		close(started)
		_, err := r.Next(ctx)
		done <- err
	})
	<-started
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := e.Queue.Close(ctx); err != nil {
				e.Errorf("close: %+v", err)
			}
		})
	}
	wg.Wait()
	e.wantErr(<-done, mq.ErrClosed)
	_, err := p.Append(e.ctx(), e.message("late"))
	e.wantErr(err, mq.ErrClosed)
	_, err = e.Queue.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: 9})
	e.wantErr(err, mq.ErrClosed)
	_, err = e.Queue.OpenReader(e.ctx(), e.topic, mq.ReaderOptions{})
	e.wantErr(err, mq.ErrClosed)
	_, err = e.Queue.Bounds(e.ctx(), e.topic)
	e.wantErr(err, mq.ErrClosed)
	e.wantErr(e.Queue.Trim(e.ctx(), e.topic, mq.Position{}), mq.ErrClosed)
	e.close(p)
	e.close(r)
}

// testCloseWhileAppending closes in the middle of appends: each has been
// acknowledged, and is stored, or has failed.
func testCloseWhileAppending(e *env) {
	p := e.producer(e.Queue, 1)
	ctx := e.ctx()
	acked := make(chan mq.Position, 10000)
	first := make(chan struct{}, 100)
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(2000) {
				at, err := p.Append(ctx, mq.Message{Timestamp: 1 + w + i*4, Payload: []byte("c")})
				if err != nil {
					if !errors.Is(err, mq.ErrClosed) && !errors.Is(err, mq.ErrUnknownOutcome) {
						e.Errorf("append: %v", err)
					}
					return
				}
				acked <- at[0]
				select {
				case first <- struct{}{}:
				default:
				}
			}
		})
	}
	<-first
	e.close(p)
	wg.Wait()
	close(acked)
	want := map[string]bool{}
	for pos := range acked {
		want[pos.ID] = true
	}
	b, err := e.Queue.Bounds(e.ctx(), e.topic)
	e.must(err)
	r := e.reader(e.Queue, mq.ReaderOptions{})
	for {
		m := e.next(r)
		delete(want, m.Position.ID)
		if m.Position.ID == b.Last.ID {
			break
		}
	}
	if len(want) != 0 {
		e.Fatalf("%d acknowledged messages are not there", len(want))
	}
}

func testNoLeaks(e *env) {
	if e.Open == nil {
		e.Skip("the broker does not tell")
	}
	before := len(e.Open(e.T))
	p, q := e.producer(e.Queue, 1), e.producer(e.Queue, 2)
	e.append(q, 3)
	var readers []mq.Reader
	for range 5 {
		readers = append(readers, e.reader(e.Queue, mq.ReaderOptions{Name: "leak"}))
	}
	_, err := e.Queue.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: 1}) // refused ones leave nothing
	e.wantErr(err, mq.ErrFenced)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = e.Queue.OpenReader(gone, e.topic, mq.ReaderOptions{})
	for _, r := range readers[:3] {
		e.close(r)
	}
	e.close(q)
	e.close(p)
	e.eventually("two readers left", func() bool { return len(e.Open(e.T)) == before+2 })
	e.closeQueue(e.Queue)
	e.eventually("nothing left", func() bool { return len(e.Open(e.T)) <= before })
}

func (e *env) reopen() mq.Queue {
	e.Helper()
	if e.Reopen == nil {
		e.Skip("nothing to reopen")
	}
	e.closeQueue(e.Queue)
	q := e.Reopen(e.T)
	e.Cleanup(func() { e.closeQueue(q) })
	return q
}

func testReopen(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.fill(p)
	q := e.reopen()
	e.wantNext(e.reader(q, mq.ReaderOptions{}), msgs...)
	r := e.reader(q, mq.ReaderOptions{From: msgs[len(msgs)-1].Position, Exclusive: true})
	more := e.append(e.producer(q, 1), 3)
	if !msgs[len(msgs)-1].Position.Before(more[0].Position) {
		e.Fatal("positions start again after a reopen")
	}
	e.wantNext(r, more...)
	e.wantNext(e.reader(q, mq.ReaderOptions{FromTimestamp: msgs[7].Timestamp}), msgs[7])
}

func testReopenTerm(e *env) {
	e.append(e.producer(e.Queue, 7), 1)
	q := e.reopen()
	_, err := q.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: 6})
	e.wantErr(err, mq.ErrFenced)
	e.append(e.producer(q, 7), 1)
}

func testReopenTrim(e *env) {
	msgs := e.fill(e.producer(e.Queue, 1))
	e.must(e.Queue.Trim(e.ctx(), e.topic, msgs[len(msgs)*2/3].Position))
	before := e.first(e.Queue, msgs)
	q := e.reopen()
	first := e.first(q, msgs)
	if first < before {
		e.Fatalf("message %d was trimmed and is back after a reopen", first)
	}
	e.checkTrimmed(q, msgs, first)
}
