package dispatcher

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// counter is a sink that only counts.
type counter struct{ n *atomic.Int64 }

func (c counter) Apply(_ context.Context, msgs []mq.Message) error {
	c.n.Add(int64(len(msgs)))
	return nil
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return ms.HeapInuse + ms.StackInuse
}

// worked is the processor time this process has had, which other processes on the
// machine do not prolong.
func worked(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd subscribes vchannels spread evenly over pchannels.
func crowd(tb testing.TB, m *Manager, pchannels, vchannels int, s Sink) {
	tb.Helper()
	for i := range vchannels {
		p := fmt.Sprint("p", i%pchannels)
		if _, err := m.Subscribe(tb.Context(), Subscription{PChannel: p, VChannel: fmt.Sprintf("%s-v%d", p, i), Sink: s}); err != nil {
			tb.Fatal(err)
		}
	}
}

// tick appends one broadcast message to each pchannel.
func tick(tb testing.TB, ps []mq.Producer, ts uint64) {
	tb.Helper()
	for _, p := range ps {
		if _, err := p.Append(tb.Context(), mq.Message{Timestamp: ts}); err != nil {
			tb.Fatal(err)
		}
	}
}

func producers(tb testing.TB, q mq.Queue, n int) []mq.Producer {
	tb.Helper()
	ps := make([]mq.Producer, n)
	for i := range ps {
		var err error
		if ps[i], err = q.OpenProducer(tb.Context(), fmt.Sprint("p", i), mq.ProducerOptions{}); err != nil {
			tb.Fatal(err)
		}
	}
	return ps
}

func waitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%s did not happen within three minutes", what)
		}
	}
}

// 10,000 vchannels on 16 pchannels: 16 consumers, little memory, a quick Close.
func TestTenThousandVChannels(t *testing.T) {
	const pchannels, vchannels = 16, 10_000
	q := mqtest.NewMemory(mqtest.MemoryOptions{})
	ps := producers(t, q, pchannels)
	before := memory()
	m, err := New(Options{Queue: q, CloseTimeout: time.Minute}) // what Close may take on a busy machine
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	crowd(t, m, pchannels, vchannels, counter{&n})
	for i := range 3 {
		tick(t, ps, uint64(i+1))
	}
	waitFor(t, "applying three timeticks", func() bool { return n.Load() == 3*vchannels })
	waitFor(t, "tailing", func() bool { return m.Stats().Subscriptions[Tailing] == vchannels })

	if got := len(m.Consumers()); got != pchannels {
		t.Errorf("%d consumers, want %d", got, pchannels)
	}
	if got := len(q.OpenReaders()); got != pchannels {
		t.Errorf("%d readers at the broker, want %d", got, pchannels)
	}
	waitFor(t, "the appliers' end", func() bool { return runtime.NumGoroutine() < 100 })
	per := int64(memory()-before) / vchannels
	t.Logf("%d bytes for each idle vchannel, %d goroutines", per, runtime.NumGoroutine())
	if per > 16<<10 {
		t.Errorf("%d bytes for each idle vchannel", per)
	}
	began := worked(t)
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := worked(t) - began
	t.Logf("Close worked for %s", took)
	if took > 5*time.Second {
		t.Errorf("Close worked for %s", took)
	}
	if left := len(m.Consumers()) + len(q.OpenReaders()); left != 0 {
		t.Errorf("%d left", left)
	}
}

// BenchmarkTimeticks: one broadcast message on each of 16 pchannels to 10,000 vchannels.
func BenchmarkTimeticks(b *testing.B) {
	const pchannels, vchannels = 16, 10_000
	q := mqtest.NewMemory(mqtest.MemoryOptions{})
	ps := producers(b, q, pchannels)
	m, err := New(Options{Queue: q})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	var n atomic.Int64
	crowd(b, m, pchannels, vchannels, counter{&n})
	want := int64(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tick(b, ps, uint64(i+1))
		want += vchannels
		for n.Load() < want {
			time.Sleep(50 * time.Microsecond) // spinning would take a core from the work
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(want), "ns/delivery")
}

// BenchmarkOneVChannel: messages for one vchannel out of 100 on a pchannel, end to end.
func BenchmarkOneVChannel(b *testing.B) {
	q := mqtest.NewMemory(mqtest.MemoryOptions{})
	ps := producers(b, q, 1)
	m, err := New(Options{Queue: q})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	var n atomic.Int64
	crowd(b, m, 1, 100, counter{&n})
	msgs := make([]mq.Message, 1000)
	want := int64(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for j := range msgs {
			msgs[j] = mq.Message{Timestamp: uint64(i*len(msgs) + j + 1), Key: fmt.Sprintf("p0-v%d", j%100), Payload: make([]byte, 128)}
		}
		if _, err := ps[0].Append(b.Context(), msgs...); err != nil {
			b.Fatal(err)
		}
		want += int64(len(msgs))
		for n.Load() < want {
			time.Sleep(50 * time.Microsecond)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(want), "ns/message")
}
