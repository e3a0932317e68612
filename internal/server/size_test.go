package server

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// live is what a decoded message takes.
func live(t *testing.T, b []byte, m proto.Message) int64 {
	t.Helper()
	const times = 4 // so that what else happens does not count
	var all [times]proto.Message
	heap := func() int64 {
		var s runtime.MemStats
		for range 3 { // what pools keep goes with the second
			runtime.GC()
		}
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	for i := range all {
		all[i] = m.ProtoReflect().New().Interface()
		must(t, proto.Unmarshal(b, all[i]))
	}
	after := heap()
	runtime.KeepAlive(all)
	return (after - before) / times
}

// TestWhatARequestWillTakeIsKnownFromItsBytes: never less than it takes, and not so
// much more that what is usual would be refused.
func TestWhatARequestWillTakeIsKnownFromItsBytes(t *testing.T) {
	many := func(n int, field func(i int) *qnpb.FieldData) *qnpb.AppendRequest {
		r := &qnpb.AppendRequest{Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: 1}}}
		for i := range n {
			r.GetInsert().Fields = append(r.GetInsert().Fields, field(i))
		}
		return r
	}
	ids, floats, bools, words := make([]int64, 30_000), make([]float32, 30_000), make([]bool, 30_000), make([]string, 20_000)
	for i := range ids {
		ids[i] = int64(i)
	}
	values := map[string]*qnpb.Value{}
	for i := range 5000 {
		values[strings.Repeat("n", 1+i%7)+string(rune('a'+i%26))+string(rune(i+300))] = &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: int64(i)}}
	}
	sub := &qnpb.SubSearch{Field: "v", Vectors: &qnpb.FloatVectors{Dim: 1, Values: floats[:3]}}
	hybrid := &qnpb.HybridSearchRequest{}
	for range 2000 {
		hybrid.Searches = append(hybrid.Searches, sub)
	}
	tags := make([]*qnpb.FieldSchema, 5000)
	for i := range tags {
		tags[i] = &qnpb.FieldSchema{}
	}
	for name, x := range map[string]struct {
		m     proto.Message
		times int64 // by how much it may be estimated too high
	}{
		"a search":    {&qnpb.SearchRequest{Vectors: &qnpb.FloatVectors{Dim: 1, Values: floats}}, 2},
		"raw vectors": {&qnpb.SearchRequest{Vectors: &qnpb.FloatVectors{Dim: 1, Raw: make([]byte, 1<<20)}}, 2},
		"values":      {&qnpb.QueryRequest{FilterValues: values}, 4},
		"several":     {hybrid, 4},
		"rows":        {insertOf(0, 2000, 100), 3},
		"empty strings": {many(1, func(int) *qnpb.FieldData {
			return &qnpb.FieldData{Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: words}}}
		}), 4},
		"small ids": {many(1, func(int) *qnpb.FieldData {
			return &qnpb.FieldData{Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}}
		}), 2},
		"bools":        {many(1, func(int) *qnpb.FieldData { return &qnpb.FieldData{Valid: bools} }), 3},
		"empty fields": {many(10_000, func(int) *qnpb.FieldData { return &qnpb.FieldData{} }), 3},
		"empty oneofs": {many(5000, func(int) *qnpb.FieldData {
			return &qnpb.FieldData{Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{}}}
		}), 3},
		"deletes":        {deleteOf(ids...), 2},
		"output fields":  {&qnpb.QueryRequest{OutputFields: words}, 4},
		"a large schema": {&qnpb.CreateCollectionRequest{Schema: &qnpb.CollectionSchema{Fields: tags}}, 3},
	} {
		b, err := proto.Marshal(x.m)
		must(t, err)
		var s sizes
		said, takes := s.decoded(x.m, b), live(t, b, x.m)
		if _, ok := x.m.(*qnpb.AppendRequest); ok {
			said /= copies
		}
		t.Logf("%-16s %8d bytes, %9d decoded, %9d said", name, len(b), takes, said)
		if said < takes || said > takes*x.times+4096 {
			t.Errorf("%s: %d bytes were foretold, it takes %d", name, said, takes)
		}
	}
}

// TestUnknownBytesCount: whoever sends what we do not know pays for it too.
func TestUnknownBytesCount(t *testing.T) {
	var s sizes
	unknown := append([]byte{0xfa, 0x7f, 0x80, 0x80, 0x40}, make([]byte, 1<<20)...) // field 2047
	m := &qnpb.GetRequest{}
	if said, takes := s.decoded(m, unknown), live(t, unknown, m); said < takes {
		t.Errorf("%d bytes were foretold, it takes %d", said, takes)
	}
	for _, bad := range [][]byte{{0xff}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x0b, 0x0b, 0x0b}} {
		if n := s.decoded(m, bad); n > 4096 {
			t.Errorf("%x: %d", bad, n)
		}
	}
}

// TestOnlyDeletesMakeRoom: a request that inserts as well is not let in as one.
func TestOnlyDeletesMakeRoom(t *testing.T) {
	encode := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		must(t, err)
		return b
	}
	r := &qnpb.AppendRequest{}
	d, i := encode(deleteOf(1, 2)), encode(insertOf(0, 3, 1))
	for _, x := range []struct {
		b    []byte
		want bool
	}{{d, true}, {i, false}, {append(append([]byte{}, i...), d...), false}, {append(append([]byte{}, d...), i...), false}, {nil, false}, {append(d, 0xff), false}} {
		for size := 1; size <= len(x.b)+1; size++ { // a request comes in pieces of any size
			var pieces mem.BufferSlice
			for p := range slices.Chunk(x.b, size) {
				pieces = append(pieces, mem.SliceBuffer(p))
			}
			if got := makesRoom(r, pieces); got != x.want {
				t.Errorf("%x in pieces of %d: %v", x.b, size, got)
			}
		}
	}
	if makesRoom(&qnpb.SearchRequest{}, mem.BufferSlice{mem.SliceBuffer(d)}) {
		t.Error("a search")
	}
}

// BenchmarkAppendMemory tells how many bytes an insert of a megabyte allocates on
// its way, for the number of copies.
func BenchmarkAppendMemory(b *testing.B) {
	r := newRig(b, 0)
	conn := r.dial()
	r.create(conn)
	w := qnpb.NewWriteServiceClient(conn)
	request := insertOf(0, 250, 4000)
	b.SetBytes(int64(proto.Size(request)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Append(r.within(), request); err != nil {
			b.Fatal(err)
		}
	}
}
