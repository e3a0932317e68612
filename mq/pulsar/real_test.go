package pulsar

import (
	"bytes"
	"fmt"
	"net/http"
	"path"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestConformsOnBroker(t *testing.T) {
	b := realBroker(t)
	mqtest.Run(t, func(t *testing.T) mqtest.Fixture {
		open := func(t *testing.T) mq.Queue { return b.queue(t) }
		return mqtest.Fixture{
			Queue: open(t), Reopen: open, Connect: open, MaxPayload: defaultMaxPayload, RollOver: 250, Wait: 40 * time.Second,
			Open: func(t *testing.T) []string { return b.clients(t, strings.ToLower(path.Base(t.Name()))) },
		}
	})
}

func TestCompression(t *testing.T) {
	b := realBroker(t)
	stored := map[Compression]int64{}
	for _, c := range []Compression{CompressNone, CompressLZ4, CompressZstd} {
		q, topic := b.queue(t, func(o *Options) { o.Compression = c }), freshTopic(t)
		text := bytes.Repeat([]byte("vector search "), 20000)
		mustAppend(t, openProducer(t, q, topic, 1), mq.Message{Timestamp: 1, Payload: text})
		r, err := b.queue(t).OpenReader(testCtx(t), topic, mq.ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := r.Next(testCtx(t)); err != nil || !bytes.Equal(m.Payload, text) {
			t.Fatalf("%s: %v", c, err)
		}
		mustClose(t, r)
		stored[c] = b.storage(t, topic).TotalSize
	}
	if stored[CompressLZ4] > stored[CompressNone]/4 || stored[CompressZstd] > stored[CompressNone]/4 {
		t.Fatalf("%v", stored)
	}
}

// freshTopic is a name that no other test has.
func freshTopic(t testing.TB) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(path.Base(t.Name())), time.Now().UnixNano())
}

