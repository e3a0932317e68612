package pulsar

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// hybrid is a timestamp at t.
func hybrid(t time.Time) uint64 { return uint64(t.UnixMilli()) << 18 }

// firstFrom returns the timestamp of the first message at or after ask.
func firstFrom(t testing.TB, q *Queue, ask uint64) uint64 {
	t.Helper()
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{FromTimestamp: ask})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer mustClose(t, r)
	m, err := r.Next(testCtx(t))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return m.Timestamp
}

// TestAReadFromATimestampBeginsThere, whatever the ledgers are like, and looks at a few entries.
func TestAReadFromATimestampBeginsThere(t *testing.T) {
	for _, ledger := range []int64{1, 7, 1000} {
		m := newMemory(ledger)
		q := m.queue(t)
		at := appendSome(t, producerOf(t, q, 1), 1, 300)
		check := func(first int) {
			t.Helper()
			for n := first; n <= 300; n += 13 {
				before := q.Stats().TimeProbes
				for ask := uint64(10*n - 9); ask <= uint64(10*n); ask += 3 {
					if got := firstFrom(t, q, ask); got != uint64(10*n) {
						t.Fatalf("ledgers of %d, from %d: got %d, want %d", ledger, ask, got, 10*n)
					}
				}
				if probes := q.Stats().TimeProbes - before; probes > 4*40 {
					t.Errorf("ledgers of %d: %d probes for 4 reads", ledger, probes)
				}
			}
		}
		check(1)
		if err := q.Trim(testCtx(t), topicName, at[99]); err != nil {
			t.Fatal(err)
		}
		check(100)
		if got := firstFrom(t, q, 1); got != 1000 {
			t.Errorf("from before the oldest: got %d", got)
		}
	}
}

// TestEntriesThatDoNotCountMisleadNoSearch: those of a fenced owner carry a state
// that is long past; others cannot be read at all.
func TestEntriesThatDoNotCountMisleadNoSearch(t *testing.T) {
	m := newMemory(5)
	q := m.queue(t)
	old := producerOf(t, q, 1)
	appendSome(t, old, 1, 20)
	past := m.lastPayload(fullName(topicName))
	appendSome(t, producerOf(t, q, 2), 21, 60)
	for range 40 {
		m.store(fullName(topicName), past) // of the old owner, on its way until now
		m.store(fullName(topicName), []byte("somebody else's"))
	}
	if _, err := old.Append(testCtx(t), msg(900)); !errors.Is(err, mq.ErrFenced) {
		t.Fatal(err)
	}
	appendSome(t, producerOf(t, q, 3), 61, 70)
	for n := 1; n <= 70; n++ {
		if got := firstFrom(t, q, uint64(10*n)); got != uint64(10*n) {
			t.Errorf("from %d: got %d", 10*n, got)
		}
	}
}

func (m *memory) lastPayload(topic string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topic)
	return bytes.Clone(l.entries[len(l.entries)-1].payload)
}

// TestNobodySeeks: a seek of the client makes the broker throw the reader out and
// keep its cursor until it is back. Of a process that dies in between, or whose
// broker is frozen, the cursor stays, under a name that no later run knows. And
// SeekByTime does nothing on a reader that began at an id.
func TestNobodySeeks(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f, "_test.go") && (bytes.Contains(src, []byte(".Seek(")) || bytes.Contains(src, []byte(".SeekByTime("))) {
			t.Errorf("%s seeks", f)
		}
	}
}
