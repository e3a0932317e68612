package lifecycle

import (
	"context"
	"testing"
)

// BenchmarkGo starts goroutines that end at once, one after the other: what a
// timetick costs each of thousands of vchannels. The name in the profiles is
// about a third of it: 0.3 µs and 104 bytes, 1.5 % of a core for 10,000 vchannels
// at 5 timeticks a second.
func BenchmarkGo(b *testing.B) {
	g := NewGroup(context.Background(), nil)
	done := make(chan struct{})
	fn := func(context.Context) error { done <- struct{}{}; return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Go("applier of topic-0_1v0", fn); err != nil {
			b.Fatal(err)
		}
		<-done
	}
	if err := g.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}
