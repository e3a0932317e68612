package node

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
	"github.com/querynode/querynode/mq/wal"
)

// anew is the broker after the topic was lost: it begins with the first number again, or behind
// all that the lost one had, as in a cluster that stays.
func (w *world) anew(t *testing.T, behind bool) *mqtest.Broker {
	t.Helper()
	b := mqtest.NewBroker(mqtest.MemoryOptions{})
	if !behind {
		return b
	}
	q := b.Connect()
	p, err := q.OpenProducer(within(t), topic, mq.ProducerOptions{})
	must(t, err)
	var last []mq.Position
	for i := range 2*len(w.broker.Messages(topic)) + 100 {
		m, err := wal.Encode(wal.Entry{Type: wal.TimeTick, Timestamp: uint64(i + 1)})
		must(t, err)
		last, err = p.Append(within(t), m)
		must(t, err)
	}
	must(t, p.Close(within(t)))
	must(t, q.Trim(within(t), topic, last[0]))
	must(t, q.Close(within(t)))
	return b
}

// beginAnew is what the operator does.
func (w *world) beginAnew(t *testing.T) (Topic, error) {
	t.Helper()
	c, err := catalog.Open(within(t), catalog.Options{Bucket: w.bucket})
	must(t, err)
	q := w.broker.Connect()
	topics, err := BeginAnew(within(t), c, q, topic, "operator")
	must(t, q.Close(within(t)))
	return topics, err
}

// TestATopicThatIsGoneForGoodIsBegunAnew: its broker lost it. A node refuses what took its
// place, and says what to do. Once that is done, what was stored is there, what only the lost
// topic had is not, and all goes on: also with a clock that is behind what is stored. A
// collection of which nothing is stored yet does not make the topic one that may be written to.
func TestATopicThatIsGoneForGoodIsBegunAnew(t *testing.T) {
	for name, c := range map[string]struct{ behind, young bool }{
		"another cluster":                          {},
		"another cluster, and a young collection":  {young: true},
		"the same cluster":                         {behind: true},
		"the same cluster, and a young collection": {behind: true, young: true},
	} {
		t.Run(name, func(t *testing.T) {
			w, channels := newWorld(t), 1
			r := w.open(nil).ready()
			r.create()
			for from := int64(0); from < 50; from += 10 {
				r.insert(between(from, from+10)...)
			}
			r.remove(0, 1)
			r.flush()
			r.checkpointed()
			r.insert(between(50, 60)...) // in the log alone
			if _, err := w.beginAnew(t); !errclass.Is(err, errclass.Conflict) {
				t.Fatalf("a topic that is there is begun anew: %v", err)
			}
			r.close()
			if c.young {
				r = w.open(dispatched) // which watches nothing
				r.createAs("young", 1)
				r.close()
				channels++
			}
			w.broker = w.anew(t, c.behind)
			why, says := mq.ErrAhead, "has no messages"
			if c.behind {
				why, says = mq.ErrTrimmed, "it begins at "
			}
			r = w.open(nil)
			r.refuses(why, says, "querynode queue begin-anew "+topic, "restore the topic")
			r.close()
			lost, err := w.beginAnew(t)
			if err != nil || !errors.Is(lost.Lost, why) || lost.Channels != channels || lost.Stored.IsZero() {
				t.Fatalf("%+v, %v", lost, err)
			}
			if _, err := w.beginAnew(t); !errclass.Is(err, errclass.Conflict) {
				t.Errorf("it is begun anew twice: %v", err)
			}
			slow := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(-time.Hour) } }
			r = w.open(slow).ready()
			r.has(48)
			r.insert(between(60, 70)...)
			r.remove(2)
			r.has(57)
			r.flush()
			r.insert(between(70, 75)...)
			r.close()
			r = w.open(slow).ready()
			r.has(62)
			r.flush()
			r.checkpointed()
			r.close()
			w.open(nil).ready().has(62)
		})
	}
}

// unstoredYet makes a node that writes no checkpoint by itself.
func unstoredYet(o *Options) { o.Flush.CheckpointInterval = time.Hour }

