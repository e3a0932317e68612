package dispatcher

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

var errBroken = errclass.Mark(errors.New("broker is away"), errclass.Retryable)

func TestBrokenReaderIsRebuilt(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a, b recorder
		ha := w.subscribe("p", "a", mq.Position{}, &a)
		w.subscribe("p", "b", mq.Position{}, &b)
		w.put("p", "a", "", "b")
		w.in(ha, Tailing)
		w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error { return errBroken }})
		time.Sleep(5 * time.Second)
		w.put("p", "b", "", "a")
		time.Sleep(30 * time.Second)
		w.in(ha, Lagging)
		if i := ha.Info(); !errors.Is(i.LastErr, errBroken) {
			t.Errorf("last error %v", i.LastErr)
		}
		if n := len(w.q.OpenReaders()); n > 1 {
			t.Errorf("%d readers at the broker", n)
		}
		st := w.m.Stats()
		if st.Rebuilds < 5 || st.Rebuilds > 20 {
			t.Errorf("%d rebuilds in 35 s, want an exponential back-off", st.Rebuilds)
		}
		w.q.SetHooks(mqtest.Hooks{})
		time.Sleep(15 * time.Second)
		w.in(ha, Tailing)
		w.got(&a, "p", "a", mq.Position{})
		w.got(&b, "p", "b", mq.Position{})
	})
}

// Each failure after a success begins with a short wait again.
func TestBackoffStartsAgain(t *testing.T) {
	var waits []time.Duration
	o := Options{Events: Events{ConsumerFailed: func(_, _ string, _ error, wait time.Duration) { waits = append(waits, wait) }}}
	inBubble(t, o, func(w *world) {
		h := w.subscribe("p", "a", mq.Position{}, &recorder{})
		for range 6 {
			w.in(h, Tailing)
			w.put("p", "a")
			synctest.Wait()
			once := true
			w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error {
				if once {
					once = false
					return errBroken
				}
				return nil
			}})
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if len(waits) != 6 || slices.Max(waits) > w.m.o.BackoffMin {
			t.Errorf("waits %v", waits)
		}
	})
}

func TestOpenFailsAtFirst(t *testing.T) {
	for name, hooks := range map[string]mqtest.Hooks{
		"open":        {BeforeOpenReader: func(context.Context, string, mq.ReaderOptions) error { return errBroken }},
		"open panics": {BeforeOpenReader: func(context.Context, string, mq.ReaderOptions) error { panic("in the client") }},
		"bounds":      {BeforeBounds: func(context.Context, string) error { return errBroken }},
		"next panics": {BeforeNext: func(context.Context, string) error { panic("in the client") }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(w *world) {
				w.q.SetHooks(hooks)
				w.put("p", "a", "a")
				var a recorder
				h := w.subscribe("p", "a", mq.Position{}, &a)
				time.Sleep(3 * time.Second)
				if s := h.State(); s != Subscribing && s != Lagging || a.count() != 0 {
					t.Errorf("%s after %d messages", s, a.count())
				}
				w.q.SetHooks(mqtest.Hooks{})
				time.Sleep(15 * time.Second)
				w.got(&a, "p", "a", mq.Position{})
				w.in(h, Tailing)
			})
		})
	}
}

func TestRefusedTopicFails(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		h := w.subscribe("p", "a", mq.Position{ID: "not of this queue"}, &recorder{})
		w.in(h, Failed)
		if !errclass.Is(h.Err(), errclass.Invalid) {
			t.Errorf("%v", h.Err())
		}
		<-h.Done()
	})
}

// lose makes a position that is gone: trimmed, or ahead of the end.
func lose(w *world, what string) mq.Position {
	first := w.put("p", "a")
	from := first
	last := w.put("p", "a", "a", "a")
	if what == "trimmed" {
		w.must(w.q.Trim(w.ctx, "p", last))
		return from
	}
	return mq.Position{ID: "\xff\x00\x00\x00\x00\x00\x00\x00", Timestamp: last.Timestamp + 1}
}