// openProducer tries until the test's patience is over: a broker that has just
// started on a busy machine takes longer for its first topic than a call waits.
func openProducer(t testing.TB, q *Queue, topic string, term uint64) mq.Producer {
	t.Helper()
	ctx := testCtx(t)
	p, err := q.OpenProducer(ctx, topic, mq.ProducerOptions{Term: term})
	for errclass.Is(err, errclass.Retryable) && ctx.Err() == nil {
		p, err = q.OpenProducer(ctx, topic, mq.ProducerOptions{Term: term})
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return p
}

func mustAppend(t testing.TB, p mq.Producer, msgs ...mq.Message) []mq.Position {
	t.Helper()
	at, err := p.Append(testCtx(t), msgs...)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return at
}

// internalStats is what the broker says of a topic's storage.
type internalStats struct {
	EntriesAddedCounter int64
	NumberOfEntries     int64
	TotalSize           int64
	Ledgers             []struct{ LedgerID int64 }
}

func (b *broker) storage(t testing.TB, topic string) (s internalStats) {
	t.Helper()
	b.get(t, "persistent/public/default/"+topic+"/internalStats", &s)
	return s
}

// Sequence ids of the client name only the first message of a batch, so that
// nothing can be said of the others. Here a batch is one message of Pulsar.
func TestABatchIsOneEntry(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	before := b.storage(t, topic).EntriesAddedCounter
	at := mustAppend(t, p, msg(1), msg(2), msg(3), msg(4), msg(5))
	if n := b.storage(t, topic).EntriesAddedCounter - before; n != 1 {
		t.Fatalf("%d entries", n)
	}
	for i := range at {
		if pt, err := decodePoint(at[i]); err != nil || int(pt.slot) != i {
			t.Fatalf("message %d is at %v, %v", i, pt, err)
		}
	}
}

// The client has no producer that fences (its Exclusive mode only refuses who
// comes second): the entry of the fenced one is stored and counts for nobody.
func TestAFencedEntryIsStoredAndDoesNotCount(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	old := openProducer(t, q, topic, 1)
	mustAppend(t, old, msg(1))
	p := openProducer(t, b.queue(t), topic, 2)
	before := b.storage(t, topic).EntriesAddedCounter
	_, err := old.Append(testCtx(t), msg(2))
	wantErr(t, err, mq.ErrFenced)
	at := mustAppend(t, p, msg(3))
	if n := b.storage(t, topic).EntriesAddedCounter - before; n != 2 {
		t.Fatalf("%d entries", n)
	}
	r, err := q.OpenReader(testCtx(t), topic, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, r)
	for _, want := range []uint64{10, 30} {
		if got, err := r.Next(testCtx(t)); err != nil || got.Timestamp != want {
			t.Fatalf("%v, %v", got, err)
		}
	}
	bounds, err := q.Bounds(testCtx(t), topic)
	if err != nil || bounds.Last != at[0] {
		t.Fatalf("%v, %v", bounds, err)
	}
}

func TestPositionsOrderAcrossLedgers(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	ledgers := map[int64]bool{}
	var last mq.Position
	for n := 1; n <= 90; n++ {
		at := mustAppend(t, p, msg(n))[0]
		if !last.Before(at) {
			t.Fatalf("%s comes after %s", at, last)
		}
		last = at
		pt, err := decodePoint(at)
		if err != nil {
			t.Fatal(err)
		}
		ledgers[pt.ledger] = true
	}
	if len(ledgers) < 4 {
		t.Fatalf("only %d ledgers", len(ledgers))
	}
	// A later topic has higher ledgers.
	later := openProducer(t, q, topic+"-later", 1)
	_, err := q.OpenReader(testCtx(t), topic, mq.ReaderOptions{From: mustAppend(t, later, msg(1))[0]})
	wantErr(t, err, mq.ErrAhead)
}

// TestReadFromATimestampOnBroker: over ledgers, with probes of ids that do not
// exist, and it leaves no cursor behind. SeekByTime, which is not used, does nothing
// on a reader that began at a message id.
func TestReadFromATimestampOnBroker(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	var stamps []uint64
	for n := range 60 {
		ts := hybrid(time.Now()) + uint64(n)
		mustAppend(t, p, mq.Message{Timestamp: ts})
		stamps = append(stamps, ts)
	}
	for _, i := range []int{0, 7, 16, 31, 47, 59} {
		r, err := q.OpenReader(testCtx(t), topic, mq.ReaderOptions{FromTimestamp: stamps[i]})
		if err != nil {
			t.Fatalf("%+v", err)
		}
		if m, err := r.Next(testCtx(t)); err != nil || m.Timestamp != stamps[i] {
			t.Fatalf("message %d: got %d, want %d: %v", i, m.Timestamp, stamps[i], err)
		}
		mustClose(t, r)
	}
	t.Logf("%+v", q.Stats())
	b.wantNoReaders(t, topic)
}

// The client leaves a goroutine per closed producer until its send timeout is
// over, half a minute by default.
func TestClosedProducersLeaveNoGoroutine(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	for n := range 5 {
		p := openProducer(t, q, topic, 1)
		mustAppend(t, p, msg(n+1))
		mustClose(t, p)
	}
	mustClose(t, q)
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if strings.Contains(string(stacks), "failTimeoutMessages") {
		t.Fatal("a goroutine is left over")
	}
}

// A stock broker deletes topics that nobody is connected to, and ledgers that no
// subscription needs. The control is a topic that only a reader has used.
func TestTheBrokerKeepsWhatNobodyUses(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 4)
	var first mq.Position
	for n := 1; n <= 45; n++ { // over ledgers
		if at := mustAppend(t, p, msg(n)); n == 1 {
			first = at[0]
		}
	}
	r, err := q.OpenReader(testCtx(t), topic+"-control", mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, r)
	mustClose(t, p)
	mustClose(t, q)
	for gone := false; !gone; time.Sleep(200 * time.Millisecond) {
		var topics []string
		b.get(t, "persistent/public/default", &topics)
		all := strings.Join(topics, " ")
		gone = !strings.Contains(all, topic+"-control")
		if !strings.Contains(all+" ", topic+" ") && !strings.HasSuffix(all, topic) {
			t.Fatal("the topic is gone")
		}
		if testCtx(t).Err() != nil {
			t.Fatal("the control topic has not been deleted")
		}
	}
	q = b.queue(t)
	bounds, err := q.Bounds(testCtx(t), topic)
	if err != nil || bounds.First != first {
		t.Fatalf("%v, %v", bounds, err)
	}
	_, err = q.OpenProducer(testCtx(t), topic, mq.ProducerOptions{Term: 3})
	wantErr(t, err, mq.ErrFenced)
}

