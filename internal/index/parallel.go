package index

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/lifecycle"
)

// parallel gives [0, n) in pieces of step to workers goroutines and returns when
// all of them have ended. Each worker calls each once for the function that
// works on pieces, so that it can have memory of its own. A piece is short: ctx
// is looked at between two.
func parallel(ctx context.Context, workers, n, step int, each func() func(from, to int) error) error {
	workers = min(workers, (n+step-1)/step)
	if workers <= 1 {
		return lifecycle.Call("index builder", func() error {
			work := each()
			for from := 0; from < n; from += step {
				if err := ctx.Err(); err != nil {
					return errors.Wrap(err, "build index")
				}
				if err := work(from, min(from+step, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var at atomic.Int64
	ends := make(chan error, workers)
	group := lifecycle.NewGroup(ctx, func(_ string, err error) { ends <- err })
	var first error
	started := 0
	for i := range workers {
		err := group.Go("index builder "+strconv.Itoa(i), func(ctx context.Context) error {
			work := each()
			for ctx.Err() == nil {
				from := at.Add(int64(step)) - int64(step)
				if from >= int64(n) {
					return nil
				}
				if err := work(int(from), min(int(from)+step, n)); err != nil {
					return err
				}
			}
			return errors.Wrap(ctx.Err(), "build index")
		})
		if err != nil {
			first = err
			break
		}
		started++
	}
	for range started {
		if err := <-ends; err != nil && first == nil {
			first = err
			at.Store(int64(n)) // the others need not go on
		}
	}
	return errors.CombineErrors(first, group.Close(context.WithoutCancel(ctx)))
}

// progress counts rows and tells about them, one call at a time.
type progress struct {
	tell  func(done, total int)
	total int
	mu    struct {
		sync.Mutex
		done int
	}
}

// more says that there is more to do than was known.
func (p *progress) more(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
}

func (p *progress) add(n int) {
	if p.tell == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.done += n
	p.tell(p.mu.done, p.total)
}
