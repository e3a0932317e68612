package wal

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// raw appends messages past any WAL, as an older or newer build may have.
func raw(t *testing.T, q *mqtest.Memory, msgs ...mq.Message) []mq.Position {
	t.Helper()
	p, err := q.OpenProducer(context.Background(), topic, mq.ProducerOptions{Term: 1})
	if err != nil {
		t.Fatal(err)
	}
	at, err := p.Append(context.Background(), msgs...)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return at
}

func entryAt(t *testing.T, ts uint64, typ Type, body string) mq.Message {
	t.Helper()
	return mustEncode(t, Entry{Type: typ, VChannel: "v1", Body: []byte(body), Timestamp: ts, Term: 1})
}

func TestReplayStartsRightAfterTheCheckpoint(t *testing.T) {
	for after := range 6 {
		bubble(t, func(t *testing.T) {
			q := seeded(t)
			stored := q.Messages(topic)
			var log replayLog
			o := quiet(q)
			o.Replay = log.replay
			if after > 0 {
				o.Checkpoint = stored[after-1].Position
			}
			w := openReady(t, o)
			if want := 5 - after; len(log.entries) != want || w.Stats().Replayed != uint64(want) {
				t.Fatalf("replayed %q after %d", log.bodies(), after)
			}
			for i, e := range log.entries {
				if want := stored[after+i]; e.Position != want.Position || e.Timestamp != want.Timestamp {
					t.Fatalf("entry %d: %+v", i, e)
				}
			}
			if w.LastTimestamp() != stored[4].Timestamp {
				t.Fatalf("last timestamp %d", w.LastTimestamp())
			}
			mustClose(t, w)
		})
	}
}

func TestTimestampsGrowAcrossReopenAndClockJumps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, offset := mqtest.NewMemory(mqtest.MemoryOptions{}), time.Duration(0)
		o := quiet(q)
		o.Now = func() time.Time { return time.Now().Add(offset) }
		var last uint64
		for round, jump := range []time.Duration{0, -time.Hour, 2 * time.Hour, -50 * 365 * 24 * time.Hour, 0} {
			offset += jump
			w := openReady(t, o)
			for i := range 3 {
				r := mustAppend(t, w, fmt.Sprint(round, i))
				if r.Timestamp <= last {
					t.Fatalf("round %d: %d after %d", round, r.Timestamp, last)
				}
				last = r.Timestamp
			}
			o.Checkpoint = w.Stats().LastPosition
			o.Checkpoint.Timestamp = 0 // a catalog may keep the id only
			if jump < 0 && w.Stats().ClockBack == 0 {
				t.Fatalf("round %d: the jump is not counted", round)
			}
			mustClose(t, w)
		}
	})
}

// timeless hides the timestamps in Bounds, which a queue need not know.
type timeless struct{ *mqtest.Memory }

func (q timeless) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	b, err := q.Memory.Bounds(ctx, topic)
	b.First.Timestamp, b.Last.Timestamp = 0, 0
	return b, err
}

func TestTimestampsGrowWhenOnlyTheLastMessageKnowsItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		future := FromTime(time.Now().Add(time.Hour))
		at := raw(t, q, entryAt(t, future, Insert, "x"))
		var log replayLog
		o := quiet(timeless{q})
		o.Replay = log.replay
		o.Checkpoint = mq.Position{ID: at[0].ID}
		w := openReady(t, o)
		if r := mustAppend(t, w, "y"); r.Timestamp <= future || len(log.entries) != 0 {
			t.Fatalf("timestamp %d after %d, replayed %q", r.Timestamp, future, log.bodies())
		}
		mustClose(t, w)
		nothingOpen(t, q)
	})
}

func TestBadMessagesAreQuarantinedAndNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		newer := entryAt(t, 3, Insert, "newer")
		newer.Payload[1] = 9
		at := raw(t, q,
			entryAt(t, 1, Insert, "good1"),
			mq.Message{Timestamp: 2, Key: "v1", Payload: []byte("garbage")},
			newer,
			entryAt(t, 4, Insert, "rotten"),
			entryAt(t, 5, Type(200), "of a type to come"),
			entryAt(t, 6, Insert, "not found"),
			entryAt(t, 7, Insert, "panics"),
			entryAt(t, 1<<63+5, Insert, "beyond any clock"),
			entryAt(t, 9, Insert, "good2"),
			entryAt(t, 10, Insert, "rotten last"),
		)
		q.Corrupt(topic, at[3])
		q.Corrupt(topic, at[9])
		var log replayLog
		var told []Quarantine
		o := quiet(q)
		o.Events.Quarantined = func(q Quarantine) { told = append(told, q) }
		o.Replay = func(ctx context.Context, e Entry) error {
			switch string(e.Body) {
			case "not found":
				return errclass.New(errclass.NotFound, "collection 7")
			case "panics":
				panic("replay")
			}
			return log.replay(ctx, e)
		}
		w := openReady(t, o)
		if got := fmt.Sprint(log.bodies()); got != "[good1 of a type to come good2]" {
			t.Fatalf("replayed %s", got)
		}
		if log.entries[1].Type.Known() || log.entries[1].Type.String() != "unknown(200)" {
			t.Fatalf("type %s", log.entries[1].Type)
		}
		wantAt := []int{1, 2, 3, 5, 6, 7, 9}
		wantReason := []errclass.Class{errclass.Corrupt, errclass.Unimplemented, 0, errclass.NotFound, errclass.Panicked, errclass.Corrupt, 0}
		kept := w.Quarantined()
		if len(told) != len(wantAt) || len(kept) != len(wantAt) || w.Stats().Quarantined != uint64(len(wantAt)) {
			t.Fatalf("quarantined: %+v", told)
		}
		for i, q := range told {
			if q.Position.ID != at[wantAt[i]].ID || q.PChannel != topic || kept[i].Position != q.Position {
				t.Errorf("quarantine %d is at %s", i, q.Position)
			}
			if c := errclass.Of(q.Reason); wantReason[i] != 0 && c != wantReason[i] || wantReason[i] == 0 && !errors.Is(q.Reason, mq.ErrCorrupt) {
				t.Errorf("quarantine %d: %v", i, q.Reason)
			}
		}
		if s := w.Stats(); s.UnknownTypes != 1 {
			t.Fatalf("stats: %+v", s)
		}
		mustAppend(t, w, "goes on")
		mustClose(t, w)
	})
}

func TestAReplayErrorOfAnotherClassFailsTheWAL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := seeded(t)
		o := quiet(q)
		o.Replay = func(context.Context, Entry) error { return errclass.New(errclass.Retryable, "storage is away") }
		w := mustOpen(t, o)
		a := appendLater(context.Background(), w, "x")
		err := w.Ready(context.Background())
		wantClass(t, err, errclass.Retryable)
		if !containsText(err, "storage is away") {
			t.Fatal(err)
		}
		<-a.done
		if !errors.Is(a.err, ErrFailed) {
			t.Fatalf("append: %v", a.err)
		}
		wantState(t, w, Failed)
		<-w.released
		nothingOpen(t, q)
		mustClose(t, w)
	})
}

func TestACheckpointThatTheTopicDoesNotHave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := seeded(t)
		stored := q.Messages(topic)
		if err := q.Trim(context.Background(), topic, stored[3].Position); err != nil {
			t.Fatal(err)
		}
		o := quiet(q)

		o.Checkpoint = stored[0].Position // 1 and 2 are gone
		w := mustOpen(t, o)
		if err := w.Ready(context.Background()); !errors.Is(err, mq.ErrTrimmed) || !errclass.Is(err, errclass.Position) {
			t.Fatalf("ready: %v", err)
		}
		mustClose(t, w)

		var from, first mq.Position
		var log replayLog
		o.AllowGap, o.Replay = true, log.replay
		o.Events.Gap = func(_ string, a, b mq.Position) { from, first = a, b }
		w = openReady(t, o)
		if from != o.Checkpoint || first != stored[3].Position || w.Stats().Gaps != 1 || fmt.Sprint(log.bodies()) != "[old3 old4]" {
			t.Fatalf("gap from %s to %s, replayed %q", from, first, log.bodies())
		}
		mustClose(t, w)

		o.Checkpoint = stored[2].Position // is gone, but all after it is there
		log = replayLog{}
		w = openReady(t, o)
		if w.Stats().Gaps != 0 || len(log.entries) != 2 {
			t.Fatalf("replayed %q", log.bodies())
		}
		mustClose(t, w)

		o.Checkpoint = mq.Position{ID: "\x00\x00\x00\x00\x00\x00\x00\x63"}
		w = mustOpen(t, o)
		if err := w.Ready(context.Background()); !errors.Is(err, mq.ErrAhead) {
			t.Fatalf("ready: %v", err)
		}
		mustClose(t, w)

		o.Queue = mqtest.NewMemory(mqtest.MemoryOptions{}) // wiped
		w = mustOpen(t, o)
		if err := w.Ready(context.Background()); !errors.Is(err, mq.ErrAhead) {
			t.Fatalf("ready: %v", err)
		}
		mustClose(t, w)
	})
}

