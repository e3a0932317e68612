package dispatcher

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// world is a queue in memory, a writer and a Manager, inside a synctest bubble.
type world struct {
	t      tb
	ctx    context.Context
	q      *mqtest.Memory
	m      *Manager
	writer map[string]mq.Producer
	ts     uint64
}

// inBubble runs story in a bubble; afterwards the Manager must close without
// leaving anything behind.
func inBubble(t *testing.T, o Options, story func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Context(), o)
		story(w)
		w.closeClean()
	})
}

func newWorld(t tb, ctx context.Context, o Options) *world {
	t.Helper()
	w := &world{t: t, ctx: ctx, q: mqtest.NewMemory(mqtest.MemoryOptions{}), writer: map[string]mq.Producer{}}
	if o.Queue == nil {
		o.Queue = w.q
	}
	m, err := New(o)
	w.must(err)
	w.m = m
	// After a Fatalf the bubble must still come to an end.
	t.Cleanup(func() { w.q.SetHooks(mqtest.Hooks{}); _ = m.Close(context.Background()) })
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%+v", err)
	}
}

func (w *world) closeClean() {
	w.t.Helper()
	w.q.SetHooks(mqtest.Hooks{})
	w.must(w.m.Close(w.ctx))
	if left := w.m.Consumers(); len(left) != 0 {
		w.t.Errorf("register after Close: %+v", left)
	}
	if left := w.q.OpenReaders(); len(left) != 0 {
		w.t.Errorf("readers at the broker after Close: %q", left)
	}
	st := w.m.Stats()
	if st.Registered != st.Closed || st.Leaked != 0 || st.IllegalTransitions != 0 || st.Panics != 0 || st.BufferedBytes != 0 {
		w.t.Errorf("stats after Close: %+v", st)
	}
	if o := w.m.o; st.CatchUpSlotsFree != o.MaxCatchUp {
		w.t.Errorf("%d of %d slots are free after Close", st.CatchUpSlotsFree, o.MaxCatchUp)
	}
}

// put appends one message for each key and returns the position of the last.
func (w *world) put(pchannel string, keys ...string) mq.Position {
	w.t.Helper()
	p := w.writer[pchannel]
	if p == nil {
		var err error
		p, err = w.q.OpenProducer(w.ctx, pchannel, mq.ProducerOptions{})
		w.must(err)
		w.writer[pchannel] = p
	}
	var last mq.Position
	for _, k := range keys {
		w.ts = max(w.ts+1, uint64(time.Now().UnixMilli())<<18)
		at, err := p.Append(w.ctx, mq.Message{Timestamp: w.ts, Key: k, Payload: fmt.Appendf(nil, "%s %d", k, w.ts)})
		w.must(err)
		last = at[0]
	}
	return last
}

func (w *world) subscribe(pchannel, vchannel string, from mq.Position, s Sink) *Handle {
	w.t.Helper()
	h, err := w.m.Subscribe(w.ctx, Subscription{PChannel: pchannel, VChannel: vchannel, From: from, Sink: s})
	w.must(err)
	return h
}

// in checks a state after everything has come to rest.
func (w *world) in(h *Handle, want State) {
	w.t.Helper()
	synctest.Wait()
	if got := h.State(); got != want {
		w.t.Fatalf("%s is %s, want %s (err %v, consumers %+v)", h.ID(), got, want, h.Err(), w.m.Consumers())
	}
}

// got checks that s has seen exactly what the topic holds for vchannel after from.
func (w *world) got(s *recorder, pchannel, vchannel string, from mq.Position) {
	w.t.Helper()
	synctest.Wait()
	want := w.wanted(pchannel, vchannel, from)
	if have := s.all(); !slices.Equal(have, want) {
		w.t.Fatalf("%s got %d messages, want %d:\n%q\n%q", vchannel, len(have), len(want), have, want)
	}
}

func (w *world) wanted(pchannel, vchannel string, from mq.Position) []string {
	want := []string{}
	for _, m := range w.q.Messages(pchannel) {
		if from.Before(m.Position) && (m.Key == "" || m.Key == vchannel) {
			want = append(want, string(m.Payload))
		}
	}
	return want
}

func (w *world) consumers(pchannel string, kind Kind) int {
	n := 0
	for _, c := range w.m.Consumers() {
		if c.PChannel == pchannel && c.Kind == kind && !c.Leaked {
			n++
		}
	}
	return n
}

// recorder is a sink that writes down what it was given; hook, when set, says
// what Apply returns before anything is written down.
type recorder struct {
	hook func(ctx context.Context, msgs []mq.Message) error

	mu    sync.Mutex
	seen  []string
	calls []int
	last  mq.Position
	wild  bool // messages out of order, or two Applies at a time
	busy  bool
}

func (r *recorder) Apply(ctx context.Context, msgs []mq.Message) error {
	r.mu.Lock()
	r.wild = r.wild || r.busy || len(msgs) == 0
	r.busy = true
	r.mu.Unlock()
	defer func() { r.mu.Lock(); r.busy = false; r.mu.Unlock() }()
	if r.hook != nil {
		if err := r.hook(ctx, msgs); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, len(msgs))
	for _, m := range msgs {
		r.wild = r.wild || !r.last.Before(m.Position)
		r.last = m.Position
		r.seen = append(r.seen, string(m.Payload))
	}
	return nil
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wild {
		return []string{"out of order or concurrent"}
	}
	return slices.Clone(r.seen)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// gate is a hook that blocks Apply until it is opened or its context ends.
func gate() (hook func(context.Context, []mq.Message) error, open func()) {
	ch := make(chan struct{})
	return func(ctx context.Context, _ []mq.Message) error {
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, sync.OnceFunc(func() { close(ch) })
}
