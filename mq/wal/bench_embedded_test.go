package wal

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
)

func embeddedQueue(b *testing.B, dir string, sync embedded.SyncPolicy) *embedded.Queue {
	b.Helper()
	q, err := embedded.Open(embedded.Options{Dir: dir, Sync: sync})
	if err != nil {
		b.Fatal(err)
	}
	return q
}

func closeQueue(b *testing.B, q *embedded.Queue) {
	b.Helper()
	if err := q.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAppendEmbedded has 64 writers append 1-KB rows to the embedded queue,
// each waiting until its row is durable.
func BenchmarkAppendEmbedded(b *testing.B) {
	const writers = 64
	q := embeddedQueue(b, b.TempDir(), embedded.SyncAlways)
	defer closeQueue(b, q)
	w := openReady(b, quiet(q))
	defer mustClose(b, w)
	e := Entry{Type: Insert, VChannel: "v1", Body: bytes.Repeat([]byte("x"), 1024)}
	took := make([][]time.Duration, writers)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(int64(len(e.Body)))
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				begun := time.Now()
				if _, err := w.Append(context.Background(), e); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(begun))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	s := w.Stats()
	b.ReportMetric(float64(s.Appended)/float64(s.Batches), "entries/batch")
}

// BenchmarkRecoveryEmbedded opens the WAL on a log of 200,000 rows of 1 KB
// (a million with QUERYNODE_TEST_LONG=1) and replays what is after the
// checkpoint: the time follows that, not the length of the log.
func BenchmarkRecoveryEmbedded(b *testing.B) {
	rows := 200_000
	if long() {
		rows = 1_000_000
	}
	dir := b.TempDir()
	at := fillEmbedded(b, dir, rows)
	for _, share := range []int{100, 10, 1, 0} { // percent of the log after the checkpoint
		n := rows * share / 100
		b.Run(fmt.Sprintf("log=%d/after=%d", rows, n), func(b *testing.B) {
			q := embeddedQueue(b, dir, embedded.SyncAlways)
			defer closeQueue(b, q)
			o, replayed := quiet(q), 0
			o.Replay = func(context.Context, Entry) error { replayed++; return nil }
			if n < rows {
				o.Checkpoint = at[rows-n-1]
			}
			for b.Loop() {
				mustClose(b, openReady(b, o))
			}
			if replayed != n*b.N {
				b.Fatalf("%d rows replayed %d times, %d are wanted", replayed, b.N, n)
			}
			if n > 0 {
				b.ReportMetric(float64(replayed)/b.Elapsed().Seconds(), "rows/s")
			}
		})
	}
}

// fillEmbedded writes rows and returns their positions.
func fillEmbedded(b *testing.B, dir string, rows int) []mq.Position {
	b.Helper()
	q := embeddedQueue(b, dir, embedded.SyncNone)
	defer closeQueue(b, q)
	p, err := q.OpenProducer(context.Background(), topic, mq.ProducerOptions{})
	if err != nil {
		b.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), 1024)
	var at []mq.Position
	for len(at) < rows {
		var batch []mq.Message
		for i := range min(1000, rows-len(at)) {
			m, err := Encode(Entry{Type: Insert, VChannel: "v1", Body: body, Timestamp: uint64(len(at) + i + 1)})
			if err != nil {
				b.Fatal(err)
			}
			batch = append(batch, m)
		}
		got, err := p.Append(context.Background(), batch...)
		if err != nil {
			b.Fatal(err)
		}
		for i := range got {
			at = append(at, position(got[i], batch[i].Timestamp))
		}
	}
	if err := p.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	return at
}
