package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// Limits of a query.
const (
	MaxOrders  = 16
	MaxGroupBy = 16
	MaxOutputs = 256
)

// Query asks for the rows that match a filter, in order of their keys or of
// OrderBy; or, with aggregates among the output fields or with GroupBy, for what
// they say about those rows.
type Query struct {
	Select
	Limit   int64
	Offset  int64
	OrderBy []OrderBy
	GroupBy []string
	Iterate bool   // one page of Limit rows
	Token   string // of the page before; implies Iterate
}

// OrderBy is one field of an order; see segments.Order.
type OrderBy struct {
	Field      string
	Descending bool
	NullsFirst bool
}

// countStar as the only output field asks for the number of rows.
const countStar = "count(*)"

// Rows is one piece of the answer to a Query.
type Rows struct {
	Batch         *schema.Batch
	Fields        []schema.Field // of Batch.Columns
	ReadTimestamp uint64
	Stats         *segments.ReadStats // of Get
}

// Answered is what there is to say once a query has been answered.
type Answered struct {
	*segments.QueryResult
	Counted   bool   // Count is what was asked for
	NextToken string // "" = there is no further page, or none was asked for
}

// asked is a query with its names resolved.
type asked struct {
	req segments.QueryRequest
	out []schema.Field // columns of the answer
	of  []int          // with aggregates, the column of segments' answer that each of them is
}

// Query calls emit for each piece of the answer.
func (n *Node) Query(ctx context.Context, q *Query, emit func(*Rows) error) (*Answered, error) {
	r, err := n.readable(ctx, q.Collection)
	if err != nil {
		return nil, err
	}
	a, err := n.resolve(ctx, r.coll, q)
	if err != nil {
		return nil, err
	}
	pk := r.coll.Schema.Primary()
	hash := uint64(0)
	if q.Iterate || q.Token != "" {
		hash = hashQuery(r.coll.ID, &a.req.Read)
		after, err := n.turnTo(&a.req.Read, q.Token, pageOfQuery, hash, pk)
		if err != nil {
			return nil, err
		}
		if after != nil {
			a.req.After = &after.Key
		}
		if err := n.checkRetained(r.coll, a.req.ReadTimestamp); err != nil {
			return nil, err
		}
		a.req.Page = true
	}
	a.req.Channels = r.must
	lacking := n.gated(r.coll, r.served, &a.req.Read)
	res, err := r.served.Query(ctx, &a.req, func(b *schema.Batch, at uint64) error {
		return emit(&Rows{Batch: a.arrange(b), Fields: a.out, ReadTimestamp: at})
	})
	if err != nil {
		return nil, err
	}
	lacking.addTo(&res.Stats)
	done := &Answered{QueryResult: res, Counted: a.req.CountOnly}
	if res.More {
		p := page{kind: pageOfQuery, at: res.ReadTimestamp, request: hash, cursor: segments.Cursor{Key: *res.Last}}
		done.NextToken = p.token(pk.Type == schema.VarChar)
	}
	return done, nil
}

// arrange puts columns into the order in which they were asked for, and keys of the
// dynamic field into the place of that.
func (a *asked) arrange(b *schema.Batch) *schema.Batch {
	if a.of == nil {
		pickMembers(a.out, b.Columns)
		return b
	}
	out := &schema.Batch{Rows: b.Rows}
	for _, i := range a.of {
		out.Columns = append(out.Columns, b.Columns[i])
	}
	return out
}

func (n *Node) resolve(ctx context.Context, coll *catalog.Collection, q *Query) (*asked, error) {
	if err := checkQuery(q); err != nil {
		return nil, err
	}
	a := &asked{}
	sel := q.Select
	if len(sel.OutputFields) == 1 && isCount(sel.OutputFields[0]) {
		sel.OutputFields = []string{countStar}
	}
	aggregates := len(q.GroupBy) > 0 || slices.ContainsFunc(sel.OutputFields, isAggregate)
	counted := aggregates && len(q.GroupBy) == 0 && len(sel.OutputFields) == 1 && sel.OutputFields[0] == countStar && len(q.OrderBy) == 0
	if aggregates {
		sel.OutputFields = nil
	}
	read, out, err := n.read(ctx, coll, &sel, true)
	if err != nil {
		return nil, err
	}
	a.req.Read, a.out = read, out
	a.req.Limit, a.req.Offset, a.req.BatchRows = clamp(q.Limit), clamp(q.Offset), batchRows(out)
	switch {
	case counted && (q.Limit > 0 || q.Offset > 0):
		return nil, errclass.New(errclass.Invalid, "count(*) is one number: no limit, no offset")
	case counted:
		a.req.CountOnly = true
		return a, nil
	case aggregates:
		a.req.BatchRows = 4096
		return a, a.aggregate(&coll.Schema, q)
	}
	for _, o := range q.OrderBy {
		f, err := scalarField(&coll.Schema, "order_by", o.Field)
		if err != nil {
			return nil, err
		}
		a.req.OrderBy = append(a.req.OrderBy, segments.Order{FieldID: f.ID, Descending: o.Descending, NullsFirst: o.NullsFirst})
	}
	return a, nil
}

