package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/wal"
)

// TestTwoOwnersOnOneQueueAreLinearizable: two standalone nodes take the logs from
// one another behind each other's backs, as on a queue that several can reach;
// clients read and write at both. Timeticks are rare, so that the one that was
// replaced would go on believing for long, and messages arrive late, so that it
// lacks what its successor has acknowledged. It was seen to fail with both nodes
// told that they have the queue for themselves.
func TestTwoOwnersOnOneQueueAreLinearizable(t *testing.T) {
	rounds, length := 1, 3*time.Second
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		rounds, length = 15, 6*time.Second
	}
	seed := uint64(time.Now().UnixNano())
	for round := range rounds {
		t.Run(fmt.Sprintf("seed=%d", seed+uint64(round)), func(t *testing.T) { twoOwners(t, seed+uint64(round), length) })
	}
}

func twoOwners(t *testing.T, seed uint64, length time.Duration) {
	w := &world{t: t, dir: t.TempDir(), hist: newHistory()}
	queue, err := embedded.Open(embedded.Options{Dir: filepath.Join(w.dir, "queue"), SegmentBytes: 16 << 10})
	must(t, err)
	defer func() { must(t, queue.Close(context.Background())) }()
	for number := range 2 {
		in := start(t, life{dir: w.dir, shared: lateQueue{queue, 40 * time.Millisecond}, number: number, tick: 100 * time.Millisecond})
		defer in.close(t)
		in.ready(t)
		if number == 0 {
			w.in = in
		} else {
			w.beside = append(w.beside, in)
		}
	}
	w.run(seed, length, w.usurp)
	w.judge()
}

// usurp has one node take a log from the other, write through it, and ask the
// other one at once.
func (w *world) usurp(r *rand.Rand) {
	next, last := w.in, w.beside[0]
	if r.IntN(2) == 0 {
		next, last = last, next
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	_, _, err := next.node.AssignChannel(ctx, fmt.Sprint("topic-", r.IntN(topics)), 0)
	must(w.t, err)
	for n := range int64(3) {
		key := r.Int64N(keys)
		w.doAt(next, clients, call{upsert, key, 1e9 + int64(w.events)*10 + n}, 10*time.Second)
		w.doAt(last, clients, call{kind: get, key: key}, 10*time.Second)
	}
}

// lateQueue hands out messages some time after they were written.
type lateQueue struct {
	mq.Queue
	lag time.Duration
}

func (q lateQueue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Queue.OpenReader(ctx, topic, o)
	if err != nil {
		return nil, err
	}
	return &lateReader{Reader: r, lag: q.lag, closed: make(chan struct{})}, nil
}

type lateReader struct {
	mq.Reader
	lag    time.Duration
	held   *mq.Message // read, and not due yet
	closed chan struct{}
	once   sync.Once
}

func (r *lateReader) Next(ctx context.Context) (mq.Message, error) {
	if r.held == nil {
		m, err := r.Reader.Next(ctx)
		if err != nil {
			return m, err
		}
		r.held = &m
	}
	due := time.NewTimer(time.Until(wal.Time(r.held.Timestamp).Add(r.lag)))
	defer due.Stop()
	select {
	case <-due.C:
	case <-ctx.Done():
		return mq.Message{}, ctx.Err()
	case <-r.closed:
		return mq.Message{}, mq.ErrClosed
	}
	m := *r.held
	r.held = nil
	return m, nil
}

func (r *lateReader) Close(ctx context.Context) error {
	r.once.Do(func() { close(r.closed) })
	return r.Reader.Close(ctx)
}
