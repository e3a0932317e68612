package pulsar

import (
	"context"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// edit changes what is stored.
func (m *memory) edit(change func(l *memLog)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.logs[fullName(topicName)])
	m.broadcast()
}

// readAll reads to the end; errors of class corrupt are counted.
func readAll(t testing.TB, q *Queue, o mq.ReaderOptions) (got []int, corrupt int) {
	t.Helper()
	b, err := q.Bounds(testCtx(t), topicName)
	if err != nil {
		t.Fatal(err)
	}
	r, err := q.OpenReader(testCtx(t), topicName, o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, r)
	for {
		m, err := r.Next(testCtx(t))
		var ce *mq.CorruptError
		switch {
		case errors.As(err, &ce) && errclass.Is(err, errclass.Corrupt):
			corrupt++
			continue
		case err != nil:
			t.Fatalf("%+v", err)
		}
		got = append(got, int(m.Timestamp/10))
		if m.Position == b.Last {
			return got, corrupt
		}
	}
}

// index of the entry that holds message n of a log that begins with one claim.
func entryAt(n int) int { return n }

func TestADamagedEntryCostsOnlyItself(t *testing.T) {
	for name, at := range map[string]int{"header": 40, "body": headerBytes + 3} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(7)
			q := m.queue(t)
			appendSome(t, producerOf(t, q, 1), 1, 9)
			m.edit(func(l *memLog) { l.entries[entryAt(4)].payload[at] ^= 1 })
			got, corrupt := readAll(t, q, mq.ReaderOptions{})
			if !slices.Equal(got, []int{1, 2, 3, 5, 6, 7, 8, 9}) || corrupt != 1 {
				t.Fatalf("got %v and %d errors", got, corrupt)
			}
			appendSome(t, producerOf(t, q, 1), 10, 11)
		})
	}
}

func TestADamagedEndHidesNeitherTermNorMessages(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"header":  func(b []byte) []byte { b[40] ^= 1; return b },
		"foreign": func([]byte) []byte { return []byte("hello") },
		"empty":   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			for damaged := 1; damaged <= 9; damaged++ { // so many at the end
				m := newMemory(7)
				q := m.queue(t)
				at := appendSome(t, producerOf(t, q, 6), 1, 9)
				m.edit(func(l *memLog) {
					for i := len(l.entries) - damaged; i < len(l.entries); i++ {
						l.entries[i].payload = spoil(slices.Clone(l.entries[i].payload))
					}
				})
				_, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 5})
				wantErr(t, err, mq.ErrFenced)
				b, err := q.Bounds(testCtx(t), topicName)
				if err != nil {
					t.Fatal(err)
				}
				if damaged < 9 && b.Last != at[len(at)-1-damaged] {
					t.Fatalf("%d damaged: bounds %v", damaged, b)
				}
			}
		})
	}
}

func TestEntriesThatAreMissingAreReported(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	appendSome(t, producerOf(t, q, 1), 1, 9)
	m.edit(func(l *memLog) { l.entries = slices.Delete(l.entries, entryAt(4), entryAt(6)) })
	got, corrupt := readAll(t, q, mq.ReaderOptions{})
	if !slices.Equal(got, []int{1, 2, 3, 6, 7, 8, 9}) || corrupt != 1 {
		t.Fatalf("got %v and %d errors", got, corrupt)
	}
}

// skipping is a driver whose first cursor leaves entries out, as the client's
// reader may when it reconnects.
type skipping struct {
	memDriver
	skip int
}

func (s *skipping) read(ctx context.Context, topic string, from entryID) (cursor, error) {
	c, err := s.memDriver.read(ctx, topic, from)
	if err == nil && s.skip > 0 && from.isNone() {
		c.(*memCursor).skip, s.skip = s.skip, 0
	}
	return c, err
}

func TestEntriesThatTheClientLeavesOutAreFetched(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	appendSome(t, producerOf(t, q, 1), 1, 9)
	q.driver = &skipping{memDriver{m}, 4}
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{Latest: true}) // its own cursor is not the first
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, r)
	tl := q.tail(fullName(topicName), newborn(), none(), nil)
	defer tl.drop(testCtx(t))
	for i := range 10 {
		ev, err := tl.next(testCtx(t))
		if err != nil || ev.err != nil || ev.verdict != counts || ev.entry.base.index != uint64(i) {
			t.Fatalf("entry %d: %+v, %v", i, ev, err)
		}
	}
	if q.Stats().Gaps != 1 {
		t.Fatalf("%+v", q.Stats())
	}
}

func TestSomebodyElseDeletesMessages(t *testing.T) {
	m := newMemory(7)
	q := m.queue(t)
	at := appendSome(t, producerOf(t, q, 1), 1, 20)
	m.edit(func(l *memLog) { l.entries = l.entries[14:] })
	_, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{From: at[3]})
	wantErr(t, err, mq.ErrTrimmed)
	wantLog(t, q, mq.ReaderOptions{}, numbers(14, 20)...)
	b, err := q.Bounds(testCtx(t), topicName)
	if err != nil || b.First != at[13] {
		t.Fatalf("%v, %v", b, err)
	}
}
