package dispatcher

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"
	"pgregory.net/rapid"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// op is one step of a random schedule.
type op struct {
	what     string
	pchannel string
	vchannel string
	n        int
}

var (
	randomPChannels = []string{"p", "q"}
	randomVChannels = []string{"a", "b", "c", "d"}
)

func drawOps(t *rapid.T) []op {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		return op{
			what: rapid.SampledFrom([]string{
				"append", "append", "append", "subscribe", "subscribe", "close", "slow", "retry", "fast",
				"break", "mend", "hang", "sleep", "settle",
			}).Draw(t, "what"),
			pchannel: rapid.SampledFrom(randomPChannels).Draw(t, "pchannel"),
			vchannel: rapid.SampledFrom(randomVChannels).Draw(t, "vchannel"),
			n:        rapid.IntRange(0, 30).Draw(t, "n"),
		}
	}), 1, 60).Draw(t, "ops")
}

// moody is a recorder that is fast, slow or asks for retries, as told.
type moody struct {
	recorder
	mood atomic.Value // string
}

func newMoody() *moody {
	s := &moody{}
	s.mood.Store("fast")
	s.hook = func(ctx context.Context, _ []mq.Message) error {
		switch s.mood.Load() {
		case "slow":
			if !sleep(ctx, 70*time.Millisecond) {
				return ctx.Err()
			}
		case "retry":
			return errBroken
		}
		return nil
	}
	return s
}

// player is one vchannel of a random schedule: subscribed again and again, each
// time from the position it had reached.
type player struct {
	*moody
	pchannel, vchannel string
	started            bool
	from               mq.Position // of the first subscription
	h                  *Handle     // nil = not subscribed now
	next               mq.Position
}

// play runs ops and then checks that every vchannel has seen exactly what the
// log holds for it.
func play(w *world, ops []op) {
	players := map[string]*player{}
	var appended = map[string][]mq.Position{"p": {{}}, "q": {{}}}
	var broken, hanging sync.Map
	hooks := mqtest.Hooks{
		BeforeNext: func(ctx context.Context, topic string) error {
			if _, ok := hanging.LoadAndDelete(topic); ok { // one call ignores its context
				time.Sleep(20 * time.Second)
			}
			if _, ok := broken.Load(topic); ok {
				return errBroken
			}
			return nil
		},
		BeforeOpenReader: func(_ context.Context, topic string, _ mq.ReaderOptions) error {
			if _, ok := broken.Load(topic); ok {
				return errBroken
			}
			return nil
		},
	}
	w.q.SetHooks(hooks)
	for _, o := range ops {
		key := o.pchannel + "-" + o.vchannel
		pl := players[key]
		if pl == nil {
			pl = &player{moody: newMoody(), pchannel: o.pchannel, vchannel: key}
			players[key] = pl
		}
		switch o.what {
		case "append":
			for i := range o.n {
				k := []string{"", key, o.pchannel + "-" + randomVChannels[(o.n+i)%4]}[i%3]
				appended[o.pchannel] = append(appended[o.pchannel], w.put(o.pchannel, k))
			}
		case "subscribe":
			if pl.h == nil {
				if !pl.started {
					all := appended[o.pchannel]
					pl.from = all[(len(all)-1)*o.n/30]
					pl.next, pl.started = pl.from, true
				}
				pl.h = w.subscribe(o.pchannel, key, pl.next, pl)
			}
		case "close":
			w.playClose(pl)
		case "slow", "retry", "fast":
			pl.mood.Store(o.what)
		case "break":
			broken.Store(o.pchannel, true)
		case "mend":
			broken.Delete(o.pchannel)
		case "hang":
			hanging.Store(o.pchannel, true)
		case "sleep":
			time.Sleep(time.Duration(o.n) * 25 * time.Millisecond)
		case "settle":
			synctest.Wait()
		}
		w.checkCaps()
	}
	broken.Clear()
	hanging.Clear()
	for _, pl := range players {
		pl.mood.Store("fast")
	}
	time.Sleep(2 * time.Minute)
	for _, pl := range players {
		w.checkPlayer(pl)
	}
}

