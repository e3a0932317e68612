package pulsar

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// held makes every send of data wait until the returned func.
func (m *memory) held(t *testing.T) (release func()) {
	hold := make(chan struct{})
	m.onSend = func(_ string, payload []byte) sendFault {
		if kindOf(t, payload).kind == data {
			return sendFault{hold: hold}
		}
		return sendFault{}
	}
	return func() { close(hold) }
}

func TestConcurrentAppendsGoOutTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		p := producerOf(t, q, 1)
		release := m.held(t)
		done := make(chan error)
		for n := 1; n <= 9; n++ {
			go func() {
				_, err := p.Append(testCtx(t), msg(n))
				done <- err
			}()
			synctest.Wait()
		}
		release()
		for range 9 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if s := q.Stats(); s.Entries != 2 || s.Messages != 9 {
			t.Fatalf("%+v", s)
		}
		wantLog(t, q, mq.ReaderOptions{}, numbers(1, 9)...)
		mustClose(t, q)
	})
}

func TestWhoGivesUpInLineIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		p := producerOf(t, q, 1)
		release := m.held(t)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { _, err := p.Append(testCtx(t), msg(1)); first <- err }()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, err := p.Append(short, msg(2)); second <- err }()
		wantErr(t, <-second, context.DeadlineExceeded)
		release()
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		appendSome(t, p, 3, 3)
		wantLog(t, q, mq.ReaderOptions{}, 1, 3)
		mustClose(t, q)
	})
}

func TestAnAppendReturnsSoonAfterItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		p := producerOf(t, q, 1)
		release := m.held(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := p.Append(ctx, msg(1))
		wantErr(t, err, mq.ErrUnknownOutcome)
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Fatalf("after %s", took)
		}
		if !errclass.Is(err, errclass.Retryable) {
			t.Fatal(err)
		}
		_, err = p.Append(testCtx(t), msg(2))
		wantErr(t, err, mq.ErrUnknownOutcome)
		release()
		synctest.Wait()
		q2 := producerOf(t, q, 1)
		appendSome(t, q2, 3, 3)
		wantLog(t, q, mq.ReaderOptions{}, 1, 3) // it was stored after all
		mustClose(t, q)
	})
}

func TestTooMuchInLineIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		q.o.MaxPendingBytes = 3 << 20
		p := producerOf(t, q, 1)
		release := m.held(t)
		big := mq.Message{Payload: make([]byte, 1<<20)}
		done := make(chan error, 4)
		for n := range 4 { // one on its way, two in line, one too many
			go func() {
				m := big
				m.Timestamp = uint64(n + 1)
				_, err := p.Append(testCtx(t), m)
				done <- err
			}()
			synctest.Wait()
		}
		if err := <-done; !errclass.Is(err, errclass.Exhausted) {
			t.Fatal(err)
		}
		release()
		for range 3 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, q)
	})
}

func TestCloseOfAProducerWaitsAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		p := producerOf(t, q, 1)
		release := m.held(t)
		appended := make(chan error, 1)
		go func() { _, err := p.Append(testCtx(t), msg(1)); appended <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Close(ctx); !errclass.Is(err, errclass.Closed) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		wantErr(t, <-appended, mq.ErrUnknownOutcome)
		release()
		mustClose(t, p)
		_, err := p.Append(testCtx(t), msg(2))
		wantErr(t, err, mq.ErrClosed)
		if h := q.Handles(); len(h) != 0 {
			t.Fatalf("%q", h)
		}
		mustClose(t, q)
	})
}

// stuck is a driver whose connection does not close until told to.
type stuck struct {
	memDriver
	q    *Queue
	free chan struct{}
}

func (s *stuck) close(ctx context.Context) error {
	return do(ctx, s.q.group, "close client", func() error { <-s.free; return nil })
}

func TestCloseNamesWhatDoesNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		d := &stuck{memDriver{m}, q, make(chan struct{})}
		q.driver = d
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := q.Close(ctx)
		if err == nil || !strings.Contains(err.Error(), "close client") {
			t.Fatal(err)
		}
		if c := q.Stats().Calls; len(c) != 1 || c[0] != "close client" {
			t.Fatalf("%q", c)
		}
		close(d.free)
		q.driver = memDriver{m}
		mustClose(t, q)
	})
}

func TestCloseEndsOpensThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(50)
		q := m.queue(t)
		m.store(fullName(topicName), []byte("foreign")) // so that a reader looks for more
		m.onSend = func(string, []byte) sendFault { return sendFault{hold: make(chan struct{})} }
		opened := make(chan error, 2)
		go func() {
			_, err := q.OpenProducer(context.Background(), topicName, mq.ProducerOptions{})
			opened <- err
		}()
		synctest.Wait()
		q.driver = deaf{memDriver{m}}
		go func() {
			_, err := q.OpenReader(context.Background(), topicName, mq.ReaderOptions{})
			opened <- err
		}()
		synctest.Wait()
		if len(opened) != 0 || len(q.Handles()) != 2 {
			t.Fatalf("%q, %d have returned", q.Handles(), len(opened))
		}
		mustClose(t, q)
		for range 2 {
			wantErr(t, <-opened, mq.ErrClosed)
		}
	})
}

// deaf never says where the end is.
type deaf struct{ memDriver }

func (deaf) last(ctx context.Context, _ string) (entryID, error) {
	<-ctx.Done()
	return none(), ctx.Err()
}

// panicky panics, as the client does when a send meets a close.
type panicky struct{ sender }

func (panicky) send(context.Context, []byte) (entryID, error) { panic("send on closed channel") }

func TestAPanicOfTheClientIsAnUnknownOutcome(t *testing.T) {
	q := newMemory(50).queue(t)
	_, err := call(testCtx(t), q.group, "send", func() (entryID, error) { return panicky{}.send(testCtx(t), nil) }, nil)
	if !errclass.Is(err, errclass.Panicked) {
		t.Fatal(err)
	}
}

func TestWhatACallBringsTooLateIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemory(50).queue(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		free, undone := make(chan struct{}), make(chan string, 1)
		_, err := call(ctx, q.group, "open reader", func() (string, error) { <-free; return "it", nil }, func(s string) { undone <- s })
		wantErr(t, err, context.DeadlineExceeded)
		close(free)
		if got := <-undone; got != "it" {
			t.Fatal(got)
		}
		mustClose(t, q)
	})
}
