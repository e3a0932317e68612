package pulsar

import (
	"context"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// A write-ahead log over this queue: what it acknowledged is replayed by the
// next owner, and the owner before cannot write any more.
func TestAWriteAheadLogOnPulsar(t *testing.T) {
	b := realBroker(t)
	topic := freshTopic(t)
	open := func(term uint64, replayed *int) *wal.WAL {
		t.Helper()
		w, err := wal.Open(wal.Options{Queue: b.queue(t), PChannel: topic, Term: term, Replay: func(_ context.Context, e wal.Entry) error {
			if e.Type != wal.TimeTick {
				*replayed++
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close(closeCtx(t)) })
		if err := w.Ready(testCtx(t)); err != nil {
			t.Fatalf("%+v", err)
		}
		return w
	}
	var none, some int
	old := open(1, &none)
	var last wal.Receipt
	for range 60 {
		r, err := old.Append(testCtx(t), wal.Entry{Type: wal.Insert, VChannel: "v0", Body: []byte("row")})
		if err != nil {
			t.Fatalf("%+v", err)
		}
		if !last.Position.Before(r.Position) || r.Timestamp <= last.Timestamp {
			t.Fatalf("%+v comes after %+v", r, last)
		}
		last = r
	}
	w := open(2, &some)
	if none != 0 || some != 60 {
		t.Fatalf("%d and %d entries were replayed", none, some)
	}
	_, err := old.Append(testCtx(t), wal.Entry{Type: wal.Insert, VChannel: "v0", Body: []byte("late")})
	if !errors.Is(err, mq.ErrFenced) { // also by a timetick
		t.Fatalf("%+v", err)
	}
	if _, err := w.Append(testCtx(t), wal.Entry{Type: wal.Insert, VChannel: "v0", Body: []byte("row")}); err != nil {
		t.Fatalf("%+v", err)
	}
	if err := w.Trim(testCtx(t), last.Position); err != nil {
		t.Fatalf("%+v", err)
	}
	if _, err := w.Append(testCtx(t), wal.Entry{Type: wal.Insert, VChannel: "v0", Body: []byte("row")}); err != nil {
		t.Fatalf("%+v", err)
	}
	mustClose(t, w)
}
