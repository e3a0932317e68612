package pulsar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// kindOf tells what a payload is.
func kindOf(t testing.TB, payload []byte) *entry {
	t.Helper()
	e, err := decode(payload)
	if err != nil {
		t.Error(err)
		return &entry{}
	}
	return e
}

// keep keeps the one that comes late.
func keep(late *func()) func(func()) { return func(deliver func()) { *late = deliver } }

func TestWhoIsRefusedWritesNothing(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	producerOf(t, q, 2)
	m.onSend = func(string, []byte) sendFault { t.Error("something was sent"); return sendFault{} }
	_, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 1})
	wantErr(t, err, mq.ErrFenced)
}

// Trims come from anybody, also from who knows another end.
func TestATrimMovesTheBeginningForwardAndNotBeyondTheEnd(t *testing.T) {
	s := newborn()
	s.last = point{entryID{1, 5}, 2}
	for _, c := range []struct {
		target, want point
	}{
		{point{entryID{1, 5}, 3}, noPoint()}, {point{entryID{2, 0}, 0}, noPoint()},
		{point{entryID{1, 3}, 1}, point{entryID{1, 3}, 1}}, {point{entryID{1, 3}, 0}, point{entryID{1, 3}, 1}},
		{noPoint(), point{entryID{1, 3}, 1}}, {point{entryID{1, 5}, 2}, point{entryID{1, 5}, 2}},
	} {
		s.fold(&entry{kind: trim, target: c.target, base: newborn()}, entryID{1, 9})
		if s.trim != c.want {
			t.Fatalf("after a trim to %v the topic begins at %v, want %v", c.target, s.trim, c.want)
		}
	}
}

// The lower one looks before the higher one claims, and claims after it.
func TestOfTwoThatOpenAtOnceTheHigherTermWins(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	appendSome(t, producerOf(t, q, 1), 1, 2)
	looked, higherIsOpen := make(chan struct{}), make(chan struct{})
	m.onSend = func(_ string, payload []byte) sendFault {
		if e := kindOf(t, payload); e.kind == claim && e.term == 3 {
			close(looked)
			return sendFault{hold: higherIsOpen}
		}
		return sendFault{}
	}
	lower := make(chan error)
	go func() {
		_, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 3})
		lower <- err
	}()
	<-looked
	p := producerOf(t, q, 5)
	appendSome(t, p, 3, 4)
	close(higherIsOpen)
	wantErr(t, <-lower, mq.ErrFenced)
	appendSome(t, p, 5, 6)
	wantLog(t, q, mq.ReaderOptions{}, numbers(1, 6)...)
}

// A claim that its caller gave up arrives after the one that followed it.
func TestALateClaimOfTheSameTermDoesNotFenceItsSuccessor(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	appendSome(t, producerOf(t, q, 1), 1, 1)
	var late func()
	m.onSend = func(string, []byte) sendFault { return sendFault{late: keep(&late), err: context.DeadlineExceeded} }
	if _, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 2}); !errclass.Is(err, errclass.Retryable) {
		t.Fatal(err)
	}
	m.onSend = nil
	p := producerOf(t, q, 2)
	appendSome(t, p, 2, 2)
	late()
	appendSome(t, p, 3, 4)
	wantLog(t, q, mq.ReaderOptions{}, numbers(1, 4)...)
}

// The same claim arrives first: the successor has to claim again.
func TestAClaimThatComesBetweenIsOvertaken(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	var late func()
	m.onSend = func(string, []byte) sendFault { return sendFault{late: keep(&late), err: context.DeadlineExceeded} }
	_, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 2})
	if err == nil {
		t.Fatal("opened without a claim")
	}
	m.onSend = func(string, []byte) sendFault { m.onSend = nil; late(); return sendFault{} }
	appendSome(t, producerOf(t, q, 2), 1, 3)
	wantLog(t, q, mq.ReaderOptions{}, numbers(1, 3)...)
}

