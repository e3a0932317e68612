package wal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// followed is an append in the background that is told what becomes of its entry.
type followed struct {
	*appending
	told chan uint64
}

func followLater(ctx context.Context, w *WAL, e Entry) *followed {
	f := &followed{&appending{done: make(chan struct{})}, make(chan uint64, 2)}
	go func() {
		defer close(f.done)
		f.receipt, f.err = w.Follow(ctx, e, func(ts uint64) { f.told <- ts })
	}()
	return f
}

// all returns what f was told.
func (f *followed) all() (all []uint64) {
	synctest.Wait()
	for {
		select {
		case ts := <-f.told:
			all = append(all, ts)
		default:
			return all
		}
	}
}

// TestWhoFollowsAnEntryIsToldOnceWhatBecomesOfIt: where it is in the log, that it is in none, or where it is if it is, also
// if the caller has left.
func TestWhoFollowsAnEntryIsToldOnceWhatBecomesOfIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, gate := mqtest.NewMemory(mqtest.MemoryOptions{}), make(chan struct{})
		o := quiet(q)
		o.MaxPendingEntries = 2
		w := openReady(t, o)
		stored := followLater(t.Context(), w, insert("stored"))
		if all := stored.all(); stored.err != nil || !slices.Equal(all, []uint64{stored.receipt.Timestamp}) {
			t.Errorf("stored at %d, told %v, %v", stored.receipt.Timestamp, all, stored.err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		for what, f := range map[string]*followed{
			"a timetick":      followLater(t.Context(), w, Entry{Type: TimeTick}),
			"too large":       followLater(t.Context(), w, insert(strings.Repeat("x", int(w.o.MaxPendingBytes)+1))),
			"after the event": followLater(ended, w, insert("x")),
		} {
			if all := f.all(); f.err == nil || !slices.Equal(all, []uint64{0}) {
				t.Errorf("%s: told %v, %v", what, all, f.err)
			}
		}
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { <-gate; return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		taken := followLater(ctx, w, insert("taken"))
		synctest.Wait()
		queued := followLater(ctx, w, insert("queued"))
		synctest.Wait()
		waits := followLater(ctx, w, insert("waits"))
		synctest.Wait()
		cancel()
		synctest.Wait()
		if all := taken.all(); !errors.Is(taken.err, mq.ErrUnknownOutcome) || len(all) != 0 {
			t.Errorf("the queue still has it in its hands: told %v, %v", all, taken.err)
		}
		for _, f := range []*followed{queued, waits} {
			if all := f.all(); !slices.Equal(all, []uint64{0}) {
				t.Errorf("never written: told %v, %v", all, f.err)
			}
		}
		close(gate)
		synctest.Wait()
		last := q.Messages(topic)[len(q.Messages(topic))-1]
		if all := taken.all(); !slices.Equal(all, []uint64{last.Timestamp}) || fmt.Sprint(string(mustBody(t, last))) != "taken" {
			t.Errorf("stored after its caller left, at %d: told %v", last.Timestamp, all)
		}
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error {
			return errclass.New(errclass.Exhausted, "disk full")
		}})
		refused := followLater(t.Context(), w, insert("x"))
		if all := refused.all(); !slices.Equal(all, []uint64{0}) {
			t.Errorf("the queue is full: told %v, %v", all, refused.err)
		}
		for what, hooks := range map[string]mqtest.Hooks{
			"its answer is lost": {AfterAppend: func(context.Context, string, []mq.Position) error { return errors.New("lost") }},
			"the queue panics":   {BeforeAppend: func(context.Context, string, []mq.Message) error { panic("odd") }},
		} {
			q.SetHooks(mqtest.Hooks{})
			o.Term++
			again := openReady(t, o)
			q.SetHooks(hooks)
			doubtful := followLater(t.Context(), again, insert("x"))
			synctest.Wait()
			behind := followLater(t.Context(), again, insert("y"))
			if all := doubtful.all(); !errors.Is(doubtful.err, mq.ErrUnknownOutcome) || len(all) != 1 || all[0] <= last.Timestamp {
				t.Errorf("%s: told %v, %v", what, all, doubtful.err)
			}
			if all := behind.all(); behind.err == nil || !slices.Equal(all, []uint64{0}) {
				t.Errorf("%s: who comes later is told %v, %v", what, all, behind.err)
			}
			_ = again.Close(context.Background())
		}
		q.SetHooks(mqtest.Hooks{})
		fenced := followLater(t.Context(), w, insert("late"))
		if all := fenced.all(); !errors.Is(fenced.err, mq.ErrFenced) || !slices.Equal(all, []uint64{0}) {
			t.Errorf("of an owner that is over: told %v, %v", all, fenced.err)
		}
		_ = w.Close(context.Background())
		opening := mustOpen(t, quiet(q))
		waiting := followLater(t.Context(), opening, insert("z"))
		synctest.Wait()
		_ = opening.Close(context.Background())
		if all := waiting.all(); waiting.err == nil || !slices.Equal(all, []uint64{0}) {
			t.Errorf("of a log that closes: told %v, %v", all, waiting.err)
		}
	})
}

func mustBody(t *testing.T, m mq.Message) []byte {
	t.Helper()
	e, err := Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	return e.Body
}