func (w *world) playClose(pl *player) {
	if pl.h == nil {
		return
	}
	if err := pl.h.Close(w.ctx); err != nil && !pl.h.State().Final() {
		w.t.Fatalf("close %s: %v", pl.vchannel, err)
	}
	pl.next, pl.h = pl.h.Position(), nil
}

func (w *world) checkCaps() {
	perPChannel := map[string]int{}
	shared := map[string]int{}
	for _, c := range w.m.Consumers() {
		perPChannel[c.PChannel]++
		if c.Kind == Shared && c.State != ConsumerClosing && !c.Leaked {
			shared[c.PChannel]++
		}
	}
	for p, n := range perPChannel {
		// One more may be in the register waiting to be rebuilt for each that hangs.
		if n > 2*(w.m.o.MaxCatchUpPerPChannel+1) || shared[p] > 1 {
			w.t.Fatalf("%d consumers on %s, %d shared: %+v", n, p, shared[p], w.m.Consumers())
		}
	}
	for p, n := range map[string]int{"p": 0, "q": 0} {
		for _, r := range w.q.OpenReaders() {
			if len(r) > 7 && r[7:9] == p+"/" {
				n++
			}
		}
		if n > w.m.o.MaxCatchUpPerPChannel+1 {
			w.t.Fatalf("%d readers of %s at the broker: %q", n, p, w.q.OpenReaders())
		}
	}
}

func (w *world) checkPlayer(pl *player) {
	if !pl.started {
		return
	}
	want := w.wanted(pl.pchannel, pl.vchannel, pl.from)
	if pl.h == nil {
		want = slices.DeleteFunc(want, func(s string) bool { return !slices.Contains(w.upTo(pl.pchannel, pl.next), s) })
	} else if s := pl.h.State(); s != Tailing {
		w.t.Fatalf("%s is %s in the end; consumers %+v", pl.h.ID(), s, w.m.Consumers())
	}
	if got := pl.all(); !slices.Equal(got, want) {
		w.t.Fatalf("%s from %s:\ngot  %d %q\nwant %d %q", pl.vchannel, pl.from, len(got), got, len(want), want)
	}
}

func (w *world) upTo(topic string, pos mq.Position) []string {
	var payloads []string
	for _, m := range w.q.Messages(topic) {
		if !pos.Before(m.Position) {
			payloads = append(payloads, string(m.Payload))
		}
	}
	return payloads
}

// soft turns failures inside a bubble into an error that rapid can be told
// outside of it: it must see them on its own goroutine.
type soft struct {
	err     error
	cleanup []func()
}

type stopPlaying struct{}

func (s *soft) Helper()          {}
func (s *soft) Cleanup(f func()) { s.cleanup = append(s.cleanup, f) }
func (s *soft) Errorf(format string, args ...any) {
	if s.err == nil {
		s.err = errors.Newf("%s", fmt.Sprintf(format, args...))
	}
}
func (s *soft) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	panic(stopPlaying{})
}

func (s *soft) run(fn func()) {
	defer func() {
		for _, f := range s.cleanup {
			f()
		}
		if v := recover(); v != nil {
			if _, ok := v.(stopPlaying); !ok {
				panic(v)
			}
		}
	}()
	fn()
}

// Nothing is lost or doubled under random schedules of subscriptions, appends,
// slow and failing sinks, and failing and hanging readers.
func TestRandomSchedules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ops := drawOps(rt)
		window := rapid.SampledFrom([]time.Duration{-1, time.Millisecond, time.Minute}).Draw(rt, "window")
		var s soft
		synctest.Test(t, func(t *testing.T) {
			s.run(func() {
				w := newWorld(&s, t.Context(), Options{
					BufferMessages: 3, BatchMessages: 2, InboxMessages: 3, MaxCatchUpPerPChannel: 2, MaxCatchUp: 3,
					ShareWindow: window, SharePatience: 50 * time.Millisecond, DrainTimeout: 100 * time.Millisecond,
					BackoffMax: time.Second,
				})
				play(w, ops)
				w.closeClean()
			})
		})
		if s.err != nil {
			rt.Fatalf("%v", s.err)
		}
	})
}
