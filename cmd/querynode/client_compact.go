package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/errclass"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type compactCmd struct {
	Collection string `arg:"" optional:"" help:"Name or alias of the collection."`
	Status     bool   `help:"Show what is compacted now and what was, instead."`
	clientFlags
}

// Help is shown by --help.
func (compactCmd) Help() string {
	return `Merges small sealed segments of a collection and drops rows that no read can see any more: deleted ones, older
versions and expired ones, once reads in the past are not answered back to them (the property collection.retention.seconds, or
compaction.retention of the node). A node does so by itself too, when it is worth it; by hand, whatever gets better is.

Examples:
  querynode compact words
  querynode compact --status`
}

// Run compacts, or shows.
func (f *compactCmd) Run(a *app) error {
	return f.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		switch {
		case f.Status && f.Collection != "":
			return errclass.New(errclass.Invalid, "compact: --status is of the node: leave the collection out")
		case f.Status:
			return showCompaction(ctx, c)
		case f.Collection == "":
			return errclass.New(errclass.Invalid, "compact: name a collection, or ask for --status")
		}
		bar := c.out.Bar("compact "+f.Collection, 0, console.Steps)
		got, err := c.write.Compact(ctx, &qnpb.CompactRequest{Collection: f.Collection})
		if err != nil {
			bar.Fail()
			return err
		}
		bar.Done()
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		if len(got.GetJobs()) == 0 {
			c.out.Printf("nothing to compact in %s", f.Collection)
			return nil
		}
		printJobs(c, got.GetJobs())
		return nil
	})
}

func showCompaction(ctx context.Context, c *client) error {
	got, err := c.write.GetCompaction(ctx, &qnpb.GetCompactionRequest{})
	if err != nil {
		return err
	}
	if c.out.JSON() {
		return c.out.Document(jsonOf(got))
	}
	if r := got.GetRunning(); r != nil {
		c.out.Printf("running: %s, %d segments of %s, %s, for %v", r.GetWhy(), len(r.GetSegmentIds()), r.GetVchannel(), r.GetPhase(),
			time.Duration(r.GetRunningNanos()).Round(time.Millisecond))
	} else {
		c.out.Printf("no compaction is running")
	}
	printJobs(c, got.GetRecent())
	for _, name := range slices.Sorted(maps.Keys(got.GetFailing())) {
		c.out.Printf("%s fails and is tried again: %s", name, got.GetFailing()[name])
	}
	c.out.Printf("%d jobs, %d failed; %d segments replaced, %d rows dropped, %d files of deletes done away with",
		got.GetJobs(), got.GetFailed(), got.GetSegmentsReplaced(), got.GetRowsDropped(), got.GetDeltasFreed())
	return nil
}

func printJobs(c *client, jobs []*qnpb.CompactionJob) {
	for _, j := range jobs {
		c.out.Printf("%s: %d segments of %s became %s: %d rows, %d are left; %d bytes, %d are left; %v", j.GetWhy(), len(j.GetSegmentIds()), j.GetVchannel(),
			one(j.GetOutputSegmentId()), j.GetRowsBefore(), j.GetRowsAfter(), j.GetBytesBefore(), j.GetBytesAfter(),
			time.Duration(j.GetTookNanos()).Round(time.Millisecond))
	}
}

func one(id int64) string {
	if id == 0 {
		return "nothing"
	}
	return "one"
}
