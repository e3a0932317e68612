package server

import (
	"math"
	"runtime"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// wireCodec sends bytes and drops answers, so that the server is what is measured.
type wireCodec struct{}

func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (wireCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// BenchmarkServedSearch is what a search costs around the search itself: over TCP, from
// 32 callers on one connection, in a segment so small that looking through it is nothing.
func BenchmarkServedSearch(b *testing.B) {
	const dim, rows = 768, 16
	r := newRig(b, 1<<30)
	conn := r.dial()
	_, err := qnpb.NewCatalogServiceClient(conn).CreateCollection(r.within(), &qnpb.CreateCollectionRequest{Name: "vectors", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: dim},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "AUTOINDEX", Metric: "COSINE"}}})
	must(b, err)
	ids, values := make([]int64, rows), make([]float32, rows*dim)
	for i := range ids {
		ids[i] = int64(i + 1)
	}
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	w := qnpb.NewWriteServiceClient(conn)
	_, err = w.Append(r.within(), &qnpb.AppendRequest{Collection: "vectors", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: rows, Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
			{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: dim, Values: values}}},
		}}}})
	must(b, err)
	_, err = w.Flush(r.within(), &qnpb.FlushRequest{Collection: "vectors", Wait: true})
	must(b, err)
	query := &qnpb.SearchRequest{Collection: "vectors", TopK: 10, Nprobe: 10, Vectors: rowpb.RawVectors(values[:dim], dim), Freshness: &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_BOUNDED}}
	r.eventually("the segment is sealed", func() bool {
		got, err := qnpb.NewQueryServiceClient(conn).Search(r.within(), query)
		must(b, err)
		return len(got.GetStats().GetSealedSegments()) == 1 && len(got.GetStats().GetGrowingSegments()) == 0
	})
	wire, err := proto.Marshal(query)
	must(b, err)
	caller := r.dial(grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wireCodec{})))
	ctx := r.within()
	var failed atomic.Pointer[error]
	b.SetParallelism(max(1, 32/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := caller.Invoke(ctx, qnpb.QueryService_Search_FullMethodName, wire, new(struct{})); err != nil {
				failed.Store(&err)
				return
			}
		}
	})
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}
