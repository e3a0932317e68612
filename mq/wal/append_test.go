package wal

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestAnAcknowledgedEntryIsInTheQueueAsWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		o := quiet(q)
		o.Term = 7
		w := openReady(t, o)
		body := []byte("row")
		r, err := w.Append(context.Background(), Entry{Type: Delete, VChannel: "v9", Body: body, Term: 99, Timestamp: 5})
		if err != nil {
			t.Fatal(err)
		}
		body[0] = 'X' // the WAL has its own copy
		e, err := Decode(q.Messages(topic)[0])
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != Delete || e.VChannel != "v9" || string(e.Body) != "row" || e.Term != 7 {
			t.Fatalf("stored: %+v", e)
		}
		if e.Timestamp != r.Timestamp || e.Position != r.Position || w.LastTimestamp() != r.Timestamp {
			t.Fatalf("receipt %+v, stored %+v, last %d", r, e, w.LastTimestamp())
		}
		if Physical(r.Timestamp) != time.Now().UnixMilli() {
			t.Fatalf("timestamp %d is not of now", r.Timestamp)
		}
		mustClose(t, w)
	})
}

func TestAppendsThatWaitAreWrittenTogetherAndInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, gate := mqtest.NewMemory(mqtest.MemoryOptions{}), make(chan struct{})
		var calls []int
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(_ context.Context, _ string, msgs []mq.Message) error {
			calls = append(calls, len(msgs))
			<-gate
			return nil
		}})
		o := quiet(q)
		o.MaxBatchEntries = 60
		w := openReady(t, o)
		as := []*appending{appendLater(context.Background(), w, "first")}
		for i := range 100 {
			synctest.Wait() // so that the order of arrival is known
			as = append(as, appendLater(context.Background(), w, fmt.Sprint(i)))
		}
		synctest.Wait()
		close(gate)
		var last Receipt
		for i, a := range as {
			<-a.done
			if a.err != nil || a.receipt.Timestamp <= last.Timestamp || !last.Position.Before(a.receipt.Position) {
				t.Fatalf("append %d: %v %+v after %+v", i, a.err, a.receipt, last)
			}
			last = a.receipt
		}
		if fmt.Sprint(calls) != "[1 60 40]" {
			t.Fatalf("batches: %v", calls)
		}
		if s := w.Stats(); s.Appended != 101 || s.Batches != 3 || s.PendingEntries != 0 || s.PendingBytes != 0 {
			t.Fatalf("stats: %+v", s)
		}
		mustClose(t, w)
	})
}

func TestAppendsBeforeReadyAreWrittenOnceReady(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, gate := seeded(t), make(chan struct{})
		o := quiet(q)
		o.Replay = func(context.Context, Entry) error { <-gate; return nil }
		w := mustOpen(t, o)
		as := appendMany(w, 10)
		synctest.Wait()
		wantState(t, w, Recovering)
		if w.LastTimestamp() != 0 || w.Stats().PendingEntries != 10 {
			t.Fatalf("stats: %+v", w.Stats())
		}
		close(gate)
		for _, a := range as {
			<-a.done
			if a.err != nil {
				t.Fatal(a.err)
			}
		}
		mustClose(t, w)
	})
}

func TestANewOwnerFencesTheOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, gate := mqtest.NewMemory(mqtest.MemoryOptions{}), make(chan struct{})
		old := openReady(t, quiet(q))
		mustAppend(t, old, "old")
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { <-gate; return nil }})
		as := append(appendMany(old, 1), func() []*appending { synctest.Wait(); return appendMany(old, 50) }()...)
		synctest.Wait()
		q.SetHooks(mqtest.Hooks{})
		o := quiet(q)
		o.Term = 2
		young := openReady(t, o)
		close(gate)
		for _, a := range as {
			<-a.done
			wantClass(t, a.err, errclass.Fenced)
			if !errors.Is(a.err, mq.ErrFenced) || errors.Is(a.err, mq.ErrUnknownOutcome) {
				t.Fatalf("append: %v", a.err)
			}
		}
		wantState(t, old, Fenced)
		<-old.Done()
		if _, err := old.Append(context.Background(), insert("late")); !errors.Is(err, mq.ErrFenced) {
			t.Fatalf("append: %v", err)
		}
		mustAppend(t, young, "young")
		if n := len(q.Messages(topic)); n != 2 {
			t.Fatalf("%d messages", n)
		}
		mustClose(t, old)
		mustClose(t, young)
		nothingOpen(t, q)
	})
}

