package mqtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// Fixture is one queue under test. Only Queue is required; what is left zero
// skips the cases that need it.
type Fixture struct {
	// Queue is the connection under test. The suite closes it; closing it twice
	// must be legal, so a fixture may close it too.
	Queue mq.Queue
	// Reopen returns a queue over the same data after Queue has been closed, as
	// the next process would open it.
	Reopen func(t *testing.T) mq.Queue
	// Connect returns a second connection while Queue is open, as another node
	// has one. The suite closes it.
	Connect func(t *testing.T) mq.Queue
	// Open lists the producers and readers that the broker knows of, with
	// whatever names. It may lag: the suite asks until Wait is over.
	Open func(t *testing.T) []string
	// MaxPayload is the backend's payload limit in bytes.
	MaxPayload int
	// RollOver is how many 1-KB messages surely fill several files or ledgers.
	// 0 = 300.
	RollOver int
	// Wait bounds every single step. 0 = 20 s.
	Wait time.Duration
}

// Run runs the conformance suite: what mq promises, and nothing that only one
// kind of backend can keep. open is called once for each case and may hand out
// the same broker each time, since every case uses a topic of its own.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(e *env)
	}{
		{"PositionsGrowAndMessagesComeBackInOrder", testOrder},
		{"PositionsGrowAcrossRollOver", testRollOver},
		{"ReadFromAPosition", testReadFrom},
		{"ReadFromATimestamp", testReadFromTimestamp},
		{"ReadFromLatest", testReadLatest},
		{"ReaderOptionsThatContradict", testBadReaderOptions},
		{"ReadersAreIndependent", testSeveralReaders},
		{"ReaderWaitsAndWakes", testReaderWakes},
		{"NextHonoursItsContext", testNextDeadline},
		{"PayloadBelongsToTheReader", testPayloadOwnership},
		{"AheadOfTheEnd", testAhead},
		{"Trim", testTrim},
		{"TrimUnderAReaderNeverSkipsSilently", testTrimUnderReader},
		{"BoundsOfEmptyUsedAndTrimmed", testBounds},
		{"TopicsAreSeparate", testTopics},
		{"BatchesAreContiguous", testConcurrentAppends},
		{"EmptyBatch", testEmptyBatch},
		{"SizeLimits", testSizeLimits},
		{"AppendHonoursItsContext", testAppendContext},
		{"HigherTermFences", testFencing},
		{"EqualTermComesBack", testEqualTerm},
		{"FencingAcrossConnections", testFencingAcross},
		{"ProducerClose", testProducerClose},
		{"CloseWakesNext", testCloseWakesNext},
		{"CloseOfTheQueueClosesAll", testQueueClose},
		{"CloseWhileAppending", testCloseWhileAppending},
		{"NothingStaysOpen", testNoLeaks},
		{"EverythingIsThereAfterReopen", testReopen},
		{"TermSurvivesReopen", testReopenTerm},
		{"TrimSurvivesReopen", testReopenTrim},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			if f.Wait == 0 {
				f.Wait = 20 * time.Second
			}
			if f.RollOver == 0 {
				f.RollOver = 300
			}
			e := &env{T: t, Fixture: f, topic: fmt.Sprintf("suite-%s-%d", strings.ToLower(c.name), time.Now().UnixNano())}
			t.Cleanup(func() { e.closeQueue(f.Queue) })
			c.run(e)
		})
	}
}

// env is what a case works with.
type env struct {
	*testing.T
	Fixture
	topic string
	ts    uint64 // last timestamp given out
}

func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), e.Wait)
	e.Cleanup(cancel)
	return ctx
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("%+v", err)
	}
}

func (e *env) wantErr(err, target error) {
	e.Helper()
	if !errors.Is(err, target) {
		e.Fatalf("got error %v, want %v", err, target)
	}
}

func (e *env) closeQueue(q mq.Queue) {
	e.Helper()
	if err := q.Close(e.ctx()); err != nil {
		e.Errorf("close queue: %+v", err)
	}
}

func (e *env) producer(q mq.Queue, term uint64) mq.Producer {
	e.Helper()
	p, err := q.OpenProducer(e.ctx(), e.topic, mq.ProducerOptions{Term: term, Name: fmt.Sprintf("p%d", term)})
	e.must(err)
	return p
}

func (e *env) reader(q mq.Queue, o mq.ReaderOptions) mq.Reader {
	e.Helper()
	r, err := q.OpenReader(e.ctx(), e.topic, o)
	e.must(err)
	return r
}

// message makes the next message: timestamps are 10 apart, so that there is
// room between two of them.
func (e *env) message(payload string) mq.Message {
	e.ts += 10
	return mq.Message{Timestamp: e.ts, Key: "v0", Payload: []byte(payload)}
}

// append appends n messages one by one, m<ts>, and returns them with positions.
func (e *env) append(p mq.Producer, n int) []mq.Message {
	e.Helper()
	out := make([]mq.Message, 0, n)
	for range n {
		m := e.message("")
		m.Payload = fmt.Appendf(nil, "m%d", m.Timestamp)
		out = append(out, e.appendAll(p, m)...)
	}
	return out
}

func (e *env) appendAll(p mq.Producer, msgs ...mq.Message) []mq.Message {
	e.Helper()
	at, err := p.Append(e.ctx(), msgs...)
	e.must(err)
	if len(at) != len(msgs) {
		e.Fatalf("%d positions for %d messages", len(at), len(msgs))
	}
	for i := range msgs {
		msgs[i].Position = at[i]
	}
	return msgs
}

func (e *env) next(r mq.Reader) mq.Message {
	e.Helper()
	m, err := r.Next(e.ctx())
	e.must(err)
	return m
}

// wantNext reads exactly want.
func (e *env) wantNext(r mq.Reader, want ...mq.Message) {
	e.Helper()
	for _, w := range want {
		g := e.next(r)
		if g.Position != w.Position || g.Timestamp != w.Timestamp || g.Key != w.Key || string(g.Payload) != string(w.Payload) {
			e.Fatalf("got  %s %d %q %.40q\nwant %s %d %q %.40q", g.Position, g.Timestamp, g.Key, g.Payload,
				w.Position, w.Timestamp, w.Key, w.Payload)
		}
	}
}

func (e *env) close(c interface{ Close(context.Context) error }) {
	e.Helper()
	e.must(c.Close(e.ctx()))
}

// eventually asks until ok or Wait is over; only for what the broker may say late.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(e.Wait); !ok(); {
		if time.Now().After(end) {
			e.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// background runs fn beside the case, which waits for what fn sends.
func background(fn func()) {
	var wg sync.WaitGroup
	wg.Go(fn)
}
