package mqtest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

func testOrder(e *env) {
	p := e.producer(e.Queue, 1)
	batch := []mq.Message{e.message("a"), e.message("b"), e.message("c")}
	batch[1].Key = "" // for every vchannel
	batch[2].Payload = nil
	msgs := e.appendAll(p, batch...)
	msgs = append(msgs, e.append(p, 3)...)
	for i, m := range msgs {
		if m.Position.IsZero() || m.Position.Timestamp != m.Timestamp {
			e.Fatalf("message %d of timestamp %d has position %s", i, m.Timestamp, m.Position)
		}
		if i > 0 && !msgs[i-1].Position.Before(m.Position) {
			e.Fatalf("position %s is not before %s", msgs[i-1].Position, m.Position)
		}
	}
	r := e.reader(e.Queue, mq.ReaderOptions{})
	e.wantNext(r, msgs...)
	e.close(r)
	e.close(p)
}

func testRollOver(e *env) {
	p := e.producer(e.Queue, 1)
	var msgs []mq.Message
	for len(msgs) < e.RollOver {
		batch := make([]mq.Message, 10)
		for i := range batch {
			batch[i] = e.message(strings.Repeat("x", 1000))
		}
		msgs = append(msgs, e.appendAll(p, batch...)...)
	}
	for i := 1; i < len(msgs); i++ {
		if !msgs[i-1].Position.Before(msgs[i].Position) {
			e.Fatalf("message %d: position %s is not after %s", i, msgs[i].Position, msgs[i-1].Position)
		}
	}
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), msgs...)
	for i := 0; i < len(msgs); i += len(msgs)/7 + 1 {
		rest := msgs[i:min(i+12, len(msgs))]
		r := e.reader(e.Queue, mq.ReaderOptions{From: rest[0].Position})
		e.wantNext(r, rest...)
		e.close(r)
		r = e.reader(e.Queue, mq.ReaderOptions{FromTimestamp: rest[0].Timestamp - 3})
		e.wantNext(r, rest...)
		e.close(r)
	}
}

func testReadFrom(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.append(p, 6)
	for i, m := range msgs {
		incl := e.reader(e.Queue, mq.ReaderOptions{From: m.Position})
		e.wantNext(incl, msgs[i:]...)
		e.close(incl)
		// The timestamp in a position is information: the id says where.
		excl := e.reader(e.Queue, mq.ReaderOptions{From: mq.Position{ID: m.Position.ID}, Exclusive: true})
		e.wantNext(excl, msgs[i+1:]...)
		more := e.append(p, 1)
		e.wantNext(excl, more[0])
		e.close(excl)
		msgs = append(msgs, more...)
	}
	text, err := msgs[2].Position.MarshalText()
	e.must(err)
	var pos mq.Position
	e.must(pos.UnmarshalText(text))
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{From: pos}), msgs[2])
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{Exclusive: true}), msgs[0]) // no effect without From
}

func testReadFromTimestamp(e *env) {
	early := e.reader(e.Queue, mq.ReaderOptions{FromTimestamp: 5})
	p := e.producer(e.Queue, 1)
	msgs := e.append(p, 5) // 10, 20, 30, 40, 50
	e.wantNext(early, msgs...)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{FromTimestamp: 1}), msgs...)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{FromTimestamp: 30}), msgs[2:]...)
	e.wantNext(e.reader(e.Queue, mq.ReaderOptions{FromTimestamp: 31}), msgs[3:]...)
	later := e.reader(e.Queue, mq.ReaderOptions{FromTimestamp: 75})
	more := e.append(p, 4) // 60, 70, 80, 90
	e.wantNext(later, more[2:]...)
}

func testReadLatest(e *env) {
	empty := e.reader(e.Queue, mq.ReaderOptions{Latest: true})
	p := e.producer(e.Queue, 1)
	msgs := e.append(p, 3)
	e.wantNext(empty, msgs...)
	r := e.reader(e.Queue, mq.ReaderOptions{Latest: true})
	e.wantNext(r, e.append(p, 2)...)
}

func testBadReaderOptions(e *env) {
	p := e.producer(e.Queue, 1)
	m := e.append(p, 1)[0]
	for _, o := range []mq.ReaderOptions{
		{From: m.Position, Latest: true},
		{From: m.Position, FromTimestamp: 5},
		{FromTimestamp: 5, Latest: true},
		{From: mq.Position{ID: "?"}},
	} {
		_, err := e.Queue.OpenReader(e.ctx(), e.topic, o)
		if !errclass.Is(err, errclass.Invalid) {
			e.Fatalf("OpenReader(%+v): got %v, want an error of class invalid", o, err)
		}
	}
}

