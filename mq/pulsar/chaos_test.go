package pulsar

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Close of the client's readers and consumers waits half a minute for a broker
// that does not answer, one after the other. SendAsync blocks beyond its context.
func TestAFrozenBrokerHoldsUpNobody(t *testing.T) {
	b := ownBroker(t)
	q, topic := b.queue(t, func(o *Options) { o.OperationTimeout = 2 * time.Second }), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	mustAppend(t, p, msg(1))
	var readers []mq.Reader
	for range 4 {
		r, err := q.OpenReader(testCtx(t), topic, mq.ReaderOptions{Latest: true})
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	thaw := b.freeze(t)

	// Each call may take its context's second, the half more for an outcome, and
	// what a loaded machine adds.
	const limit = 3 * time.Second
	bounded := func(what string, call func(ctx context.Context) error) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		err := call(ctx)
		if took := time.Since(began); took > limit {
			t.Errorf("%s took %s", what, took)
		}
		return err
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			err := bounded("append", func(ctx context.Context) error {
				_, err := p.Append(ctx, mq.Message{Timestamp: uint64(100 + n), Payload: make([]byte, 1<<20)})
				return err
			})
			if !errors.Is(err, mq.ErrUnknownOutcome) && !isTimeout(err) {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	if err := bounded("next", func(ctx context.Context) error { _, err := readers[0].Next(ctx); return err }); !isTimeout(err) {
		t.Errorf("next: %v", err)
	}
	for what, call := range map[string]func(ctx context.Context) error{
		"open producer": func(ctx context.Context) error {
			_, err := q.OpenProducer(ctx, topic, mq.ProducerOptions{Term: 1})
			return err
		},
		"open reader": func(ctx context.Context) error {
			_, err := q.OpenReader(ctx, topic, mq.ReaderOptions{})
			return err
		},
		"bounds": func(ctx context.Context) error { _, err := q.Bounds(ctx, topic); return err },
	} {
		wg.Go(func() {
			if err := bounded(what, call); !isTimeout(err) || !errclass.Is(err, errclass.Retryable) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	wg.Wait()
	_ = bounded("close producer", p.Close)
	for _, r := range readers[:2] {
		_ = bounded("close reader", r.Close)
	}
	// What still hangs is named; the client may have given up on all of it by now.
	err := bounded("close queue", q.Close)
	if calls := q.Stats().Calls; err == nil && len(calls) > 0 {
		t.Errorf("close of the queue names nobody, %v hang", calls)
	}
	if err != nil && !strings.Contains(err.Error(), "close") {
		t.Errorf("close of the queue: %v", err)
	}
	thaw()
	mustClose(t, q) // and now it ends
	if s := q.Stats(); len(s.Calls) != 0 || s.Producers+s.Readers != 0 {
		t.Errorf("left over: %+v", s)
	}
}

func isTimeout(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// story is a writer that goes on through everything, as the owner of a WAL does,
// and a reader that follows it.
type story struct {
	q        *Queue
	topic    string
	patience time.Duration // of each call

	mu      sync.Mutex
	acked   map[uint64]mq.Position // by timestamp
	unknown map[uint64]bool
	slowest time.Duration
	reopens int
}

// write appends batches until stop.
func (s *story) write(t *testing.T, stop <-chan struct{}) {
	open := func() mq.Producer {
		for {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-stop:
			}
			ctx, cancel := context.WithTimeout(context.Background(), s.patience)
			began := time.Now()
			p, err := s.q.OpenProducer(ctx, s.topic, mq.ProducerOptions{Term: 1})
			cancel()
			s.took(time.Since(began))
			if err == nil {
				return p
			}
			if !errclass.Is(err, errclass.Retryable) {
				t.Errorf("open producer: %+v", err)
				return nil
			}
		}
	}
	p := open()
	for ts := uint64(1); p != nil; {
		select {
		case <-stop:
			mustClose(t, p)
			return
		default:
		}
		var msgs []mq.Message
		for range 1 + ts%3 {
			msgs = append(msgs, mq.Message{Timestamp: ts, Key: "v0", Payload: fmt.Appendf(nil, "payload of %d", ts)})
			ts++
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.patience)
		began := time.Now()
		at, err := p.Append(ctx, msgs...)
		cancel()
		s.took(time.Since(began))
		s.mu.Lock()
		for i, m := range msgs {
			if err == nil {
				s.acked[m.Timestamp] = at[i]
			} else if errors.Is(err, mq.ErrUnknownOutcome) {
				s.unknown[m.Timestamp] = true
			} else {
				t.Errorf("append: %+v", err)
			}
		}
		s.mu.Unlock()
		if err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), s.patience)
			_ = p.Close(ctx)
			cancel()
			p = open()
			s.mu.Lock()
			s.reopens++
			s.mu.Unlock()
		}
	}
}

// passBy opens readers of all kinds, with little patience, and leaves.
func (s *story) passBy(t *testing.T, q *Queue, stop <-chan struct{}) {
	for n := uint64(0); ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		o := []mq.ReaderOptions{{}, {Latest: true}, {FromTimestamp: 1 + n%40}}[n%3]
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		r, err := q.OpenReader(ctx, s.topic, o)
		switch {
		case err == nil:
			mustClose(t, r)
		case !errclass.Is(err, errclass.Retryable) && !isTimeout(err):
			t.Errorf("open reader: %+v", err)
		}
		cancel()
	}
}

func (s *story) took(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slowest = max(s.slowest, d)
}

func (s *story) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// waitFor waits until n more have been acknowledged.
func (s *story) waitFor(t *testing.T, n int) {
	t.Helper()
	want := s.count() + n
	for ctx := closeCtx(t); s.count() < want; time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d acknowledged", s.count(), want)
		}
	}
}

