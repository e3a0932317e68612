package main

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type queryCmd struct {
	Collection string   `arg:"" help:"Name or alias of the collection."`
	Limit      int64    `default:"100" help:"Most rows to return; 0 = all."`
	Offset     int64    `help:"Rows to leave out at the front of the order."`
	Count      bool     `help:"Only count the rows."`
	OrderBy    []string `sep:"none" placeholder:"FIELD[:desc][:nulls-first]" help:"Order of the rows, instead of that of the key. May be repeated."`
	GroupBy    []string `placeholder:"FIELD,..." help:"One line for each combination of values; --output-fields may have count(*), min(f), max(f), sum(f), avg(f)."`
	Pages      int      `placeholder:"N" help:"Page by page in order of the key, --limit rows each: show N pages, and the token to go on with."`
	All        bool     `help:"All pages."`
	Token      string   `placeholder:"TOKEN" help:"Go on behind the page that this token came with."`
	readFlags
	clientFlags
}

// Help is shown by --help.
func (queryCmd) Help() string {
	return `Lists the rows that match a filter, in order of the primary key or of other fields, or what aggregates
say about them. With --json each row is one line; behind the rows of a page comes {"next_token": ...} if there
are more, behind an answer that lacks rows {"missing": ...}.

Example:
  querynode query words --filter 'length == 3 and id < 1000' --output-fields word
  querynode query words --count --consistency strong
  querynode query words --order-by length:desc --order-by word --limit 5
  querynode query words --group-by length --output-fields 'length,count(*),min(word)' --order-by 'count(*):desc'
  querynode query words --output-fields 'avg(length)' --filter 'id < 1000'
  querynode query words --all --limit 1000 --json`
}

// Run queries.
func (q *queryCmd) Run(a *app) error {
	if err := q.check(); err != nil {
		return err
	}
	order, err := q.orders()
	if err != nil {
		return err
	}
	return q.with(a, func(ctx context.Context, c *client) error {
		coll, err := c.describe(ctx, q.Collection)
		if err != nil {
			return err
		}
		values, err := parseParams(q.Param)
		if err != nil {
			return err
		}
		req := &qnpb.QueryRequest{FilterValues: values, Collection: q.Collection, Partitions: q.Partition, Filter: q.Filter, OutputFields: q.fields(coll),
			Limit: q.Limit, Offset: q.Offset, Freshness: q.freshness(), OrderBy: order, GroupByFields: q.GroupBy, Iterate: q.paged(), Token: q.Token,
			IgnoreGrowing: q.IgnoreGrowing, AllowPartial: q.AllowPartial, Explain: q.Explain}
		if q.Count = q.Count || q.countsOnly(); q.Count {
			req.Limit, req.Offset = 0, 0
		}
		for page := 1; ; page++ {
			if req.Token, err = q.call(ctx, c, coll, req); err != nil {
				return explain(err, c.addr, q.Filter)
			}
			if req.Token == "" || page >= q.Pages && !q.All {
				return nil
			}
		}
	})
}

// paged reports whether the query goes page by page.
func (q *queryCmd) paged() bool { return q.Pages != 0 || q.All || q.Token != "" }

// call sends one call and shows its answer; it returns the token for the next page.
func (q *queryCmd) call(ctx context.Context, c *client, coll *qnpb.Collection, req *qnpb.QueryRequest) (string, error) {
	ctx, cancel := c.work(ctx)
	defer cancel()
	stream, err := c.query.Query(ctx, req)
	if err != nil {
		return "", err
	}
	return q.show(c, coll, stream.Recv)
}

// orders reads --order-by. A space before asc or desc does as well as a colon, for that is how SQL has it.
func (q *queryCmd) orders() ([]*qnpb.OrderBy, error) {
	var out []*qnpb.OrderBy
	sqlOrder := regexp.MustCompile(`(?i)\s+(asc|desc)\s*$`)
	for _, text := range q.OrderBy {
		parts := strings.Split(sqlOrder.ReplaceAllString(text, ":$1"), ":")
		o := &qnpb.OrderBy{Field: parts[0]}
		for _, word := range parts[1:] {
			switch strings.ToLower(word) {
			case "asc", "nulls-last":
			case "desc":
				o.Descending = true
			case "nulls-first":
				o.NullsFirst = true
			default:
				return nil, usage(errors.Newf("--order-by %q: want asc, desc, nulls-first or nulls-last, not %q", text, word))
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// countsOnly reports whether --output-fields asks for the number of rows, and nothing else: that is --count, which knows no limit.
func (q *queryCmd) countsOnly() bool {
	return len(q.OutputFields) == 1 && len(q.GroupBy) == 0 && len(q.OrderBy) == 0 &&
		strings.EqualFold(strings.Join(strings.Fields(q.OutputFields[0]), ""), "count(*)")
}

func (q *queryCmd) fields(coll *qnpb.Collection) []string {
	switch {
	case q.Count:
		return []string{"count(*)"}
	case len(q.OutputFields) > 0:
		return q.OutputFields
	case len(q.GroupBy) > 0:
		return append(slices.Clone(q.GroupBy), "count(*)")
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

// show writes the pieces of the answer as they come; a table at the end. It
// returns the token for the next page.
func (q *queryCmd) show(c *client, coll *qnpb.Collection, next func() (*qnpb.QueryResponse, error)) (token string, err error) {
	t := &console.Table{}
	types := typesOf(coll.GetSchema())
	var stats *qnpb.ReadStats
	for {
		got, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if got.GetStats() != nil {
			token, stats = got.GetNextToken(), got.GetStats()
		}
		if q.Count && got.GetStats() != nil {
			if c.out.JSON() {
				doc := map[string]any{"count": got.GetCount(), "read_timestamp": got.GetReadTimestamp()}
				if m := missing(stats); m != nil {
					doc["missing"] = m
				}
				return "", c.out.Document(doc)
			}
			c.out.Printf("%d", got.GetCount())
			return "", showStats(c.out, stats, q.Explain)
		}
		for i := range int(got.GetRows()) {
			if c.out.JSON() {
				if err := c.out.Line(types.row(got.GetFields(), i)); err != nil {
					return "", err
				}
				continue
			}
			addRow(t, types, got.GetFields(), i)
		}
	}
	if !c.out.JSON() {
		showOrNone(c.out, t, "no rows")
		c.out.Notef("%s", c.out.PaintNote(console.Faint, console.Several(len(t.Rows), "row")))
	}
	if token != "" && !q.All {
		c.out.Notef("%s", c.out.PaintNote(console.Faint, "go on with --token "+token))
		if c.out.JSON() {
			if err := c.out.Line(map[string]any{"next_token": token}); err != nil {
				return "", err
			}
		}
	}
	return token, showStats(c.out, stats, q.Explain)
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