// What the old owner had on its way counts if it lands before the claim, and
// not if it lands after it.
func TestWhatIsOnItsWayWhenTheOwnerChanges(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before=%v", before), func(t *testing.T) {
			m := newMemory(7)
			q := m.queue(t)
			old := producerOf(t, q, 1)
			appendSome(t, old, 1, 1)
			var late func()
			m.onSend = func(string, []byte) sendFault { return sendFault{late: keep(&late), err: context.DeadlineExceeded} }
			_, err := old.Append(testCtx(t), msg(2))
			wantErr(t, err, mq.ErrUnknownOutcome)
			_, err = old.Append(testCtx(t), msg(3))
			wantErr(t, err, mq.ErrUnknownOutcome) // and refuses from now on
			m.onSend = nil
			if before {
				late()
			}
			p := producerOf(t, q, 1)
			appendSome(t, p, 4, 4)
			if !before {
				late()
			}
			appendSome(t, p, 5, 5)
			if before {
				wantLog(t, q, mq.ReaderOptions{}, 1, 2, 4, 5)
			} else {
				wantLog(t, q, mq.ReaderOptions{}, 1, 4, 5)
				if q.Stats().Void == 0 {
					t.Fatal("the late entry was not met")
				}
			}
		})
	}
}

// A fenced owner that has slept through everything appends at the very end; the
// last entry is then one that does not count.
func TestAnEntryOfAFencedOwnerAtTheEndIsNoEnd(t *testing.T) {
	m := newMemory(3)
	q, other := m.queue(t), m.queue(t)
	old := producerOf(t, q, 1)
	appendSome(t, old, 1, 2)
	p := producerOf(t, other, 2)
	at := appendSome(t, p, 3, 9)
	_, err := old.Append(testCtx(t), msg(100))
	wantErr(t, err, mq.ErrFenced)
	_, err = old.Append(testCtx(t), msg(101))
	wantErr(t, err, mq.ErrFenced)
	b, err := q.Bounds(testCtx(t), topicName)
	if err != nil || b.Last != at[len(at)-1] {
		t.Fatalf("bounds %v, %v", b, err)
	}
	if _, err = q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 1}); !errors.Is(err, mq.ErrFenced) {
		t.Fatalf("the term is forgotten: %v", err)
	}
	wantLog(t, q, mq.ReaderOptions{}, numbers(1, 9)...)
	wantLog(t, q, mq.ReaderOptions{From: at[3], Exclusive: true}, numbers(7, 9)...)
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{Latest: true})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, r)
	appendSome(t, p, 10, 10)
	if got, err := r.Next(testCtx(t)); err != nil || got.Timestamp != 100 {
		t.Fatalf("%v, %v", got, err)
	}
}

// An acknowledgement is lost, the client sends again: the entry is stored twice.
func TestAnEntryThatIsStoredTwiceIsThereOnce(t *testing.T) {
	for _, anon := range []bool{false, true} {
		m := newMemory(5)
		q := m.queue(t)
		p := producerOf(t, q, 1)
		m.onSend = func(_ string, payload []byte) sendFault {
			return sendFault{copies: 1 + len(payload)%3, anon: anon} // -1:-1 is no position
		}
		acked := appendSome(t, p, 1, 20)
		m.onSend = nil
		read := wantLog(t, q, mq.ReaderOptions{}, numbers(1, 20)...)
		for i := range acked {
			if acked[i] != read[i] {
				t.Fatalf("message %d was acknowledged at %s and is read at %s", i+1, acked[i], read[i])
			}
			if i < len(acked)-1 {
				wantLog(t, q, mq.ReaderOptions{From: acked[i], Exclusive: true}, numbers(i+2, 20)...)
			}
		}
		if q.Stats().Duplicates == 0 {
			t.Fatal("no duplicate was met")
		}
	}
}

