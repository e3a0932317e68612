package wal

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

const topic = "p1"

// quiet are options without timeticks, so that the topic holds what a test appends.
func quiet(q mq.Queue) Options {
	return Options{Queue: q, PChannel: topic, Term: 1, TimeTickInterval: -1}
}

func mustOpen(t testing.TB, o Options) *WAL {
	t.Helper()
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close(context.Background()) }) // for stories that fail
	return w
}

func mustBeReady(t testing.TB, w *WAL) {
	t.Helper()
	if err := w.Ready(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func openReady(t testing.TB, o Options) *WAL {
	t.Helper()
	w := mustOpen(t, o)
	mustBeReady(t, w)
	return w
}

func mustClose(t testing.TB, w *WAL) {
	t.Helper()
	if err := w.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := w.State(); s != Closed {
		t.Fatalf("state after Close: %s", s)
	}
}

func insert(body string) Entry { return Entry{Type: Insert, VChannel: "v1", Body: []byte(body)} }

func mustAppend(t testing.TB, w *WAL, body string) Receipt {
	t.Helper()
	r, err := w.Append(context.Background(), insert(body))
	if err != nil {
		t.Fatalf("append %q: %v", body, err)
	}
	return r
}

func wantClass(t testing.TB, err error, c errclass.Class) {
	t.Helper()
	if err == nil || errclass.Of(err) != c {
		t.Fatalf("class %s is wanted, got %s: %v", c, errclass.Of(err), err)
	}
}

func wantState(t testing.TB, w *WAL, s State) {
	t.Helper()
	if got := w.State(); got != s {
		t.Fatalf("state %s is wanted, got %s (%v)", s, got, w.Err())
	}
}

// nothingOpen checks the broker's lists.
func nothingOpen(t testing.TB, q *mqtest.Memory) {
	t.Helper()
	if open := append(q.OpenProducers(), q.OpenReaders()...); len(open) != 0 {
		t.Fatalf("left open: %q", open)
	}
}

// replayLog remembers what a recovery replays.
type replayLog struct {
	mu      sync.Mutex
	entries []Entry
}

func (l *replayLog) replay(_ context.Context, e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return nil
}

func (l *replayLog) bodies() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.entries {
		out = append(out, string(e.Body))
	}
	return out
}

// appending is an append in the background.
type appending struct {
	done    chan struct{}
	receipt Receipt
	err     error
}

func appendLater(ctx context.Context, w *WAL, body string) *appending {
	a := &appending{done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.receipt, a.err = w.Append(ctx, insert(body))
	}()
	return a
}

func appendMany(w *WAL, n int) []*appending {
	as := make([]*appending, n)
	for i := range as {
		as[i] = appendLater(context.Background(), w, fmt.Sprint("a", i))
	}
	return as
}

// stalled is a place where calls stop: those that are obedient until their
// context ends, the others until free.
type stalled struct {
	obedient bool
	free     chan struct{}
}

func newStalled(obedient bool) *stalled {
	return &stalled{obedient: obedient, free: make(chan struct{})}
}

func (s *stalled) wait(ctx context.Context) error {
	if !s.obedient {
		<-s.free
		return errors.New("freed")
	}
	select {
	case <-s.free:
		return errors.New("freed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bubble runs a story on virtual time; a goroutine left over fails it.
func bubble(t *testing.T, story func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, story)
}

// within runs fn and fails if it took more virtual time than limit.
func within(t testing.TB, limit time.Duration, fn func()) {
	t.Helper()
	start := time.Now()
	fn()
	if took := time.Since(start); took > limit {
		t.Fatalf("took %s, %s is allowed", took, limit)
	}
}
