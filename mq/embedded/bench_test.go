package embedded

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
)

// BenchmarkAppend64Writers appends 1-KB messages, one at a time, from 64
// goroutines, each acknowledged after fdatasync.
func BenchmarkAppend64Writers(b *testing.B) {
	q := mustOpen(b, Options{Dir: b.TempDir()})
	p := mustProducer(b, q, 1)
	ctx := b.Context()
	payload := make([]byte, 1000)
	var left, clock atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, 64)
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range took {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				start := time.Now()
				if _, err := p.Append(ctx, mq.Message{Timestamp: uint64(clock.Add(1)), Key: "v0", Payload: payload}); err != nil {
					b.Error(err)
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(q.Stats().Messages)/float64(q.Stats().Groups), "msgs/sync")
}

// BenchmarkReplay stores b.N 1-KB messages (at most a million, then it starts
// again) and reads them from the start.
func BenchmarkReplay(b *testing.B) {
	q := mustOpen(b, Options{Dir: b.TempDir(), Sync: SyncNone})
	p := mustProducer(b, q, 1)
	stored := min((b.N+499)/500*500, 1_000_000)
	for n := 0; n < stored; n += 500 {
		batch := make([]mq.Message, 500)
		for i := range batch {
			batch[i] = mq.Message{Timestamp: uint64(n + i + 1), Key: "v0", Payload: make([]byte, 1000)}
		}
		if _, err := p.Append(b.Context(), batch...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		r, err := q.OpenReader(b.Context(), topicName, mq.ReaderOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; i < stored && n < b.N; i++ {
			if _, err := r.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
			n++
		}
		mustClose(b, r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