// Owners come and go, claims race, acknowledgements are lost, entries come late:
// what was acknowledged is there once and in order, and terms never go back.
func TestOwnersInAHurry(t *testing.T) {
	m := newMemory(5)
	var dice sync.Mutex
	rnd := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	roll := func(n int) int {
		dice.Lock()
		defer dice.Unlock()
		return rnd.IntN(n)
	}
	var lateMu sync.Mutex
	var late []func()
	m.onSend = func(string, []byte) sendFault {
		switch roll(20) {
		case 0:
			return sendFault{copies: 2}
		case 1:
			return sendFault{err: errclass.New(errclass.Retryable, "acknowledgement lost")}
		case 2:
			return sendFault{lose: true, err: errclass.New(errclass.Retryable, "lost")}
		case 3:
			return sendFault{err: errclass.New(errclass.Retryable, "late"), late: func(deliver func()) {
				lateMu.Lock()
				defer lateMu.Unlock()
				late = append(late, deliver)
			}}
		}
		return sendFault{}
	}
	type ack struct {
		id   string
		term uint64
	}
	var mu sync.Mutex
	acked := map[string]ack{} // by payload
	var clock, term atomic.Uint64
	var wg sync.WaitGroup
	for n := range 4 {
		q := m.queue(t)
		wg.Go(func() {
			for i := range 12 {
				mine := term.Add(uint64(roll(2)))
				p, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: mine})
				if err != nil {
					continue
				}
				for j := range 6 {
					text := fmt.Sprintf("%d/%d/%d", n, i, j)
					at, err := p.Append(testCtx(t), mq.Message{Timestamp: clock.Add(1), Payload: []byte(text)})
					if err != nil {
						break
					}
					mu.Lock()
					acked[text] = ack{at[0].ID, mine}
					mu.Unlock()
				}
				if roll(2) == 0 {
					mustClose(t, p)
				}
				lateMu.Lock()
				for k := len(late) - 1; k >= 0 && roll(2) == 0; k-- {
					late[k]()
					late = late[:k]
				}
				lateMu.Unlock()
			}
		})
	}
	wg.Wait()
	m.onSend = nil
	q := m.queue(t)
	end := producerOf(t, q, 1000)
	at, err := end.Append(testCtx(t), mq.Message{Timestamp: clock.Add(1), Payload: []byte("end")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, r)
	seen := map[string]bool{}
	last, lastTerm := "", uint64(0)
	for {
		got, err := r.Next(testCtx(t))
		if err != nil {
			t.Fatalf("%+v", err)
		}
		if got.Position == at[0] {
			break
		}
		text := string(got.Payload)
		if seen[text] {
			t.Fatalf("%s is there twice", text)
		}
		if got.Position.ID <= last {
			t.Fatalf("%s: position %s does not grow", text, got.Position)
		}
		seen[text], last = true, got.Position.ID
		if a, ok := acked[text]; ok {
			if a.id != got.Position.ID {
				t.Fatalf("%s was acknowledged at %x and is at %s", text, a.id, got.Position)
			}
			if a.term < lastTerm {
				t.Fatalf("%s of term %d was acknowledged after one of term %d", text, a.term, lastTerm)
			}
			lastTerm = a.term
		}
	}
	for text := range acked {
		if !seen[text] {
			t.Errorf("%s was acknowledged and is not there", text)
		}
	}
	if len(acked) == 0 || q.Stats().Void+q.Stats().Duplicates == 0 {
		t.Fatalf("%d acknowledged, %+v: nothing has happened", len(acked), q.Stats())
	}
}

func TestATrimBeyondTheEndIsRefused(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	at := appendSome(t, producerOf(t, q, 1), 1, 3)
	pt, err := decodePoint(at[2])
	if err != nil {
		t.Fatal(err)
	}
	pt.slot++
	wantErr(t, q.Trim(testCtx(t), topicName, pt.position(0)), mq.ErrAhead)
	wantLog(t, q, mq.ReaderOptions{}, 1, 2, 3)
}
