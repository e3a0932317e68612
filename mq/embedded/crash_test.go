package embedded

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// history is what a process was told before it died.
type history struct {
	acked   map[string]string // position id -> payload
	tried   map[string]bool   // payloads handed to Append
	term    uint64            // highest term that was granted
	trimmed mq.Position       // highest that Trim was called with
}

// live is the life of a process: appends with roll-over, new terms, trims, until
// the disk dies under it or its work is done. It reports whether it was done.
func live(t *testing.T, q *Queue, h *history) bool {
	t.Helper()
	ctx := testCtx(t)
	var p mq.Producer
	ts, last := uint64(0), mq.Position{}
	for i := range 40 {
		if i%13 == 0 {
			n, err := q.OpenProducer(ctx, topicName, mq.ProducerOptions{Term: h.term + 1})
			if err != nil {
				return false
			}
			p, h.term = n, h.term+1
		}
		batch := make([]mq.Message, 1+i%3)
		for j := range batch {
			ts++
			payload := fmt.Sprintf("%d/%d/%d/%s", i, j, len(batch), strings.Repeat("x", 100+i*7))
			h.tried[payload] = true
			batch[j] = mq.Message{Timestamp: ts, Payload: []byte(payload)}
		}
		at, err := p.Append(ctx, batch...)
		if err != nil {
			return false
		}
		for j := range at {
			h.acked[at[j].ID] = string(batch[j].Payload)
		}
		if i%11 == 10 {
			h.trimmed = last
			if err := q.Trim(ctx, topicName, last); err != nil {
				return false
			}
		}
		last = at[0]
	}
	return q.Close(ctx) == nil
}

// checkAfter checks what the next process finds.
func checkAfter(t *testing.T, q *Queue, h *history) {
	t.Helper()
	got, bad := readAll(t, q, mq.ReaderOptions{})
	if len(bad) > 0 {
		t.Fatalf("damage: %v", bad[0])
	}
	seen, left := map[string]bool{}, 0
	var before mq.Position
	for _, m := range got {
		if !before.Before(m.Position) {
			t.Fatalf("%s comes after %s", m.Position, before)
		}
		before = m.Position
		payload := string(m.Payload)
		if !h.tried[payload] || seen[payload] {
			t.Fatalf("message %.20q is there twice or was never appended", payload)
		}
		seen[payload] = true
		var i, j, size int
		if _, err := fmt.Sscanf(payload, "%d/%d/%d/", &i, &j, &size); err != nil {
			t.Fatal(err)
		}
		if left > 0 && size-1-j != left-1 {
			t.Fatalf("batch is torn before %.20q", payload)
		}
		left = size - 1 - j
		if want, ok := h.acked[m.Position.ID]; ok && want != payload {
			t.Fatalf("%s was acknowledged for %.20q and holds %.20q", m.Position, want, payload)
		}
		delete(h.acked, m.Position.ID)
	}
	if left > 0 {
		t.Fatal("the last batch is torn")
	}
	for id := range h.acked {
		if id >= h.trimmed.ID {
			t.Fatalf("acknowledged message %x is lost; the topic ends at %s", id, before)
		}
	}
	if h.term > 0 {
		if _, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: h.term - 1}); !errors.Is(err, mq.ErrFenced) {
			t.Fatalf("term %d was granted, and %d is after the crash: %v", h.term, h.term-1, err)
		}
	}
	p := mustProducer(t, q, h.term+1)
	at, err := p.Append(testCtx(t), mq.Message{Timestamp: 1 << 40, Payload: []byte("after")})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	if !before.Before(at[0]) {
		t.Fatalf("the next position is %s after %s", at[0], before)
	}
}

// TestCrashAtEveryStep lets the disk die at its n-th operation, for every n until
// the work gets done: in the middle of appends, roll-overs, trims, and term writes.
func TestCrashAtEveryStep(t *testing.T) {
	dead := errors.New("the process is dead")
	for _, mode := range []string{"killed", "power off"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for n, done := 1, false; !done; n++ {
				disk := newMemFS()
				rnd := rand.New(rand.NewPCG(uint64(n), 1))
				var mu sync.Mutex
				count := 0
				disk.setHook(func(op, path string) error {
					mu.Lock()
					defer mu.Unlock()
					if count++; count < n {
						return nil
					}
					if op == "write" && count == n {
						return shortWrite{rnd.IntN(1500), dead}
					}
					return dead
				})
				h := &history{acked: map[string]string{}, tried: map[string]bool{}}
				q, err := Open(memOptions(t, disk, dir))
				if err == nil {
					done = live(t, q, h)
					_ = q.Close(testCtx(t))
				}
				after := disk.killed()
				if mode == "power off" {
					after = disk.powerOff(rnd)
				}
				next := mustOpen(t, memOptions(t, after, dir))
				checkAfter(t, next, h)
				mustClose(t, next)
				if t.Failed() {
					t.Fatalf("after a crash at operation %d", n)
				}
			}
		})
	}
}
