package server

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

func usualSearch(dim int, raw bool) *qnpb.SearchRequest {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(i) / 3
	}
	r := &qnpb.SearchRequest{
		Collection: "words", Field: "vector", TopK: 10, Offset: 3, Metric: "L2", Filter: "length > 5", Ef: 64, IgnoreGrowing: true, AllowPartial: true,
		Vectors:   &qnpb.FloatVectors{Dim: int32(dim), Values: v},
		Freshness: &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: 1 << 60, ReadTimestamp: 7},
		Nprobe:    10, ReorderK: 100, RefineK: 1.5, Recall: 0.95, Radius: proto.Float32(2), RangeFilter: proto.Float32(0), OutputFields: []string{"length", "", "*"},
	}
	if raw {
		r.Vectors = rowpb.RawVectors(v, dim)
	}
	return r
}

func usualAnswer(hits int) *qnpb.SearchResponse {
	r := &qnpb.SearchResponse{
		Counts: []int64{int64(hits)}, Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{}}}, ReadTimestamp: 470631592864776192,
		Stats: &qnpb.ReadStats{SealedSegments: []int64{3, 470631592864776192}, GrowingSegments: []int64{9}, Channels: []string{"querynode-dml-1_1v0", ""},
			SearchedShare: 1, PrunedSegments: 2, WaitNanos: 12345, SearchNanos: 67890},
	}
	for i := range hits {
		r.Ids.GetInts().Values = append(r.Ids.GetInts().Values, int64(i)*1_000_003-5)
		r.Scores = append(r.Scores, float32(i)+0.25)
	}
	return r
}

// free is room for everything.
type free struct{ buffers buffers }

func (f *free) buffer(n int) (*[]byte, mem.BufferPool, error) {
	return f.buffers.Get(n), &f.buffers, nil
}

func byHand(m any) (mem.BufferSlice, error) { return handMarshal(newCodec(), m, &free{}) }

func handMarshal(c *codec, m any, of room) (mem.BufferSlice, error) {
	out, err := c.marshal(m, of)
	if err != nil {
		return nil, err
	}
	return out.data, nil
}

func general(m any) (mem.BufferSlice, error) { return newCodec().general.Marshal(m) }

func bytesOf(t testing.TB, marshal func(any) (mem.BufferSlice, error), m any) []byte {
	t.Helper()
	b, err := marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	return slices.Clone(b.Materialize())
}

// sameAnswer wants the codec's bytes to decode to what was encoded.
func sameAnswer(t *testing.T, name string, r *qnpb.SearchResponse) {
	t.Helper()
	var got qnpb.SearchResponse
	if err := proto.Unmarshal(bytesOf(t, byHand, r), &got); err != nil || !proto.Equal(r, &got) {
		t.Errorf("%s: decoded as\n%v, %v\nwant\n%v", name, &got, err, r)
	}
}

func TestUsualAnswersAreEncodedByHandAndRight(t *testing.T) {
	for _, hits := range []int{0, 1, 10, 127, 128, 5000} {
		r := usualAnswer(hits)
		if out, err := marshalAnswer(r, &free{}); out == nil || err != nil {
			t.Errorf("%d hits: left to the general code", hits)
		}
		sameAnswer(t, "usual", r)
		if want := bytesOf(t, general, r); !bytes.Equal(want, bytesOf(t, byHand, r)) {
			t.Errorf("%d hits: other bytes than the general code writes", hits)
		}
	}
	sameAnswer(t, "empty", &qnpb.SearchResponse{})
	sameAnswer(t, "no stats", &qnpb.SearchResponse{Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: []int64{-1}}}}})
	sameAnswer(t, "text keys", &qnpb.SearchResponse{Ids: &qnpb.Ids{Keys: &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: []string{"a"}}}}})
	sameAnswer(t, "odd share", &qnpb.SearchResponse{Ids: usualAnswer(1).Ids, Stats: &qnpb.ReadStats{SearchedShare: math.Copysign(0, -1)}})
}

// fill sets a field of m to something that is not its default.
func fill(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	value := func() protoreflect.Value {
		switch f.Kind() {
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("x")
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte{1, 2, 3, 4})
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(-7)
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(-7)
		case protoreflect.Uint64Kind:
			return protoreflect.ValueOfUint64(7)
		case protoreflect.FloatKind:
			return protoreflect.ValueOfFloat32(7)
		case protoreflect.DoubleKind:
			return protoreflect.ValueOfFloat64(7)
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(1)
		}
		panic("a kind of field that this test does not know: " + f.Kind().String())
	}
	switch {
	case f.IsMap():
		v := m.Mutable(f).Map().NewValue()
		m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), v)
	case f.IsList() && f.Message() != nil:
		m.Mutable(f).List().AppendMutable()
	case f.IsList():
		m.Mutable(f).List().Append(value())
	case f.Message() != nil:
		m.Mutable(f)
	default:
		m.Set(f, value())
	}
}

