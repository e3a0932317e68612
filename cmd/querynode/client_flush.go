package main

import (
	"context"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type flushCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Wait       bool   `help:"Wait until the segments are built and stored."`
	clientFlags
}

// Help is shown by --help.
func (flushCmd) Help() string {
	return `Seals the growing segments of a collection: they are written to object storage, with their index, and
loaded from there. Rows are durable and searchable before that, too.

Example:
  querynode flush words --wait`
}

// Run flushes.
func (f *flushCmd) Run(a *app) error {
	return f.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		bar := c.out.Bar("flush "+f.Collection, 0, console.Steps)
		got, err := c.write.Flush(ctx, &qnpb.FlushRequest{Collection: f.Collection, Wait: f.Wait})
		if err != nil {
			bar.Fail()
			return err
		}
		bar.Done()
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		if f.Wait {
			c.out.Printf("sealed %s of %s, %d stored", console.Several(len(got.GetSegmentIds()), "segment"), f.Collection, len(got.GetFlushedSegmentIds()))
			return nil
		}
		c.out.Printf("sealed %s of %s; what is sealed is being stored", console.Several(len(got.GetSegmentIds()), "segment"), f.Collection)
		return nil
	})
}
