package pulsar

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// moody refuses calls before they reach the driver, as a broker that restarts.
type moody struct {
	driver
	refuse func(call string) error
}

func (m moody) last(ctx context.Context, topic string) (entryID, error) {
	if err := m.refuse("last"); err != nil {
		return none(), err
	}
	return m.driver.last(ctx, topic)
}

func (m moody) read(ctx context.Context, topic string, from entryID) (cursor, error) {
	if err := m.refuse("read"); err != nil {
		return nil, err
	}
	return m.driver.read(ctx, topic, from)
}

func (m moody) write(ctx context.Context, topic, name string) (sender, error) {
	if err := m.refuse("write"); err != nil {
		return nil, err
	}
	return m.driver.write(ctx, topic, name)
}

func (m moody) protect(ctx context.Context, topic string) error {
	if err := m.refuse("protect"); err != nil {
		return err
	}
	return m.driver.protect(ctx, topic)
}

func (m moody) release(ctx context.Context, topic string, upTo entryID) error {
	if err := m.refuse("release"); err != nil {
		return err
	}
	return m.driver.release(ctx, topic, upTo)
}

func moodyQueue(t *testing.T, m *memory, refuse func(call string) error) *Queue {
	t.Helper()
	q, err := Open(Options{URL: "pulsar://nowhere:6650", driver: moody{memDriver{m}, refuse}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, q) })
	return q
}

const noBookies = "server error: PersistenceError: org.apache.bookkeeper.mledger.ManagedLedgerException: Not enough non-faulty bookies available error code: -6"

func refusal(text string) error {
	return classify(errors.Wrap(errors.New(text), "open reader of t"), "")
}

func TestABrokerThatIsNotReadyIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(7)
		var mu sync.Mutex // readers read ahead
		refused := map[string]int{}
		every := 0
		q := moodyQueue(t, m, func(call string) error {
			mu.Lock()
			defer mu.Unlock()
			if every++; every%4 != 0 { // three of four
				refused[call]++
				return refusal(noBookies)
			}
			return nil
		})
		at := appendSome(t, producerOf(t, q, 1), 1, 30)
		wantLog(t, q, mq.ReaderOptions{}, numbers(1, 30)...)
		wantLog(t, q, mq.ReaderOptions{From: at[19]}, numbers(20, 30)...)
		if err := q.Trim(testCtx(t), topicName, at[15]); err != nil {
			t.Fatal(err)
		}
		mustClose(t, q)
		total := 0
		for _, call := range []string{"last", "read", "write", "protect", "release"} {
			if total += refused[call]; refused[call] == 0 {
				t.Errorf("%s was never refused", call)
			}
		}
		// A reader that is closed while it waits to read ahead does not ask again.
		if s := q.Stats(); s.Retries > uint64(total) || s.Retries < uint64(total)-3 || s.Unknown != 0 {
			t.Errorf("%d refused, %+v", total, s)
		}
		if open := m.opened(); len(open) != 0 {
			t.Errorf("left over: %q", open)
		}
	})
}

func TestWhoWaitsForABrokerWaitsNoLongerThanAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := moodyQueue(t, newMemory(7), func(string) error { return refusal("ServiceNotReady") })
		for what, call := range map[string]func(ctx context.Context) error{
			"open producer": func(ctx context.Context) error {
				_, err := q.OpenProducer(ctx, topicName, mq.ProducerOptions{Term: 1})
				return err
			},
			"open reader": func(ctx context.Context) error {
				_, err := q.OpenReader(ctx, topicName, mq.ReaderOptions{})
				return err
			},
			"bounds": func(ctx context.Context) error { _, err := q.Bounds(ctx, topicName); return err },
			"trim": func(ctx context.Context) error {
				return q.Trim(ctx, topicName, point{entryID{1, 1}, 0}.position(10))
			},
		} {
			const patience = 7 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			began := time.Now()
			err := call(ctx)
			cancel()
			if took := time.Since(began); took != patience {
				t.Errorf("%s took %s", what, took)
			}
			if !isTimeout(err) || !errclass.Is(err, errclass.Retryable) || !strings.Contains(err.Error(), "ServiceNotReady") {
				t.Errorf("%s: %v", what, err)
			}
			began = time.Now()
			err = call(context.Background())
			if took := time.Since(began); took > 30*time.Second || took < 20*time.Second {
				t.Errorf("%s without a deadline took %s", what, took)
			}
			if isTimeout(err) || !errclass.Is(err, errclass.Retryable) {
				t.Errorf("%s without a deadline: %v", what, err)
			}
		}
		opening := make(chan error)
		go func() {
			_, err := q.OpenProducer(context.Background(), topicName, mq.ProducerOptions{Term: 1})
			opening <- err
		}()
		synctest.Wait()
		began := time.Now()
		go func() { _ = q.Close(context.Background()) }()
		wantErr(t, <-opening, mq.ErrClosed)
		if took := time.Since(began); took != 0 {
			t.Errorf("a close has waited %s", took)
		}
	})
}

func TestOtherErrorsAreNotTriedAgain(t *testing.T) {
	for text, want := range map[string]errclass.Class{
		"server error: AuthorizationError: no":                                    errclass.Denied,
		"server error: ConsumerBusy: Exclusive consumer is already connected":     errclass.Retryable,
		"server error: TopicTerminatedError: over, says PersistenceError: really": errclass.Retryable,
		"connection refused": errclass.Retryable,
	} {
		tries := 0
		q := moodyQueue(t, newMemory(7), func(string) error { tries++; return refusal(text) })
		_, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 1})
		if tries != 1 || !errclass.Is(err, want) {
			t.Errorf("%d tries, %v", tries, err)
		}
	}
	for _, text := range []string{noBookies, "ServiceNotReady", "MetadataError", "ack response error: PersistenceError: x", "server error: TooManyRequests: wait"} {
		if err := refusal(text); !errors.Is(err, errNotReady) || !errclass.Is(err, errclass.Retryable) {
			t.Errorf("%q is not known to pass", text)
		}
	}
}

func TestAHandleDoesNotWaitLongForTheBrokersWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Options
		o.EnsureDefaults()
		g := lifecycle.NewGroup(context.Background(), nil)
		d := &brokerDriver{o: &o, g: g}
		answer := make(chan struct{})
		c := d.closing("close reader of t", func() { <-answer })
		began := time.Now()
		if err := c.close(context.Background()); err != nil || time.Since(began) != closePatience {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := g.Close(short); !isTimeout(err) || !strings.Contains(err.Error(), "close reader of t") {
			t.Errorf("the queue does not name it: %v", err)
		}
		close(answer)
		if err := errors.Join(c.close(context.Background()), g.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
}

// A broker that is frozen, or a switch that is broken: the kernel takes
// connections and nobody greets. The client would wait for its keep-alive.
func TestABrokerThatNeverGreetsHoldsUpNoClose(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	q, err := Open(Options{URL: "pulsar://" + lis.Addr().String(), OperationTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := q.OpenProducer(ctx, topicName, mq.ProducerOptions{}); !errclass.Is(err, errclass.Retryable) {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	if err := q.Close(ctx); err != nil {
		t.Errorf("%v; %q", err, q.Stats().Calls)
	}
}
