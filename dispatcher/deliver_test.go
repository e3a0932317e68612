package dispatcher

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

func TestOneConsumerServesAllVChannels(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a, b recorder
		ha := w.subscribe("p", "a", mq.Position{}, &a)
		hb := w.subscribe("p", "b", mq.Position{}, &b)
		w.in(ha, Tailing)
		w.in(hb, Tailing)
		w.put("p", "a", "b", "", "other", "b", "a")
		last := w.put("p", "")
		w.got(&a, "p", "a", mq.Position{})
		w.got(&b, "p", "b", mq.Position{})
		if a.count() != 4 || b.count() != 4 {
			t.Errorf("a got %d, b got %d, want 4 each", a.count(), b.count())
		}
		if ha.Position() != last || hb.Position() != last {
			t.Errorf("positions %s and %s, want %s", ha.Position(), hb.Position(), last)
		}
		cs := w.m.Consumers()
		if len(cs) != 1 || cs[0].Kind != Shared || !slices.Equal(cs[0].VChannels, []string{"a", "b"}) || cs[0].Position != last {
			t.Errorf("consumers %+v", cs)
		}
	})
}

func TestBroadcastsMoveThePositionOfAnIdleVChannel(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		tick := w.put("p", "other", "")
		w.put("p", "other", "other")
		synctest.Wait()
		if h.Position() != tick {
			t.Errorf("position %s, want that of the timetick, %s", h.Position(), tick)
		}
	})
}

func TestPositionMovesOnlyAfterApply(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		hook, open := gate()
		a := recorder{hook: hook}
		h := w.subscribe("p", "a", mq.Position{}, &a)
		last := w.put("p", "a")
		synctest.Wait()
		if !h.Position().IsZero() {
			t.Errorf("position %s while Apply runs", h.Position())
		}
		open()
		synctest.Wait()
		if h.Position() != last {
			t.Errorf("position %s after Apply, want %s", h.Position(), last)
		}
	})
}

func TestFromStartsRightAfter(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		from := w.put("p", "a", "a")
		w.put("p", "a", "", "a")
		var a recorder
		h := w.subscribe("p", "a", from, &a)
		w.got(&a, "p", "a", from)
		w.in(h, Tailing)
		w.put("p", "a")
		w.got(&a, "p", "a", from)
		if st := w.m.Stats(); st.Registered != 1 || st.Promotions != 1 {
			t.Errorf("a subscription alone needs one consumer: %+v", st)
		}
	})
}

func TestLatestStartsAfterTheNewest(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var old recorder
		w.subscribe("p", "b", mq.Position{}, &old)
		last := w.put("p", "a", "", "a")
		var a recorder
		h, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p", VChannel: "a", Latest: true, Sink: &a})
		w.must(err)
		w.in(h, Tailing)
		if h.Position() != last || a.count() != 0 {
			t.Errorf("position %s (want %s) after %d messages", h.Position(), last, a.count())
		}
		w.put("p", "a", "")
		w.got(&a, "p", "a", last)
		if n := len(w.m.Consumers()); n != 1 {
			t.Errorf("%d consumers, want the shared one", n)
		}
	})
}

func TestLatestOnAnEmptyTopic(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		h, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p", VChannel: "a", Latest: true, Sink: &a})
		w.must(err)
		w.in(h, Tailing)
		w.put("p", "a")
		w.got(&a, "p", "a", mq.Position{})
	})
}

func TestBatchesAreBounded(t *testing.T) {
	inBubble(t, Options{BatchMessages: 3}, func(w *world) {
		hook, open := gate()
		a := recorder{hook: hook}
		w.subscribe("p", "a", mq.Position{}, &a)
		w.put("p", "a")
		synctest.Wait() // the first is being applied; the rest gathers
		for range 7 {
			w.put("p", "a")
		}
		synctest.Wait()
		open()
		w.got(&a, "p", "a", mq.Position{})
		if !slices.Equal(a.calls, []int{1, 3, 3, 1}) {
			t.Errorf("batches of %v, want what is there, up to 3", a.calls)
		}
	})
}

