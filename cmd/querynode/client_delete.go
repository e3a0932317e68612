package main

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type deleteCmd struct {
	Collection string   `arg:"" help:"Name or alias of the collection."`
	IDs        []string `name:"ids" placeholder:"KEY,..." xor:"what" help:"Keys of the rows to delete."`
	Filter     string   `placeholder:"EXPR" xor:"what" help:"Delete the rows that match now."`
	Param      []string `sep:"none" placeholder:"NAME=VALUE" help:"Value of a {NAME} in the filter. May be repeated."`
	Partition  string   `placeholder:"NAME" help:"Only in this partition."`
	clientFlags
}

// Help is shown by --help.
func (deleteCmd) Help() string {
	return `Deletes rows by key or by filter. When it returns the delete is durable. Keys that do not exist are no error.

Example:
  querynode delete words --ids 17,18
  querynode delete words --filter 'length > 12'
  querynode delete words --filter 'word in {words}' --param 'words=["the", "a"]'`
}

// Run deletes.
func (d *deleteCmd) Run(a *app) error {
	if len(d.IDs) == 0 && d.Filter == "" {
		return usage(errors.New("say what to delete: --ids or --filter"))
	}
	values, err := parseParams(d.Param)
	if err != nil {
		return err
	}
	return d.with(a, func(ctx context.Context, c *client) error {
		op := &qnpb.DeleteOperation{Filter: d.Filter, FilterValues: values}
		if len(d.IDs) > 0 {
			coll, err := c.describe(ctx, d.Collection)
			if err != nil {
				return err
			}
			if op.Ids, err = keys(coll.GetSchema(), d.IDs); err != nil {
				return err
			}
		}
		ctx, cancel := c.work(ctx)
		defer cancel()
		got, err := c.write.Append(ctx, &qnpb.AppendRequest{Collection: d.Collection, Partition: d.Partition, Operation: &qnpb.AppendRequest_Delete{Delete: op}})
		if err != nil {
			return explain(err, c.addr, d.Filter)
		}
		if c.out.JSON() {
			return c.out.Document(map[string]any{"rows": got.GetRows(), "timestamp": got.GetTimestamp()})
		}
		if got.GetRows() == 0 {
			c.out.Printf("nothing to delete in %s", d.Collection)
			return nil
		}
		c.out.Printf("deleted %s from %s (timestamp %d)", console.Several(got.GetRows(), "key"), d.Collection, got.GetTimestamp())
		return nil
	})
}