// TestATopicIsMissedOfWhichNothingIsStoredYet: rows were acknowledged, and no channel has a
// checkpoint, when the topic was lost. What took its place is not opened, and not read, until
// what was lost is given up; a topic that is not lost is.
func TestATopicIsMissedOfWhichNothingIsStoredYet(t *testing.T) {
	for name, behind := range map[string]bool{"another cluster": false, "the same cluster": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.open(unstoredYet).ready()
			r.create()
			r.insert(between(0, 10)...)
			r.kill()
			r = w.open(unstoredYet).ready()
			r.has(10)
			r.createAs("late", 1)
			name := r.Channels()[0].VChannel
			r.kill()
			c, err := r.o.Catalog.Channel(within(t), name)
			must(t, err)
			if c.Checkpoint != "" {
				t.Fatalf("there is a checkpoint: %+v", c)
			}
			if _, err := w.beginAnew(t); !errclass.Is(err, errclass.Conflict) {
				t.Fatalf("a topic that is there is begun anew: %v", err)
			}
			w.broker = w.anew(t, behind)
			why, says := mq.ErrAhead, "has no messages"
			if behind {
				why, says = mq.ErrTrimmed, "it begins at "
			}
			r = w.open(unstoredYet)
			r.refuses(why, says, "it had been written to at", "querynode queue begin-anew "+topic)
			r.close()
			lost, err := w.beginAnew(t)
			if err != nil || !errors.Is(lost.Lost, why) || lost.Channels != 2 || !lost.Stored.IsZero() {
				t.Fatalf("%+v, %v", lost, err)
			}
			if _, err := w.beginAnew(t); !errclass.Is(err, errclass.Conflict) {
				t.Errorf("it is begun anew twice: %v", err)
			}
			r = w.open(unstoredYet).ready()
			r.has(0)
			r.insert(between(20, 25)...)
			r.kill()
			w.open(unstoredYet).ready().has(5)
			w.broker = w.anew(t, false)
			w.open(unstoredYet).refuses(mq.ErrAhead, "it had been written to at")
		})
	}
}

// TestWhatIsKnownOfATopicIsNotOfACollectionThatIsGone: with its collections gone, and nothing to lose, a
// topic may be another one.
func TestWhatIsKnownOfATopicIsNotOfACollectionThatIsGone(t *testing.T) {
	w := newWorld(t)
	r := w.open(unstoredYet).ready()
	r.create()
	r.insert(between(0, 10)...)
	must(t, r.DropCollection(within(t), things))
	r.kill()
	w.broker = w.anew(t, false)
	r = w.open(unstoredYet).ready()
	r.create()
	r.kill()
	r = w.open(unstoredYet).ready()
	r.insert(between(0, 5)...)
	r.kill()
	w.open(unstoredYet).ready().has(5)
}

// TestWhatIsWrittenAnewIsNewerThanAllThatIsStored: a segment was stored, the checkpoint is
// before a row of another one that was not. The topic is lost, and the clock is behind: a
// delete, or a newer row of the same key, hides what is stored all the same.
func TestWhatIsWrittenAnewIsNewerThanAllThatIsStored(t *testing.T) {
	w := newWorld(t)
	var ahead atomic.Int64
	clock := func(o *Options) {
		o.Flush.SealRows = 20
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
	r := w.open(clock).ready()
	r.create()
	_, err := r.CreatePartition(within(t), things, "p")
	must(t, err)
	r.insert(between(0, 5)...)
	r.flush()
	r.checkpointed()
	r.insertInto("p", 100) // grows
	ahead.Store(int64(time.Minute))
	r.insert(between(10, 30)...) // is full
	name := r.Channels()[0].VChannel
	eventually(t, "the full segment is stored", func() bool {
		c, err := r.o.Catalog.Channel(within(t), name)
		must(t, err)
		return len(c.Segments) == 2
	})
	r.close()
	c, err := r.o.Catalog.Channel(within(t), name)
	must(t, err)
	if len(c.Segments) != 2 || c.CheckpointTimestamp >= c.Segments[1].MinTimestamp {
		t.Fatalf("the checkpoint is not behind what is stored: %+v", c)
	}
	w.broker = w.anew(t, false)
	_, err = w.beginAnew(t)
	must(t, err)
	ahead.Store(-int64(time.Hour))
	r = w.open(clock).ready()
	r.has(25) // without the row that grew
	r.remove(between(10, 15)...)
	r.has(20)
	_, err = r.Insert(within(t), things, "", &schema.Batch{Rows: 1, Columns: []*schema.Column{keysOf(20),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2)}}}, true)
	must(t, err)
	r.has(20)
	r.close()
	w.open(nil).ready().has(20)
}

