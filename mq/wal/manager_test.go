package wal

import (
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

func newManager(t *testing.T, open func(ctx context.Context, pchannel string, term uint64) (Options, error)) *Manager {
	t.Helper()
	m, err := NewManager(ManagerOptions{Open: open})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// overQueue opens quiet WALs over q.
func overQueue(q mq.Queue) func(context.Context, string, uint64) (Options, error) {
	return func(context.Context, string, uint64) (Options, error) {
		return Options{Queue: q, TimeTickInterval: -1, CloseTimeout: 2 * time.Second}, nil
	}
}

func mustAssign(t *testing.T, m *Manager, pchannel string, term uint64) {
	t.Helper()
	if out, err := m.Assign(context.Background(), pchannel, term); out != Applied || err != nil {
		t.Fatalf("assign %s term %d: %s, %v", pchannel, term, out, err)
	}
}

func mustGet(t *testing.T, m *Manager, pchannel string) *WAL {
	t.Helper()
	w, err := m.Get(pchannel)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustCloseManager(t *testing.T, m *Manager) {
	t.Helper()
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestAssignOpensAndRemoveCloses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		m := newManager(t, overQueue(q))
		_, err := m.Get("p1")
		wantClass(t, err, errclass.NotFound)
		mustAssign(t, m, "p1", 3)
		mustAssign(t, m, "p2", 1)
		mustAssign(t, m, "p1", 3) // once more changes nothing
		w := mustGet(t, m, "p1")
		if w.State() != Ready || w.Term() != 3 || w.PChannel() != "p1" {
			t.Fatalf("%s term %d is %s", w.PChannel(), w.Term(), w.State())
		}
		mustAppend(t, w, "x")
		list := m.List()
		if len(list) != 2 || list[0].PChannel != "p1" || list[0].State != Ready || !list[0].Assigned || list[1].Term != 1 {
			t.Fatalf("list: %+v", list)
		}
		if out, err := m.Remove(context.Background(), "p1", 3); out != Applied || err != nil {
			t.Fatalf("remove: %s, %v", out, err)
		}
		wantState(t, w, Closed)
		_, err = m.Get("p1")
		wantClass(t, err, errclass.NotFound)
		if list := m.List(); list[0].Assigned || list[0].State != Closed {
			t.Fatalf("list: %+v", list)
		}
		mustCloseManager(t, m)
		nothingOpen(t, q)
		_, err = m.Assign(context.Background(), "p1", 4)
		wantClass(t, err, errclass.Closed)
		_, err = m.Get("p2")
		wantClass(t, err, errclass.Closed)
	})
}

func TestLateCommandsAreIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		m := newManager(t, overQueue(q))
		mustAssign(t, m, "p1", 5)
		w := mustGet(t, m, "p1")
		for _, late := range []func() (Outcome, error){
			func() (Outcome, error) { return m.Assign(context.Background(), "p1", 4) },
			func() (Outcome, error) { return m.Remove(context.Background(), "p1", 4) },
		} {
			if out, err := late(); out != Ignored || err != nil {
				t.Fatalf("late command: %s, %v", out, err)
			}
		}
		wantState(t, w, Ready)
		if out, err := m.Remove(context.Background(), "p1", 5); out != Applied || err != nil {
			t.Fatalf("remove: %s, %v", out, err)
		}
		if out, err := m.Assign(context.Background(), "p1", 5); out != Ignored || err != nil {
			t.Fatalf("assign after remove of the same term: %s, %v", out, err)
		}
		mustAssign(t, m, "p1", 6)
		mustCloseManager(t, m)
	})
}

func TestANewTermClosesTheOldFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		m := newManager(t, overQueue(q))
		mustAssign(t, m, "p1", 1)
		old := mustGet(t, m, "p1")
		mustAssign(t, m, "p1", 2)
		wantState(t, old, Closed)
		young := mustGet(t, m, "p1")
		if young.Term() != 2 {
			t.Fatalf("term %d", young.Term())
		}
		mustAppend(t, young, "x")
		mustCloseManager(t, m)
		nothingOpen(t, q)
	})
}

func TestANewTermGoesAheadOfAnOldThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := mqtest.NewMemory(mqtest.MemoryOptions{}), newStalled(false)
		m := newManager(t, overQueue(q))
		mustAssign(t, m, "p1", 1)
		old := mustGet(t, m, "p1")
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(ctx context.Context, _ string, _ []mq.Message) error { return s.wait(ctx) }})
		a := appendLater(context.Background(), old, "x")
		synctest.Wait()
		q.SetHooks(mqtest.Hooks{})
		within(t, 2*time.Second, func() { mustAssign(t, m, "p1", 2) })
		mustAppend(t, mustGet(t, m, "p1"), "y")
		if <-a.done; !errors.Is(a.err, mq.ErrUnknownOutcome) {
			t.Fatalf("append: %v", a.err)
		}
		if left := m.Abandoned(); len(left) != 1 || !containsText(errors.New(left[0]), `term 1: ["append"`) {
			t.Fatalf("abandoned: %q", left)
		}
		if err := m.Close(context.Background()); !containsText(err, `"append"`) {
			t.Fatalf("close: %v", err)
		}
		close(s.free)
		mustCloseManager(t, m)
		nothingOpen(t, q)
	})
}

