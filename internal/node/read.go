package node

import (
	"context"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/rowpb"
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
	OutputFields  []string       // "*" = all but what functions make, vectors too
	IgnoreGrowing bool
	AllowPartial  bool
	Freshness     Freshness
	Explain       bool // the stats tell what was done in each segment

	keys *schema.Column // instead of Filter: the rows of these primary keys
}

// Limits of a search.
const (
	MaxNQ        = 16_384
	MaxEF        = 32_768
	MaxGroupSize = 1024
)

// Search asks for the nearest rows to each of a number of vectors.
type Search struct {
	Select
	Field   string    // "" = the only vector field
	Vectors []float32 // of a field of float32
	Dim     int
	// Queries returns the vectors for a field of another type. It knows what the
	// request has.
	Queries     func(schema.Field) (*schema.Column, error)
	Texts       []string // for a field that a function of type BM25 makes, instead of vectors
	TopK        int64
	Offset      int64
	Metric      string // "" = the index's
	Effort      segments.Effort
	Radius      *float32
	RangeFilter *float32
	GroupBy     string // "" = no groups; else TopK and Offset count groups
	GroupSize   int64  // rows per group; 0 = 1
	StrictGroup bool   // groups are filled if there are rows to fill them
	Iterate     bool   // one page of TopK rows
	Token       string // of the page before; implies Iterate
}

// Found is the answer to a Search.
type Found struct {
	*segments.SearchResult
	Output    []schema.Field // of SearchResult.Fields
	Metric    index.Metric
	GroupBy   schema.Field // of SearchResult.GroupValues
	NextToken string       // "" = there is no further page, or none was asked for
}

// readable is a collection that reads can go to.
type readable struct {
	coll   *catalog.Collection
	served *segments.Collection
	must   []string // channels that an answer needs
}

func (n *Node) readable(ctx context.Context, collection string) (readable, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return readable{}, err
	}
	served, ok := n.o.Segments.Collection(coll.ID)
	if !ok {
		return readable{}, notLoaded(coll)
	}
	if err := n.catchUp(coll, served); err != nil {
		return readable{}, err
	}
	must, err := n.mustRead(coll)
	return readable{coll, served, must}, err
}

// Search answers q.
func (n *Node) Search(ctx context.Context, q *Search) (*Found, error) {
	r, err := n.readable(ctx, q.Collection)
	if err != nil {
		return nil, err
	}
	req := &segments.SearchRequest{Vectors: q.Vectors, Radius: q.Radius, RangeFilter: q.RangeFilter}
	field, err := vectorField(&r.coll.Schema, q.Field)
	if err != nil {
		return nil, err
	}
	if req.NQ, req.Queries, err = checkSearch(&r.coll.Schema, q, field); err != nil {
		return nil, err
	}
	req.FieldID, req.TopK, req.Offset = field.ID, int(q.TopK), int(q.Offset)
	if req.Metric, err = metricOf(r.served.Info(), field, q.Metric); err != nil {
		return nil, err
	}
	if req.Effort, err = effortOf(r.served.Info(), field, q); err != nil {
		return nil, err
	}
	if err := checkRange(q, req.Metric); err != nil {
		return nil, err
	}
	found := &Found{Metric: req.Metric}
	if q.GroupBy != "" || q.GroupSize != 0 || q.StrictGroup {
		req.Group = &segments.Grouping{Size: int(q.GroupSize), Strict: q.StrictGroup}
		if found.GroupBy, req.Group.Path, err = groupField(&r.coll.Schema, q); err != nil {
			return nil, err
		}
		req.Group.FieldID = found.GroupBy.ID
	}
	if req.Read, found.Output, err = n.read(ctx, r.coll, &q.Select, false); err != nil {
		return nil, err
	}
	hash := uint64(0)
	if q.Iterate || q.Token != "" {
		if hash, err = n.toPage(r.coll, q, req); err != nil {
			return nil, err
		}
	}
	req.Channels = r.must
	lacking := n.gated(r.coll, r.served, &req.Read)
	res, err := r.served.Search(ctx, req)
	if err != nil {
		return nil, err
	}
	lacking.addTo(&res.Stats)
	found.SearchResult = res
	pickMembers(found.Output, res.Fields)
	if res.More {
		p := page{kind: pageOfSearch, at: res.ReadTimestamp, request: hash, cursor: *res.Last}
		found.NextToken = p.token(r.coll.Schema.Primary().Type == schema.VarChar)
	}
	return found, nil
}