// TestATopicThatIsStoredMeanwhileIsNotBegunAnew: a node was not stopped, and stores what is missing after the
// topic was found lost, before it is fenced.
func TestATopicThatIsStoredMeanwhileIsNotBegunAnew(t *testing.T) {
	w := newWorld(t)
	var away atomic.Bool
	r := w.open(func(o *Options) {
		unstoredYet(o)
		o.Bucket = full{o.Bucket, &away}
	}).ready()
	r.create()
	r.insert(between(0, 10)...)
	r.flush()
	away.Store(true)
	r.insert(between(10, 20)...)
	r.has(20)
	w.lose(t)
	eventually(t, "it is lost", func() bool { return r.lostText() != "" })
	bucket := &detour{Bucket: w.bucket}
	bucket.set(func(_ context.Context, key string) string {
		if strings.Contains(key, "/pchannels/") && away.Swap(false) { // it was looked at, and nobody is fenced
			eventually(t, "all is stored", func() bool { return r.lostText() == "" })
		}
		return key
	})
	c, err := catalog.Open(within(t), catalog.Options{Bucket: bucket})
	must(t, err)
	q := w.broker.Connect()
	defer func() { must(t, q.Close(context.Background())) }()
	_, err = BeginAnew(within(t), c, q, topic, "operator")
	if !errclass.Is(err, errclass.Conflict) || !strings.Contains(err.Error(), "is not lost any more") {
		t.Errorf("it is begun anew: %v", err)
	}
	r.kill()
	w.open(nil).ready().has(20)
}

// moving is a queue that is led to another broker while a node runs.
type moving struct {
	mq.Queue
	to *atomic.Pointer[mqtest.Memory]
}

func (m moving) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	return m.to.Load().OpenProducer(ctx, topic, o)
}

func (m moving) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	return m.to.Load().OpenReader(ctx, topic, o)
}

func (m moving) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	return m.to.Load().Bounds(ctx, topic)
}

func (m moving) Trim(ctx context.Context, topic string, at mq.Position) error {
	return m.to.Load().Trim(ctx, topic, at)
}

// TestATopicThatIsLostWhileANodeRuns: nothing is acknowledged in what took its place, and that
// it was there before does not count.
func TestATopicThatIsLostWhileANodeRuns(t *testing.T) {
	for name, behind := range map[string]bool{"another cluster": false, "the same cluster": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			to := &atomic.Pointer[mqtest.Memory]{}
			first := w.broker.Connect()
			to.Store(first)
			w.queue = func() mq.Queue { return moving{first, to} }
			r := w.open(nil).ready()
			r.create()
			r.insert(between(0, 10)...)
			r.flush()
			r.checkpointed()
			had := w.broker
			w.broker = w.anew(t, behind)
			next := w.broker.Connect()
			defer func() { must(t, next.Close(context.Background())) }()
			to.Store(next)
			had.SetHooks(mqtest.Hooks{
				BeforeAppend: func(context.Context, string, []mq.Message) error { return mq.ErrUnknownOutcome },
				BeforeNext:   func(context.Context, string) error { return errclass.New(errclass.Retryable, "gone") },
			})
			eventually(t, "it says what is wrong, and what to do", func() bool {
				err := r.Problem()
				return err != nil && strings.Contains(err.Error(), "begin-anew "+topic)
			})
			if n := len(next.Messages(topic)); n > 1 {
				t.Errorf("%d messages are in the topic that is not opened", n)
			}
			r.close()
		})
	}
}

// TestAPlaceThatIsGoneIsTold: the topic has its ends, and not what is behind the checkpoint.
func TestAPlaceThatIsGoneIsTold(t *testing.T) {
	w := newWorld(t)
	r := w.open(nil).ready()
	r.create()
	r.insert(between(0, 10)...)
	r.flush()
	r.checkpointed()
	r.close()
	var gone atomic.Bool
	gone.Store(true)
	w.broker.SetHooks(mqtest.Hooks{BeforeOpenReader: func(_ context.Context, _ string, o mq.ReaderOptions) error {
		if gone.Load() && !o.From.IsZero() {
			return errors.Wrap(mq.ErrTrimmed, "entry 7:1 is gone")
		}
		return nil
	}})
	r = w.open(nil)
	eventually(t, "it is told what to do", func() bool {
		err := r.Problem()
		return err != nil && strings.Contains(err.Error(), "entry 7:1 is gone") && strings.Contains(err.Error(), "begin-anew "+topic)
	})
	if n, _, err := r.count(within(t), false); err == nil {
		t.Errorf("a read finds %d rows", n)
	}
	gone.Store(false) // it is restored
	eventually(t, "all is read", func() bool { n, _, err := r.count(within(t), false); return err == nil && n == 10 })
}
