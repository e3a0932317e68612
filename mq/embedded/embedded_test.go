package embedded

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestMain(m *testing.M) {
	childMain()
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

const topicName = "by-dev-rootcoord-dml_0"

func testCtx(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // on a machine whose disk has much else to do
	t.Cleanup(cancel)
	return ctx
}

// smallOptions roll over after a few messages.
func smallOptions(dir string) Options {
	return Options{Dir: dir, SegmentBytes: 16 << 10, ReadBufferBytes: 4 << 10}
}

func mustOpen(t testing.TB, o Options) *Queue {
	t.Helper()
	q, err := Open(o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = q.Close(testCtx(t)) })
	return q
}

func mustClose(t testing.TB, c interface{ Close(context.Context) error }) {
	t.Helper()
	if err := c.Close(testCtx(t)); err != nil {
		t.Fatalf("%+v", err)
	}
}

func mustProducer(t testing.TB, q *Queue, term uint64) mq.Producer {
	t.Helper()
	p, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: term})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return p
}

// msg makes message n: its timestamp is 10n and its payload tells n.
func msg(n int) mq.Message {
	return mq.Message{Timestamp: uint64(10 * n), Key: "v" + fmt.Sprint(n%3), Payload: bytes.Repeat(fmt.Appendf(nil, "%06d.", n), 1+n%9)}
}

func msgs(from, to int) []mq.Message {
	var out []mq.Message
	for n := from; n <= to; n++ {
		out = append(out, msg(n))
	}
	return out
}

// appendSome appends messages from..to one by one.
func appendSome(t testing.TB, p mq.Producer, from, to int) []mq.Position {
	t.Helper()
	var at []mq.Position
	for _, m := range msgs(from, to) {
		a, err := p.Append(testCtx(t), m)
		if err != nil {
			t.Fatalf("append %d: %+v", m.Timestamp/10, err)
		}
		at = append(at, a...)
	}
	return at
}

// readAll reads to the end; it returns the messages and the damage met.
func readAll(t testing.TB, q *Queue, o mq.ReaderOptions) (got []mq.Message, bad []*mq.CorruptError) {
	t.Helper()
	r, err := q.OpenReader(testCtx(t), topicName, o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer mustClose(t, r)
	end, err := q.topic(testCtx(t), topicName)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := end.look()
	for r.(*reader).seq < v.next {
		m, err := r.Next(testCtx(t))
		var c *mq.CorruptError
		switch {
		case err == nil:
			got = append(got, m)
		case errors.As(err, &c):
			bad = append(bad, c)
		default:
			t.Fatalf("%+v", err)
		}
	}
	return got, bad
}

// wantMessages checks that got is exactly the messages numbered want.
func wantMessages(t testing.TB, got []mq.Message, want ...int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i, m := range got {
		w := msg(want[i])
		if m.Timestamp != w.Timestamp || m.Key != w.Key || !bytes.Equal(m.Payload, w.Payload) {
			t.Fatalf("message %d is %d %q %.30q, want number %d", i, m.Timestamp, m.Key, m.Payload, want[i])
		}
	}
}

func numbers(from, to int) []int {
	var out []int
	for n := from; n <= to; n++ {
		out = append(out, n)
	}
	return out
}

func TestConforms(t *testing.T) {
	run := func(name string, change func(o *Options)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mqtest.Run(t, func(t *testing.T) mqtest.Fixture {
				o := smallOptions(t.TempDir())
				o.MaxPayloadBytes, o.SyncInterval = 1<<20, time.Millisecond
				change(&o)
				q := mustOpen(t, o)
				return mqtest.Fixture{
					Queue: q, MaxPayload: 1 << 20, RollOver: 50,
					Reopen: func(t *testing.T) mq.Queue { return mustOpen(t, o) },
					Open:   func(*testing.T) []string { return q.Handles() },
				}
			})
		})
	}
	run("files", func(*Options) {})
	run("interval", func(o *Options) { o.Sync, o.fs = SyncInterval, newMemFS().fileSystem() })
	run("none", func(o *Options) { o.Sync, o.fs = SyncNone, newMemFS().fileSystem() })
}
