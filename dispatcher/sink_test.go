package dispatcher

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

func TestSinkThatAsksForARetry(t *testing.T) {
	for _, class := range []errclass.Class{errclass.Exhausted, errclass.Retryable, errclass.Closed} {
		inBubble(t, Options{}, func(w *world) {
			var broken atomic.Bool
			a := recorder{hook: func(context.Context, []mq.Message) error {
				if broken.Load() {
					return errclass.New(class, "no memory")
				}
				return nil
			}}
			var b recorder
			ha := w.subscribe("p", "a", mq.Position{}, &a)
			hb := w.subscribe("p", "b", mq.Position{}, &b)
			at := w.put("p", "a", "")
			w.in(ha, Tailing)
			broken.Store(true)
			w.put("p", "a", "b", "", "a")
			w.in(ha, Lagging)
			w.in(hb, Tailing)
			w.got(&b, "p", "b", mq.Position{})
			if ha.Position() != at || ha.Info().LastErr == nil {
				t.Errorf("position %s, last error %v", ha.Position(), ha.Info().LastErr)
			}
			broken.Store(false)
			time.Sleep(time.Second)
			w.in(ha, Tailing)
			w.got(&a, "p", "a", mq.Position{})
		})
	}
}

// Closing does not wait for the next try.
func TestCloseWhileTheSinkWaits(t *testing.T) {
	inBubble(t, Options{BackoffMin: time.Hour, BackoffMax: time.Hour, DrainTimeout: time.Minute}, func(w *world) {
		h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: func(context.Context, []mq.Message) error { return errBroken }})
		w.put("p", "a")
		synctest.Wait()
		began := time.Now()
		w.must(h.Close(w.ctx))
		if d := time.Since(began); d != 0 {
			t.Errorf("Close took %s", d)
		}
	})
}

func TestSinkThatFails(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		boom := errors.New("disk is on fire")
		a := recorder{hook: func(_ context.Context, msgs []mq.Message) error { return boom }}
		var b recorder
		ha := w.subscribe("p", "a", mq.Position{}, &a)
		hb := w.subscribe("p", "b", mq.Position{}, &b)
		w.put("p", "a", "b", "")
		w.in(ha, Failed)
		<-ha.Done()
		if !errors.Is(ha.Err(), boom) || !ha.Position().IsZero() {
			t.Errorf("%v at %s", ha.Err(), ha.Position())
		}
		w.in(hb, Tailing)
		w.got(&b, "p", "b", mq.Position{})
		w.must(ha.Close(w.ctx))
		if n := len(w.m.Subscriptions()); n != 1 {
			t.Errorf("%d subscriptions after the failed handle was closed", n)
		}
	})
}

func TestLastSinkThatFailsClosesTheConsumer(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: func(context.Context, []mq.Message) error { return errors.New("no") }})
		w.put("p", "a")
		w.in(h, Failed)
		if n := len(w.m.Consumers()); n != 0 {
			t.Errorf("%d consumers for nobody", n)
		}
	})
}

// A panic costs the message that causes it, whether it is raised or returned.
func TestSinkThatPanics(t *testing.T) {
	raise := func() error { panic("poison") }
	for name, poison := range map[string]func() error{
		"raised":   raise,
		"returned": func() error { return lifecycle.Call("task", raise) },
	} {
		t.Run(name, func(t *testing.T) {
			var aside []mq.Position
			o := Options{Events: Events{SetAside: func(_ ID, at mq.Position, _ error) { aside = append(aside, at) }}}
			inBubble(t, o, func(w *world) {
				start := w.put("p", "a", "")
				for range 2 {
					w.put("p", "a", "", "a")
				}
				bad := w.put("p", "a")
				w.put("p", "a", "")
				a := recorder{hook: func(_ context.Context, msgs []mq.Message) error {
					if slices.ContainsFunc(msgs, func(m mq.Message) bool { return m.Position == bad }) {
						return poison()
					}
					return nil
				}}
				h := w.subscribe("p", "a", start, &a)
				w.in(h, Tailing)
				last := w.put("p", "a")
				synctest.Wait()
				poisoned := payloadAt(w, bad)
				want := slices.DeleteFunc(w.wanted("p", "a", start), func(s string) bool { return s == poisoned })
				if got := a.all(); !slices.Equal(got, want) {
					t.Errorf("got %q\nwant %q", got, want)
				}
				if !slices.Equal(aside, []mq.Position{bad}) || w.m.Stats().SetAside != 1 {
					t.Errorf("set aside %v, want %s", aside, bad)
				}
				if h.Position() != last {
					t.Errorf("position %s, want %s", h.Position(), last)
				}
			})
		})
	}
}

func payloadAt(w *world, at mq.Position) string {
	for _, m := range w.q.Messages("p") {
		if m.Position == at {
			return string(m.Payload)
		}
	}
	return ""
}

func TestEventThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Context(), Options{Events: Events{StateChanged: func(ID, State, State, error) { panic("in a callback") }}})
		var a recorder
		w.in(w.subscribe("p", "a", mq.Position{}, &a), Tailing)
		w.put("p", "a")
		w.got(&a, "p", "a", mq.Position{})
		w.must(w.m.Close(w.ctx))
		if w.m.Stats().Panics == 0 {
			t.Error("panics are not counted")
		}
	})
}

// A bug of ours fails the subscriptions of one pchannel, nothing else.
func TestActorThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Context(), Options{})
		var b recorder
		ha := w.subscribe("p", "a", mq.Position{}, &recorder{})
		hb := w.subscribe("q", "b", mq.Position{}, &b)
		w.in(ha, Tailing)
		ha.s.actor.post(func() { panic("bug") })
		w.in(ha, Failed)
		if !errclass.Is(ha.Err(), errclass.Panicked) {
			t.Errorf("%v", ha.Err())
		}
		w.put("q", "b")
		w.got(&b, "q", "b", mq.Position{})
		w.in(hb, Tailing)
		w.in(w.subscribe("p", "a", mq.Position{}, &recorder{}), Tailing)
		w.must(w.m.Close(w.ctx))
		if n := len(w.q.OpenReaders()); n != 0 {
			t.Errorf("%d readers", n)
		}
	})
}