func TestAnOldTermNeverGetsTheTopic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		o := quiet(q)
		o.Term = 2
		young := openReady(t, o)
		old := mustOpen(t, quiet(q))
		if err := old.Ready(context.Background()); !errors.Is(err, mq.ErrFenced) {
			t.Fatalf("ready: %v", err)
		}
		wantState(t, old, Fenced)
		mustClose(t, old)
		mustAppend(t, young, "x")
		mustClose(t, young)
	})
}

func TestNoRoomInTheQueueIsToldAndPasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error {
			return errclass.New(errclass.Exhausted, "disk full")
		}})
		_, err := w.Append(context.Background(), insert("x"))
		wantClass(t, err, errclass.Exhausted)
		wantState(t, w, Ready)
		q.SetHooks(mqtest.Hooks{})
		mustAppend(t, w, "y")
		if s := w.Stats(); s.Refused != 1 || s.PendingBytes != 0 {
			t.Fatalf("stats: %+v", s)
		}
		mustClose(t, w)
	})
}

func TestATooLargeEntryFailsAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, gate := mqtest.NewMemory(mqtest.MemoryOptions{MaxPayloadBytes: 100}), make(chan struct{})
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { <-gate; return nil }})
		w := openReady(t, quiet(q))
		as := appendMany(w, 1)
		synctest.Wait()
		as = append(as, appendMany(w, 20)...)
		large := appendLater(context.Background(), w, string(bytes.Repeat([]byte("x"), 200)))
		as = append(as, appendMany(w, 20)...)
		synctest.Wait()
		close(gate)
		for _, a := range as {
			if <-a.done; a.err != nil {
				t.Fatalf("an innocent append: %v", a.err)
			}
		}
		<-large.done
		wantClass(t, large.err, errclass.Invalid)
		if !errors.Is(large.err, mq.ErrTooLarge) {
			t.Fatalf("append: %v", large.err)
		}
		var last uint64
		for _, m := range q.Messages(topic) {
			if m.Timestamp <= last {
				t.Fatal("timestamps are out of order")
			}
			last = m.Timestamp
		}
		wantState(t, w, Ready)
		mustClose(t, w)
	})
}

func TestAnUnknownOutcomeFailsTheWAL(t *testing.T) {
	failures := map[string]mqtest.Hooks{
		"lost answer": {AfterAppend: func(context.Context, string, []mq.Position) error { return errors.New("lost") }},
		"unknown":     {BeforeAppend: func(context.Context, string, []mq.Message) error { return mq.ErrUnknownOutcome }},
		"odd error":   {BeforeAppend: func(context.Context, string, []mq.Message) error { return errors.New("odd") }},
		"panic":       {BeforeAppend: func(context.Context, string, []mq.Message) error { panic("odd") }},
		"hang":        {BeforeAppend: func(ctx context.Context, _ string, _ []mq.Message) error { <-ctx.Done(); return ctx.Err() }},
	}
	for name, h := range failures {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := mqtest.NewMemory(mqtest.MemoryOptions{})
				o := quiet(q)
				o.MaxBatchEntries = 1
				w := openReady(t, o)
				q.SetHooks(h)
				first := appendLater(context.Background(), w, "first")
				second := appendLater(context.Background(), w, "second")
				<-first.done
				<-second.done
				for _, a := range []*appending{first, second} {
					wantClass(t, a.err, errclass.Retryable)
				}
				// One was in the queue's hands; the other certainly not.
				if errors.Is(first.err, mq.ErrUnknownOutcome) == errors.Is(second.err, mq.ErrUnknownOutcome) {
					t.Fatalf("first: %v; second: %v", first.err, second.err)
				}
				wantState(t, w, Failed)
				_, err := w.Append(context.Background(), insert("late"))
				if !errors.Is(err, ErrFailed) || errors.Is(err, mq.ErrUnknownOutcome) {
					t.Fatalf("late append: %v", err)
				}
				<-w.released // it lets go by itself
				nothingOpen(t, q)
				wantState(t, w, Failed)
				mustClose(t, w)
			})
		})
	}
}

