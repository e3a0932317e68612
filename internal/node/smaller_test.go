package node

import (
	"testing"
	"time"

	"github.com/querynode/querynode/segments"
)

// TestRowsOfALogThatTheProcessMayNotHave: a node comes up in a smaller container, with more rows in its log, of
// segments whose seals are not there, than the process may have in all. It reads as many as it may have, says what it waits for, and is
// not ready. With more memory it stores them, and needs that no more then.
func TestRowsOfALogThatTheProcessMayNotHave(t *testing.T) {
	const batch, rows, limit, ceiling = 500, 30_000, 1 << 20, 1 << 20
	w := newWorld(t)
	writer := w.open(nil).ready()
	writer.createWithGraph()
	writer.remove(-1)       // storage knows that the topic is written to
	writer.dead.Store(true) // nothing is stored
	for from := int64(0); from < rows; from += batch {
		writer.insert(between(from, from+batch)...)
	}
	writer.has(rows)
	if used := writer.set.Ledger().Used()[segments.KindGrowing]; used < ceiling*3/2 {
		t.Fatalf("they take only %d bytes", used)
	}
	writer.kill()

	w.memory = limit
	small := w.open(func(o *Options) { o.Flush.Workers, o.Flush.RoomTimeout = 1, time.Millisecond })
	l := small.set.Ledger()
	l.Observe(0, ceiling)
	small.troubled("replay their logs")
	small.troubled("no memory for")
	eventually(t, "it reads what it may have", func() bool { return l.Used()[segments.KindGrowing] > ceiling*4/5 })
	for range 50 { // it is tried again, and stays as it is
		time.Sleep(10 * time.Millisecond)
		if read, used := small.Logs()[0].Replay.Rows, l.Used()[segments.KindGrowing]; read == 0 || read >= rows || used > ceiling {
			t.Fatalf("%d rows of %d are read, and take %d bytes", read, rows, used)
		}
		select {
		case <-small.Ready():
			t.Fatal("it is ready without the rows")
		default:
		}
	}
	small.kill()

	again := w.open(func(o *Options) { o.Flush.Workers, o.Flush.RoomTimeout = 1, time.Millisecond })
	again.set.Ledger().Observe(0, 4*ceiling) // it was given more memory
	again.ready().has(rows)
	eventually(t, "they are stored", func() bool {
		return len(again.sealed()) > 0 && again.set.Ledger().Used()[segments.KindGrowing] == 0
	})
	again.checkpointed()
	again.kill()

	small = w.open(func(o *Options) { o.Flush.Workers, o.Flush.RoomTimeout = 1, time.Millisecond })
	small.set.Ledger().Observe(0, ceiling)
	small.ready().has(rows)
	small.insert(rows)
	small.has(rows + 1)
}