func TestPositionGone(t *testing.T) {
	for what, sentinel := range map[string]error{"trimmed": mq.ErrTrimmed, "ahead": mq.ErrAhead} {
		t.Run(what+" fails", func(t *testing.T) {
			inBubble(t, Options{}, func(w *world) {
				from := lose(w, what)
				var a recorder
				h := w.subscribe("p", "a", from, &a)
				w.in(h, Failed)
				if !errors.Is(h.Err(), sentinel) || !errclass.Is(h.Err(), errclass.Position) {
					t.Errorf("%v", h.Err())
				}
				<-h.Done()
				if infos := w.m.Subscriptions(); len(infos) != 1 || infos[0].State != Failed {
					t.Errorf("a failed one must stay visible: %+v", infos)
				}
				h2 := w.subscribe("p", "a", mq.Position{}, &a)
				w.in(h2, Tailing)
				w.got(&a, "p", "a", mq.Position{})
				w.must(h.Close(w.ctx))
				w.in(h2, Tailing)
			})
		})
		t.Run(what+" skips", func(t *testing.T) {
			var lost atomic.Int32
			o := Options{OnPositionGone: SkipToOldest, Events: Events{
				PositionLost: func(_ ID, _ mq.Position, err error) {
					if errors.Is(err, sentinel) {
						lost.Add(1)
					}
				}}}
			inBubble(t, o, func(w *world) {
				from := lose(w, what)
				var a recorder
				h := w.subscribe("p", "a", from, &a)
				time.Sleep(time.Second)
				w.in(h, Tailing)
				w.put("p", "a")
				w.got(&a, "p", "a", mq.Position{})
				if lost.Load() != 1 || w.m.Stats().PositionsLost != 1 {
					t.Errorf("%d events, %+v", lost.Load(), w.m.Stats())
				}
			})
		})
	}
}

// A tailing subscription whose place is trimmed while its reader is broken, and
// one on the same consumer that is further on.
func TestTrimmedWhileReaderIsBroken(t *testing.T) {
	for policy, want := range map[PositionPolicy]State{FailSubscription: Failed, SkipToOldest: Tailing} {
		inBubble(t, Options{OnPositionGone: policy}, func(w *world) {
			var a recorder
			h := w.subscribe("p", "a", mq.Position{}, &a)
			w.put("p", "a")
			w.in(h, Tailing)
			w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error { return errBroken }})
			time.Sleep(3 * time.Second)
			w.put("p", "a", "a")
			w.must(w.q.Trim(w.ctx, "p", w.put("p", "a")))
			w.q.SetHooks(mqtest.Hooks{})
			time.Sleep(15 * time.Second)
			w.in(h, want)
			if n := a.count(); n != 1 && want == Failed || n != 2 && want == Tailing {
				t.Errorf("%d messages under policy %d", n, policy)
			}
		})
	}
}

// A reader was opened at the oldest message, which is gone before it was read: the next reader
// would begin behind it, and nobody would know.
func TestTrimmedBeforeTheFirstMessageIsRead(t *testing.T) {
	for policy, want := range map[PositionPolicy]State{FailSubscription: Failed, SkipToOldest: Tailing} {
		inBubble(t, Options{OnPositionGone: policy}, func(w *world) {
			w.put("p", "a", "a")
			read := make(chan struct{})
			w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error { <-read; return nil }})
			var a recorder
			h := w.subscribe("p", "a", mq.Position{}, &a)
			synctest.Wait()
			w.must(w.q.Trim(w.ctx, "p", w.put("p", "a")))
			close(read)
			time.Sleep(5 * time.Second)
			w.in(h, want)
			if n := a.count(); n != 0 && want == Failed || n != 1 && want == Tailing || want == Failed && !errors.Is(h.Err(), mq.ErrTrimmed) {
				t.Errorf("%d messages under policy %d: %v", n, policy, h.Err())
			}
		})
	}
}

// A group begins at its earliest place; when that is gone only those fail who need it.
func TestTrimmedFailsOnlyThoseBeforeIt(t *testing.T) {
	inBubble(t, Options{MaxCatchUpPerPChannel: 1}, func(w *world) {
		early := w.put("p", "")
		late := w.put("p", "", "", "")
		w.put("p", "a", "b")
		var a, b recorder
		hooked := make(chan struct{})
		w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { <-hooked; return nil }})
		ha := w.subscribe("p", "a", early, &a)
		hb := w.subscribe("p", "b", late, &b)
		synctest.Wait()
		w.must(w.q.Trim(w.ctx, "p", late))
		close(hooked)
		time.Sleep(time.Second)
		w.in(ha, Failed)
		w.in(hb, Tailing)
		w.got(&b, "p", "b", late)
	})
}

