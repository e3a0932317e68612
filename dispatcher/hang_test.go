package dispatcher

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// hanging makes one kind of queue call on topic "p" hang, ignoring its context,
// until release is called.
func hanging(call string) (h mqtest.Hooks, release func()) {
	ch := make(chan struct{})
	hang := func(topic string) error {
		if topic == "p" {
			<-ch
		}
		return nil
	}
	switch call {
	case "bounds":
		h.BeforeBounds = func(_ context.Context, topic string) error { return hang(topic) }
	case "open":
		h.BeforeOpenReader = func(_ context.Context, topic string, _ mq.ReaderOptions) error { return hang(topic) }
	case "next":
		h.BeforeNext = func(_ context.Context, topic string) error { return hang(topic) }
	case "close":
		h.BeforeClose = func(_ context.Context, what string) error {
			if strings.HasPrefix(what, "reader p/") {
				<-ch
			}
			return nil
		}
	}
	return h, sync.OnceFunc(func() { close(ch) })
}

// A queue that hangs on one pchannel: the other works on, Close is bounded and
// names what hangs, and all is well once the queue comes back.
func TestQueueThatHangs(t *testing.T) {
	for _, call := range []string{"bounds", "open", "next", "close"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, t.Context(), Options{})
				hooks, release := hanging(call)
				defer release()
				w.q.SetHooks(hooks)
				w.put("p", "a", "a")
				w.put("q", "b")
				var b recorder
				hp := w.subscribe("p", "a", mq.Position{}, &recorder{})
				w.subscribe("q", "b", mq.Position{}, &b)
				time.Sleep(20 * time.Second)
				w.put("q", "b", "")
				w.got(&b, "q", "b", mq.Position{})

				began := time.Now()
				short, cancel := context.WithTimeout(w.ctx, 3*time.Second)
				defer cancel()
				err := w.m.Close(short)
				if d := time.Since(began); d > 3*time.Second {
					t.Errorf("Close took %s of its 3 s", d)
				}
				var left *CloseError
				if !errors.As(err, &left) || len(left.Consumers) == 0 || !strings.Contains(left.Consumers[0], "/p#") || len(left.Sinks) != 0 {
					t.Errorf("Close: %v", err)
				}
				for _, c := range w.m.Consumers() {
					if c.PChannel != "p" || !strings.Contains(err.Error(), c.Name) {
						t.Errorf("in the register after Close: %+v", c)
					}
				}
				began = time.Now()
				if err := w.m.Close(context.Background()); err == nil || time.Since(began) > w.m.o.stopBudget() {
					t.Errorf("second Close without a deadline: %v after %s", err, time.Since(began))
				}
				release()
				w.in(hp, Closed)
				w.closeClean()
			})
		})
	}
}

