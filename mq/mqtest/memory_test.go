package mqtest_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestMemoryInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		p, err := q.OpenProducer(ctx, "a", mq.ProducerOptions{Name: "w"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := q.OpenReader(ctx, "a", mq.ReaderOptions{Name: "r"})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string)
		go func() {
			for {
				m, err := r.Next(ctx)
				if err != nil {
					close(got)
					return
				}
				got <- string(m.Payload)
			}
		}()
		synctest.Wait()
		if _, err := p.Append(ctx, mq.Message{Timestamp: 1, Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != "x" {
			t.Fatalf("got %q", s)
		}
		// A virtual hour passes with no timer of the queue's own.
		short, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		<-short.Done()
		if err := q.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if _, open := <-got; open {
			t.Fatal("a message after Close")
		}
		if n := append(q.OpenProducers(), q.OpenReaders()...); len(n) != 0 {
			t.Fatalf("left behind: %q", n)
		}
	})
}

func TestHooksHangFailAndShowTheLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		r, err := q.OpenReader(t.Context(), "a", mq.ReaderOptions{Name: "r"})
		if err != nil {
			t.Fatal(err)
		}
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		q.SetHooks(mqtest.Hooks{
			BeforeNext:       func(ctx context.Context, _ string) error { return hang(ctx) },
			BeforeClose:      func(ctx context.Context, _ string) error { return hang(ctx) },
			BeforeOpenReader: func(context.Context, string, mq.ReaderOptions) error { return errors.New("broker is down") },
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Next: %v", err)
		}
		if _, err := q.OpenReader(t.Context(), "a", mq.ReaderOptions{}); err == nil || !strings.Contains(err.Error(), "broker is down") {
			t.Fatalf("OpenReader: %v", err)
		}
		if err := q.Close(ctx); err == nil || !strings.Contains(err.Error(), "reader a/r") {
			t.Fatalf("Close does not name the reader: %v", err)
		}
		if !slices.Equal(q.OpenReaders(), []string{"reader a/r"}) {
			t.Fatalf("open: %q", q.OpenReaders())
		}
		q.SetHooks(mqtest.Hooks{})
		if err := q.Close(t.Context()); err != nil || len(q.OpenReaders()) != 0 {
			t.Fatalf("second Close: %v, open %q", err, q.OpenReaders())
		}
	})
}

func TestUnknownOutcomeStoresAndRefuses(t *testing.T) {
	ctx := t.Context()
	b := mqtest.NewBroker(mqtest.MemoryOptions{Hooks: mqtest.Hooks{
		AfterAppend: func(context.Context, string, []mq.Position) error { return errors.New("connection lost") },
	}})
	p, err := b.Connect().OpenProducer(ctx, "a", mq.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Append(ctx, mq.Message{Timestamp: 1}); !errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	b.SetHooks(mqtest.Hooks{})
	if _, err := p.Append(ctx, mq.Message{Timestamp: 2}); !errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatalf("the producer goes on: %v", err)
	}
	if n := len(b.Messages("a")); n != 1 {
		t.Fatalf("%d messages", n)
	}
}

func TestCorruptMessageIsPassed(t *testing.T) {
	ctx := t.Context()
	b := mqtest.NewBroker(mqtest.MemoryOptions{})
	q := b.Connect()
	p, _ := q.OpenProducer(ctx, "a", mq.ProducerOptions{})
	at, err := p.Append(ctx, mq.Message{Timestamp: 1}, mq.Message{Timestamp: 2})
	if err != nil || !b.Corrupt("a", at[0]) {
		t.Fatal(err)
	}
	r, _ := q.OpenReader(ctx, "a", mq.ReaderOptions{})
	var bad *mq.CorruptError
	if _, err := r.Next(ctx); !errors.As(err, &bad) || bad.Position != at[0] {
		t.Fatal(err)
	}
	if m, err := r.Next(ctx); err != nil || m.Timestamp != 2 {
		t.Fatalf("%+v %v", m, err)
	}
}

func TestMemoryConforms(t *testing.T) {
	mqtest.Run(t, func(t *testing.T) mqtest.Fixture {
		b := mqtest.NewBroker(mqtest.MemoryOptions{MaxPayloadBytes: 2 << 20})
		connect := func(*testing.T) mq.Queue { return b.Connect() }
		return mqtest.Fixture{
			Queue: b.Connect(), Reopen: connect, Connect: connect, MaxPayload: 2 << 20,
			Open: func(*testing.T) []string { return append(b.OpenProducers(), b.OpenReaders()...) },
		}
	})
}
