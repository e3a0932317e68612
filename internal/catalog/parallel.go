package catalog

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/lifecycle"
)

// readers is how many manifests are read at a time.
const readers = 16

// inParallel calls fn for each of the keys, a few at a time, and returns the
// results and the errors in their order. It waits for all: each call ends with ctx.
func inParallel[K, V any](ctx context.Context, keys []K, fn func(context.Context, K) (V, error)) ([]V, []error) {
	out, errs := make([]V, len(keys)), make([]error, len(keys))
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(keys); i = int(next.Add(1)) - 1 {
			errs[i] = lifecycle.Call("read a manifest", func() (err error) {
				out[i], err = fn(ctx, keys[i])
				return err
			})
		}
	}
	g := lifecycle.NewGroup(ctx, nil)
	var running sync.WaitGroup
	for range min(readers, len(keys)) - 1 {
		running.Add(1)
		if g.Go("catalog reader", func(context.Context) error { defer running.Done(); work(); return nil }) != nil {
			running.Done()
		}
	}
	work()
	running.Wait()
	_ = g.Close(context.WithoutCancel(ctx)) // nothing runs any more
	return out, errs
}
