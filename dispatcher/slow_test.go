package dispatcher

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func repeat(n int, key string) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key
	}
	return keys
}

func TestJoinLateIsHandedOver(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4}, func(w *world) {
		var a, b recorder
		ha := w.subscribe("p", "a", mq.Position{}, &a)
		w.in(ha, Tailing)
		from := w.put("p", "a", "b", "")
		for range 50 {
			w.put("p", "b", "a", "")
			synctest.Wait()
		}
		hb := w.subscribe("p", "b", from, &b)
		w.in(hb, Tailing)
		w.got(&b, "p", "b", from)
		w.put("p", "b", "a", "")
		w.got(&a, "p", "a", mq.Position{})
		w.got(&b, "p", "b", from)
		if st := w.m.Stats(); st.Handovers != 1 || st.Registered != 2 || st.Closed != 1 {
			t.Errorf("%+v, want one hand-over and the catch-up consumer gone", st)
		}
	})
}

func TestSlowSinkDoesNotStallOthers(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4}, func(w *world) {
		hook, open := gate()
		slow, fast := recorder{hook: hook}, recorder{}
		hs := w.subscribe("p", "slow", mq.Position{}, &slow)
		hf := w.subscribe("p", "fast", mq.Position{}, &fast)
		w.in(hf, Tailing)
		for range 100 {
			w.put("p", "slow", "fast", "")
			synctest.Wait()
		}
		w.got(&fast, "p", "fast", mq.Position{})
		w.in(hf, Tailing)
		if hs.State() == Tailing {
			t.Errorf("slow is %s", hs.State())
		}
		if info := hs.Info(); info.Buffered > 4 {
			t.Errorf("%d messages buffered, the bound is 4", info.Buffered)
		}
		if c := w.m.Consumers(); len(c) != 1 || c[0].Kind != Shared {
			t.Errorf("a full buffer has no use for a reader: %+v", c)
		}
		open()
		w.got(&slow, "p", "slow", mq.Position{})
		w.in(hs, Tailing)
		if n := len(w.m.Consumers()); n != 1 {
			t.Errorf("%d consumers after the hand-over", n)
		}
	})
}

func TestOnlySubscriptionIsWaitedForWithoutASecondReader(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4, InboxMessages: 4}, func(w *world) {
		hook, open := gate()
		slow := recorder{hook: hook}
		h := w.subscribe("p", "slow", mq.Position{}, &slow)
		w.in(h, Tailing)
		w.put("p", repeat(100, "slow")...)
		w.in(h, Lagging)
		if c := w.m.Consumers(); len(c) != 1 || c[0].Kind != CatchUp || c[0].State != ConsumerPaused {
			t.Errorf("consumers %+v", c)
		}
		open()
		w.got(&slow, "p", "slow", mq.Position{})
		w.in(h, Tailing)
		if st := w.m.Stats(); st.Registered != 1 || st.ReadersOpened != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// The reader of one that fell behind starts right after what it was given, not
// after its last message.
func TestCatchUpStartsAtTheOverflow(t *testing.T) {
	var opened []mq.Position
	o := Options{BufferMessages: 4, Events: Events{ConsumerOpened: func(_, _ string, from mq.Position) { opened = append(opened, from) }}}
	inBubble(t, o, func(w *world) {
		hook, open := gate()
		slow := recorder{hook: hook}
		w.subscribe("p", "slow", mq.Position{}, &slow)
		w.in(w.subscribe("p", "fast", mq.Position{}, &recorder{}), Tailing)
		w.put("p", repeat(4, "slow")...)
		var place mq.Position
		for range 100 {
			place = w.put("p", "fast")
			synctest.Wait()
		}
		w.put("p", "slow")
		synctest.Wait()
		open()
		w.got(&slow, "p", "slow", mq.Position{})
		if len(opened) != 2 || opened[1] != place {
			t.Errorf("opened at %v, want %s", opened, place)
		}
	})
}

// The consumer that remains gives its slot back when the first one has gone.
func TestLastConsumerHoldsNoSlot(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4}, func(w *world) {
		w.put("p", repeat(2000, "first")...)
		hook, _ := gate()
		first := w.subscribe("p", "first", mq.Position{}, &recorder{hook: hook})
		w.in(first, CatchingUp)
		last := w.put("p", "")
		w.in(w.subscribe("p", "second", last, &recorder{}), Tailing)
		free := func() int { return w.m.Stats().CatchUpSlotsFree }
		if free() != w.m.o.MaxCatchUp-1 {
			t.Errorf("%d slots free with two consumers", free())
		}
		w.must(first.Close(w.ctx))
		if free() != w.m.o.MaxCatchUp {
			t.Errorf("%d slots free with one consumer", free())
		}
	})
}

