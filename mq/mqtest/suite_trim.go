package mqtest

import (
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// fill appends enough to make a trim worth while, 1 KB each.
func (e *env) fill(p mq.Producer) []mq.Message {
	e.Helper()
	var msgs []mq.Message
	for len(msgs) < e.RollOver {
		msgs = append(msgs, e.appendAll(p, e.message(strings.Repeat("t", 1000)))...)
	}
	return msgs
}

// first returns the index in msgs of the oldest message the topic still has.
func (e *env) first(q mq.Queue, msgs []mq.Message) int {
	e.Helper()
	b, err := q.Bounds(e.ctx(), e.topic)
	e.must(err)
	for i, m := range msgs {
		if m.Position.ID == b.First.ID {
			return i
		}
	}
	e.Fatalf("bounds say the topic begins at %s, which was never appended", b.First)
	return 0
}

// checkTrimmed checks what is promised when all before msgs[first] is gone.
func (e *env) checkTrimmed(q mq.Queue, msgs []mq.Message, first int) {
	e.Helper()
	for i := 0; i < first; i += first/5 + 1 {
		_, err := q.OpenReader(e.ctx(), e.topic, mq.ReaderOptions{From: msgs[i].Position})
		e.wantErr(err, mq.ErrTrimmed)
	}
	if first > 1 {
		_, err := q.OpenReader(e.ctx(), e.topic, mq.ReaderOptions{From: msgs[first-2].Position, Exclusive: true})
		e.wantErr(err, mq.ErrTrimmed)
	}
	if first > 0 { // nothing after it is gone: it works, or is refused, but does not skip
		r, err := q.OpenReader(e.ctx(), e.topic, mq.ReaderOptions{From: msgs[first-1].Position, Exclusive: true})
		if err == nil {
			e.wantNext(r, msgs[first])
			e.close(r)
		} else {
			e.wantErr(err, mq.ErrTrimmed)
		}
	}
	for _, o := range []mq.ReaderOptions{{}, {From: msgs[first].Position}} {
		r := e.reader(q, o)
		e.wantNext(r, msgs[first:]...)
		e.close(r)
	}
}

func testTrim(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.fill(p)
	at := len(msgs) * 2 / 3
	e.must(e.Queue.Trim(e.ctx(), e.topic, mq.Position{})) // before everything: nothing to do
	if e.first(e.Queue, msgs) != 0 {
		e.Fatal("a trim to the zero position dropped messages")
	}
	e.must(e.Queue.Trim(e.ctx(), e.topic, msgs[at].Position))
	first := e.first(e.Queue, msgs)
	if first > at {
		e.Fatalf("trim to message %d dropped up to %d", at, first)
	}
	e.checkTrimmed(e.Queue, msgs, first)
	e.must(e.Queue.Trim(e.ctx(), e.topic, msgs[at].Position))   // twice
	e.must(e.Queue.Trim(e.ctx(), e.topic, msgs[at/2].Position)) // backwards
	first = e.first(e.Queue, msgs)
	e.checkTrimmed(e.Queue, msgs, first)
	last := len(msgs) - 1
	e.must(e.Queue.Trim(e.ctx(), e.topic, msgs[last].Position)) // the last stays
	if e.first(e.Queue, msgs) > last {
		e.Fatal("the position of the trim is gone")
	}
	more := e.append(p, 1)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{From: msgs[last].Position}), msgs[last], more[0])
}

func testTrimUnderReader(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.fill(p)
	r := e.reader(e.Queue, mq.ReaderOptions{})
	e.wantNext(r, msgs[0])
	e.must(e.Queue.Trim(e.ctx(), e.topic, msgs[len(msgs)-1].Position))
	for i := 1; i < len(msgs); i++ {
		m, err := r.Next(e.ctx())
		if errors.Is(err, mq.ErrTrimmed) {
			return
		}
		e.must(err)
		if m.Position != msgs[i].Position {
			e.Fatalf("after message %d the reader got %s instead of %s", i-1, m.Position, msgs[i].Position)
		}
	}
}

func testBounds(e *env) {
	b, err := e.Queue.Bounds(e.ctx(), e.topic)
	e.must(err)
	if b != (mq.Bounds{}) {
		e.Fatalf("bounds of a new topic: %v", b)
	}
	p := e.producer(e.Queue, 1)
	if b, err = e.Queue.Bounds(e.ctx(), e.topic); err != nil || b != (mq.Bounds{}) {
		e.Fatalf("bounds of an empty topic: %v, %v", b, err)
	}
	one := e.append(p, 1)[0]
	if b, err = e.Queue.Bounds(e.ctx(), e.topic); err != nil || b.First != one.Position || b.Last != one.Position {
		e.Fatalf("bounds of one message at %s: %v, %v", one.Position, b, err)
	}
	msgs := e.fill(p)
	last := msgs[len(msgs)-1].Position
	if b, err = e.Queue.Bounds(e.ctx(), e.topic); err != nil || b.First != one.Position || b.Last != last {
		e.Fatalf("bounds of a used topic: %v, %v", b, err)
	}
	e.must(e.Queue.Trim(e.ctx(), e.topic, last))
	if b, err = e.Queue.Bounds(e.ctx(), e.topic); err != nil || last.Before(b.First) || b.Last != last {
		e.Fatalf("bounds of a trimmed topic: %v, %v", b, err)
	}
}
