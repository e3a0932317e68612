package pulsar

import (
	"slices"
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

// TestWhatAReaderHadYetToReadIsNotPassedOver: its topic was deleted, and made again by the owner it had, or by
// the next one. It is told what it would be told if it were opened there, not that one message is bad.
func TestWhatAReaderHadYetToReadIsNotPassedOver(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, q *Queue, p mq.Producer){
		"by its owner": func(t *testing.T, _ *Queue, p mq.Producer) { appendSome(t, p, 10, 12) },
		"by the next one": func(t *testing.T, q *Queue, _ mq.Producer) {
			appendSome(t, producerOf(t, q, 2), 10, 12)
		},
	} {
		for behind, read := range map[string]int{"and lags": 4, "and does not lag": 9} {
			t.Run(name+" "+behind, func(t *testing.T) {
				m := newMemory(4)
				q := m.queue(t)
				p := producerOf(t, q, 1)
				appendSome(t, p, 1, 9)
				r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer mustClose(t, r)
				for range read {
					if _, err := r.Next(testCtx(t)); err != nil {
						t.Fatal(err)
					}
				}
				m.edit(func(l *memLog) { l.entries, l.next = nil, entryID{l.next.ledger + 1, 0} })
				next(t, q, p)
				got, whole := []int{}, read == 9 && name == "by its owner"
				for len(got) < 3 && err == nil {
					var msg mq.Message
					if msg, err = r.Next(testCtx(t)); err == nil {
						got = append(got, int(msg.Timestamp/10))
					}
				}
				// One entry may have been on its way to the reader.
				if whole && (err != nil || !slices.Equal(got, numbers(10, 12))) {
					t.Errorf("%v, then %v", got, err)
				}
				if !whole {
					wantErr(t, err, mq.ErrTrimmed)
					if len(got) > 1 || len(got) == 1 && got[0] != read+1 {
						t.Errorf("%v came", got)
					}
				}
			})
		}
	}
}