func testSeveralReaders(e *env) {
	p := e.producer(e.Queue, 1)
	msgs := e.append(p, 9)
	a := e.reader(e.Queue, mq.ReaderOptions{Name: "same"})
	b := e.reader(e.Queue, mq.ReaderOptions{Name: "same", From: msgs[3].Position})
	c := e.reader(e.Queue, mq.ReaderOptions{Name: "same", Latest: true})
	e.wantNext(a, msgs[0], msgs[1])
	e.wantNext(b, msgs[3:]...)
	e.close(b)
	e.wantNext(a, msgs[2:]...)
	e.wantNext(c, e.append(p, 1)...)
}

func testReaderWakes(e *env) {
	r := e.reader(e.Queue, mq.ReaderOptions{})
	p := e.producer(e.Queue, 1)
	type result struct {
		m   mq.Message
		err error
	}
	for range 5 {
		got, started := make(chan result, 1), make(chan struct{})
		ctx := e.ctx()
		background(func() {
			close(started)
			m, err := r.Next(ctx)
			got <- result{m, err}
		})
		<-started
		want := e.append(p, 1)[0]
		res := <-got
		e.must(res.err)
		if res.m.Position != want.Position {
			e.Fatalf("got %s, want %s", res.m.Position, want.Position)
		}
	}
}

func testNextDeadline(e *env) {
	r := e.reader(e.Queue, mq.ReaderOptions{})
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_, err := r.Next(ctx)
		cancel()
		e.wantErr(err, context.DeadlineExceeded)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	background(func() { _, err := r.Next(ctx); done <- err })
	cancel()
	e.wantErr(<-done, context.Canceled)
	// A wait that was given up loses nothing.
	p := e.producer(e.Queue, 1)
	e.wantNext(r, e.append(p, 2)...)
}

func testPayloadOwnership(e *env) {
	p := e.producer(e.Queue, 1)
	buf := []byte("first")
	e.appendAll(p, mq.Message{Timestamp: 10, Payload: buf})
	copy(buf, "XXXXX") // the caller may use its buffer again
	r := e.reader(e.Queue, mq.ReaderOptions{})
	m := e.next(r)
	e.ts = 10
	e.append(p, 20)
	for range 20 {
		e.next(r)
	}
	if string(m.Payload) != "first" {
		e.Fatalf("the payload became %q", m.Payload)
	}
	copy(m.Payload, "YYYYY") // and so may the reader
	if again := e.next(e.reader(e.Queue, mq.ReaderOptions{})); string(again.Payload) != "first" {
		e.Fatalf("another reader sees %q", again.Payload)
	}
}

// testAhead takes a position of a topic that is longer: nothing about how a
// backend counts is assumed beyond "topics count from the same start".
func testAhead(e *env) {
	short := e.topic
	e.topic += "-long"
	long := e.append(e.producer(e.Queue, 1), 40)
	e.topic = short
	p := e.producer(e.Queue, 1)
	last := e.append(p, 2)[1]
	far := long[len(long)-1].Position
	if !last.Position.Before(far) {
		e.Skip("positions of a longer topic are not after those of a shorter one")
	}
	_, err := e.Queue.OpenReader(e.ctx(), e.topic, mq.ReaderOptions{From: far})
	e.wantErr(err, mq.ErrAhead)
	_, err = e.Queue.OpenReader(e.ctx(), e.topic, mq.ReaderOptions{From: far, Exclusive: true})
	e.wantErr(err, mq.ErrAhead)
	r := e.reader(e.Queue, mq.ReaderOptions{From: last.Position, Exclusive: true}) // the end itself is not ahead
	e.wantNext(r, e.append(p, 1)...)
}

func testTopics(e *env) {
	names := []string{e.topic + "-1", e.topic + "-2", e.topic + "_dml_0/x y.%41:Ä"}
	all := map[string][]mq.Message{}
	for round := range 2 {
		for i, name := range names {
			e.topic = name
			p := e.producer(e.Queue, uint64(round))
			all[name] = append(all[name], e.appendAll(p, e.message(fmt.Sprintf("%d/%d", round, i)))...)
			e.close(p)
		}
	}
	for name, msgs := range all {
		e.topic = name
		e.wantNext(e.reader(e.Queue, mq.ReaderOptions{}), msgs...)
		b, err := e.Queue.Bounds(e.ctx(), name)
		e.must(err)
		if b.First != msgs[0].Position || b.Last != msgs[1].Position {
			e.Fatalf("bounds of %q: %v", name, b)
		}
	}
	if _, err := e.Queue.OpenProducer(e.ctx(), "", mq.ProducerOptions{}); err == nil || errors.Is(err, mq.ErrFenced) {
		e.Fatalf("a topic without a name: %v", err)
	}
}
