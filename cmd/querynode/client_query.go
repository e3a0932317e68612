package main

import (
	"context"
	"io"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type queryCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Limit      int64  `default:"100" help:"Most rows to return; 0 = all."`
	Offset     int64  `help:"Rows to leave out at the front, in order of the key."`
	Count      bool   `help:"Only count the rows."`
	readFlags
	clientFlags
}

// Help is shown by --help.
func (queryCmd) Help() string {
	return `Lists the rows that match a filter, in order of the primary key. With --json each row is one line.

Example:
  querynode query words --filter 'length == 3 and id < 1000' --output-fields word
  querynode query words --count --consistency strong`
}

// Run queries.
func (q *queryCmd) Run(a *app) error {
	if err := q.check(); err != nil {
		return err
	}
	return q.with(a, func(ctx context.Context, c *client) error {
		coll, err := c.describe(ctx, q.Collection)
		if err != nil {
			return err
		}
		ctx, cancel := c.work(ctx)
		defer cancel()
		req := &qnpb.QueryRequest{Collection: q.Collection, Partitions: q.Partition, Filter: q.Filter, OutputFields: q.fields(coll),
			Limit: q.Limit, Offset: q.Offset, Freshness: q.freshness()}
		if q.Count {
			req.Limit, req.Offset = 0, 0
		}
		stream, err := c.query.Query(ctx, req)
		if err != nil {
			return explain(err, c.addr, q.Filter)
		}
		return explain(q.show(c, coll, stream.Recv), c.addr, q.Filter)
	})
}

func (q *queryCmd) fields(coll *qnpb.Collection) []string {
	switch {
	case q.Count:
		return []string{"count(*)"}
	case len(q.OutputFields) > 0:
		return q.OutputFields
	}
	// Everything a person can read.
	var names []string
	for _, f := range coll.GetSchema().GetFields() {
		if !isVector(f.GetType()) {
			names = append(names, f.GetName())
		}
	}
	return names
}

// show writes the pieces of the answer as they come; a table at the end.
func (q *queryCmd) show(c *client, coll *qnpb.Collection, next func() (*qnpb.QueryResponse, error)) error {
	t := &console.Table{}
	types := typesOf(coll.GetSchema())
	for {
		got, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if q.Count && got.GetStats() != nil {
			if c.out.JSON() {
				return c.out.Document(map[string]any{"count": got.GetCount(), "read_timestamp": got.GetReadTimestamp()})
			}
			c.out.Printf("%d", got.GetCount())
			return nil
		}
		for i := range int(got.GetRows()) {
			if c.out.JSON() {
				if err := c.out.Line(types.row(got.GetFields(), i)); err != nil {
					return err
				}
				continue
			}
			addRow(t, types, got.GetFields(), i)
		}
	}
	if !c.out.JSON() {
		showOrNone(c.out, t, "no rows")
		c.out.Notef("%s", c.out.PaintNote(console.Faint, console.Count(int64(len(t.Rows)))+" rows"))
	}
	return nil
}

func addRow(t *console.Table, types fieldTypes, fields []*qnpb.FieldData, i int) {
	var row []any
	for k, d := range fields {
		if len(t.Columns) <= k {
			_, number := d.GetValues().(*qnpb.FieldData_Ints)
			t.Columns = append(t.Columns, console.Column{Name: d.GetField(), Right: number})
		}
		row = append(row, cellText(types.cell(d, i)))
	}
	t.Add(row...)
}