// follow reads until the end marker and checks what comes.
func (s *story) follow(t *testing.T, r mq.Reader, who string, end uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var got []mq.Message
	for {
		m, err := r.Next(ctx)
		if errclass.Is(err, errclass.Retryable) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			t.Errorf("%s after %d messages: %+v", who, len(got), err)
			return
		}
		if m.Timestamp == end {
			break
		}
		got = append(got, m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := 0
	for i, m := range got {
		if i > 0 && (m.Timestamp <= got[i-1].Timestamp || !got[i-1].Position.Before(m.Position)) {
			t.Fatalf("%s: %d at %s comes after %d at %s", who, m.Timestamp, m.Position, got[i-1].Timestamp, got[i-1].Position)
		}
		if string(m.Payload) != fmt.Sprintf("payload of %d", m.Timestamp) {
			t.Fatalf("%s: message %d holds %q", who, m.Timestamp, m.Payload)
		}
		at, ok := s.acked[m.Timestamp]
		if ok && at != m.Position {
			t.Fatalf("%s: %d was acknowledged at %s and is at %s", who, m.Timestamp, at, m.Position)
		}
		if !ok && !s.unknown[m.Timestamp] {
			t.Fatalf("%s: %d was never appended", who, m.Timestamp)
		}
		if ok {
			found++
		}
	}
	if found != len(s.acked) {
		t.Fatalf("%s: %d of %d acknowledged messages are there", who, found, len(s.acked))
	}
}

// play runs a story while the broker suffers.
func play(t *testing.T, b *broker, patience time.Duration, suffer func(s *story)) {
	q := b.queue(t, func(o *Options) { o.AppendTimeout = time.Minute })
	s := &story{q: q, patience: patience, topic: freshTopic(t), acked: map[uint64]mq.Position{}, unknown: map[uint64]bool{}}
	const end = 1 << 60
	stop := make(chan struct{})
	var writer, follower sync.WaitGroup
	other := b.queue(t)
	r, err := other.OpenReader(testCtx(t), s.topic, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	follower.Go(func() { s.follow(t, r, "the one that followed", end) })
	writer.Go(func() { s.write(t, stop) })
	writer.Go(func() { s.passBy(t, other, stop) })
	suffer(s)
	close(stop)
	writer.Wait()
	mustAppend(t, openProducer(t, q, s.topic, 2), mq.Message{Timestamp: end})
	follower.Wait()
	mustClose(t, r)
	again, err := q.OpenReader(testCtx(t), s.topic, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.follow(t, again, "one that comes later", end)
	mustClose(t, again)
	mustClose(t, q)
	mustClose(t, other)
	b.wantNoReaders(t, s.topic)
	if s.slowest > patience+2*time.Second {
		t.Errorf("a call with %s took %s", patience, s.slowest)
	}
	t.Logf("%d acknowledged, %d unknown, %d reopens, slowest call %s, %+v", len(s.acked), len(s.unknown), s.reopens, s.slowest.Round(time.Millisecond), q.Stats())
}

func TestTheBrokerIsKilled(t *testing.T) {
	b := ownBroker(t)
	for _, c := range []struct {
		name     string
		patience time.Duration
		dedup    bool
	}{
		{"calls give up", 3 * time.Second, false},
		{"calls wait, the client sends again", time.Minute, false},
		{"calls wait, the broker drops what comes again", time.Minute, true}, // and acknowledges it with -1:-1
	} {
		t.Run(c.name, func(t *testing.T) {
			b.post(t, "namespaces/public/default/deduplication", fmt.Sprint(c.dedup))
			defer b.post(t, "namespaces/public/default/deduplication", "false")
			play(t, b, c.patience, func(s *story) {
				s.waitFor(t, 50)
				b.kill(t)
				b.restart(t)
				s.waitFor(t, 50)
			})
		})
	}
}

// Short enough for the client to wait, and long enough for calls to give up.
func TestTheBrokerIsFrozen(t *testing.T) {
	b := ownBroker(t)
	play(t, b, 3*time.Second, func(s *story) {
		for _, d := range []time.Duration{500 * time.Millisecond, 5 * time.Second} {
			s.waitFor(t, 30)
			thaw := b.freeze(t)
			time.Sleep(d)
			thaw()
		}
		s.waitFor(t, 30)
	})
}

// The topic is moved to another broker, here away and back: as a rolling upgrade
// or the load balancer does it.
func TestTheTopicIsUnloaded(t *testing.T) {
	b := ownBroker(t)
	play(t, b, 3*time.Second, func(s *story) {
		for range 4 {
			s.waitFor(t, 30)
			b.put(t, "persistent/public/default/"+s.topic+"/unload", "")
		}
		s.waitFor(t, 30)
	})
}

func TestTheConnectionsAreNotShared(t *testing.T) {
	b := realBroker(t)
	q, topic := b.queue(t), freshTopic(t)
	p := openProducer(t, q, topic, 1)
	mustAppend(t, p, msg(1))
	names := b.clients(t, topic)
	if len(names) != 1 || !strings.HasPrefix(names[0], "producer producer-") {
		t.Fatalf("%q", names)
	}
	mustClose(t, q)
	for ctx := testCtx(t); len(b.clients(t, topic)) > 0; {
		if ctx.Err() != nil {
			t.Fatal("clients are left at the broker")
		}
	}
}