// While calls hang, readers are replaced, within the cap, and what hangs is
// listed as leaked; when the calls return, all of it goes away.
func TestHangingReadersAreReplaced(t *testing.T) {
	for _, call := range []string{"bounds", "open", "next"} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, Options{MaxCatchUpPerPChannel: 3}, func(w *world) {
				hooks, release := hanging(call)
				w.q.SetHooks(hooks)
				w.put("p", "a", "", "a")
				var a recorder
				h := w.subscribe("p", "a", mq.Position{}, &a)
				time.Sleep(5 * time.Minute)
				if st := w.m.Stats(); st.Leaked == 0 || st.Leaked > 4 || len(w.q.OpenReaders()) > 4 {
					t.Errorf("%+v, readers %q", st, w.q.OpenReaders())
				}
				w.q.SetHooks(mqtest.Hooks{})
				if call == "next" { // Close woke it at the broker; a new reader takes over at once
					if n := len(w.q.OpenReaders()); n > 1 {
						t.Errorf("%d readers at the broker: hanging ones must be closed", n)
					}
				}
				release()
				time.Sleep(30 * time.Second)
				w.in(h, Tailing)
				w.got(&a, "p", "a", mq.Position{})
				if st := w.m.Stats(); st.Leaked != 0 || len(w.m.Consumers()) != 1 || len(w.q.OpenReaders()) != 1 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// One reader hangs, the queue is otherwise well: the subscription goes on
// with another reader although the first never returns.
func TestOneHangingReaderIsReplaced(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		w.in(h, Tailing)
		hooks, release := hanging("next")
		w.q.SetHooks(hooks)
		time.Sleep(2 * time.Second) // the running poll ends, the next one hangs
		w.q.SetHooks(mqtest.Hooks{})
		w.put("p", "a", "")
		time.Sleep(10 * time.Second)
		w.got(&a, "p", "a", mq.Position{})
		w.in(h, Tailing)
		if st := w.m.Stats(); st.Leaked != 1 || st.Leaks != 1 {
			t.Errorf("%+v", st)
		}
		if n := len(w.q.OpenReaders()); n != 1 {
			t.Errorf("%d readers at the broker", n)
		}
		release()
		synctest.Wait()
		if st := w.m.Stats(); st.Leaked != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A Close that fails is listed as leaked and tried again; the consumer goes on
// with another reader meanwhile.
func TestCloseThatFails(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		w.in(h, Tailing)
		var once sync.Once
		w.q.SetHooks(mqtest.Hooks{
			BeforeNext: func(context.Context, string) (err error) {
				once.Do(func() { err = errBroken })
				return err
			},
			BeforeClose: func(context.Context, string) error { return errBroken },
		})
		time.Sleep(3 * time.Second)
		w.put("p", "a")
		w.got(&a, "p", "a", mq.Position{})
		if st := w.m.Stats(); st.Leaked != 1 || len(w.q.OpenReaders()) != 2 || len(w.m.Consumers()) != 2 {
			t.Errorf("%+v, readers %q", st, w.q.OpenReaders())
		}
		short, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		if err := h.Close(short); err == nil || !strings.Contains(err.Error(), "querynode/p#") {
			t.Errorf("Close of the handle must name the consumer: %v", err)
		}
		w.in(h, Closed)
		w.q.SetHooks(mqtest.Hooks{})
		time.Sleep(time.Minute)
		if n := len(w.m.Consumers()) + len(w.q.OpenReaders()); n != 0 {
			t.Errorf("%d left: a failed Close must be tried again", n)
		}
	})
}

// When the queue refuses to close a reader, Close of the Manager says so.
func TestManagerCloseNamesReadersThatDoNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Context(), Options{})
		w.in(w.subscribe("p", "a", mq.Position{}, &recorder{}), Tailing)
		name := w.m.Consumers()[0].Name
		w.q.SetHooks(mqtest.Hooks{BeforeClose: func(context.Context, string) error { return errBroken }})
		err := w.m.Close(w.ctx)
		var left *CloseError
		if !errors.As(err, &left) || len(left.Consumers) != 1 || left.Consumers[0] != name || len(left.Goroutines) != 0 {
			t.Errorf("%v, want %s named and nothing running", err, name)
		}
		if c := w.m.Consumers(); len(c) != 1 || !c[0].Leaked {
			t.Errorf("%+v", c)
		}
	})
}

// A sink that ignores its context can't hold Close up.
func TestSinkThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Context(), Options{})
		release := make(chan struct{})
		h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: func(context.Context, []mq.Message) error { <-release; return nil }})
		last := w.put("p", "a")
		synctest.Wait()
		short, cancel := context.WithTimeout(w.ctx, 3*time.Second)
		defer cancel()
		if err := h.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close of the handle: %v", err)
		}
		if n := len(w.q.OpenReaders()); n != 0 {
			t.Errorf("%d readers: the consumer needs no sink to close", n)
		}
		var left *CloseError
		if err := w.m.Close(w.ctx); !errors.As(err, &left) || len(left.Sinks) != 1 || left.Sinks[0] != "a" || len(left.Consumers) != 0 {
			t.Errorf("Close of the manager: %v", err)
		}
		close(release)
		w.in(h, Closed)
		if h.Position() != last {
			t.Errorf("position %s, want %s: that Apply did return nil", h.Position(), last)
		}
		w.closeClean()
	})
}
