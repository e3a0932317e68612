package pulsar

import (
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/mq"
)

func BenchmarkAppend(b *testing.B) {
	real := realBroker(b)
	for name, parallel := range map[string]int{"one caller": 0, "64 callers": 32} { // times GOMAXPROCS
		b.Run(name, func(b *testing.B) {
			q := real.queue(b)
			p := openProducer(b, q, freshTopic(b), 1)
			payload := make([]byte, 1024)
			var clock atomic.Uint64
			ctx := testCtx(b)
			b.SetBytes(int64(len(payload)))
			if parallel == 0 {
				for b.Loop() {
					if _, err := p.Append(ctx, mq.Message{Timestamp: clock.Add(1), Payload: payload}); err != nil {
						b.Fatal(err)
					}
				}
			} else {
				b.SetParallelism(parallel)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := p.Append(ctx, mq.Message{Timestamp: clock.Add(1), Payload: payload}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			b.ReportMetric(float64(q.Stats().Messages)/float64(q.Stats().Entries), "messages/entry")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	real := realBroker(b)
	q, topic := real.queue(b), freshTopic(b)
	p := openProducer(b, q, topic, 1)
	const size = 200
	for n := range 100 {
		var msgs []mq.Message
		for i := range size {
			msgs = append(msgs, mq.Message{Timestamp: uint64(n*size + i + 1), Payload: make([]byte, 1024)})
		}
		mustAppend(b, p, msgs...)
	}
	b.SetBytes(100 * size * 1024)
	for b.Loop() {
		r, err := q.OpenReader(testCtx(b), topic, mq.ReaderOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for range 100 * size {
			if _, err := r.Next(testCtx(b)); err != nil {
				b.Fatal(err)
			}
		}
		mustClose(b, r)
	}
}

func BenchmarkOpen(b *testing.B) {
	real := realBroker(b)
	q, topic := real.queue(b), freshTopic(b)
	p := openProducer(b, q, topic, 1)
	at := mustAppend(b, p, msg(1))
	b.Run("reader", func(b *testing.B) {
		for b.Loop() {
			r, err := q.OpenReader(testCtx(b), topic, mq.ReaderOptions{From: at[0]})
			if err != nil {
				b.Fatal(err)
			}
			mustClose(b, r)
		}
	})
	b.Run("producer", func(b *testing.B) {
		for b.Loop() {
			mustClose(b, openProducer(b, q, topic, 1))
		}
	})
	b.Run("bounds", func(b *testing.B) {
		for b.Loop() {
			if _, err := q.Bounds(testCtx(b), topic); err != nil {
				b.Fatal(err)
			}
		}
	})
}
