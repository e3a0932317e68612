package pulsar

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// memory is a Pulsar of one process, with the habits of the real one that
// matter here: ledgers that roll over and are dropped as a whole, cursors that
// begin with the next entry when theirs is gone, and faults on request.
type memory struct {
	ledgerEntries int64

	mu      sync.Mutex
	logs    map[string]*memLog
	changed chan struct{} // closed and replaced at every change
	open    map[any]string

	// Faults, all optional, called with the payload of a send and without mu.
	onSend func(topic string, payload []byte) sendFault
}

// sendFault says what happens to a send.
type sendFault struct {
	copies int           // stored how often; the zero value is once
	lose   bool          // not stored
	err    error         // told to the sender
	anon   bool          // acknowledged with -1:-1
	hold   chan struct{} // not nil: the sender waits for it, or its context
	late   func(func())  // not nil: gets what stores it later; the sender gets err
}

type memLog struct {
	entries []raw
	next    entryID
	cursor  entryID // of the subscription; entries up to it may go
	kept    bool    // there is a subscription
}

func newMemory(ledgerEntries int64) *memory {
	return &memory{ledgerEntries: ledgerEntries, logs: map[string]*memLog{}, changed: make(chan struct{}), open: map[any]string{}}
}

func (m *memory) log(topic string) *memLog {
	l := m.logs[topic]
	if l == nil {
		l = &memLog{next: entryID{int64(len(m.logs)) + 1, 0}, cursor: none()}
		m.logs[topic] = l
	}
	return l
}

func (m *memory) broadcast() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// store appends payload as it is.
func (m *memory) store(topic string, payload []byte) entryID {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topic)
	if l.next.entry == m.ledgerEntries {
		l.next = entryID{l.next.ledger + 100, 0}
	}
	id := l.next
	l.entries = append(l.entries, raw{id, slices.Clone(payload)})
	l.next.entry++
	m.broadcast()
	return id
}

func (m *memory) opened() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, what := range m.open {
		all = append(all, what)
	}
	return all
}

func (m *memory) add(k any, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[k] = what
}

func (m *memory) remove(k any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, k)
}

// memDriver is one connection.
type memDriver struct{ *memory }

func (d memDriver) last(ctx context.Context, topic string) (entryID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.log(topic)
	if len(l.entries) == 0 {
		return none(), ctx.Err()
	}
	return l.entries[len(l.entries)-1].id, ctx.Err()
}

func (d memDriver) read(ctx context.Context, topic string, from entryID) (cursor, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c := &memCursor{d: d, topic: topic, at: entryID{from.ledger, from.entry - 1}}
	d.add(c, "cursor "+topic)
	return c, nil
}

func (d memDriver) write(ctx context.Context, topic, name string) (sender, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s := &memSender{d, topic}
	d.add(s, "sender "+topic+" "+name)
	return s, nil
}

func (d memDriver) protect(ctx context.Context, topic string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log(topic).kept = true
	return ctx.Err()
}

func (d memDriver) release(ctx context.Context, topic string, upTo entryID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.log(topic)
	l.cursor = entryID{max(l.cursor.ledger, upTo.ledger), upTo.entry}
	full := 0
	for i, r := range l.entries {
		if r.id.compare(upTo) <= 0 && r.id.entry == d.ledgerEntries-1 {
			full = i + 1
		}
	}
	l.entries = slices.Clone(l.entries[full:])
	return ctx.Err()
}

func (d memDriver) close(context.Context) error { return nil }

type memCursor struct {
	d     memDriver
	topic string
	at    entryID
	skip  int // entries to leave out, as a client that reconnects badly
}

func (c *memCursor) next(ctx context.Context) (raw, error) {
	for {
		c.d.mu.Lock()
		wait := c.d.changed
		for _, r := range c.d.log(c.topic).entries {
			if r.id.compare(c.at) > 0 {
				c.at = r.id
				if c.skip > 0 {
					c.skip--
					continue
				}
				c.d.mu.Unlock()
				return r, nil
			}
		}
		c.d.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return raw{}, ctx.Err()
		}
	}
}

