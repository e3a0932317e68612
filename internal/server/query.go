package server

import (
	"context"
	"encoding/json"
	"math"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// queryService serves QueryService.
type queryService struct {
	qnpb.UnimplementedQueryServiceServer
	node *node.Node
}

// Search finds the nearest rows to each of a number of vectors.
func (s *queryService) Search(ctx context.Context, r *qnpb.SearchRequest) (*qnpb.SearchResponse, error) {
	vectors, err := toVectors(r)
	if err != nil {
		return nil, err
	}
	if err := checkDecimals(r.RoundDecimal); err != nil {
		return nil, err
	}
	values, err := toValues(r.GetFilterValues())
	if err != nil {
		return nil, err
	}
	fresh, err := toFreshness(r.GetFreshness())
	if err != nil {
		return nil, err
	}
	found, err := s.node.Search(ctx, &node.Search{
		Select: node.Select{
			Collection: r.GetCollection(), Partitions: r.GetPartitions(), Filter: r.GetFilter(), Values: values, OutputFields: r.GetOutputFields(),
			IgnoreGrowing: r.GetIgnoreGrowing(), AllowPartial: r.GetAllowPartial(), Freshness: fresh, Explain: r.GetExplain(),
		},
		Field: r.GetField(), Vectors: vectors, Dim: int(r.GetVectors().GetDim()), Queries: queriesOf(r), Texts: r.GetTexts(), TopK: r.GetTopK(), Offset: r.GetOffset(),
		Metric: r.GetMetric(), Effort: effortOf(r), Radius: r.Radius, RangeFilter: r.RangeFilter,
		GroupBy: r.GetGroupByField(), GroupSize: r.GetGroupSize(), StrictGroup: r.GetStrictGroupSize(),
		Iterate: r.GetIterate(), Token: r.GetToken(),
	})
	if err != nil {
		return nil, err
	}
	a := new(searchAnswer)
	out := &a.SearchResponse
	out.Counts, out.Scores, out.Fields = found.Counts, found.Scores, outputOf(found)
	out.ReadTimestamp, out.GroupCounts, out.NextToken = found.ReadTimestamp, found.GroupCounts, found.NextToken
	out.Ids, out.Stats = a.keys(found.Keys), a.setStats(&found.Stats)
	if found.GroupValues != nil {
		out.GroupValues = rowpb.FromColumn(found.GroupValues, found.GroupBy)
	}
	round(out.Scores, r.RoundDecimal)
	return out, nil
}

// searchAnswer is an answer with the messages in it, so that they are one object for
// the collector.
type searchAnswer struct {
	qnpb.SearchResponse
	ids   qnpb.Ids
	ints  qnpb.Ids_Ints
	array qnpb.Int64Array
	stats qnpb.ReadStats
}

// keys is rowpb.ToIDs in the answer's memory.
func (a *searchAnswer) keys(c *schema.Column) *qnpb.Ids {
	if c.Type != schema.Int64 {
		return rowpb.ToIDs(c)
	}
	a.array.Values = c.Int
	a.ints.Ints = &a.array
	a.ids.Keys = &a.ints
	return &a.ids
}

func (a *searchAnswer) setStats(s *segments.ReadStats) *qnpb.ReadStats {
	setStats(&a.stats, s)
	return &a.stats
}

// HybridSearch runs several searches and fuses their hits.
func (s *queryService) HybridSearch(ctx context.Context, r *qnpb.HybridSearchRequest) (*qnpb.HybridSearchResponse, error) {
	if err := checkDecimals(r.RoundDecimal); err != nil {
		return nil, err
	}
	fresh, err := toFreshness(r.GetFreshness())
	if err != nil {
		return nil, err
	}
	q := &node.Hybrid{
		Select: node.Select{
			Collection: r.GetCollection(), Partitions: r.GetPartitions(), OutputFields: r.GetOutputFields(),
			IgnoreGrowing: r.GetIgnoreGrowing(), AllowPartial: r.GetAllowPartial(), Freshness: fresh, Explain: r.GetExplain(),
		},
		TopK: r.GetTopK(), Offset: r.GetOffset(), Ranker: segments.Ranker{RRF: r.GetRrf().GetK()},
		GroupBy: r.GetGroupByField(), GroupSize: r.GetGroupSize(), StrictGroup: r.GetStrictGroupSize(), GroupScorer: r.GetRankGroupScorer(),
	}
	if w := r.GetWeighted(); w != nil {
		q.Ranker = segments.Ranker{Weights: append([]float32{}, w.GetWeights()...), Normalize: w.GetNormScore()}
	}
	for i, sub := range r.GetSearches() {
		one, err := toSubSearch(sub)
		if err != nil {
			return nil, errclass.Wrap(err, errclass.Of(err), "searches[%d]", i)
		}
		q.Searches = append(q.Searches, *one)
	}
	found, err := s.node.HybridSearch(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &qnpb.HybridSearchResponse{
		Counts: found.Counts, Ids: rowpb.ToIDs(found.Keys), Scores: found.Scores, Fields: outputOf(found),
		ReadTimestamp: found.ReadTimestamp, Stats: fromStats(&found.Stats), GroupCounts: found.GroupCounts,
	}
	if found.GroupValues != nil {
		out.GroupValues = rowpb.FromColumn(found.GroupValues, found.GroupBy)
	}
	round(out.Scores, r.RoundDecimal)
	return out, nil
}

func toSubSearch(r *qnpb.SubSearch) (*node.Search, error) {
	vectors, err := toVectors(r)
	if err != nil {
		return nil, err
	}
	values, err := toValues(r.GetFilterValues())
	if err != nil {
		return nil, err
	}
	return &node.Search{
		Select: node.Select{Filter: r.GetFilter(), Values: values},
		Field:  r.GetField(), Vectors: vectors, Dim: int(r.GetVectors().GetDim()), Queries: queriesOf(r), Texts: r.GetTexts(), TopK: r.GetTopK(),
		Metric: r.GetMetric(), Effort: effortOf(r), Radius: r.Radius, RangeFilter: r.RangeFilter,
	}, nil
}

// effortOf is how much work a request wants to be done.
func effortOf(r interface {
	GetEf() int32
	GetNprobe() int32
	GetReorderK() int32
	GetRefineK() float32
	GetRecall() float32
}) segments.Effort {
	return segments.Effort{EF: int(r.GetEf()), Lists: int(r.GetNprobe()), Reorder: int(r.GetReorderK()), Refine: r.GetRefineK(), Recall: r.GetRecall()}
}

// vectorsOf is a request with queries in one of four forms.
type vectorsOf interface {
	GetVectors() *qnpb.FloatVectors
	GetByteVectors() *qnpb.ByteVectors
	GetSparseVectors() *qnpb.SparseVectors
	GetTexts() []string
}

// toVectors returns the query vectors if they are of float32.
func toVectors(r vectorsOf) ([]float32, error) {
	if len(r.GetTexts()) > 0 && (r.GetByteVectors() != nil || r.GetSparseVectors() != nil) {
		return nil, errclass.New(errclass.Invalid, "send texts or query vectors, not both")
	}
	if r.GetVectors() == nil {
		if r.GetByteVectors() == nil && r.GetSparseVectors() == nil && len(r.GetTexts()) == 0 {
			return nil, errclass.New(errclass.Invalid, "vectors: missing, send at least one query vector or text")
		}
		return nil, nil
	}
	if r.GetByteVectors() != nil || r.GetSparseVectors() != nil || len(r.GetTexts()) > 0 {
		return nil, errclass.New(errclass.Invalid, "vectors: send query vectors in one form, not in several")
	}
	vectors, _, err := rowpb.Vectors(r.GetVectors())
	return vectors, err
}

// queriesOf returns the query vectors for a field that is not of float32.
func queriesOf(r vectorsOf) func(schema.Field) (*schema.Column, error) {
	return func(f schema.Field) (*schema.Column, error) {
		return rowpb.Queries(f, r.GetVectors(), r.GetByteVectors(), r.GetSparseVectors())
	}
}

func outputOf(found *node.Found) []*qnpb.FieldData {
	var out []*qnpb.FieldData
	for i, c := range found.Fields {
		out = append(out, rowpb.FromColumn(c, found.Output[i]))
	}
	return out
}

func checkDecimals(d *int32) error {
	if d != nil && (*d < -1 || *d > 6) {
		return errclass.New(errclass.Invalid, "round_decimal is %d, want 0 to 6, or -1 for no rounding", *d)
	}
	return nil
}

// round rounds scores; nil and -1 = not at all.
func round(scores []float32, decimals *int32) {
	if decimals == nil || *decimals < 0 {
		return
	}
	p := math.Pow10(int(*decimals))
	for i, v := range scores {
		scores[i] = float32(math.Round(float64(v)*p) / p)
	}
}

// Query streams the rows that match a filter, or what aggregates say about them.
func (s *queryService) Query(r *qnpb.QueryRequest, out qnpb.QueryService_QueryServer) error {
	values, err := toValues(r.GetFilterValues())
	if err != nil {
		return err
	}
	fresh, err := toFreshness(r.GetFreshness())
	if err != nil {
		return err
	}
	q := &node.Query{
		Select: node.Select{
			Collection: r.GetCollection(), Partitions: r.GetPartitions(), Filter: r.GetFilter(), Values: values,
			OutputFields: r.GetOutputFields(), IgnoreGrowing: r.GetIgnoreGrowing(), AllowPartial: r.GetAllowPartial(), Freshness: fresh,
			Explain: r.GetExplain(),
		},
		Limit: r.GetLimit(), Offset: r.GetOffset(), GroupBy: r.GetGroupByFields(), Iterate: r.GetIterate(), Token: r.GetToken(),
	}
	for _, o := range r.GetOrderBy() {
		q.OrderBy = append(q.OrderBy, node.OrderBy{Field: o.GetField(), Descending: o.GetDescending(), NullsFirst: o.GetNullsFirst()})
	}
	res, err := s.node.Query(out.Context(), q, func(rows *node.Rows) error { return sendRows(rows, out.Send) })
	if err != nil {
		return err
	}
	last := &qnpb.QueryResponse{ReadTimestamp: res.ReadTimestamp, Stats: fromStats(&res.Stats), NextToken: res.NextToken}
	if res.Counted {
		last.Count = res.Count
	}
	return out.Send(last)
}

// maxPiece is about how large a piece of a streamed answer gets: clients take
// messages of 4 MiB unless they are told otherwise.
const maxPiece = 1 << 20

// sendRows sends rows in pieces; only a single row may make a larger one.
func sendRows(r *node.Rows, send func(*qnpb.QueryResponse) error) error {
	if r.Batch.Rows < 2 || r.Batch.Bytes() <= maxPiece {
		return send(fromRows(r))
	}
	half := r.Batch.Rows / 2
	for _, part := range [][2]int{{0, half}, {half, r.Batch.Rows}} {
		b := &schema.Batch{Rows: part[1] - part[0]}
		for _, c := range r.Batch.Columns {
			b.Columns = append(b.Columns, c.Slice(part[0], part[1]))
		}
		if err := sendRows(&node.Rows{Batch: b, Fields: r.Fields, ReadTimestamp: r.ReadTimestamp}, send); err != nil {
			return err
		}
	}
	return nil
}

func fromRows(r *node.Rows) *qnpb.QueryResponse {
	out := &qnpb.QueryResponse{Rows: int64(r.Batch.Rows), ReadTimestamp: r.ReadTimestamp}
	for i, c := range r.Batch.Columns {
		out.Fields = append(out.Fields, rowpb.FromColumn(c, r.Fields[i]))
	}
	return out
}

// Get returns rows by primary key.
func (s *queryService) Get(ctx context.Context, r *qnpb.GetRequest) (*qnpb.GetResponse, error) {
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	keys, err := rowpb.FromIDs(r.GetIds(), coll.Schema.Primary())
	if err != nil {
		return nil, err
	}
	fresh, err := toFreshness(r.GetFreshness())
	if err != nil {
		return nil, err
	}
	rows, err := s.node.Get(ctx, node.Select{
		Collection: r.GetCollection(), Partitions: r.GetPartitions(), OutputFields: r.GetOutputFields(), Freshness: fresh,
		IgnoreGrowing: r.GetIgnoreGrowing(), AllowPartial: r.GetAllowPartial(),
	}, keys)
	if err != nil {
		return nil, err
	}
	piece := fromRows(rows)
	return &qnpb.GetResponse{Rows: piece.Rows, Fields: piece.Fields, ReadTimestamp: piece.ReadTimestamp, Stats: fromStats(rows.Stats)}, nil
}

func toFreshness(f *qnpb.Freshness) (node.Freshness, error) {
	out := node.Freshness{Guarantee: f.GetGuaranteeTimestamp(), Read: f.GetReadTimestamp()}
	switch f.GetLevel() {
	case qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_UNSPECIFIED, qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_BOUNDED:
		out.Level = node.Bounded
	case qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG:
		out.Level = node.Strong
	case qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION:
		out.Level = node.Session
	case qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_EVENTUALLY:
		out.Level = node.Eventually
	default:
		return out, errclass.New(errclass.Invalid, "consistency level %d is unknown", f.GetLevel())
	}
	return out, nil
}

func toValues(m map[string]*qnpb.Value) (map[string]any, error) {
	if len(m) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(m))
	for name, v := range m {
		switch k := v.GetKind().(type) {
		case *qnpb.Value_BoolValue:
			out[name] = k.BoolValue
		case *qnpb.Value_IntValue:
			out[name] = k.IntValue
		case *qnpb.Value_DoubleValue:
			out[name] = k.DoubleValue
		case *qnpb.Value_StringValue:
			out[name] = k.StringValue
		case *qnpb.Value_Ints:
			out[name] = k.Ints.GetValues()
		case *qnpb.Value_Doubles:
			out[name] = k.Doubles.GetValues()
		case *qnpb.Value_Strings:
			out[name] = k.Strings.GetValues()
		case *qnpb.Value_Bools:
			out[name] = k.Bools.GetValues()
		case *qnpb.Value_Json:
			out[name] = json.RawMessage(k.Json)
		default:
			return nil, errclass.New(errclass.Invalid, "filter value %q is not set", name)
		}
	}
	return out, nil
}

func fromStats(s *segments.ReadStats) *qnpb.ReadStats {
	out := &qnpb.ReadStats{}
	setStats(out, s)
	return out
}

// setStats sets out, which is empty, to s.
func setStats(out *qnpb.ReadStats, s *segments.ReadStats) {
	out.SealedSegments, out.GrowingSegments, out.Channels, out.SearchedShare = s.Sealed, s.Growing, s.Channels, s.SearchedShare
	out.PrunedSegments, out.WaitNanos, out.SearchNanos = int64(s.Pruned), int64(s.Wait), int64(s.Search)
	out.SegmentsWallNanos, out.MergeNanos, out.OutputNanos = int64(s.Wall), int64(s.Merge), int64(s.Output)
	for i := range s.Segments {
		t := &s.Segments[i]
		out.Segments = append(out.Segments, &qnpb.SegmentRead{
			SegmentId: t.ID, PartitionId: t.PartitionID, Vchannel: t.VChannel, Growing: t.Growing, Rows: t.Rows, Pruned: t.Pruned,
			Matched: t.Matched, Strategies: t.Ways, Distances: t.Distances, Hops: t.Hops, FilterNanos: int64(t.Filter),
			SearchNanos: int64(t.Search), Parts: int64(t.Parts), Search: int64(t.Sub),
		})
	}
	for _, f := range s.Failures {
		c := errclass.Of(f.Err)
		out.Failures = append(out.Failures, &qnpb.SegmentFailure{
			SegmentId: f.SegmentID, Vchannel: f.VChannel, Reason: c.String(), Message: f.Err.Error(), Retryable: c.Retry(),
		})
	}
}