func checkQuery(q *Query) error {
	paged := q.Iterate || q.Token != ""
	switch {
	case q.Limit < 0 || q.Offset < 0:
		return errclass.New(errclass.Invalid, "limit %d, offset %d: want 0 or more", q.Limit, q.Offset)
	case len(q.OrderBy) > MaxOrders || len(q.GroupBy) > MaxGroupBy || len(q.OutputFields) > MaxOutputs:
		return errclass.New(errclass.Invalid, "%d order_by, %d group_by_fields, %d output_fields: at most %d, %d and %d",
			len(q.OrderBy), len(q.GroupBy), len(q.OutputFields), MaxOrders, MaxGroupBy, MaxOutputs)
	case paged && (q.Limit < 1 || q.Limit > segments.MaxTopK):
		return errclass.New(errclass.Invalid, "pages: limit is %d, want 1 to %d rows a page", q.Limit, segments.MaxTopK)
	case paged && (q.Offset > 0 || len(q.OrderBy) > 0 || len(q.GroupBy) > 0 || slices.ContainsFunc(q.OutputFields, isAggregate)):
		return errclass.New(errclass.Invalid, "pages come in order of the primary key: no offset, order_by or aggregates")
	}
	return nil
}

// scalarField returns the field that a clause names.
func scalarField(s *schema.Schema, clause, name string) (schema.Field, error) {
	f, ok := s.Field(name)
	switch {
	case !ok:
		return f, noField(s, clause, name)
	case f.Type.IsVector() || f.Type == schema.JSON || f.Type == schema.Array:
		return f, errclass.New(errclass.Invalid, "%s: field %q is %s, want one with single values", clause, name, f.Type)
	}
	return f, nil
}

// noField is the error of a clause of a query that names what is no field. Some may be named elsewhere: it says so.
func noField(s *schema.Schema, clause, name string) error {
	where := ""
	if s.Dynamic || strings.Contains(name, "[") {
		where = "; orders, groups and aggregates of a query are of fields, not of dynamic ones or paths in JSON"
	}
	return errclass.With(errclass.New(errclass.NotFound, "%s: the collection has no field %q%s", clause, name, where), errclass.Field)
}

// isCount reports whether an output field is count(*), as people write it.
func isCount(text string) bool {
	f, arg, ok := splitAggregate(text)
	return ok && f == segments.Count && arg == "*"
}

// functions are the aggregate functions by name.
var functions = []segments.Func{segments.Count, segments.Min, segments.Max, segments.Sum, segments.Avg}

// splitAggregate splits "sum(price)".
func splitAggregate(text string) (f segments.Func, field string, ok bool) {
	name, rest, found := strings.Cut(strings.TrimSpace(text), "(")
	field, closed := strings.CutSuffix(rest, ")")
	if !found || !closed {
		return 0, "", false
	}
	for _, f := range functions {
		if strings.EqualFold(strings.TrimSpace(name), f.String()) {
			return f, strings.TrimSpace(field), true
		}
	}
	return 0, "", false
}

func isAggregate(text string) bool {
	_, _, ok := splitAggregate(text)
	return ok
}

// aggregate resolves groups, aggregates and the order of what they give.
func (a *asked) aggregate(s *schema.Schema, q *Query) error {
	a.out = nil
	var groups []schema.Field
	for _, name := range q.GroupBy {
		f, err := scalarField(s, "group_by_fields", name)
		if err != nil {
			return err
		}
		groups = append(groups, f)
		a.req.GroupBy = append(a.req.GroupBy, f.ID)
	}
	names := q.OutputFields
	if len(names) == 0 {
		names = q.GroupBy
	}
	for _, name := range names {
		f, arg, ok := splitAggregate(name)
		if !ok {
			i := slices.Index(q.GroupBy, name)
			if i < 0 {
				return errclass.New(errclass.Invalid, "output field %q: beside aggregates only fields of group_by_fields have one value", name)
			}
			a.out, a.of = append(a.out, groups[i]), append(a.of, i)
			continue
		}
		ag, field, err := aggregateOf(s, f, arg, name)
		if err != nil {
			return err
		}
		a.out, a.of = append(a.out, field), append(a.of, len(q.GroupBy)+len(a.req.Aggregates))
		a.req.Aggregates = append(a.req.Aggregates, ag)
	}
	for _, o := range q.OrderBy {
		column := -1
		if i := slices.Index(names, o.Field); i >= 0 {
			column = a.of[i]
		} else if i := slices.Index(q.GroupBy, o.Field); i >= 0 {
			column = i
		}
		if column < 0 {
			return errclass.New(errclass.Invalid, "order_by %q: want one of the output fields or of group_by_fields", o.Field)
		}
		a.req.OrderBy = append(a.req.OrderBy, segments.Order{Column: column, Descending: o.Descending, NullsFirst: o.NullsFirst})
	}
	return nil
}