// A place ahead of the end is found out even when the shared consumer could
// just wait for it, and even in a group.
func TestAheadIsNotTakenOnTrust(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		last := w.put("p", "a")
		w.in(w.subscribe("p", "a", mq.Position{}, &recorder{}), Tailing)
		ahead := mq.Position{ID: "\x00\x00\x00\x00\x00\x00\x10\x00", Timestamp: last.Timestamp + 1}
		h := w.subscribe("p", "b", ahead, &recorder{})
		w.in(h, Failed)
		if !errors.Is(h.Err(), mq.ErrAhead) {
			t.Errorf("%v", h.Err())
		}
		near := w.subscribe("p", "c", last, &recorder{})
		h = w.subscribe("p", "d", ahead, &recorder{})
		time.Sleep(5 * time.Second)
		w.in(h, Failed)
		w.in(near, Tailing)
	})
}

// The same in a group that becomes the shared consumer.
func TestAheadInAGroupIsNotTakenOnTrust(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		early := w.put("p", "a")
		last := w.put("p", "a")
		both := make(chan struct{})
		w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { <-both; return nil }})
		ahead := mq.Position{ID: "\x00\x00\x00\x00\x00\x00\x10\x00", Timestamp: last.Timestamp + 1}
		h := w.subscribe("p", "a", early, &recorder{})
		ha := w.subscribe("p", "b", ahead, &recorder{})
		synctest.Wait()
		if n := len(w.m.Consumers()); n != 1 {
			t.Fatalf("the story needs a group, there are %d consumers", n)
		}
		close(both)
		w.in(ha, Failed)
		w.in(h, Tailing)
	})
}

func TestCorruptMessageIsSkipped(t *testing.T) {
	var skipped []mq.Position
	o := Options{Events: Events{CorruptSkipped: func(_ string, e *mq.CorruptError) { skipped = append(skipped, e.Position) }}}
	inBubble(t, o, func(w *world) {
		w.put("p", "a", "")
		bad := w.put("p", "a")
		w.put("p", "a")
		w.q.Corrupt("p", bad)
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		w.in(h, Tailing)
		tail := w.put("p", "a")
		w.q.Corrupt("p", tail)
		synctest.Wait()
		for _, s := range a.all() {
			if strings.Contains(s, "corrupt") {
				t.Error(s)
			}
		}
		if a.count() < 3 || len(skipped) == 0 || skipped[0] != bad || w.m.Stats().Corrupt != uint64(len(skipped)) {
			t.Errorf("%d messages, skipped %v", a.count(), skipped)
		}
		w.put("p", "a")
		w.in(h, Tailing)
	})
}

// stuckReader gives the same corrupt message for ever.
type stuckReader struct {
	mq.Reader
	at mq.Position
}

func (r stuckReader) Next(context.Context) (mq.Message, error) {
	return mq.Message{}, &mq.CorruptError{Position: r.at}
}

type stuckQueue struct {
	mq.Queue
	at mq.Position
}

func (q stuckQueue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Queue.OpenReader(ctx, topic, o)
	if err == nil && o.From.Before(q.at) {
		r = stuckReader{r, q.at}
	}
	return r, err
}

func TestReaderStuckAtACorruptMessage(t *testing.T) {
	mem := mqtest.NewMemory(mqtest.MemoryOptions{})
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, ctx: t.Context(), q: mem, writer: map[string]mq.Producer{}}
		bad := w.put("p", "a")
		m, err := New(Options{Queue: stuckQueue{mem, bad}})
		w.must(err)
		w.m = m
		var a recorder
		w.subscribe("p", "a", mq.Position{}, &a)
		w.put("p", "a")
		time.Sleep(time.Second)
		w.got(&a, "p", "a", bad)
		if st := m.Stats(); st.Corrupt != 1 || st.Rebuilds != 1 {
			t.Errorf("%+v", st)
		}
		w.closeClean()
	})
}
