package node

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq"
)

// rationed is a queue whose readers give out so many messages, and then no more.
type rationed struct {
	mq.Queue
	left *atomic.Int64
}

func (q rationed) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Queue.OpenReader(ctx, topic, o)
	return rationedReader{r, q.left}, err
}

type rationedReader struct {
	mq.Reader
	left *atomic.Int64
}

func (r rationedReader) Next(ctx context.Context) (mq.Message, error) {
	if r.left.Add(-1) < 0 {
		<-ctx.Done()
		return mq.Message{}, ctx.Err()
	}
	return r.Reader.Next(ctx)
}

// TestARecoveryThatIsKilledGoesOnWhereItWas: a node with a long log is killed
// three times before it is through. Each time it has stored some of what it read,
// and the next one begins after that. It is live but not ready, and says how far
// it is.
func TestARecoveryThatIsKilledGoesOnWhereItWas(t *testing.T) {
	const segments, rows, kills = 30, 20, 3
	w := newWorld(t)
	writer := w.open(func(o *Options) { o.WAL.TimeTickInterval = time.Hour }).ready()
	writer.create()
	writer.remove(-1)       // storage knows that the topic is written to
	writer.dead.Store(true) // nothing is stored
	for i := range int64(segments) {
		writer.insert(between(i*rows, i*rows+rows)...)
		_, _, err := writer.Flush(within(t), things, false)
		must(t, err)
	}
	writer.remove(0)
	writer.kill()
	log := int64(len(w.broker.Messages(topic)))
	left := &atomic.Int64{}
	w.queue = func() mq.Queue { return rationed{w.broker.Connect(), left} }
	read := int64(0)
	for life := range kills {
		left.Store(log / (kills + 1))
		n := w.open(nil)
		before := len(n.sealed())
		eventually(t, "a life reads its ration and stores some of it", func() bool {
			return left.Load() < 0 && len(n.sealed()) > before
		})
		select {
		case <-n.Ready():
			t.Fatal("ready, with a part of the log unread")
		default:
		}
		st := n.Logs()[0]
		if s := st.Replay.Share; s <= 0 || s >= 1 || st.Replay.Rows == 0 || st.Replay.Bytes == 0 || st.Replay.Position == "" {
			t.Errorf("life %d tells of its recovery: %+v", life, st)
		}
		eventually(t, "it says what it waits for", func() bool {
			err := n.Problem()
			return err != nil && strings.Contains(err.Error(), "replay")
		})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if _, _, err := n.count(ctx, false); err == nil || !errclass.Of(err).Retry() {
			t.Errorf("a STRONG read during the recovery: %v", err)
		}
		cancel()
		n.checkpointMoves()
		read += n.Logs()[0].Replay.Rows
		n.kill()
	}
	left.Store(1 << 40)
	n := w.open(nil).ready()
	n.has(segments*rows - 1)
	read += n.Logs()[0].Replay.Rows
	t.Logf("a log of %d rows: %d were read in %d lives", segments*rows, read, kills+1)
	if most := int64(2 * segments * rows); read >= most {
		t.Errorf("%d rows were read in all, want fewer than %d", read, most)
	}
}

// checkpointMoves waits until the checkpoint covers the last segment that is stored.
func (r *rig) checkpointMoves() {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	eventually(r.t, "the checkpoint follows what is stored", func() bool {
		c, err := r.o.Catalog.Channel(within(r.t), coll.VChannels[0].Name)
		if err != nil || len(c.Segments) == 0 {
			return false
		}
		return c.CheckpointTimestamp >= c.Segments[len(c.Segments)-1].MaxTimestamp
	})
}

// untrimmed is a queue that keeps everything, as one with long retention does.
type untrimmed struct{ mq.Queue }

func (untrimmed) Trim(context.Context, string, mq.Position) error { return nil }

// startAfter counts what a node reads of a log at its start, when so many rows, one
// a message, are before the checkpoint and so many after it.
func startAfter(t *testing.T, before, after int64) (rows, messages int64) {
	t.Helper()
	w := newWorld(t)
	quiet := func(o *Options) { o.WAL.TimeTickInterval = time.Hour }
	w.queue = func() mq.Queue { return untrimmed{w.broker.Connect()} }
	first := w.open(quiet).ready()
	first.create()
	for id := range before {
		first.insert(id)
	}
	first.flush()
	first.checkpointMoves()
	first.dead.Store(true) // the checkpoint stays
	for id := range after {
		first.insert(before + id)
	}
	first.kill()
	left := &atomic.Int64{}
	left.Store(1 << 40)
	w.queue = func() mq.Queue { return rationed{w.broker.Connect(), left} }
	next := w.open(quiet).ready()
	messages = 1<<40 - left.Load()
	rows = next.Logs()[0].Replay.Rows
	next.has(before + after)
	return rows, messages
}

// TestAStartReadsWhatIsAfterTheCheckpoint and nothing before it: what it costs
// grows with the one and not with the other.
func TestAStartReadsWhatIsAfterTheCheckpoint(t *testing.T) {
	const few = 15 // the seal, timeticks, and reads that wait for more
	for _, c := range []struct{ before, after int64 }{{50, 0}, {50, 100}, {500, 100}, {50, 200}} {
		rows, messages := startAfter(t, c.before, c.after)
		if rows != c.after || messages < c.after || messages > c.after+few {
			t.Errorf("%d rows before the checkpoint and %d after it: %d rows were replayed, %d messages read", c.before, c.after, rows, messages)
		}
	}
}

// TestReplayedRowsOfASegmentOfUnknownAgeAreInIt: the catalog has no newest timestamp of a segment, and its rows
// are not taken for some that came after its end.
func TestReplayedRowsOfASegmentOfUnknownAgeAreInIt(t *testing.T) {
	w := newWorld(t)
	w.queue = func() mq.Queue { return untrimmed{w.broker.Connect()} }
	r := w.open(unstoredYet).ready()
	r.create()
	r.insert(between(0, 10)...)
	r.flush() // after which the checkpoint may be written, or not
	r.kill()
	w.ageless(t)
	r = w.open(unstoredYet).ready()
	if st := r.Channels()[0]; st.Quarantined != 0 || r.Logs()[0].Replay.Rows != 10 {
		t.Errorf("%d messages are set aside, of %d rows that were replayed", st.Quarantined, r.Logs()[0].Replay.Rows)
	}
	r.has(10)
}

// ageless takes the timestamps of segments, and the checkpoints, out of the catalog.
func (w *world) ageless(t *testing.T) {
	t.Helper()
	changed := 0
	must(t, w.bucket.List(within(t), "", "", func(info objstore.Info) error {
		if !strings.Contains(info.Key, "/channels/") {
			return nil
		}
		raw, err := objstore.ReadAll(within(t), w.bucket, info.Key, 1<<20)
		must(t, err)
		var c catalog.Channel
		must(t, json.Unmarshal(raw, &c))
		for i := range c.Segments {
			c.Segments[i].MinTimestamp, c.Segments[i].MaxTimestamp = 0, 0
			changed++
		}
		c.Checkpoint, c.CheckpointTimestamp = "", 0
		raw, err = json.Marshal(c)
		must(t, err)
		_, err = w.bucket.Put(within(t), info.Key, bytes.NewReader(raw), int64(len(raw)), objstore.PutOptions{})
		return err
	}))
	if changed == 0 {
		t.Fatal("no segment is stored")
	}
}