// Every field, also one that is added later, survives beside the usual ones.
func TestNoFieldIsForgotten(t *testing.T) {
	answer := (*qnpb.SearchResponse)(nil).ProtoReflect().Descriptor().Fields()
	for i := range answer.Len() {
		r := usualAnswer(2)
		fill(r.ProtoReflect(), answer.Get(i))
		sameAnswer(t, string(answer.Get(i).Name()), r)
		alone := &qnpb.SearchResponse{}
		fill(alone.ProtoReflect(), answer.Get(i))
		sameAnswer(t, string(answer.Get(i).Name())+" alone", alone)
	}
	stats := (*qnpb.ReadStats)(nil).ProtoReflect().Descriptor().Fields()
	for i := range stats.Len() {
		r := usualAnswer(2)
		r.Stats = &qnpb.ReadStats{}
		fill(r.Stats.ProtoReflect(), stats.Get(i))
		sameAnswer(t, "stats."+string(stats.Get(i).Name()), r)
	}
	request := (*qnpb.SearchRequest)(nil).ProtoReflect().Descriptor().Fields()
	for i := range request.Len() {
		r := usualSearch(4, true)
		fill(r.ProtoReflect(), request.Get(i))
		sameRequest(t, bytesOf(t, byHand, r))
	}
}

// sameRequest wants the codec to decode b as the general code does.
func sameRequest(t *testing.T, b []byte) {
	t.Helper()
	var got, want qnpb.SearchRequest
	wantErr := proto.Unmarshal(b, &want)
	err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &got)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%x: %v, want %v", b, err, wantErr)
	}
	// Bytes are compared, not messages: a NaN does not equal itself.
	if err == nil && !bytes.Equal(encodedProto(t, &got), encodedProto(t, &want)) {
		t.Fatalf("%x decoded as\n%v\nwant\n%v", b, &got, &want)
	}
}

func encodedProto(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUsualRequestsAreDecodedByHandAndRight(t *testing.T) {
	for _, raw := range []bool{true, false} {
		for _, dim := range []int{1, 3, 128, 1000} {
			b := encodedProto(t, usualSearch(dim, raw))
			if !unmarshalSearch(b, &qnpb.SearchRequest{}) {
				t.Errorf("dim %d, raw %t: left to the general code", dim, raw)
			}
			sameRequest(t, b)
		}
	}
	b := encodedProto(t, usualSearch(8, true))
	var r qnpb.SearchRequest
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &r); err != nil {
		t.Fatal(err)
	}
	clear(b) // the transport uses its buffer again
	if !proto.Equal(&r, usualSearch(8, true)) {
		t.Error("the request still uses the transport's buffer")
	}
}

func FuzzSearchRequestCodec(f *testing.F) {
	f.Add(bytesOf(f, byHand, usualSearch(4, true)))
	f.Add(bytesOf(f, byHand, usualSearch(4, false)))
	twice := bytesOf(f, byHand, usualSearch(2, true))
	f.Add(append(twice, twice...))
	f.Add([]byte{0x0a, 0x02, 0xff, 0xfe})
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		b := bytesOf(f, byHand, usualSearch(3, rng.IntN(2) == 0))
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameRequest(t, b) })
}

func BenchmarkCodec(b *testing.B) {
	c, room := newCodec(), &free{}
	request, answer := bytesOf(b, general, usualSearch(128, true)), usualAnswer(10)
	for _, x := range []struct {
		name      string
		unmarshal func(mem.BufferSlice, any) error
		marshal   func(any) (mem.BufferSlice, error)
	}{{"hand", c.unmarshal, func(m any) (mem.BufferSlice, error) { return handMarshal(c, m, room) }}, {"general", c.general.Unmarshal, c.general.Marshal}} {
		b.Run("decode/"+x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := x.unmarshal(mem.BufferSlice{mem.SliceBuffer(request)}, new(qnpb.SearchRequest)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("encode/"+x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				out, err := x.marshal(answer)
				if err != nil {
					b.Fatal(err)
				}
				out.Free()
			}
		})
	}
}