func TestACallerThatGivesUpKnowsWhatItKnows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, gate := mqtest.NewMemory(mqtest.MemoryOptions{}), make(chan struct{})
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { <-gate; return nil }})
		o := quiet(q)
		o.MaxPendingEntries = 2
		w := openReady(t, o)
		ctx, cancel := context.WithCancel(context.Background())
		taken := appendLater(ctx, w, "taken")
		synctest.Wait()
		queued := appendLater(ctx, w, "queued")
		synctest.Wait()
		impatient, leave := context.WithCancel(context.Background())
		waits := appendLater(impatient, w, "waits")
		synctest.Wait()
		stays := appendLater(context.Background(), w, "stays")
		synctest.Wait()
		leave() // before the others: their room would let it in
		synctest.Wait()
		cancel()
		synctest.Wait()
		for _, a := range []*appending{taken, queued, waits} {
			if !isClosed(a.done) || !errors.Is(a.err, context.Canceled) {
				t.Fatalf("append: %v", a.err)
			}
			if errors.Is(a.err, mq.ErrUnknownOutcome) != (a == taken) {
				t.Fatalf("append: %v", a.err)
			}
		}
		wantClass(t, waits.err, errclass.Exhausted)
		close(gate)
		if <-stays.done; stays.err != nil {
			t.Fatal(stays.err)
		}
		var got []string
		for _, m := range q.Messages(topic) {
			e, _ := Decode(m)
			got = append(got, string(e.Body))
		}
		if fmt.Sprint(got) != "[taken stays]" {
			t.Fatalf("stored: %v", got)
		}
		if s := w.Stats(); s.PendingEntries != 0 || s.PendingBytes != 0 {
			t.Fatalf("who gave up keeps room: %+v", s)
		}
		mustClose(t, w)
	})
}

func TestPendingAppendsAreBoundedByNumberAndBytes(t *testing.T) {
	for name, set := range map[string]func(*Options){
		"entries": func(o *Options) { o.MaxPendingEntries, o.MaxWaiting = 10, 5 },
		"bytes": func(o *Options) {
			o.MaxPendingBytes, o.MaxWaiting = 10*newRequest(mustEncode(t, insert("a0")), Insert).size, 5
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q, gate := mqtest.NewMemory(mqtest.MemoryOptions{}), make(chan struct{})
				q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { <-gate; return nil }})
				o := quiet(q)
				set(&o)
				w := openReady(t, o)
				var as []*appending
				for range 15 {
					as = append(as, appendMany(w, 1)...)
					synctest.Wait()
				}
				if s := w.Stats(); s.PendingEntries != 10 || s.WaitingEntries != 5 {
					t.Fatalf("stats: %+v", s)
				}
				_, err := w.Append(context.Background(), insert("too many"))
				wantClass(t, err, errclass.Exhausted)
				close(gate)
				for _, a := range as {
					if <-a.done; a.err != nil {
						t.Fatal(a.err)
					}
				}
				if s := w.Stats(); s.PendingEntries+s.WaitingEntries != 0 || s.PendingBytes+s.WaitingBytes != 0 {
					t.Fatalf("stats: %+v", s)
				}
				mustClose(t, w)
			})
		})
	}
}

