package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

const (
	clients = 6
	keys    = 8
)

// world is a node that is killed, restarted and given new terms, under clients.
type world struct {
	t    *testing.T
	dir  string
	hist *history

	mu     sync.RWMutex // held by whoever replaces the incarnation
	in     *incarnation
	beside []*incarnation // others on the same queue: clients talk to any
	lives  int
	events int
	killed sync.WaitGroup // incarnations that are being cleaned up
}

func (w *world) current() *incarnation {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if i := rand.IntN(1 + len(w.beside)); i > 0 {
		return w.beside[i-1]
	}
	return w.in
}

// client does random operations until ctx ends. Values are unique.
func (w *world) client(ctx context.Context, id int, r *rand.Rand) {
	for n := int64(1); ctx.Err() == nil; n++ {
		c := call{kind: get, key: r.Int64N(keys)}
		switch p := r.IntN(10); {
		case p < 4:
			c.kind, c.value = upsert, n*clients+int64(id)+1
		case p < 5:
			c.kind = remove
		}
		patience := 10 * time.Second
		if r.IntN(20) == 0 {
			patience = time.Duration(r.IntN(3000)) * time.Microsecond
		}
		w.do(id, c, patience)
		pause := time.NewTimer(time.Duration(r.IntN(20_000)) * time.Microsecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

func (w *world) do(id int, c call, patience time.Duration) { w.doAt(w.current(), id, c, patience) }

func (w *world) doAt(in *incarnation, id int, c call, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := w.hist
	from := h.now()
	var output int64
	var err error
	switch c.kind {
	case upsert:
		err = in.upsert(ctx, c.key, c.value)
	case remove:
		err = in.delete(ctx, c.key)
	case get:
		output, err = in.get(ctx, c.key)
	}
	to := h.now()
	dead := in.fuse.blown.Load() // then the answer never reached the client
	switch {
	case c.kind == get && (err != nil || dead):
		h.count(&h.failed)
	case c.kind == get:
		h.record(id, c, from, to, output)
		h.count(&h.reads)
	case err == nil && !dead:
		h.record(id, c, from, to, 0)
		h.count(&h.acked)
	case dead || errors.Is(err, mq.ErrUnknownOutcome):
		h.record(id, c, from, never, 0)
		h.count(&h.unknown)
	default: // certainly not stored: were it seen, nothing could explain it
		h.count(&h.refused)
	}
}

// kill takes the node's queue and storage away in the middle of whatever it
// does, and starts another one on what a dead process leaves on the disk.
func (w *world) kill() {
	old := w.current()
	old.fuse.blown.Store(true)
	w.lives++
	queue := filepath.Join(w.dir, fmt.Sprint("queue-", w.lives))
	must(w.t, copyQueue(queue, old.queue))
	w.killed.Go(func() { old.close(w.t) })
	w.replace(queue)
}

// restart closes the node and opens it again.
func (w *world) restart() {
	old := w.current()
	old.close(w.t)
	w.lives++
	w.replace(old.queue)
}

func (w *world) replace(queue string) {
	in := start(w.t, life{dir: w.dir, queue: queue, number: w.lives, tick: 10 * time.Millisecond})
	in.ready(w.t)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in = in
}

// newTerm has the node open one of its logs anew, under the next term.
func (w *world) newTerm(topic int) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	_, _, err := w.current().node.AssignChannel(ctx, fmt.Sprint("topic-", topic), 0)
	must(w.t, err)
}

func (w *world) disturb(r *rand.Rand) {
	switch p := r.IntN(10); {
	case p < 5:
		w.kill()
	case p < 7:
		w.restart()
	default:
		w.newTerm(r.IntN(topics))
	}
}

// TestKeysAreLinearizable was seen to fail with the code broken on purpose: with
// tsafe advanced before ApplyRows applies (and 2 ms between the two), and with
// Strong reads that wait for nothing. TestTheCheckerSeesAStaleRead and
// TestTheCheckerSeesALostWrite keep the checker itself honest.
func TestKeysAreLinearizable(t *testing.T) {
	rounds, length := 1, 3*time.Second
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		rounds, length = 25, 6*time.Second
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("QUERYNODE_TEST_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		seed = v
	}
	for round := range rounds {
		t.Run(fmt.Sprintf("seed=%d", seed+uint64(round)), func(t *testing.T) { oneHistory(t, seed+uint64(round), length) })
	}
}

func oneHistory(t *testing.T, seed uint64, length time.Duration) {
	w := &world{t: t, dir: t.TempDir(), hist: newHistory()}
	w.replace(filepath.Join(w.dir, "queue-0"))
	w.run(seed, length, w.disturb)
	w.killed.Wait()
	w.current().close(t)
	w.judge()
}

// run lets clients work for length, with disturbances in between, and then reads
// every key.
func (w *world) run(seed uint64, length time.Duration, disturb func(*rand.Rand)) {
	ctx, cancel := context.WithTimeout(w.t.Context(), length)
	defer cancel()
	var running sync.WaitGroup
	for id := range clients {
		running.Go(func() { w.client(ctx, id, rand.New(rand.NewPCG(seed, uint64(id)))) })
	}
	r := rand.New(rand.NewPCG(seed, clients))
	for ctx.Err() == nil {
		pause := time.NewTimer(time.Duration(100+r.IntN(500)) * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
			disturb(r)
			w.events++
		}
	}
	running.Wait()
	for key := range int64(keys) { // what is there in the end
		w.do(clients, call{kind: get, key: key}, 20*time.Second)
	}
}

// judge fails the test if no order of the operations explains what was seen.
func (w *world) judge() {
	h, t := w.hist, w.t
	t.Helper()
	t.Logf("%d disturbances; writes: %d acknowledged, %d unknown, %d refused; reads: %d, %d failed",
		w.events, h.acked, h.unknown, h.refused, h.reads, h.failed)
	if h.acked == 0 || h.reads == 0 {
		t.Fatal("nothing happened")
	}
	wrong, err := h.check(time.Minute)
	must(t, err)
	if wrong != nil {
		t.Fatalf("not linearizable:\n%s", describe(wrong))
	}
}

// describe lists operations by their begin.
func describe(ops []porcupine.Operation) string {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, op := range ops {
		end := "never"
		if op.Return != never {
			end = time.Duration(op.Return).String()
		}
		fmt.Fprintf(&b, "client %d  %s to %s  %v -> %v\n", op.ClientId, time.Duration(op.Call), end, op.Input, op.Output)
	}
	return b.String()
}

func TestTheCheckerSeesAStaleRead(t *testing.T) {
	h := newHistory()
	h.record(0, call{upsert, 1, 7}, 0, 10, 0)
	h.record(1, call{get, 1, 0}, 20, 30, 0)
	if wrong, err := h.check(time.Minute); wrong == nil || err != nil {
		t.Fatal("a read that misses an acknowledged write passes")
	}
}

func TestTheCheckerSeesALostWrite(t *testing.T) {
	h := newHistory()
	h.record(0, call{upsert, 1, 7}, 0, never, 0) // unknown
	h.record(1, call{get, 1, 0}, 20, 30, 0)
	h.record(1, call{get, 1, 0}, 40, 50, 7)
	if wrong, err := h.check(time.Minute); wrong != nil || err != nil {
		t.Fatal("an unknown outcome may happen later")
	}
	h.record(1, call{get, 1, 0}, 60, 70, 0)
	if wrong, err := h.check(time.Minute); wrong == nil || err != nil {
		t.Fatal("what has been read is gone, and that passes")
	}
}
