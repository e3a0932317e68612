package node

import (
	"context"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// Consistency says how fresh an answer has to be.
type Consistency uint8

// The levels; the zero value is Bounded.
const (
	Bounded Consistency = iota
	Strong
	Session
	Eventually
)

// Freshness says at which point in time a read happens.
type Freshness struct {
	Level     Consistency
	Guarantee uint64 // Session: hybrid timestamp that must have been applied
	Read      uint64 // read as of this hybrid timestamp; 0 = now
}

// Select is what searches and queries have in common.
type Select struct {
	Collection    string
	Partitions    []string
	Filter        string
	Values        map[string]any // for the filter's {placeholders}
	OutputFields  []string       // "*" = see the use
	IgnoreGrowing bool
	AllowPartial  bool
	Freshness     Freshness
}

// Limits of a search.
const (
	MaxNQ = 16_384
	MaxEF = 32_768
)

// Search asks for the nearest rows to each of a number of vectors.
type Search struct {
	Select
	Field       string // "" = the only vector field
	Vectors     []float32
	Dim         int
	TopK        int64
	Offset      int64
	Metric      string // "" = the index's
	EF          int
	Radius      *float32
	RangeFilter *float32
}

// Found is the answer to a Search.
type Found struct {
	*segments.SearchResult
	Output []schema.Field // of SearchResult.Fields
	Metric index.Metric
}

// Search answers q.
func (n *Node) Search(ctx context.Context, q *Search) (*Found, error) {
	coll, err := n.Collection(ctx, q.Collection)
	if err != nil {
		return nil, err
	}
	served, ok := n.o.Segments.Collection(coll.ID)
	if !ok {
		return nil, notLoaded(coll)
	}
	must, err := n.mustRead(coll)
	if err != nil {
		return nil, err
	}
	req := &segments.SearchRequest{Vectors: q.Vectors, EF: q.EF, Radius: q.Radius, RangeFilter: q.RangeFilter}
	field, err := vectorField(&coll.Schema, q.Field)
	if err != nil {
		return nil, err
	}
	if err := checkSearch(q, field); err != nil {
		return nil, err
	}
	req.FieldID, req.NQ, req.TopK, req.Offset = field.ID, len(q.Vectors)/q.Dim, int(q.TopK), int(q.Offset)
	if req.Metric, err = metricOf(served.Info(), field, q.Metric); err != nil {
		return nil, err
	}
	if err := checkRange(q, req.Metric); err != nil {
		return nil, err
	}
	scalar := func(f schema.Field) bool { return !f.Type.IsVector() && !f.PrimaryKey }
	var out []schema.Field
	if req.Read, out, err = n.read(ctx, coll, &q.Select, scalar, false); err != nil {
		return nil, err
	}
	req.Channels = must
	lacking := n.gated(coll, served, &req.Read)
	res, err := served.Search(ctx, req)
	if err != nil {
		return nil, err
	}
	lacking.addTo(&res.Stats)
	return &Found{SearchResult: res, Output: out, Metric: req.Metric}, nil
}

func checkSearch(q *Search, field schema.Field) error {
	switch {
	case q.Dim != field.Dim:
		return errclass.New(errclass.Invalid, "vectors have dimension %d, field %q has %d", q.Dim, field.Name, field.Dim)
	case len(q.Vectors) == 0:
		return errclass.New(errclass.Invalid, "vectors: send at least one")
	case len(q.Vectors)/q.Dim > MaxNQ:
		return errclass.New(errclass.Invalid, "%d vectors in one search, at most %d: send them in several", len(q.Vectors)/q.Dim, MaxNQ)
	case q.TopK < 1:
		return errclass.New(errclass.Invalid, "top_k is %d, want 1 to %d", q.TopK, segments.MaxTopK)
	case q.Offset < 0:
		return errclass.New(errclass.Invalid, "offset is %d, want 0 or more", q.Offset)
	case q.TopK > segments.MaxTopK || q.Offset > segments.MaxTopK || q.TopK+q.Offset > segments.MaxTopK:
		return errclass.New(errclass.Invalid, "top_k + offset is %d + %d, at most %d", q.TopK, q.Offset, segments.MaxTopK)
	case q.EF < 0 || q.EF > MaxEF:
		return errclass.New(errclass.Invalid, "ef is %d, want 0 to %d", q.EF, MaxEF)
	case q.EF != 0 && int64(q.EF) < q.TopK:
		return errclass.New(errclass.Invalid, "ef is %d, want at least top_k, which is %d, or 0 to leave it to the node", q.EF, q.TopK)
	}
	for i, v := range q.Vectors {
		if v-v != 0 {
			return errclass.New(errclass.Invalid, "vector %d, dimension %d is %v: vectors must be finite", i/q.Dim, i%q.Dim, v)
		}
	}
	return nil
}

// checkRange refuses a range that no score can be in.
func checkRange(q *Search, m index.Metric) error {
	r, f := q.Radius, q.RangeFilter
	switch {
	case r != nil && *r != *r:
		return errclass.New(errclass.Invalid, "radius is NaN")
	case f != nil && *f != *f:
		return errclass.New(errclass.Invalid, "range_filter is NaN")
	case r == nil || f == nil:
		return nil
	case m == index.L2 && *f >= *r:
		return errclass.New(errclass.Invalid, "no score is at least range_filter %v and below radius %v: for L2 range_filter is the smaller one", *f, *r)
	case m != index.L2 && *f <= *r:
		return errclass.New(errclass.Invalid, "no score is above radius %v and at most range_filter %v: for %s range_filter is the larger one", *r, *f, m)
	}
	return nil
}

func vectorField(s *schema.Schema, name string) (schema.Field, error) {
	found, n := schema.Field{}, 0
	for i := range s.Fields {
		if f := &s.Fields[i]; f.Type.IsVector() && (name == "" || f.Name == name) {
			found, n = *f, n+1
		}
	}
	switch {
	case n == 1:
		return found, nil
	case n > 1:
		return schema.Field{}, errclass.New(errclass.Invalid, "the collection has %d vector fields: name the one to search", n)
	}
	if f, ok := s.Field(name); ok {
		return f, errclass.New(errclass.Invalid, "field %q is %s, not a vector", name, f.Type)
	}
	return schema.Field{}, errclass.New(errclass.NotFound, "no vector field %q", name)
}

func metricOf(info segments.CollectionInfo, f schema.Field, name string) (index.Metric, error) {
	have := info.Indexes[f.ID].Metric
	if name == "" {
		return have, nil
	}
	m, err := index.ParseMetric(name)
	if err != nil {
		return 0, err
	}
	if m != have {
		return 0, errclass.New(errclass.Invalid, "metric %s: field %q is indexed by %s; leave the metric empty or create another index", m, f.Name, have)
	}
	return m, nil
}

// read translates what reads have in common. star says what "*" stands for;
// withKey puts the primary key first.
func (n *Node) read(ctx context.Context, coll *catalog.Collection, q *Select, star func(schema.Field) bool, withKey bool) (segments.Read, []schema.Field, error) {
	r := segments.Read{IgnoreGrowing: q.IgnoreGrowing, AllowPartial: q.AllowPartial, ReadTimestamp: q.Freshness.Read}
	err := n.checkRetained(coll, r.ReadTimestamp)
	if err != nil {
		return r, nil, err
	}
	if r.Partitions, err = partitionIDs(coll, q.Partitions); err != nil {
		return r, nil, err
	}
	if q.Filter != "" {
		if r.Plan, err = expr.Compile(q.Filter, &coll.Schema, q.Values); err != nil {
			return r, nil, err
		}
	}
	out, err := outputFields(&coll.Schema, q.OutputFields, star, withKey)
	if err != nil {
		return r, nil, err
	}
	for _, f := range out {
		r.OutputFields = append(r.OutputFields, f.ID)
	}
	r.Guarantee, err = n.guarantee(ctx, coll, q.Freshness)
	return r, out, err
}

func outputFields(s *schema.Schema, names []string, star func(schema.Field) bool, withKey bool) ([]schema.Field, error) {
	var out []schema.Field
	add := func(f schema.Field) {
		if !slices.ContainsFunc(out, func(o schema.Field) bool { return o.ID == f.ID }) {
			out = append(out, f)
		}
	}
	if withKey {
		add(s.Primary())
	}
	for _, name := range names {
		if name == "*" {
			for _, f := range s.Columns() {
				if star(f) {
					add(f)
				}
			}
			continue
		}
		f, ok := s.Field(name)
		if !ok {
			return nil, errclass.New(errclass.NotFound, "output field %q: the collection has no such field", name)
		}
		add(f)
	}
	return out, nil
}

// maxAhead is how far a timestamp of a request may be ahead of this node's
// clock: other nodes' clocks differ. One beyond it was never given out, and
// waiting for it would only end with the deadline.
const maxAhead = time.Minute

func (n *Node) checkAhead(what string, ts uint64) error {
	if now := n.o.Now(); ts > wal.FromTime(now.Add(maxAhead)) {
		return errclass.New(errclass.Invalid, "%s %d is %s ahead of this node's clock: send one that a node returned (milliseconds since 1970 << 18 | logical)",
			what, ts, wal.Time(ts).Sub(now).Round(time.Second))
	}
	return nil
}

// guarantee returns the timestamp that must have been applied, per channel.
func (n *Node) guarantee(ctx context.Context, coll *catalog.Collection, f Freshness) (func(string) uint64, error) {
	if err := n.checkAhead("read_timestamp", f.Read); err != nil {
		return nil, err
	}
	if f.Read != 0 {
		return nil, nil
	}
	switch f.Level {
	case Strong:
		return n.strong(ctx, coll)
	case Session:
		if err := n.checkAhead("guarantee_timestamp", f.Guarantee); err != nil {
			return nil, err
		}
		return func(string) uint64 { return f.Guarantee }, nil
	case Eventually:
		return nil, nil
	case Bounded:
		ts := wal.FromTime(n.o.Now().Add(-n.o.BoundedStaleness))
		if !n.o.Standalone {
			return func(string) uint64 { return ts }, nil
		}
		// Nobody else writes to the logs, so what was acknowledged here is all there
		// is: reads go on while the log cannot be written, not even its timeticks.
		at := n.believed(coll)
		return func(vchannel string) uint64 { return min(ts, at(vchannel)) }, nil
	}
	return nil, errclass.New(errclass.Invalid, "consistency level %d is unknown", f.Level)
}

// Query asks for the rows that match a filter, in order of their keys.
type Query struct {
	Select
	Limit  int64
	Offset int64
}

// countStar as the only output field asks for the number of rows.
const countStar = "count(*)"

// Rows is one piece of the answer to a Query.
type Rows struct {
	Batch         *schema.Batch
	Fields        []schema.Field // of Batch.Columns
	ReadTimestamp uint64
}

// Query calls emit for each piece of the answer. counted says that the result's
// Count is what was asked for.
func (n *Node) Query(ctx context.Context, q *Query, emit func(*Rows) error) (res *segments.QueryResult, counted bool, err error) {
	coll, err := n.Collection(ctx, q.Collection)
	if err != nil {
		return nil, false, err
	}
	served, ok := n.o.Segments.Collection(coll.ID)
	if !ok {
		return nil, false, notLoaded(coll)
	}
	must, err := n.mustRead(coll)
	if err != nil {
		return nil, false, err
	}
	if q.Limit < 0 || q.Offset < 0 {
		return nil, false, errclass.New(errclass.Invalid, "limit %d, offset %d: want 0 or more", q.Limit, q.Offset)
	}
	req := &segments.QueryRequest{Limit: clamp(q.Limit), Offset: clamp(q.Offset)}
	sel := q.Select
	if slices.Contains(sel.OutputFields, countStar) {
		if len(sel.OutputFields) > 1 || q.Limit > 0 || q.Offset > 0 {
			return nil, false, errclass.New(errclass.Invalid, "count(*) stands alone: no other output fields, no limit, no offset")
		}
		req.CountOnly, sel.OutputFields = true, nil
	}
	var out []schema.Field
	if req.Read, out, err = n.read(ctx, coll, &sel, func(schema.Field) bool { return true }, true); err != nil {
		return nil, false, err
	}
	req.Channels = must
	lacking := n.gated(coll, served, &req.Read)
	req.BatchRows = batchRows(out)
	res, err = served.Query(ctx, req, func(b *schema.Batch, at uint64) error {
		return emit(&Rows{Batch: b, Fields: out, ReadTimestamp: at})
	})
	if err != nil {
		return nil, false, err
	}
	lacking.addTo(&res.Stats)
	return res, req.CountOnly, nil
}

// batchRows is how many rows a piece of an answer holds: fewer if they are wide,
// so that one piece stays at about a MiB.
func batchRows(fields []schema.Field) int {
	width := 1
	for _, f := range fields {
		width += 8 + 4*f.Dim
	}
	return min(max((1<<20)/width, 1), 4096)
}

func clamp(n int64) int { return int(min(n, 1<<31-1)) }

// Get returns rows by primary key, in order of the keys.
func (n *Node) Get(ctx context.Context, s Select, keys *schema.Column) (*Rows, error) {
	coll, err := n.Collection(ctx, s.Collection)
	if err != nil {
		return nil, err
	}
	if k := keys.Rows(); k < 1 || k > MaxNQ {
		return nil, errclass.New(errclass.Invalid, "get: %d keys, want 1 to %d", k, MaxNQ)
	}
	if len(s.OutputFields) == 0 {
		s.OutputFields = []string{"*"}
	}
	s.Filter = coll.Schema.Primary().Name + " in {keys}"
	s.Values = map[string]any{"keys": keys.Int}
	if keys.Type == schema.VarChar {
		s.Values = map[string]any{"keys": keys.Str}
	}
	var all *Rows
	res, _, err := n.Query(ctx, &Query{Select: s}, func(r *Rows) error {
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
	return all, nil
}

// DeleteWhere deletes the rows that match a filter now.
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
	if _, _, err := n.Query(ctx, q, func(r *Rows) error {
		keys.AppendRange(r.Batch.Columns[0], 0, r.Batch.Rows)
		return nil
	}); err != nil {
		return Appended{}, err
	}
	if keys.Rows() == 0 {
		return Appended{Keys: keys}, nil
	}
	return n.Delete(ctx, collection, partition, keys)
}

// Uptime is the time since the node was opened.
func (n *Node) Uptime() time.Duration { return n.o.Now().Sub(n.started) }