// TestInsertsDoNotKeepDeletesOut: these may go a part beyond the bounds that inserts have filled, and no further.
func TestInsertsDoNotKeepDeletesOut(t *testing.T) {
	const each = 1000 // bytes
	for name, set := range map[string]func(*Options){
		"entries": func(o *Options) { o.MaxPendingEntries, o.MaxWaiting = 8, 8 },
		"bytes":   func(o *Options) { o.MaxPendingBytes = 8*each + each/2 },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q, gate := mqtest.NewMemory(mqtest.MemoryOptions{}), make(chan struct{})
				q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { <-gate; return nil }})
				o := quiet(q)
				set(&o)
				w := openReady(t, o)
				var inserts, deletes, refused atomic.Int64
				var all sync.WaitGroup
				send := func(typ Type, took *atomic.Int64) {
					e := Entry{Type: typ, VChannel: "v1"}
					e.Body = make([]byte, each-newRequest(mustEncode(t, e), typ).size)
					all.Go(func() {
						switch _, err := w.Append(context.Background(), e); {
						case err == nil:
							took.Add(1)
						case errclass.Is(err, errclass.Exhausted):
							refused.Add(1)
						default:
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				for range 20 {
					send(Insert, &inserts)
				}
				if refused.Load() != 4 {
					t.Fatalf("%d inserts refused, want 4: 8 have room and 8 wait for it", refused.Load())
				}
				for range 2 {
					send(Delete, &deletes)
				}
				if refused.Load() != 4 {
					t.Fatal("inserts keep deletes out")
				}
				for range 3 {
					send(Delete, &deletes)
				}
				send(Insert, &inserts)
				if refused.Load() != 4+3+1 {
					t.Fatalf("%d refused: deletes are not bounded, or let inserts in", refused.Load())
				}
				close(gate)
				all.Wait()
				if inserts.Load() != 16 || deletes.Load() != 2 {
					t.Fatalf("%d inserts and %d deletes written", inserts.Load(), deletes.Load())
				}
				mustClose(t, w)
			})
		})
	}
}

func mustEncode(t testing.TB, e Entry) mq.Message {
	t.Helper()
	m, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAppendsThatCanNeverWorkAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := quiet(mqtest.NewMemory(mqtest.MemoryOptions{}))
		o.MaxPendingBytes = 1000
		w := openReady(t, o)
		for _, e := range []Entry{
			{}, {Type: TimeTick}, {Type: Insert, VChannel: string(make([]byte, mq.MaxKeyBytes+1))}, {Type: Insert, Body: make([]byte, 2000)},
		} {
			_, err := w.Append(context.Background(), e)
			wantClass(t, err, errclass.Invalid)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := w.Append(ctx, insert("x")); !errors.Is(err, context.Canceled) || errors.Is(err, mq.ErrUnknownOutcome) {
			t.Fatalf("append: %v", err)
		}
		mustClose(t, w)
	})
}

func TestAStormOfAppendsAndCloses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		acked := map[string]Receipt{}
		var mu sync.Mutex
		var from mq.Position
		for round := range 5 {
			o := quiet(q)
			o.Checkpoint, o.TimeTickInterval = from, time.Millisecond
			w := mustOpen(t, o)
			var wg sync.WaitGroup
			for g := range 20 {
				wg.Go(func() {
					for i := range 50 {
						body := fmt.Sprint(round, g, i)
						r, err := w.Append(context.Background(), insert(body))
						if err != nil {
							return
						}
						if w.LastTimestamp() < r.Timestamp {
							t.Error("LastTimestamp is behind an acknowledged append")
						}
						mu.Lock()
						acked[body] = r
						mu.Unlock()
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(time.Duration(10*round) * time.Millisecond)
			mustClose(t, w)
			wg.Wait()
			from = w.Stats().LastPosition
		}
		for _, m := range q.Messages(topic) {
			e, err := Decode(m)
			if err != nil {
				t.Fatal(err)
			}
			if r, ok := acked[string(e.Body)]; ok && r.Position != m.Position {
				t.Fatalf("%s: %v, stored at %v", e.Body, r, m.Position)
			}
			delete(acked, string(e.Body))
		}
		if len(acked) != 0 {
			t.Fatalf("%d acknowledged appends are lost", len(acked))
		}
		nothingOpen(t, q)
	})
}