func TestBatchesAreBoundedInBytes(t *testing.T) {
	inBubble(t, Options{BatchBytes: 250, BufferBytes: 300}, func(w *world) {
		// Each message costs more than 80 bytes: two fit a buffer, two a batch.
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		for range 10 {
			w.put("p", "a")
		}
		w.got(&a, "p", "a", mq.Position{})
		if slices.Max(a.calls) > 2 {
			t.Errorf("batches of %v", a.calls)
		}
		w.in(h, Tailing)
		p := w.writer["p"]
		_, err := p.Append(w.ctx, mq.Message{Timestamp: w.ts + 1, Key: "a", Payload: make([]byte, 4096)})
		w.must(err)
		synctest.Wait()
		if a.count() != 11 {
			t.Error("a message larger than the buffer must pass alone")
		}
	})
}

func TestLagByHybridTimestamp(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		synctest.Wait()
		if l := h.Lag(); l.MS != -1 {
			t.Errorf("lag %+v before any message", l)
		}
		w.put("p", "")
		time.Sleep(3 * time.Second)
		if l := h.Lag(); l.MS != 3000 || l.Messages != 0 {
			t.Errorf("lag %+v, want 3000 ms and no message", l)
		}
		if c := w.m.Consumers()[0]; c.Lag.MS != 3000 || c.Age < 3*time.Second || c.Messages != 1 {
			t.Errorf("consumer %+v", c)
		}
	})
}

func TestSubscribeRefusals(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a recorder
		for _, s := range []Subscription{
			{VChannel: "a", Sink: &a}, {PChannel: "p", Sink: &a}, {PChannel: "p", VChannel: "a"},
			{PChannel: "p", VChannel: string(make([]byte, mq.MaxKeyBytes+1)), Sink: &a},
			{PChannel: "p", VChannel: "a", Sink: &a, Latest: true, From: mq.Position{ID: "x"}},
		} {
			if _, err := w.m.Subscribe(w.ctx, s); !errclass.Is(err, errclass.Invalid) {
				t.Errorf("%+v: %v", s, err)
			}
		}
		w.subscribe("p", "a", mq.Position{}, &a)
		if _, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p", VChannel: "a", Sink: &a}); !errclass.Is(err, errclass.Exists) {
			t.Errorf("second subscribe: %v", err)
		}
		if _, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p2", VChannel: "a", Sink: &a}); !errclass.Is(err, errclass.Exists) {
			t.Errorf("second subscribe on another pchannel: %v", err)
		}
		ended, cancel := context.WithCancel(w.ctx)
		cancel()
		for range 20 { // select is fair: with an ended context either way is right
			h, err := w.m.Subscribe(ended, Subscription{PChannel: "p", VChannel: "b", Sink: &a})
			if err == nil {
				w.must(h.Close(w.ctx))
			}
		}
		w.subscribe("p", "b", mq.Position{}, &a)
	})
}

func TestStaleHandleIsANoOp(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		var a, b recorder
		stale := w.subscribe("p", "a", mq.Position{}, &a)
		w.must(w.m.Unsubscribe(w.ctx, stale))
		w.in(stale, Closed)
		h := w.subscribe("p", "a", mq.Position{}, &b)
		if h.ID().Registration <= stale.ID().Registration {
			t.Errorf("registrations %s, then %s", stale.ID(), h.ID())
		}
		w.in(h, Tailing)
		w.must(w.m.Unsubscribe(w.ctx, stale))
		w.must(stale.Close(w.ctx))
		w.must(w.m.Unsubscribe(w.ctx, nil))
		w.in(h, Tailing)
		if infos := w.m.Subscriptions(); len(infos) != 1 || infos[0].ID != h.ID() {
			t.Errorf("subscriptions %+v", infos)
		}
		if _, err := w.m.Subscribe(w.ctx, Subscription{PChannel: "p", VChannel: "a", Sink: &a}); !errclass.Is(err, errclass.Exists) {
			t.Errorf("subscribe: %v", err)
		}
		w.put("p", "a")
		w.got(&b, "p", "a", mq.Position{})
		if a.count() != 0 {
			t.Error("the old sink was called")
		}
	})
}

func TestOptions(t *testing.T) {
	_, err := New(Options{BufferMessages: -1, BatchBytes: -1, BackoffMin: time.Hour})
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("%v", err)
	}
	want := "dispatcher options: BackoffMax must be at least BackoffMin; BatchBytes must be positive; BufferMessages must be positive; Queue is required"
	if err.Error() != want {
		t.Errorf("%q, want all problems: %q", err, want)
	}
}
