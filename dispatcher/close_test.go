package dispatcher

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// situations bring a subscription of "a" on "p" into each state, and into each
// thing that may be going on behind it.
func situations() map[string]func(w *world) (*Handle, State) {
	untilClosed := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	return map[string]func(w *world) (*Handle, State){
		"subscribing, bounds under way": func(w *world) (*Handle, State) {
			w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(ctx context.Context, _ string) error { return untilClosed(ctx) }})
			return w.subscribe("p", "a", mq.Position{}, &recorder{}), Subscribing
		},
		"subscribing, open under way": func(w *world) (*Handle, State) {
			w.q.SetHooks(mqtest.Hooks{BeforeOpenReader: func(ctx context.Context, _ string, _ mq.ReaderOptions) error { return untilClosed(ctx) }})
			return w.subscribe("p", "a", mq.Position{}, &recorder{}), Subscribing
		},
		"subscribing, waits to open again": func(w *world) (*Handle, State) {
			w.q.SetHooks(mqtest.Hooks{BeforeOpenReader: func(context.Context, string, mq.ReaderOptions) error { return errBroken }})
			return w.subscribe("p", "a", mq.Position{}, &recorder{}), Subscribing
		},
		"subscribing, waits for a slot": func(w *world) (*Handle, State) {
			from := w.put("p", repeat(1000, "holder")...)
			w.put("p", repeat(1000, "holder")...)
			for _, v := range []string{"holder", "holder2"} {
				hook, _ := gate()
				w.subscribe("p", v, mq.Position{}, &recorder{hook: hook})
				synctest.Wait()
			}
			return w.subscribe("p", "a", from, &recorder{}), Subscribing
		},
		"catching up, reader waits for the buffer": func(w *world) (*Handle, State) {
			w.put("p", repeat(2000, "a")...)
			hook, _ := gate()
			return w.subscribe("p", "a", mq.Position{}, &recorder{hook: hook}), CatchingUp
		},
		"tailing a silent queue": func(w *world) (*Handle, State) {
			return w.subscribe("p", "a", mq.Position{}, &recorder{}), Tailing
		},
		"tailing, Apply under way": func(w *world) (*Handle, State) {
			hook, _ := gate()
			h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: hook})
			w.in(h, Tailing)
			w.put("p", "a", "a")
			return h, Tailing
		},
		"lagging, its consumer waits": func(w *world) (*Handle, State) {
			hook, _ := gate()
			h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: hook})
			w.in(h, Tailing)
			w.put("p", repeat(2000, "a")...)
			return h, Lagging
		},
		"lagging, sink asks for a retry": func(w *world) (*Handle, State) {
			h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: func(context.Context, []mq.Message) error { return errBroken }})
			w.in(h, Tailing)
			w.put("p", "a")
			return h, Lagging
		},
		"lagging, consumer waits to be rebuilt": func(w *world) (*Handle, State) {
			h := w.subscribe("p", "a", mq.Position{}, &recorder{})
			w.in(h, Tailing)
			w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error { return errBroken }})
			time.Sleep(30 * time.Second)
			return h, Lagging
		},
		"draining": func(w *world) (*Handle, State) {
			hook, _ := gate()
			h := w.subscribe("p", "a", mq.Position{}, &recorder{hook: hook})
			w.put("p", "a")
			synctest.Wait()
			ended, cancel := context.WithCancel(w.ctx)
			go func() { _ = h.Close(ended) }()
			synctest.Wait()
			cancel()
			return h, Draining
		},
		"closed": func(w *world) (*Handle, State) {
			h := w.subscribe("p", "a", mq.Position{}, &recorder{})
			w.must(h.Close(w.ctx))
			return h, Closed
		},
		"failed": func(w *world) (*Handle, State) {
			return w.subscribe("p", "a", mq.Position{ID: "bad"}, &recorder{}), Failed
		},
	}
}

var closeOptions = Options{MaxCatchUpPerPChannel: 1, BufferMessages: 8, ShareWindow: -1}

func TestCloseInEveryState(t *testing.T) {
	for name, bring := range situations() {
		t.Run("manager/"+name, func(t *testing.T) {
			inBubble(t, closeOptions, func(w *world) {
				h, state := bring(w)
				w.in(h, state)
				began := time.Now()
				w.must(w.m.Close(w.ctx))
				if d := time.Since(began); d >= 5*time.Second {
					t.Errorf("Close took %s", d)
				}
				<-h.Done()
				if s := h.State(); !s.Final() {
					t.Errorf("%s after Close", s)
				}
			})
		})
		t.Run("handle/"+name, func(t *testing.T) {
			inBubble(t, closeOptions, func(w *world) {
				h, state := bring(w)
				w.in(h, state)
				began := time.Now()
				w.must(h.Close(w.ctx))
				w.must(h.Close(w.ctx))
				if d := time.Since(began); d >= 5*time.Second {
					t.Errorf("Close took %s", d)
				}
				<-h.Done()
				if slices.ContainsFunc(w.m.Subscriptions(), func(i SubscriptionInfo) bool { return i.ID == h.ID() }) {
					t.Error("still listed")
				}
				var again recorder
				w.q.SetHooks(mqtest.Hooks{})
				h2 := w.subscribe("p", "a", mq.Position{}, &again)
				if name != "subscribing, waits for a slot" {
					w.got(&again, "p", "a", mq.Position{})
					w.in(h2, Tailing)
				}
			})
		})
	}
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		w.subscribe("p", "a", mq.Position{}, &recorder{})
		errs := make(chan error)
		for range 8 {
			go func() { errs <- w.m.Close(w.ctx) }()
		}
		for range 8 {
			w.must(<-errs)
		}
		if _, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p", VChannel: "b", Sink: &recorder{}}); !errclass.Is(err, errclass.Closed) {
			t.Errorf("Subscribe after Close: %v", err)
		}
		if n := len(w.m.Subscriptions()); n != 0 {
			t.Errorf("%d subscriptions", n)
		}
	})
}