func TestTrimmedLedgersAreDropped(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	var at []mq.Position
	for n := 1; n <= 70; n++ {
		at = append(at, mustAppend(t, p, msg(n))...)
	}
	before := len(b.storage(t, topic).Ledgers)
	if err := q.Trim(testCtx(t), topic, at[60]); err != nil {
		t.Fatal(err)
	}
	for ctx := testCtx(t); len(b.storage(t, topic).Ledgers) >= before; time.Sleep(100 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("the broker keeps %d ledgers", before)
		}
	}
	mustAppend(t, p, msg(71)) // the owner goes on
	_, err := q.OpenReader(testCtx(t), topic, mq.ReaderOptions{From: at[3]})
	wantErr(t, err, mq.ErrTrimmed)
}

func TestPartitionedTopicsAreRefused(t *testing.T) {
	b := realBroker(t)
	topic := freshTopic(t)
	b.put(t, "persistent/public/default/"+topic+"/partitions", "3")
	_, err := b.queue(t).OpenProducer(testCtx(t), topic, mq.ProducerOptions{})
	if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "partitions") {
		t.Fatal(err)
	}
}

// What others write to the topic is skipped.
func TestForeignMessagesAreSkipped(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	mustAppend(t, p, msg(1))
	s, err := q.driver.write(testCtx(t), "persistent://public/default/"+topic, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.send(testCtx(t), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.close(testCtx(t)); err != nil {
		t.Fatal(err)
	}
	bounds, err := q.Bounds(testCtx(t), topic)
	if err != nil || bounds.Last.Timestamp != 10 {
		t.Fatalf("%v, %v", bounds, err)
	}
	mustAppend(t, p, msg(2))
	r, err := q.OpenReader(testCtx(t), topic, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, r)
	for _, want := range []uint64{10, 20} {
		if got, err := r.Next(testCtx(t)); err != nil || got.Timestamp != want {
			t.Fatalf("%v, %v", got, err)
		}
	}
}

// TestAReaderIsToldThatItsTopicWasDeletedOnBroker: it had yet to read much of it, and what is written next makes it anew,
// by the owner it had or by another one.
func TestAReaderIsToldThatItsTopicWasDeletedOnBroker(t *testing.T) {
	b := realBroker(t)
	for name, sameOwner := range map[string]bool{"by its owner": true, "by the next one": false} {
		t.Run(name, func(t *testing.T) {
			q, topic := b.queue(t), freshTopic(t)
			p := openProducer(t, q, topic, 1)
			reader := b.queue(t)
			r, err := reader.OpenReader(testCtx(t), topic, mq.ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, r)
			mustAppend(t, p, msg(1))
			if _, err := r.Next(testCtx(t)); err != nil {
				t.Fatal(err)
			}
			const last = 400 // more than a reader fetches ahead
			for n := 2; n <= last; n++ {
				mustAppend(t, p, msg(n))
			}
			escaped, err := escape(topic)
			if err != nil {
				t.Fatal(err)
			}
			b.send(t, http.MethodDelete, "persistent/public/default/"+escaped+"?force=true", "")
			if !sameOwner {
				p = openProducer(t, b.queue(t), topic, 2)
			}
			mustAppend(t, p, msg(last+1))
			got := uint64(10)
			for {
				m, err := r.Next(testCtx(t))
				if err != nil {
					wantErr(t, err, mq.ErrTrimmed)
					return
				}
				if m.Timestamp != got+10 || m.Timestamp > last*10 {
					t.Fatalf("message %d comes behind %d", m.Timestamp, got)
				}
				got = m.Timestamp
			}
		})
	}
}
