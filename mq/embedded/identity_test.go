package embedded

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// TestAQueueIsToldFromAllOthers by an identity that stays with its folder.
func TestAQueueIsToldFromAllOthers(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, Options{Dir: dir})
	id := q.Identity()
	if len(id) != 2*identityBytes || id == mustOpen(t, Options{Dir: t.TempDir()}).Identity() {
		t.Fatalf("identity %q", id)
	}
	mustClose(t, q)
	if again := mustOpen(t, Options{Dir: dir}); again.Identity() != id {
		t.Fatalf("%q, was %q", again.Identity(), id)
	} else {
		mustClose(t, again)
	}
	if err := os.WriteFile(filepath.Join(dir, "ID"), []byte("no identity\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); !errclass.Is(err, errclass.Corrupt) {
		t.Fatalf("a damaged identity: %v", err)
	}
}

// TestATopicBeginsBehindTheOneWhosePlaceItTakes, also when it is opened again before its
// first message, and after it.
func TestATopicBeginsBehindTheOneWhosePlaceItTakes(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, Options{Dir: dir})
	after := position(48, 4800)
	for range 2 { // to repeat it is no error
		if err := q.Begin(t.Context(), "topic", after); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := q.Bounds(t.Context(), "topic"); err != nil || b != (mq.Bounds{}) {
		t.Fatalf("%v, %v", b, err)
	}
	mustClose(t, q)
	q = mustOpen(t, Options{Dir: dir})
	if end, err := q.End(t.Context(), "topic"); err != nil || end != after {
		t.Fatalf("ends at %v, %v", end, err)
	}
	r, err := q.OpenReader(t.Context(), "topic", mq.ReaderOptions{From: after, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := q.OpenProducer(t.Context(), "topic", mq.ProducerOptions{Term: 1})
	if err != nil {
		t.Fatal(err)
	}
	at, err := p.Append(t.Context(), mq.Message{Timestamp: 4900, Payload: []byte("x")})
	if err != nil || at[0] != position(49, 4900) {
		t.Fatalf("%v, %v", at, err)
	}
	if m, err := r.Next(t.Context()); err != nil || m.Position != at[0] {
		t.Fatalf("%v, %v", m, err)
	}
	if err := q.Begin(t.Context(), "topic", position(100, 1)); !errclass.Is(err, errclass.Conflict) {
		t.Fatalf("a topic that has messages: %v", err)
	}
	mustClose(t, q)
	q = mustOpen(t, Options{Dir: dir})
	if b, err := q.Bounds(t.Context(), "topic"); err != nil || b.First != at[0] || b.Last != at[0] {
		t.Fatalf("%v, %v", b, err)
	}
	if s := q.Stats(); s.Damages > 0 {
		t.Errorf("%d damages", s.Damages)
	}
}