func (c *memCursor) close(context.Context) error { c.d.remove(c); return nil }

type memSender struct {
	d     memDriver
	topic string
}

func (s *memSender) send(ctx context.Context, payload []byte) (entryID, error) {
	if err := ctx.Err(); err != nil {
		return none(), err
	}
	var f sendFault
	if s.d.onSend != nil {
		f = s.d.onSend(s.topic, payload)
	}
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return none(), errclass.Mark(ctx.Err(), errclass.Retryable)
		}
	}
	if f.late != nil {
		f.late(func() { s.d.store(s.topic, payload) })
		return none(), errclass.Mark(f.err, errclass.Retryable)
	}
	id := none()
	for range max(f.copies, 1) {
		if !f.lose {
			id = s.d.store(s.topic, payload)
		}
	}
	if f.anon {
		id = none()
	}
	return id, f.err
}

func (s *memSender) close(context.Context) error { s.d.remove(s); return nil }

// fullName is the broker's name of a topic in these tests.
func fullName(topic string) string { return "persistent://public/default/" + topic }

func testCtx(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (m *memory) queue(t testing.TB) *Queue {
	t.Helper()
	q, err := Open(Options{URL: "pulsar://nowhere:6650", MaxPayloadBytes: 1 << 20, GroupBytes: 64 << 10, driver: memDriver{m}, grace: 50 * time.Millisecond})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { mustClose(t, q) })
	return q
}

func mustClose(t testing.TB, c interface{ Close(context.Context) error }) {
	t.Helper()
	if err := c.Close(testCtx(t)); err != nil {
		t.Errorf("close: %+v", err)
	}
}

const topicName = "by-dev-rootcoord-dml_0"

func producerOf(t testing.TB, q *Queue, term uint64) mq.Producer {
	t.Helper()
	p, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: term})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return p
}

// msg makes message n: its timestamp is 10n and its payload tells n.
func msg(n int) mq.Message {
	return mq.Message{Timestamp: uint64(10 * n), Key: "v" + fmt.Sprint(n%3), Payload: fmt.Appendf(nil, "m%d", n)}
}

func appendSome(t testing.TB, p mq.Producer, from, to int) []mq.Position {
	t.Helper()
	var at []mq.Position
	for n := from; n <= to; n++ {
		a, err := p.Append(testCtx(t), msg(n))
		if err != nil {
			t.Fatalf("append %d: %+v", n, err)
		}
		at = append(at, a...)
	}
	return at
}

// wantLog reads the topic from o on and checks that it holds messages want,
// numbered as by msg, and nothing else.
func wantLog(t testing.TB, q *Queue, o mq.ReaderOptions, want ...int) []mq.Position {
	t.Helper()
	r, err := q.OpenReader(testCtx(t), topicName, o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer mustClose(t, r)
	b, err := q.Bounds(testCtx(t), topicName)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	var got []int
	var at []mq.Position
	for done := len(want) == 0; !done; {
		m, err := r.Next(testCtx(t))
		if err != nil {
			t.Fatalf("after %v: %+v", got, err)
		}
		got, at = append(got, int(m.Timestamp/10)), append(at, m.Position)
		if string(m.Payload) != fmt.Sprintf("m%d", m.Timestamp/10) {
			t.Fatalf("message %d holds %q", m.Timestamp/10, m.Payload)
		}
		done = m.Position == b.Last
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the log holds %v, want %v", got, want)
	}
	return at
}

func numbers(from, to int) []int {
	var out []int
	for n := from; n <= to; n++ {
		out = append(out, n)
	}
	return out
}

func wantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

func TestConformsInMemory(t *testing.T) {
	mqtest.Run(t, func(t *testing.T) mqtest.Fixture {
		m := newMemory(7)
		open := func(t *testing.T) mq.Queue { return m.queue(t) }
		return mqtest.Fixture{
			Queue: open(t), Reopen: open, Connect: open, MaxPayload: 1 << 20, RollOver: 50,
			Open: func(*testing.T) []string { return m.opened() },
		}
	})
}