// toPage makes req one for the page that q asks for, and returns its hash.
func (n *Node) toPage(coll *catalog.Collection, q *Search, req *segments.SearchRequest) (uint64, error) {
	if req.NQ != 1 || q.Offset != 0 || req.Group != nil {
		return 0, errclass.New(errclass.Invalid, "pages: want one vector, no offset and no groups")
	}
	hash := hashSearch(coll.ID, req)
	after, err := n.turnTo(&req.Read, q.Token, pageOfSearch, hash, coll.Schema.Primary())
	if err != nil {
		return 0, err
	}
	req.Page = &segments.Paging{After: after, Request: hash}
	return hash, n.checkRetained(coll, req.ReadTimestamp)
}

// groupField returns what a search for groups goes by: a field, or a path into one, which then
// has the path as its name.
func groupField(s *schema.Schema, q *Search) (f schema.Field, path *expr.Path, err error) {
	if q.GroupBy == "" {
		return f, nil, errclass.New(errclass.Invalid, "group_size, strict_group_size and rank_group_scorer go with group_by_field")
	}
	if f, path, err = groupPath(s, q.GroupBy); err != nil {
		return f, nil, err
	}
	switch {
	case f.Type == schema.Float || f.Type == schema.Double:
		err = errclass.New(errclass.Invalid, "group_by_field: field %q is %s, want Bool, an integer, a time or VarChar", f.Name, f.Type)
	case q.GroupSize < 0 || q.GroupSize > MaxGroupSize:
		err = errclass.New(errclass.Invalid, "group_size is %d, want 1 to %d", q.GroupSize, MaxGroupSize)
	case (q.TopK+q.Offset)*max(q.GroupSize, 1) > segments.MaxTopK:
		err = errclass.New(errclass.Invalid, "(top_k + offset) * group_size is (%d + %d) * %d, at most %d", q.TopK, q.Offset, q.GroupSize, segments.MaxTopK)
	}
	return f, path, err
}

// groupPath resolves a name, or meta["key"], or a key of the dynamic field.
func groupPath(s *schema.Schema, name string) (schema.Field, *expr.Path, error) {
	_, is := s.Field(name)
	if is || !s.Dynamic && !strings.Contains(name, "[") {
		f, err := scalarField(s, "group_by_field", name)
		return f, nil, err
	}
	f, path, err := expr.ParsePath(name, s)
	if err != nil {
		return f, nil, errclass.Wrap(err, errclass.Invalid, "group_by_field")
	}
	f.Name, f.Nullable = path.String(), true
	return f, path, nil
}

// checkSearch returns the number of vectors, and these themselves if the field is
// not of float32.
func checkSearch(s *schema.Schema, q *Search, field schema.Field) (nq int, other *schema.Column, err error) {
	if err := checkTopK(q.TopK, q.Offset); err != nil {
		return 0, nil, err
	}
	if nq, other, err = queriesOf(s, q, field); err != nil {
		return 0, nil, err
	}
	switch {
	case nq == 0:
		return 0, nil, errclass.New(errclass.Invalid, "vectors: send at least one")
	case nq > MaxNQ:
		return 0, nil, errclass.New(errclass.Invalid, "%d vectors in one search, at most %d: send them in several", nq, MaxNQ)
	}
	return nq, other, nil
}

// queriesOf returns the number of queries, and these themselves if the field is not
// of float32.
func queriesOf(s *schema.Schema, q *Search, field schema.Field) (nq int, other *schema.Column, err error) {
	fn, made := s.FunctionOf(field.ID)
	switch {
	case made && len(q.Texts) == 0:
		in, _ := s.FieldByID(fn.Input)
		return 0, nil, errclass.New(errclass.Invalid, "field %q holds the words of %q: send texts, not vectors", field.Name, in.Name)
	case len(q.Texts) > MaxNQ:
		return len(q.Texts), nil, nil // too many to be cut into words
	case len(q.Texts) > 0:
		other, err = rowpb.Texts(s, field, q.Texts)
	case field.Type == schema.FloatVector:
		nq, err = checkVectors(q, field)
		return nq, nil, err
	default:
		other, err = q.Queries(field)
	}
	if err != nil {
		return 0, nil, err
	}
	return other.Rows(), other, nil
}

func checkVectors(q *Search, field schema.Field) (nq int, err error) {
	switch {
	case q.Vectors == nil && q.Dim == 0 && q.Queries != nil:
		return 0, errclass.New(errclass.Invalid, "field %q is %s: send vectors, not byte_vectors or sparse_vectors", field.Name, field.Type)
	case q.Dim != field.Dim:
		return 0, errclass.New(errclass.Invalid, "vectors have dimension %d, field %q has %d", q.Dim, field.Name, field.Dim)
	}
	return len(q.Vectors) / q.Dim, rowpb.CheckQueries(q.Vectors, field)
}

