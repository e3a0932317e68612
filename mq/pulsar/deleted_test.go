package pulsar

import (
	"testing"

	"github.com/querynode/querynode/mq"
)

// TestATopicThatIsMadeAnewByItsOwner: it was deleted while its owner had it, whose next append
// made it again, in the next ledger. The log had been trimmed, at an entry that is gone with
// the others. What is left is read from its beginning, and what was before is not pretended to be.
func TestATopicThatIsMadeAnewByItsOwner(t *testing.T) {
	m := newMemory(4)
	q := m.queue(t)
	p := producerOf(t, q, 1)
	at := appendSome(t, p, 1, 9)
	if err := q.Trim(testCtx(t), topicName, at[4]); err != nil {
		t.Fatal(err)
	}
	wantLog(t, q, mq.ReaderOptions{}, numbers(5, 9)...)
	m.edit(func(l *memLog) { l.entries = nil })
	left := appendSome(t, p, 10, 12)

	b, err := q.Bounds(testCtx(t), topicName)
	if err != nil || b.First != left[0] || b.Last != left[2] {
		t.Fatalf("bounds %v, %v, want %v to %v", b, err, left[0], left[2])
	}
	wantLog(t, q, mq.ReaderOptions{}, numbers(10, 12)...)
	for _, lost := range []mq.Position{at[5], at[8]} {
		_, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{From: lost, Exclusive: true})
		wantErr(t, err, mq.ErrTrimmed)
	}
	appendSome(t, producerOf(t, q, 2), 13, 14)
	wantLog(t, q, mq.ReaderOptions{}, numbers(10, 14)...)
	if err := q.Trim(testCtx(t), topicName, left[1]); err != nil {
		t.Fatal(err)
	}
	wantLog(t, q, mq.ReaderOptions{}, numbers(11, 14)...)
}