func TestAFailedWALIsOpenedAgainWithBackOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		var mu sync.Mutex
		var opened []time.Duration
		start := time.Now()
		q.SetHooks(mqtest.Hooks{BeforeOpenProducer: func(context.Context, string, mq.ProducerOptions) error {
			mu.Lock()
			defer mu.Unlock()
			opened = append(opened, time.Since(start))
			if len(opened) <= 4 {
				return errclass.New(errclass.Retryable, "broker is away")
			}
			return nil
		}})
		m := newManager(t, overQueue(q))
		out, err := m.Assign(context.Background(), "p1", 1)
		if out != Applied || !containsText(err, "broker is away") {
			t.Fatalf("assign: %s, %v", out, err)
		}
		_, err = m.Get("p1")
		wantClass(t, err, errclass.Retryable)
		if st := m.List()[0]; st.Err == nil || st.Attempts != 1 {
			t.Fatalf("status: %+v", st)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if fmt.Sprint(opened) != "[0s 100ms 300ms 700ms 1.5s]" {
			t.Fatalf("opened at %v", opened)
		}
		w := mustGet(t, m, "p1")
		mustAppend(t, w, "x")
		if st := m.List()[0]; st.Err != nil || st.Attempts != 0 || st.State != Ready {
			t.Fatalf("status: %+v", st)
		}
		failAndReopen(t, q, m, w)
		mustCloseManager(t, m)
		nothingOpen(t, q)
	})
}

// A command that is repeated is answered by what is tried after it, not by what has failed before.
func TestARepeatedCommandIsNotAnsweredByAnOldFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		var tries atomic.Int64
		q.SetHooks(mqtest.Hooks{BeforeOpenProducer: func(context.Context, string, mq.ProducerOptions) error {
			if n := tries.Add(1); n <= 2 {
				return errclass.New(errclass.Retryable, "try %d", n)
			}
			return nil
		}})
		m := newManager(t, overQueue(q))
		for n := 1; n <= 2; n++ {
			if out, err := m.Assign(context.Background(), "p1", 1); out != Applied || !containsText(err, fmt.Sprint("try ", n)) {
				t.Fatalf("assign for the %d. time: %s, %v", n, out, err)
			}
		}
		mustAssign(t, m, "p1", 1)
		mustAssign(t, m, "p1", 1)
		short, cancel := context.WithCancel(context.Background())
		w := mustGet(t, m, "p1")
		q.SetHooks(mqtest.Hooks{
			AfterAppend:        func(context.Context, string, []mq.Position) error { return errors.New("lost") },
			BeforeOpenProducer: func(context.Context, string, mq.ProducerOptions) error { return errors.New("away") },
		})
		if _, err := w.Append(context.Background(), insert("y")); err == nil {
			t.Fatal("an append whose outcome is unknown")
		}
		synctest.Wait() // it has failed
		cancel()
		_, err := m.Assign(short, "p1", 1) // and is tried again later than this one waits
		wantClass(t, err, errclass.Retryable)
		if !containsText(err, "is under way") {
			t.Errorf("%v", err)
		}
		q.SetHooks(mqtest.Hooks{})
		mustAssign(t, m, "p1", 1)
		mustCloseManager(t, m)
		nothingOpen(t, q)
	})
}

// failAndReopen lets a WAL that was ready fail by an unknown outcome.
func failAndReopen(t *testing.T, q *mqtest.Memory, m *Manager, w *WAL) {
	t.Helper()
	q.SetHooks(mqtest.Hooks{AfterAppend: func(context.Context, string, []mq.Position) error { return errors.New("lost") }})
	if _, err := w.Append(context.Background(), insert("y")); !errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatalf("append: %v", err)
	}
	q.SetHooks(mqtest.Hooks{})
	time.Sleep(10 * time.Second)
	again := mustGet(t, m, "p1")
	if again == w || again.Term() != 1 {
		t.Fatal("it was not opened again under its term")
	}
	mustAppend(t, again, "z")
	if n := len(q.Messages("p1")); n != 3 {
		t.Fatalf("%d messages", n)
	}
}

func TestAFencedWALIsNotOpenedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, opened := mqtest.NewMemory(mqtest.MemoryOptions{}), 0
		q.SetHooks(mqtest.Hooks{BeforeOpenProducer: func(_ context.Context, _ string, o mq.ProducerOptions) error {
			if o.Term == 1 {
				opened++
			}
			return nil
		}})
		m := newManager(t, overQueue(q))
		mustAssign(t, m, "p1", 1)
		w := mustGet(t, m, "p1")
		o := quiet(q)
		o.Term = 2
		other := openReady(t, o)
		_, err := w.Append(context.Background(), insert("x"))
		wantClass(t, err, errclass.Fenced)
		time.Sleep(time.Minute)
		if opened != 1 {
			t.Fatalf("opened %d times", opened)
		}
		if _, err := m.Get("p1"); !errors.Is(err, mq.ErrFenced) {
			t.Fatalf("get: %v", err)
		}
		if _, err := m.Assign(context.Background(), "p1", 1); !errors.Is(err, mq.ErrFenced) {
			t.Fatalf("assign: %v", err)
		}
		mustAssign(t, m, "p1", 3) // a newer command opens it again
		mustClose(t, other)
		mustCloseManager(t, m)
		nothingOpen(t, q)
	})
}

func TestACommandIsCarriedOutWithoutItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		q.SetHooks(mqtest.Hooks{BeforeOpenProducer: func(context.Context, string, mq.ProducerOptions) error {
			time.Sleep(5 * time.Second)
			return nil
		}})
		m := newManager(t, overQueue(q))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := m.Assign(ctx, "p1", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("assign: %v", err)
		}
		w := mustGet(t, m, "p1") // appends may wait for it already
		mustAppend(t, w, "x")
		mustCloseManager(t, m)
	})
}

func TestANewerCommandOvertakesOneThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := mqtest.NewMemory(mqtest.MemoryOptions{}), newStalled(true)
		m := newManager(t, func(ctx context.Context, p string, term uint64) (Options, error) {
			if term == 1 {
				return Options{}, s.wait(ctx) // the catalog hangs
			}
			return overQueue(q)(ctx, p, term)
		})
		outs := make(chan Outcome, 1)
		go func() {
			out, err := m.Assign(context.Background(), "p1", 1)
			if err != nil {
				t.Error(err)
			}
			outs <- out
		}()
		synctest.Wait()
		_, err := m.Get("p1")
		wantClass(t, err, errclass.Retryable)
		mustAssign(t, m, "p1", 2)
		if out := <-outs; out != Ignored {
			t.Fatalf("the overtaken command was %s", out)
		}
		mustCloseManager(t, m)
	})
}

func TestManagerCloseWaitsForNoCallerAndNamesWhatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := mqtest.NewMemory(mqtest.MemoryOptions{}), newStalled(false)
		m := newManager(t, func(ctx context.Context, p string, term uint64) (Options, error) {
			if p == "stuck" {
				return Options{}, s.wait(ctx)
			}
			o, err := overQueue(q)(ctx, p, term)
			if p == "slow" {
				o.Replay = func(ctx context.Context, _ Entry) error { <-ctx.Done(); return ctx.Err() }
			}
			return o, err
		})
		slow, err := Open(Options{Queue: q, PChannel: "slow", TimeTickInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, slow, "x")
		mustClose(t, slow)
		errs := make(chan error, 2)
		for _, p := range []string{"stuck", "slow"} {
			go func() {
				_, err := m.Assign(context.Background(), p, 1)
				errs <- err
			}()
		}
		mustAssign(t, m, "fine", 1)
		synctest.Wait()
		within(t, m.o.CloseTimeout, func() {
			if err := m.Close(context.Background()); !containsText(err, "options of stuck") {
				t.Fatalf("close: %v", err)
			}
		})
		for range 2 {
			wantClass(t, <-errs, errclass.Closed)
		}
		nothingOpen(t, q)
		close(s.free)
		mustCloseManager(t, m)
	})
}

func TestManagerOptionsProblemsAreToldTogether(t *testing.T) {
	_, err := NewManager(ManagerOptions{MinBackoff: time.Hour, OpenTimeout: -1})
	wantClass(t, err, errclass.Invalid)
	for _, want := range []string{"Open is", "backoff", "OpenTimeout"} {
		if !containsText(err, want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	m := newManager(t, overQueue(nil))
	_, err = m.Assign(context.Background(), "", 1)
	wantClass(t, err, errclass.Invalid)
	_, err = m.Assign(context.Background(), "p1", 1) // no queue
	wantClass(t, err, errclass.Invalid)
	mustCloseManager(t, m)
}

func TestManagersFightOverATopicAndTheLastTermWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := mqtest.NewBroker(mqtest.MemoryOptions{})
		ms := []*Manager{newManager(t, overQueue(b.Connect())), newManager(t, overQueue(b.Connect()))}
		var wg sync.WaitGroup
		for term := range uint64(20) {
			m := ms[term%2]
			wg.Go(func() {
				_, err := m.Assign(context.Background(), "p1", term+1)
				if err != nil && !errors.Is(err, mq.ErrFenced) {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if w, err := m.Get("p1"); err == nil {
					_, _ = w.Append(context.Background(), insert("x"))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if w := mustGet(t, ms[1], "p1"); w.Term() != 20 || w.State() != Ready {
			t.Fatalf("term %d is %s", w.Term(), w.State())
		}
		var last uint64
		for _, msg := range b.Messages("p1") {
			if msg.Timestamp <= last {
				t.Fatal("timestamps are out of order")
			}
			last = msg.Timestamp
		}
		for _, m := range ms {
			mustCloseManager(t, m)
		}
	})
}
