package wal

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"
	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// world is the model: what was acknowledged must be found, what was refused
// must not, and the rest may be.
type world struct {
	t      *rapid.T
	q      *mqtest.Memory
	w      *WAL
	old    []*WAL // owners that were overtaken, not closed
	term   uint64
	offset atomic.Int64 // of the wall clock
	seq    int

	replayed []Entry // by the newest owner

	acked map[string]Receipt
	never map[string]bool
	max   uint64
}

func (m *world) open() {
	m.term++
	o := quiet(m.q)
	o.Term, o.MaxBatchEntries = m.term, 3
	o.TimeTickInterval = 50 * time.Millisecond
	o.Now = func() time.Time { return time.Now().Add(time.Duration(m.offset.Load())) }
	m.replayed = nil
	o.Replay = func(_ context.Context, e Entry) error { m.replayed = append(m.replayed, e); return nil }
	var err error
	if m.w, err = Open(o); err != nil {
		m.t.Fatal(err)
	}
}

// appendSome appends n entries at once and books what became of them.
func (m *world) appendSome(n int, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	as, bodies := make([]*appending, n), make([]string, n)
	for i := range as {
		m.seq++
		bodies[i] = fmt.Sprint("row", m.seq)
		as[i] = appendLater(ctx, m.w, bodies[i])
	}
	for i, a := range as {
		<-a.done
		switch {
		case a.err == nil:
			if a.receipt.Timestamp > m.w.LastTimestamp() {
				m.t.Fatalf("%s is not covered by LastTimestamp", bodies[i])
			}
			m.acked[bodies[i]] = a.receipt
		case !errors.Is(a.err, mq.ErrUnknownOutcome):
			m.never[bodies[i]] = true
		}
	}
}

// check reads the topic as a recovery would.
func (m *world) check() {
	found := map[string]bool{}
	var last uint64
	for _, msg := range m.q.Messages(topic) {
		e, err := Decode(msg)
		if err != nil {
			m.t.Fatal(err)
		}
		if e.Timestamp <= last {
			m.t.Fatalf("timestamp %d after %d", e.Timestamp, last)
		}
		last = e.Timestamp
		body := string(e.Body)
		if e.Type == TimeTick {
			continue
		}
		if found[body] || m.never[body] {
			m.t.Fatalf("%s is stored twice, or though it was refused", body)
		}
		found[body] = true
		if r, ok := m.acked[body]; ok && (r.Position != e.Position || r.Timestamp != e.Timestamp) {
			m.t.Fatalf("%s: receipt %+v, stored %+v", body, r, e)
		}
	}
	for body := range m.acked {
		if !found[body] {
			m.t.Fatalf("%s was acknowledged and is lost", body)
		}
	}
}

// reopen replays everything into a new owner and compares with the topic.
func (m *world) reopen() {
	m.q.SetHooks(mqtest.Hooks{})
	m.open()
	if err := m.w.Ready(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	if m.w.LastTimestamp() < m.max {
		m.t.Fatal("the timestamps went back")
	}
	stored := m.q.Messages(topic)
	for i, e := range m.replayed {
		if e.Position != stored[i].Position || e.Timestamp != stored[i].Timestamp {
			m.t.Fatalf("replayed %+v as number %d", e, i)
		}
	}
	if len(stored)-len(m.replayed) > 1 { // the first timetick may be there already
		m.t.Fatalf("replayed %d of %d", len(m.replayed), len(stored))
	}
}

func (m *world) close() {
	if err := m.w.Close(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	m.max = max(m.max, m.w.LastTimestamp())
}

func (m *world) fail(kind string) {
	var once atomic.Bool
	var h mqtest.Hooks
	switch kind {
	case "full":
		h.BeforeAppend = func(context.Context, string, []mq.Message) error {
			if once.CompareAndSwap(false, true) {
				return errclass.New(errclass.Exhausted, "full")
			}
			return nil
		}
	case "lost answer":
		h.AfterAppend = func(context.Context, string, []mq.Position) error { return errors.New("lost") }
	case "unknown":
		h.BeforeAppend = func(context.Context, string, []mq.Message) error { return mq.ErrUnknownOutcome }
	case "hang":
		h.BeforeAppend = func(ctx context.Context, _ string, _ []mq.Message) error { <-ctx.Done(); return ctx.Err() }
	case "slow":
		h.BeforeAppend = func(context.Context, string, []mq.Message) error { time.Sleep(time.Second); return nil }
	}
	m.q.SetHooks(h)
}

// untimed keeps rapid from asking for the test's deadline, which a bubble forbids.
type untimed struct{ *testing.T }

func TestAcknowledgedIsFoundAgain(t *testing.T) {
	bubble(t, func(t *testing.T) { rapid.Check(untimed{t}, acknowledgedIsFoundAgain) })
}

func acknowledgedIsFoundAgain(rt *rapid.T) {
	m := &world{t: rt, q: mqtest.NewMemory(mqtest.MemoryOptions{}), acked: map[string]Receipt{}, never: map[string]bool{}}
	m.open()
	defer func() { // leaves nothing behind in the bubble, even after a failure
		m.q.SetHooks(mqtest.Hooks{})
		for _, w := range append(m.old, m.w) {
			_ = w.Close(context.Background())
		}
	}()
	rt.Repeat(map[string]func(*rapid.T){
		"append": func(rt *rapid.T) { m.appendSome(rapid.IntRange(1, 12).Draw(rt, "n"), time.Minute) },
		"impatient append": func(rt *rapid.T) {
			m.appendSome(rapid.IntRange(1, 12).Draw(rt, "n"), 500*time.Millisecond)
		},
		"close during appends": func(rt *rapid.T) {
			delay := time.Duration(rapid.IntRange(0, 2000).Draw(rt, "ms")) * time.Millisecond
			closed := make(chan error, 1)
			w := m.w
			go func() { time.Sleep(delay); closed <- w.Close(context.Background()) }()
			m.appendSome(12, time.Minute)
			if err := <-closed; err != nil {
				m.t.Fatal(err)
			}
			m.close()
			m.reopen()
		},
		"fail": func(rt *rapid.T) {
			m.fail(rapid.SampledFrom([]string{"full", "lost answer", "unknown", "hang", "slow", "none"}).Draw(rt, "kind"))
		},
		"reopen":    func(*rapid.T) { m.close(); m.reopen() },
		"take over": func(*rapid.T) { m.old = append(m.old, m.w); m.reopen() },
		"old owner appends": func(*rapid.T) {
			if len(m.old) > 0 {
				now := m.w
				m.w = m.old[len(m.old)-1]
				m.appendSome(3, time.Minute)
				m.w = now
			}
		},
		"clock": func(rt *rapid.T) {
			m.offset.Add(int64(time.Duration(rapid.IntRange(-3600, 3600).Draw(rt, "s")) * time.Second))
		},
		"time": func(*rapid.T) { time.Sleep(time.Second) },
		"":     func(*rapid.T) { synctest.Wait(); m.check() },
	})
}