func checkTopK(k, offset int64) error {
	switch {
	case k < 1:
		return errclass.New(errclass.Invalid, "top_k is %d, want 1 to %d", k, segments.MaxTopK)
	case offset < 0:
		return errclass.New(errclass.Invalid, "offset is %d, want 0 or more", offset)
	case k > segments.MaxTopK || offset > segments.MaxTopK || k+offset > segments.MaxTopK:
		return errclass.New(errclass.Invalid, "top_k + offset is %d + %d, at most %d", k, offset, segments.MaxTopK)
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
	case m.Ascends() && *f >= *r:
		return errclass.New(errclass.Invalid, "no score is at least range_filter %v and below radius %v: for %s range_filter is the smaller one", *f, *r, m)
	case !m.Ascends() && *f <= *r:
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
	return schema.Field{}, errclass.With(errclass.New(errclass.NotFound, "no vector field %q", name), errclass.Field)
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

// read translates what reads have in common. withKey puts the primary key first.
func (n *Node) read(ctx context.Context, coll *catalog.Collection, q *Select, withKey bool) (segments.Read, []schema.Field, error) {
	r := segments.Read{IgnoreGrowing: q.IgnoreGrowing, AllowPartial: q.AllowPartial, ReadTimestamp: q.Freshness.Read, Explain: q.Explain, MaxBytes: n.o.MaxAnswerBytes}
	err := n.checkRetained(coll, r.ReadTimestamp)
	if err != nil {
		return r, nil, err
	}
	if r.Partitions, err = partitionIDs(coll, q.Partitions); err != nil {
		return r, nil, err
	}
	switch {
	case q.keys != nil:
		r.Plan, err = expr.CompileKeys(q.keys, &coll.Schema)
	case q.Filter != "":
		r.Plan, err = expr.Compile(q.Filter, &coll.Schema, q.Values, coll.Properties[PropertyTimezone])
	}
	if err != nil {
		return r, nil, err
	}
	out, err := outputFields(&coll.Schema, q.OutputFields, withKey)
	if err != nil {
		return r, nil, err
	}
	for _, f := range out {
		r.OutputFields = append(r.OutputFields, f.ID)
	}
	return r, out, n.guarantee(ctx, coll, q.Freshness, &r)
}

// maxAhead is how far a timestamp of a request may be ahead of this node's
// clock: other nodes' clocks differ. One beyond it was never given out, and
// waiting for it would only end with the deadline. It may be as far ahead as a log is.
const maxAhead = time.Minute

func (n *Node) checkAhead(what string, ts uint64) error {
	if ts == 0 {
		return nil
	}
	now := n.o.Now()
	if ts <= wal.FromTime(now.Add(maxAhead)) {
		return nil
	}
	end := now
	for _, newest := range n.newest() {
		if at := wal.Time(newest); at.After(end) {
			end = at
		}
	}
	if ts > wal.FromTime(end.Add(maxAhead)) {
		return errclass.New(errclass.Invalid, "%s %d is %s ahead of this node's clock: send one that a node returned (milliseconds since 1970 << 18 | logical)",
			what, ts, wal.Time(ts).Sub(now).Round(time.Second))
	}
	return nil
}

// guarantee sets the timestamp that must have been applied, per channel.
func (n *Node) guarantee(ctx context.Context, coll *catalog.Collection, f Freshness, r *segments.Read) (err error) {
	if err := n.checkAhead("read_timestamp", f.Read); err != nil {
		return err
	}
	if f.Read != 0 {
		return nil
	}
	switch f.Level {
	case Strong:
		r.Guarantee, err = n.strong(ctx, coll)
		return err
	case Session:
		r.Guarantee = func(string) uint64 { return f.Guarantee }
		return n.checkAhead("guarantee_timestamp", f.Guarantee)
	case Eventually:
		return nil
	case Bounded:
		ts := wal.FromTime(n.o.Now().Add(-n.o.BoundedStaleness))
		r.Enough = ts
		// Who owns a log that others can take may have been replaced without knowing:
		// a timetick says more than what it remembers. Where nobody else writes to the logs,
		// what was acknowledged here is all there is: reads go on while the log cannot be
		// written, not even its timeticks.
		sole := n.o.Standalone && n.o.Sole
		r.Guarantee = func(vchannel string) uint64 {
			if sole {
				return min(ts, n.believed(coll, vchannel))
			}
			return ts
		}
		return nil
	}
	return errclass.New(errclass.Invalid, "consistency level %d is unknown", f.Level)
}

// Uptime is the time since the node was opened.
func (n *Node) Uptime() time.Duration { return n.o.Now().Sub(n.started) }