func TestSubscribeWhileClosing(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		done := make(chan *Handle)
		for i := range 50 {
			go func() {
				v := string(rune('A' + i))
				h, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p" + v[:1], VChannel: v, Sink: &recorder{}})
				if err != nil && !errclass.Is(err, errclass.Closed) {
					t.Errorf("%v", err)
				}
				done <- h
			}()
			if i == 25 {
				go func() { _ = w.m.Close(w.ctx) }()
			}
		}
		for range 50 {
			if h := <-done; h != nil {
				<-h.Done() // the Manager closes: every admitted one ends
			}
		}
	})
}

// Milvus: Close blocked on an unbuffered channel while Run was inside a build
// or a pull-back on a silent queue.
func TestCloseOnASilentQueue(t *testing.T) {
	inBubble(t, Options{PollTimeout: time.Hour}, func(w *world) {
		h := w.subscribe("p", "a", mq.Position{}, &recorder{})
		w.in(h, Tailing)
		began := time.Now()
		w.must(w.m.Close(w.ctx))
		if d := time.Since(began); d != 0 {
			t.Errorf("Close took %s with nothing to wait for", d)
		}
	})
}

// Milvus: Remove(A) left the main consumer because a deputy existed, Remove(B)
// deleted the deputy, and the empty main consumer stayed for ever.
func TestNoEmptyConsumerStays(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4}, func(w *world) {
		hook, _ := gate()
		last := w.put("p", repeat(20, "B")...)
		a := w.subscribe("p", "A", last, &recorder{})
		w.in(a, Tailing)
		b := w.subscribe("p", "B", mq.Position{}, &recorder{hook: hook})
		w.in(b, CatchingUp)
		if w.consumers("p", Shared) != 1 || w.consumers("p", CatchUp) != 1 {
			t.Fatalf("the story needs a shared and a catch-up consumer: %+v", w.m.Consumers())
		}
		w.must(w.m.Unsubscribe(w.ctx, a))
		if n := len(w.m.Consumers()); n != 1 {
			t.Errorf("%d consumers after A left: the shared one serves nobody", n)
		}
		w.must(w.m.Unsubscribe(w.ctx, b))
		if c, r := w.m.Consumers(), w.q.OpenReaders(); len(c)+len(r) != 0 {
			t.Errorf("left: %+v, readers %q", c, r)
		}
		if st := w.m.Stats(); st.CatchUpSlotsFree != w.m.o.MaxCatchUp {
			t.Errorf("%d slots free", st.CatchUpSlotsFree)
		}
	})
}

// Milvus: an error after the consumer was made left it open. Here every reader
// that was opened is closed, and each is in the register from before its open
// until after its close, whatever fails in between.
func TestEveryReaderIsRegisteredWhileOpen(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4}, func(w *world) {
		n := 0
		registered := func(name string) {
			if !slices.ContainsFunc(w.m.Consumers(), func(c ConsumerInfo) bool { return c.Name == name }) {
				t.Errorf("%s is not in the register", name)
			}
		}
		w.q.SetHooks(mqtest.Hooks{
			BeforeOpenReader: func(_ context.Context, _ string, o mq.ReaderOptions) error { registered(o.Name); return nil },
			BeforeClose: func(_ context.Context, what string) error {
				if what != "producer p/producer" {
					registered(what[len("reader p/"):])
				}
				return nil
			},
			BeforeNext: func(context.Context, string) error {
				if n++; n%7 == 0 {
					return errBroken
				}
				return nil
			},
		})
		var a, b recorder
		w.subscribe("p", "a", mq.Position{}, &a)
		for range 30 {
			w.put("p", "a", "b", "")
			time.Sleep(200 * time.Millisecond)
		}
		w.subscribe("p", "b", mq.Position{}, &b)
		for i := 0; i < 3000 && b.count() < 60; i++ {
			time.Sleep(100 * time.Millisecond)
		}
		w.got(&a, "p", "a", mq.Position{})
		w.got(&b, "p", "b", mq.Position{})
		if st := w.m.Stats(); st.Rebuilds < 3 || st.ReadersOpened < 3 {
			t.Errorf("the story needs failures: %+v", st)
		}
	})
}

// The same vchannel, subscribed and closed many times, never loses or doubles a message.
func TestResubscribeAtPosition(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		from := mq.Position{}
		for range 20 {
			h := w.subscribe("p", "a", from, &a)
			w.put("p", "a", "", "b")
			synctest.Wait()
			w.put("p", "a", "a")
			w.must(h.Close(w.ctx))
			from = h.Position()
		}
		w.subscribe("p", "a", from, &a)
		w.got(&a, "p", "a", mq.Position{})
	})
}
