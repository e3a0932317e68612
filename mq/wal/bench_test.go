package wal

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/querynode/querynode/mq/mqtest"
)

// BenchmarkAppend appends 1-KiB rows to a queue in memory, by one caller and by many.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			w := openReady(b, quiet(mqtest.NewMemory(mqtest.MemoryOptions{})))
			defer mustClose(b, w)
			e := Entry{Type: Insert, VChannel: "v1", Body: bytes.Repeat([]byte("x"), 1024)}
			b.SetBytes(int64(len(e.Body)))
			b.SetParallelism(callers)
			b.ReportAllocs()
			b.ResetTimer()
			if callers == 1 {
				for b.Loop() {
					if _, err := w.Append(context.Background(), e); err != nil {
						b.Fatal(err)
					}
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := w.Append(context.Background(), e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			s := w.Stats()
			b.ReportMetric(float64(s.Appended)/float64(s.Batches), "entries/batch")
		})
	}
}

// BenchmarkRecovery replays 1-KiB rows.
func BenchmarkRecovery(b *testing.B) {
	const rows = 10_000
	q := mqtest.NewMemory(mqtest.MemoryOptions{})
	w := openReady(b, quiet(q))
	body := string(bytes.Repeat([]byte("x"), 1024))
	for range rows {
		mustAppend(b, w, body)
	}
	mustClose(b, w)
	b.SetBytes(rows * 1024)
	for b.Loop() {
		mustClose(b, openReady(b, quiet(q)))
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