// With both caps reached the slow ones wait their turn, and all get it: those
// whose sink stands still make way for those who can use a reader.
func TestCapsOnCatchUp(t *testing.T) {
	o := Options{BufferMessages: 2, MaxCatchUpPerPChannel: 2, MaxCatchUp: 3, ShareWindow: -1}
	inBubble(t, o, func(w *world) {
		hook, open := gate()
		sinks, from := map[string]*recorder{}, map[string]mq.Position{}
		for i := range 6 {
			for _, p := range []string{"p", "q"} {
				v := fmt.Sprint(p, i)
				sinks[v], from[v] = &recorder{hook: hook}, w.put(p, v)
			}
		}
		for range 20 {
			for v := range sinks {
				w.put(v[:1], v, "")
			}
		}
		for _, p := range []string{"p", "q"} {
			w.in(w.subscribe(p, p+"-fast", w.put(p, ""), &recorder{}), Tailing)
		}
		handles := []*Handle{}
		for v, s := range sinks {
			handles = append(handles, w.subscribe(v[:1], v, from[v], s))
		}
		capped := func(want int) {
			t.Helper()
			synctest.Wait()
			p, q := w.consumers("p", CatchUp), w.consumers("q", CatchUp)
			if p > 2 || q > 2 || p+q > 3 || p+q < want {
				t.Errorf("%d and %d catch-up consumers, want at least %d, the caps are 2 and 3", p, q, want)
			}
		}
		capped(3)
		if st := w.m.Stats().Subscriptions; st[CatchingUp] < 3 || st[CatchingUp]+st[Subscribing] != 12 || st[Subscribing] < 6 {
			t.Errorf("%v, want 3 catching up and 9 waiting", st)
		}
		time.Sleep(time.Minute)
		capped(0)
		if st := w.m.Stats(); st.Subscriptions[Subscribing] != 0 || st.Registered > 2+12+3 {
			t.Errorf("each must have had its turn once: %+v", st)
		}
		open()
		for v, s := range sinks {
			w.got(s, v[:1], v, from[v])
		}
		for _, h := range handles {
			w.in(h, Tailing)
		}
		if n := len(w.m.Consumers()); n != 2 {
			t.Errorf("%d consumers, want one a pchannel", n)
		}
	})
}

func TestNeighboursShareACatchUpConsumer(t *testing.T) {
	inBubble(t, Options{MaxCatchUpPerPChannel: 1}, func(w *world) {
		w.in(w.subscribe("p", "tail", mq.Position{}, &recorder{}), Tailing)
		var from []mq.Position
		for range 40 {
			from = append(from, w.put("p", "", "a", "b"))
		}
		// The first takes the only slot and is long in opening; the others gather.
		gathered := make(chan struct{})
		w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { <-gathered; return nil }})
		sinks := make([]recorder, 40)
		handles := make([]*Handle, 40)
		for i := range sinks {
			handles[39-i] = w.subscribe("p", fmt.Sprint("v", 39-i), from[39-i], &sinks[39-i])
		}
		w.in(handles[0], Subscribing)
		before := w.m.Stats().Registered
		close(gathered)
		for i := range sinks {
			w.got(&sinks[i], "p", fmt.Sprint("v", i), from[i])
			w.in(handles[i], Tailing)
		}
		if n := w.m.Stats().Registered - before; n > 1 {
			t.Errorf("%d consumers for 40 neighbours", n)
		}
	})
}

// One that holds up its catch-up consumer longer than SharePatience gets its own.
func TestSharePatience(t *testing.T) {
	inBubble(t, Options{BufferMessages: 4, InboxMessages: 4}, func(w *world) {
		for range 50 {
			w.put("p", "slow", "other", "")
		}
		hook, open := gate()
		slow, other := recorder{hook: hook}, recorder{}
		both := make(chan struct{})
		w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { <-both; return nil }})
		hs := w.subscribe("p", "slow", mq.Position{}, &slow)
		ho := w.subscribe("p", "other", mq.Position{}, &other)
		close(both)
		w.in(ho, CatchingUp)
		time.Sleep(2 * time.Second)
		w.got(&other, "p", "other", mq.Position{})
		w.in(ho, Tailing)
		if c := w.m.Consumers(); hs.State() != Lagging || len(c) != 1 || c[0].Kind != Shared {
			t.Errorf("slow is %s, consumers %+v", hs.State(), c)
		}
		open()
		w.got(&slow, "p", "slow", mq.Position{})
		w.in(hs, Tailing)
	})
}

func TestGlobalByteBudget(t *testing.T) {
	inBubble(t, Options{MaxBufferedBytes: 1000}, func(w *world) {
		hook, open := gate()
		sinks := make([]recorder, 5)
		for i := range sinks {
			sinks[i].hook = hook
			w.subscribe("p", fmt.Sprint("v", i), mq.Position{}, &sinks[i])
		}
		for i := range 200 {
			w.put("p", fmt.Sprint("v", i%5))
			synctest.Wait()
		}
		if n := w.m.Stats().BufferedBytes; n > 1500 {
			t.Errorf("%d bytes buffered under a budget of 1000 and one message each", n)
		}
		open()
		for i := range sinks {
			w.got(&sinks[i], "p", fmt.Sprint("v", i), mq.Position{})
		}
	})
}
