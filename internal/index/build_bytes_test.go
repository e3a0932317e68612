package index

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/vec"
)

// anonymous is the memory that the process has, but for files: what a ledger bounds. 0: the system does not tell.
func anonymous() (bytes int64) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &bytes); n == 1 {
			return bytes << 10
		}
	}
	return 0
}

// goMemory is what the limit of the collector is about.
func goMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

// TestABuildTakesNoMoreMemoryThanIsReckoned, and not far less, which would refuse what there is room for.
func TestABuildTakesNoMoreMemoryThanIsReckoned(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	if anonymous() == 0 {
		t.Skip("the system does not tell what memory a process has")
	}
	const garbage = 10 // percent of the heap, the rows among it, before it is collected
	defer debug.SetGCPercent(debug.SetGCPercent(garbage))
	// On a busy machine there is more before the collector is done. It is not what the build needs: as on a node, the limit has it
	// collected in time, and what is needed beyond it is taken all the same.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	for _, c := range []struct{ n, dim, rank int }{{10_000, 16, 16}, {5000, 128, 128}, {4000, 768, 100}, {4000, 2048, 30}} {
		base := spanned(c.n, c.dim, c.rank)
		slack := int64(6<<20 + 4*len(base)*garbage/100) // what the allocator keeps
		for _, by := range []struct {
			kind    Kind
			workers int
			metric  Metric
		}{{KindHNSW, 2, L2}, {KindHNSWSQ, 8, L2}, {KindScaNN, 2, IP}, {KindScaNN, 8, L2}, {KindAuto, 2, L2}, {KindIVFFlat, 2, L2}, {KindIVFFlat, 8, L2}} {
			kind, workers := by.kind, by.workers
			spec := Spec{Kind: kind, Metric: by.metric, Dim: c.dim}
			reckoned := BuildBytes(spec, c.n, workers)
			debug.SetMemoryLimit(math.MaxInt64)
			runtime.GC()
			debug.FreeOSMemory()
			debug.SetMemoryLimit(goMemory() + reckoned + slack/2)
			before, peak, done := anonymous(), int64(0), make(chan struct{})
			looked := make(chan struct{})
			go func() {
				defer close(looked)
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for {
					peak = max(peak, anonymous()-before)
					select {
					case <-done:
						return
					case <-tick.C:
					}
				}
			}()
			b, err := Build(context.Background(), spec, base, BuildOptions{Workers: workers})
			close(done)
			<-looked
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%-9s %d x %-5d by %d: %6.1f MB, reckoned %6.1f (%.2f)", kind, c.n, c.dim, workers, float64(peak)/1e6, float64(reckoned)/1e6, float64(reckoned)/float64(peak))
			if peak > reckoned+slack || reckoned > 3*peak+slack {
				t.Errorf("%s of %d x %d by %d takes %d bytes, %d are reckoned", kind, c.n, c.dim, workers, peak, reckoned)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// spanned are rows that differ in so many directions.
func spanned(n, dim, rank int) []float32 {
	r := rng(65)
	base, by := make([]float32, n*dim), make([]float32, rank*dim)
	for i := range by {
		by[i] = float32(r.NormFloat64())
	}
	k := vec.Detect()
	turned, v := make([]float32, rank*dim), make([]float32, rank)
	for i := range rank {
		for d := range dim {
			turned[d*rank+i] = by[i*dim+d]
		}
	}
	for row := range n {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		k.DotRows(v, turned, rank, base[row*dim:][:dim])
	}
	return base
}
