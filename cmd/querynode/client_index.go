package main

import (
	"context"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type indexCmd struct {
	Create   indexCreateCmd   `cmd:"" help:"Give a field an index."`
	Describe indexDescribeCmd `cmd:"" help:"Show the indexes of a collection."`
	Drop     indexDropCmd     `cmd:"" help:"Drop an index."`
}

type indexCreateCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Index      string `arg:"" placeholder:"FIELD:TYPE:METRIC" help:"FIELD:TYPE:METRIC and parameters such as :M=16; see docs/indexes.md."`
	Name       string `placeholder:"NAME" help:"Name of the index. Empty: the node gives one."`
	clientFlags
}

// Help is shown by --help.
func (indexCreateCmd) Help() string {
	return `Says what index a field has. It takes the place of the one that the field was given by default; drop any other one first.
Segments that are sealed from then on have it; "querynode compact" brings others to it as they are rewritten.

Example:
  querynode index create words vector:HNSW:COSINE:M=16:efConstruction=200
  querynode index create words vector:SCANN:COSINE --name fast`
}

// Run makes the index.
func (k *indexCreateCmd) Run(a *app) error {
	ix, err := parseIndex(k.Index)
	if err != nil {
		return usage(err)
	}
	ix.Name = k.Name
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: k.Collection, Index: ix})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got.GetIndex()))
		}
		c.out.Printf("index %s of %s.%s: %s", got.GetIndex().GetName(), k.Collection, got.GetIndex().GetField(), indexText(got.GetIndex()))
		return nil
	})
}

type indexDescribeCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Index      string `arg:"" optional:"" help:"Name of an index: only this one."`
	clientFlags
}

// Help is shown by --help.
func (indexDescribeCmd) Help() string {
	return `Example:
  querynode index describe words`
}

// Run shows the indexes.
func (k *indexDescribeCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.DescribeIndex(ctx, &qnpb.DescribeIndexRequest{Collection: k.Collection, Index: k.Index})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got)["indexes"])
		}
		t := &console.Table{Columns: []console.Column{console.Left("name"), console.Left("field"), console.Left("index")}}
		for _, ix := range got.GetIndexes() {
			t.Add(ix.GetName(), ix.GetField(), indexText(ix))
		}
		showOrNone(c.out, t, "no indexes")
		return nil
	})
}

type indexDropCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Index      string `arg:"" help:"Name of the index."`
	clientFlags
}

// Help is shown by --help.
func (indexDropCmd) Help() string {
	return `Drops an index. No rows are lost, and another index can take its place.

Example:
  querynode index drop words fast`
}

// Run drops the index.
func (k *indexDropCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		if _, err := c.catalog.DropIndex(ctx, &qnpb.DropIndexRequest{Collection: k.Collection, Index: k.Index}); err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(map[string]any{"collection": k.Collection, "dropped": k.Index})
		}
		c.out.Printf("dropped index %s of %s", k.Index, k.Collection)
		return nil
	})
}
