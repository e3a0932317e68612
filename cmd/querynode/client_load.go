package main

import (
	"context"
	"time"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type loadCmd struct {
	Collection string   `arg:"" help:"Name or alias of the collection."`
	Segment    []int64  `placeholder:"ID" help:"Load these segments of the catalog only. May be repeated."`
	Path       []string `placeholder:"FOLDER" help:"Folder in object storage of a segment made by \"querynode segment build\": it is added to the catalog and loaded. May be repeated."`
	Warmup     string   `enum:",sync,async,none" default:"" help:"When vectors and indexes come to the local disk: sync = before the segments are ready, async = in the background, none = when a read needs them. Empty: as the collection or the node is configured."`
	clientFlags
}

// Help is shown by --help.
func (loadCmd) Help() string {
	return `Makes a collection, or some of its segments, searchable on the node. Without --segment and --path everything
is loaded, and the node follows the collection's channels, so that new rows are found too.

Example:
  querynode load words
  querynode load words --segment 17 --segment 18
  querynode load words --path imports/words-1`
}

// Run loads.
func (l *loadCmd) Run(a *app) error {
	return l.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		bar := c.out.Bar("load "+l.Collection, 0, console.Steps)
		got, err := c.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: l.Collection, SegmentIds: l.Segment, Paths: l.Path, Warmup: l.Warmup})
		if err != nil {
			bar.Fail()
			return err
		}
		if len(l.Path) > 0 {
			c.settle(ctx, l.Collection)
		}
		bar.Done()
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		c.out.Printf("loaded %s of %s, %s", console.Several(len(got.GetSegmentIds()), "segment"), l.Collection, console.Several(got.GetRows(), "row"))
		return nil
	})
}

// settleTime bounds how long settle waits; a log that is idle writes a timetick
// five times a second.
const settleTime = 3 * time.Second

// settle waits until the node reads at a time after now. Rows of a segment that
// was built a moment ago are younger than what the node has seen of its log, and
// no read sees them before that has caught up.
func (c *client) settle(ctx context.Context, collection string) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	stream, err := c.query.Query(ctx, &qnpb.QueryRequest{Collection: collection, OutputFields: []string{"count(*)"}, Freshness: &qnpb.Freshness{
		Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: wal.FromTime(time.Now())}})
	for err == nil {
		_, err = stream.Recv() // io.EOF, or the time is over: then the clocks differ, and reads will tell
	}
}

type releaseCmd struct {
	Collection string  `arg:"" help:"Name or alias of the collection."`
	Segment    []int64 `placeholder:"ID" help:"Release these segments only. May be repeated."`
	clientFlags
}

// Help is shown by --help.
func (releaseCmd) Help() string {
	return `Takes a collection, or some of its segments, out of memory. Nothing is deleted: load it again at any time.

Example:
  querynode release words
  querynode release words --segment 17`
}

// Run releases.
func (r *releaseCmd) Run(a *app) error {
	return r.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.control.ReleaseSegments(ctx, &qnpb.ReleaseSegmentsRequest{Collection: r.Collection, SegmentIds: r.Segment})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		c.out.Printf("released %s of %s", console.Several(len(got.GetSegmentIds()), "segment"), r.Collection)
		return nil
	})
}