func TestProgressMovesWithTheReplay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		var msgs []mq.Message
		for i := range 11 {
			msgs = append(msgs, entryAt(t, uint64(100+i*10), Insert, "x"))
		}
		at := raw(t, q, msgs...)
		step := make(chan struct{})
		o := quiet(q)
		o.Replay = func(context.Context, Entry) error { step <- struct{}{}; return nil }
		w := mustOpen(t, o)
		for i := range 11 {
			synctest.Wait()
			p := w.Progress()
			if p.State != Recovering || p.Messages != uint64(i) || p.Target != at[10] {
				t.Fatalf("progress: %+v", p)
			}
			if want := max(0, float64(i-1)/10); p.Share != want {
				t.Fatalf("share %v, want %v", p.Share, want)
			}
			<-step
		}
		mustBeReady(t, w)
		if p := w.Progress(); p.State != Ready || p.Share != 1 || p.Messages != 11 || p.Bytes == 0 || p.Position != at[10] {
			t.Fatalf("progress: %+v", p)
		}
		mustClose(t, w)
	})
}

func TestAnInterruptedReplayGoesOnFromItsOwnCheckpoint(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := seeded(t)
		var saved mq.Position
		var log replayLog
		o := quiet(q)
		o.CheckpointEvery = 2
		o.SaveCheckpoint = func(_ context.Context, at mq.Position) error { saved = at; return nil }
		o.Replay = func(ctx context.Context, e Entry) error {
			if string(e.Body) == "old3" && len(log.entries) == 3 {
				<-ctx.Done() // cut here
				return ctx.Err()
			}
			return log.replay(ctx, e)
		}
		w := mustOpen(t, o)
		synctest.Wait()
		mustClose(t, w)
		if saved != q.Messages(topic)[1].Position || w.Stats().Checkpoints != 1 {
			t.Fatalf("saved %s", saved)
		}
		o.Checkpoint = saved
		log = replayLog{}
		w = openReady(t, o)
		if fmt.Sprint(log.bodies()) != "[old2 old3 old4]" {
			t.Fatalf("replayed %q", log.bodies())
		}
		mustClose(t, w)
	})
}

func TestACheckpointThatCannotBeSavedDelaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := seeded(t)
		failed := 0
		o := quiet(q)
		o.CheckpointEvery = 1
		o.SaveCheckpoint = func(ctx context.Context, at mq.Position) error {
			if at == q.Messages(topic)[2].Position {
				panic("save")
			}
			<-ctx.Done()
			return ctx.Err()
		}
		o.Events.CheckpointFailed = func(string, mq.Position, error) { failed++ }
		within(t, 4*o.AppendTimeout+40*time.Second, func() { mustClose(t, openReady(t, o)) })
		if failed != 5 {
			t.Fatalf("%d failures told", failed)
		}
	})
}

// twisted gives out each message as change says.
type twisted struct {
	mq.Queue
	change func(m mq.Message, err error) (mq.Message, error)
}

type twistedReader struct {
	mq.Reader
	q twisted
}

func (q twisted) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Queue.OpenReader(ctx, topic, o)
	return twistedReader{r, q}, err
}

func (r twistedReader) Next(ctx context.Context) (mq.Message, error) {
	return r.q.change(r.Reader.Next(ctx))
}

func TestAQueueThatDoesNotMoveOnIsGivenUp(t *testing.T) {
	for name, change := range map[string]func(mq.Message, error) (mq.Message, error){
		"same message":  func(m mq.Message, err error) (mq.Message, error) { m.Position.ID = "\x00"; return m, err },
		"same corrupt":  func(mq.Message, error) (mq.Message, error) { return mq.Message{}, &mq.CorruptError{Topic: topic} },
		"panics":        func(mq.Message, error) (mq.Message, error) { panic("next") },
		"plain failure": func(mq.Message, error) (mq.Message, error) { return mq.Message{}, mq.ErrClosed },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := mqtest.NewMemory(mqtest.MemoryOptions{})
				raw(t, q, entryAt(t, 1, Insert, "x"))
				o := quiet(twisted{q, change})
				if name == "same message" {
					// Give out the one message again and again.
					o.Queue = twisted{endless{q}, change}
				}
				w := mustOpen(t, o)
				if err := w.Ready(context.Background()); err == nil {
					t.Fatal("it is ready")
				}
				wantState(t, w, Failed)
				mustClose(t, w)
				nothingOpen(t, q)
			})
		})
	}
}

// endless has readers whose Next never ends giving.
type endless struct{ *mqtest.Memory }

type endlessReader struct{ mq.Reader }

func (q endless) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Memory.OpenReader(ctx, topic, o)
	return endlessReader{r}, err
}

func (r endlessReader) Next(ctx context.Context) (mq.Message, error) {
	return mq.Message{Position: mq.Position{ID: "\x00"}, Timestamp: 1}, ctx.Err()
}