// aggregateOf resolves one aggregate; the field describes its column.
func aggregateOf(s *schema.Schema, f segments.Func, arg, text string) (segments.Aggregate, schema.Field, error) {
	out := schema.Field{Name: text, Type: schema.Int64, Nullable: true}
	if f == segments.Count && arg == "*" {
		return segments.Aggregate{Func: f}, out, nil
	}
	field, ok := s.Field(arg)
	if !ok {
		return segments.Aggregate{}, out, noField(s, fmt.Sprintf("output field %q", text), arg)
	}
	if out.Type = f.ResultType(field.Type); out.Type == schema.None {
		return segments.Aggregate{}, out, errclass.New(errclass.Invalid, "output field %q: there is no %s of %s", text, f, field.Type)
	}
	return segments.Aggregate{Func: f, FieldID: field.ID}, out, nil
}

// batchRows is how many rows a piece of an answer holds: fewer if they are wide,
// so that one piece stays at about a MiB.
func batchRows(fields []schema.Field) int {
	width := 1
	for _, f := range fields {
		width += 8 + 4*f.Dim
		if f.Type == schema.Array || f.Type == schema.SparseFloatVector {
			width += 1 << 10
		}
	}
	return min(max((1<<20)/width, 1), 4096)
}

func clamp(n int64) int { return int(min(n, 1<<31-1)) }

// freeGet is what the answer of a Get may take even when memory is used up: for the
// few rows that are usual there is room.
const freeGet = 256 << 10

// Get returns rows by primary key, in order of the keys. They are all in memory at
// once, unlike those of a Query: class Exhausted if there is no room for them.
func (n *Node) Get(ctx context.Context, s Select, keys *schema.Column) (*Rows, error) {
	if k := keys.Rows(); k < 1 || k > MaxNQ {
		return nil, errclass.New(errclass.Invalid, "get: %d keys, want 1 to %d", k, MaxNQ)
	}
	if len(s.OutputFields) == 0 {
		s.OutputFields = []string{"*"}
	}
	s.keys = keys
	held := n.o.Segments.Ledger().Force(segments.KindScratch, 0)
	defer held.Release()
	var answer, taken, granted int64
	var all *Rows
	res, err := n.Query(ctx, &Query{Select: s}, func(r *Rows) error {
		bytes := r.Batch.Bytes()
		if answer += bytes; answer > n.o.MaxAnswerBytes {
			return errclass.New(errclass.Invalid, "get: the answer would have more than %d bytes (search.max_answer_bytes): ask for fewer keys or fields at a time", n.o.MaxAnswerBytes)
		}
		taken += 2 * bytes // columns grow by doubling
		if taken > freeGet {
			if err := held.Grow(taken - granted); err != nil {
				return errclass.Wrap(err, errclass.Exhausted, "get: ask for fewer keys or fields at a time")
			}
			granted = taken
		}
		if all == nil {
			all = r
			return nil
		}
		for i, c := range r.Batch.Columns {
			all.Batch.Columns[i].AppendRange(c, 0, r.Batch.Rows)
		}
		all.Batch.Rows += r.Batch.Rows
		return nil
	})
	if err != nil {
		return nil, err
	}
	if all == nil {
		all = &Rows{Batch: &schema.Batch{}, ReadTimestamp: res.ReadTimestamp}
	}
	all.Stats = &res.Stats
	return all, nil
}

// DeleteWhere deletes the rows that match a filter now: it reads their keys with
// STRONG and deletes those. It is not atomic. A row that one of the keys gets
// after the keys were read and before the delete is written is deleted too,
// whether it matches or not; one that begins to match meanwhile is not. After an
// error some of the keys may be deleted; repeating the call deletes the others.
func (n *Node) DeleteWhere(ctx context.Context, collection, partition, filter string, values map[string]any) (Appended, error) {
	if filter == "" {
		return Appended{}, errclass.New(errclass.Invalid, "delete: send ids or a filter")
	}
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return Appended{}, err
	}
	pk := coll.Schema.Primary()
	q := &Query{Select: Select{Collection: collection, Filter: filter, Values: values, OutputFields: []string{pk.Name}, Freshness: Freshness{Level: Strong}}}
	if partition != "" {
		q.Partitions = []string{partition}
	}
	keys := schema.NewColumn(pk, 0)
	// Deletes give memory back in the end, so they may go past the limit.
	held := n.o.Segments.Ledger().Force(segments.KindScratch, 0)
	defer held.Release()
	if _, err := n.Query(ctx, q, func(r *Rows) error {
		keys.AppendRange(r.Batch.Columns[0], 0, r.Batch.Rows)
		held.Commit(2 * keys.Bytes()) // and again on their way into the log
		return nil
	}); err != nil {
		return Appended{}, err
	}
	if keys.Rows() == 0 {
		return Appended{Keys: keys}, nil
	}
	return n.Delete(ctx, collection, partition, keys)
}
