package pool

import (
	"context"
)

// Run submits the tasks together and waits for all of them. It returns each
// one's error in its place. The second result is not nil if they were refused
// as a whole (nothing has run, the slice is nil), or if ctx ended while some of
// them were still running: then it is an ErrUnfinished that names them, and
// what those tasks use must stay valid. Use SubmitAll and Batch.Done to learn
// when they are through.
func (p *Pool) Run(ctx context.Context, tasks ...Task) ([]error, error) {
	b, err := p.SubmitAll(ctx, tasks...)
	if err != nil {
		return nil, err
	}
	err = b.Wait(ctx)
	return b.errs(), err
}