func TestASilentQueueIsGivenUpAfterOpenTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := seeded(t), newStalled(true)
		q.SetHooks(mqtest.Hooks{BeforeNext: func(ctx context.Context, _ string) error { return s.wait(ctx) }})
		w := mustOpen(t, quiet(q))
		within(t, w.o.OpenTimeout, func() {
			wantClass(t, w.Ready(context.Background()), errclass.Retryable)
		})
		mustClose(t, w)
		nothingOpen(t, q)
	})
}

func TestMessagesGivenOutTwiceAreReplayedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := seeded(t)
		var log replayLog
		again := false
		var last mq.Message
		o := quiet(repeating{q, &last, &again})
		o.Replay = log.replay
		w := openReady(t, o)
		if len(log.entries) != 5 || w.Stats().Duplicates == 0 {
			t.Fatalf("replayed %q, %d duplicates", log.bodies(), w.Stats().Duplicates)
		}
		mustClose(t, w)
	})
}

// repeating gives out each message twice.
type repeating struct {
	*mqtest.Memory
	last  *mq.Message
	again *bool
}

type repeatingReader struct {
	mq.Reader
	q repeating
}

func (q repeating) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := q.Memory.OpenReader(ctx, topic, o)
	return repeatingReader{r, q}, err
}

func (r repeatingReader) Next(ctx context.Context) (m mq.Message, err error) {
	if *r.q.again = !*r.q.again; !*r.q.again {
		return *r.q.last, nil
	}
	m, err = r.Reader.Next(ctx)
	*r.q.last = m
	return m, err
}

func TestNothingSlipsInBetweenFencingAndTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		old := openReady(t, quiet(q))
		var lastErr error
		late := func(body string) { _, lastErr = old.Append(context.Background(), insert(body)) }
		q.SetHooks(mqtest.Hooks{
			BeforeOpenProducer: func(context.Context, string, mq.ProducerOptions) error { late("just in time"); return lastErr },
			BeforeBounds:       func(context.Context, string) error { late("too late"); return nil },
		})
		var log replayLog
		o := quiet(q)
		o.Term, o.Replay = 2, log.replay
		w := openReady(t, o)
		if fmt.Sprint(log.bodies()) != "[just in time]" || !errors.Is(lastErr, mq.ErrFenced) {
			t.Fatalf("replayed %q, the late append: %v", log.bodies(), lastErr)
		}
		mustClose(t, old)
		mustClose(t, w)
	})
}

// TestTailOnly: an owner whose rows are rebuilt by others learns of the newest
// timestamp alone, however long the log is.
func TestTailOnly(t *testing.T) {
	for _, told := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			q := mqtest.NewMemory(mqtest.MemoryOptions{})
			w := openReady(t, quiet(q))
			var last Receipt
			for range 50 {
				last = mustAppend(t, w, "a")
			}
			mustClose(t, w)
			o, log := quiet(q), &replayLog{}
			o.TailOnly, o.Replay = true, log.replay
			if !told {
				o.Queue = untold{q}
			}
			w = openReady(t, o)
			if p := w.Progress(); len(log.bodies()) != 0 || p.Messages > 1 || p.Share != 1 {
				t.Errorf("told %v: replayed %q, progress %+v", told, log.bodies(), p)
			}
			if w.Opened() != last.Timestamp {
				t.Errorf("told %v: opened at %d, the log ends at %d", told, w.Opened(), last.Timestamp)
			}
			if r := mustAppend(t, w, "b"); r.Timestamp <= last.Timestamp {
				t.Errorf("told %v: %d after %d", told, r.Timestamp, last.Timestamp)
			}
			mustClose(t, w)
		})
	}
}

// TestTailOnlyOfADamagedLog reads all of it if the newest message cannot be read.
func TestTailOnlyOfADamagedLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		a := mustAppend(t, w, "a")
		b := mustAppend(t, w, "b")
		mustClose(t, w)
		if !q.Corrupt(topic, b.Position) {
			t.Fatal("nothing to damage")
		}
		o := quiet(q)
		o.TailOnly, o.Queue = true, untold{q}
		w = openReady(t, o)
		if w.Opened() < a.Timestamp {
			t.Errorf("opened at %d, there is an entry of %d", w.Opened(), a.Timestamp)
		}
		mustClose(t, w)
	})
}

// untold is a queue that does not tell timestamps with its bounds.
type untold struct{ *mqtest.Memory }

func (q untold) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	b, err := q.Memory.Bounds(ctx, topic)
	b.First.Timestamp, b.Last.Timestamp = 0, 0
	return b, err
}
