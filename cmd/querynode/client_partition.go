package main

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type partitionCmd struct {
	Create partitionCreateCmd `cmd:"" help:"Make a partition of a collection."`
	List   partitionListCmd   `cmd:"" help:"List the partitions of a collection."`
	Drop   partitionDropCmd   `cmd:"" help:"Drop a partition and its rows."`
}

type partitionCreateCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Partition  string `arg:"" help:"Name of the partition."`
	clientFlags
}

// Help is shown by --help.
func (partitionCreateCmd) Help() string {
	return `Makes a partition: a part of a collection that rows are inserted into, searched and dropped by name.

Example:
  querynode partition create words english
  querynode insert words words.parquet --partition english`
}

// Run makes the partition.
func (p *partitionCreateCmd) Run(a *app) error {
	return p.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.CreatePartition(ctx, &qnpb.CreatePartitionRequest{Collection: p.Collection, Partition: p.Partition})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got.GetPartition()))
		}
		c.out.Printf("created partition %s of %s", p.Partition, p.Collection)
		return nil
	})
}

type partitionListCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	clientFlags
}

// Help is shown by --help.
func (partitionListCmd) Help() string {
	return `Example:
  querynode partition list words`
}

// Run lists the partitions.
func (p *partitionListCmd) Run(a *app) error {
	return p.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.ListPartitions(ctx, &qnpb.ListPartitionsRequest{Collection: p.Collection})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got)["partitions"])
		}
		t := &console.Table{Columns: []console.Column{console.Left("name"), console.Right("id"), console.Left("created (UTC)")}}
		for _, x := range got.GetPartitions() {
			t.Add(x.GetName(), x.GetId(), wal.Time(x.GetCreatedTimestamp()).UTC().Format(time.DateTime))
		}
		c.out.Table(t)
		return nil
	})
}

type partitionDropCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Partition  string `arg:"" help:"Name of the partition; not _default."`
	Yes        bool   `short:"y" help:"Do not ask."`
	clientFlags
}

// Help is shown by --help.
func (partitionDropCmd) Help() string {
	return `Drops a partition and all its rows. This cannot be undone, so say --yes.

Example:
  querynode partition drop words english --yes`
}

// Run drops the partition.
func (p *partitionDropCmd) Run(a *app) error {
	if !p.Yes {
		return usage(errors.Newf("this deletes all rows of partition %q of %q for good: say --yes if you mean it", p.Partition, p.Collection))
	}
	return p.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		if _, err := c.catalog.DropPartition(ctx, &qnpb.DropPartitionRequest{Collection: p.Collection, Partition: p.Partition}); err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(map[string]any{"collection": p.Collection, "dropped": p.Partition})
		}
		c.out.Printf("dropped partition %s of %s", p.Partition, p.Collection)
		return nil
	})
}
