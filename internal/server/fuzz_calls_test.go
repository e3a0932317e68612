package server

import (
	"context"
	"io"
	"math"
	runtimemetrics "runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// book is where services register to be called without a network.
type book struct {
	server *Server
	calls  map[string]func(ctx context.Context, request []byte) error
}

func (b *book) GetServiceInfo() map[string]grpc.ServiceInfo { return b.server.grpc.GetServiceInfo() }

func (b *book) RegisterService(d *grpc.ServiceDesc, impl any) {
	d = b.server.wrap(d)
	for _, m := range d.Methods {
		b.calls["/"+d.ServiceName+"/"+m.MethodName] = func(ctx context.Context, request []byte) error {
			s := &wire{ctx: ctx, server: b.server, in: request}
			out, err := m.Handler(impl, ctx, s.RecvMsg, nil)
			if err != nil {
				return err
			}
			return s.SendMsg(out)
		}
	}
	for _, st := range d.Streams {
		b.calls["/"+d.ServiceName+"/"+st.StreamName] = func(ctx context.Context, request []byte) error {
			return st.Handler(impl, &wire{ctx: ctx, server: b.server, in: request})
		}
	}
}

// wire is a stream that brings one message, decoded as gRPC does, and takes answers.
type wire struct {
	grpc.ServerStream
	ctx    context.Context
	server *Server
	in     []byte
	read   bool
}

func (w *wire) Context() context.Context { return w.ctx }

func (w *wire) RecvMsg(m any) error {
	if w.read {
		return io.EOF
	}
	w.read = true
	// In two pieces, as from the network.
	half := len(w.in) / 2
	return w.server.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(w.in[:half]), mem.SliceBuffer(w.in[half:])}, m)
}

func (w *wire) SendMsg(m any) error {
	data, err := w.server.codec.Marshal(m)
	if err == nil {
		data.Free() // written
	}
	return err
}

// full is a message in which every field is set to something that might be right.
func full(m protoreflect.Message, depth int) proto.Message {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if f.Message() != nil && depth > 4 {
			continue
		}
		switch {
		case f.IsMap():
			v := m.NewField(f).Map()
			v.Set(sample(f.MapKey()).MapKey(), func() protoreflect.Value {
				if f.MapValue().Message() == nil {
					return sample(f.MapValue())
				}
				one := v.NewValue()
				full(one.Message(), depth+1)
				return one
			}())
			m.Set(f, protoreflect.ValueOfMap(v))
		case f.IsList():
			v := m.NewField(f).List()
			if f.Message() == nil {
				v.Append(sample(f))
			} else {
				full(v.AppendMutable().Message(), depth+1)
			}
			m.Set(f, protoreflect.ValueOfList(v))
		case f.Message() != nil:
			full(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, sample(f))
		}
	}
	return m.Interface()
}

func sample(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		text := map[protoreflect.Name]string{"filter": "id > 1", "partition": "_default", "field": "v", "metric": "L2", "order_by": "id"}[f.Name()]
		if text == "" {
			text = "things"
		}
		return protoreflect.ValueOfString(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(make([]byte, 4*thingDim))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1)
	}
	return protoreflect.ValueOfInt64(1)
}

// requestsOf are requests to begin with.
func requestsOf(f *testing.F, method string) (out [][]byte) {
	add := func(m proto.Message) {
		raw, err := proto.Marshal(m)
		must(f, err)
		out = append(out, raw)
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	must(f, err)
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.(protoreflect.MethodDescriptor).Input().FullName())
	must(f, err)
	add(t.New().Interface())
	add(full(t.New(), 0))
	vectors := &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, 2*thingDim)}
	limits := []int64{math.MaxInt64, math.MinInt64, -1, 1 << 40}
	switch t.New().Interface().(type) {
	case *qnpb.SearchRequest:
		add(&qnpb.SearchRequest{Collection: "things", Vectors: vectors, TopK: 3, Filter: "id in [1, 2] and note like \"x%\"", OutputFields: []string{"note", "v"}})
		add(&qnpb.SearchRequest{Collection: "things", Vectors: vectors, TopK: 3, GroupByField: "note", GroupSize: 2})
		add(&qnpb.SearchRequest{Collection: "things", Vectors: vectors, TopK: 2, Iterate: true})
		for _, n := range limits {
			add(&qnpb.SearchRequest{Collection: "things", Vectors: vectors, TopK: n, Offset: n, GroupByField: "note", GroupSize: n, Ef: int32(n), Nprobe: int32(n)})
			add(&qnpb.SearchRequest{Collection: "things", Vectors: &qnpb.FloatVectors{Dim: int32(n), Values: []float32{1}}, TopK: 1})
		}
	case *qnpb.QueryRequest:
		for _, n := range limits {
			add(&qnpb.QueryRequest{Collection: "things", Filter: "id >= 0", Limit: n, Offset: n, OutputFields: []string{"*"}})
		}
		add(&qnpb.QueryRequest{Collection: "things", OutputFields: []string{"count(*)", "max(id)"}, GroupByFields: []string{"note"}})
		add(&qnpb.QueryRequest{Collection: "things", Filter: strings.Repeat("(", 300) + "id > 1"})
	case *qnpb.AppendRequest:
		add(insertOf(1, 4, 3))
		add(deleteOf(1, 2))
		add(&qnpb.AppendRequest{Collection: "things", Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Filter: "id < 3"}}})
		for _, n := range limits {
			add(&qnpb.AppendRequest{Collection: "things", Operation: &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: n}}})
		}
	case *qnpb.CreateCollectionRequest:
		add(&qnpb.CreateCollectionRequest{Name: "more", Schema: fromSchema(everyType())})
	case *qnpb.GetRequest:
		add(&qnpb.GetRequest{Collection: "things", Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: []int64{1, 2}}}}, OutputFields: []string{"v"}})
	}
	return out
}

// answers are the codes that a request may be answered with, whatever is in it.
var answers = []codes.Code{codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted,
	codes.Unimplemented, codes.DeadlineExceeded, codes.Canceled, codes.OutOfRange, codes.Unavailable}

func allocated() uint64 {
	s := []runtimemetrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	runtimemetrics.Read(s)
	return s[0].Value.Uint64()
}

// callRig is a node that has a collection, and all that can be called on it.
type callRig struct {
	*rig
	book   *book
	conn   *connection
	client *grpc.ClientConn
}

func newCallRig(f *testing.F) *callRig {
	r := &callRig{rig: newRig(f, 64<<20)}
	r.book = &book{server: r.Server, calls: map[string]func(context.Context, []byte) error{}}
	r.register(r.book)
	conn, err := r.guard.accept(&sink{})
	must(f, err)
	f.Cleanup(func() { _ = conn.Close() })
	r.conn = conn
	r.client = r.dial()
	r.create(r.client)
	return r
}

// call calls a method as if its request had come over the connection.
func (r *callRig) call(method string, request []byte) error {
	patience := 200 * time.Millisecond
	if matches(method, endless) {
		patience = 20 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(peer.NewContext(context.Background(), &peer.Peer{AuthInfo: &counted{nil, r.conn}}), patience)
	defer cancel()
	return r.book.calls[method](ctx, request)
}

// mend undoes what a call did to the node, so that the next one finds something.
func (r *callRig) mend(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	n := r.o.Node
	colls, err := n.Collections(ctx)
	must(t, err)
	for _, c := range colls {
		if len(colls) > 4 && c.Name != "things" {
			_ = n.DropCollection(ctx, c.Name)
		}
	}
	if _, err := n.Collection(ctx, "things"); err != nil {
		r.create(r.client)
	}
	if len(n.Logs()) == 0 {
		_, _, _ = n.AssignChannel(ctx, "topic-0", 0) // a later term may have been claimed
	}
}

// FuzzCalls: whatever bytes come as the request of whatever call, there is no panic,
// the answer is of a class that says what is wrong with them, it does not take much
// memory, and nothing of it is held afterwards. New calls are in it by themselves.
func FuzzCalls(f *testing.F) {
	r := newCallRig(f)
	var methods []string
	for m := range r.book.calls {
		methods = append(methods, m)
	}
	slices.Sort(methods)
	for i, m := range methods {
		for _, request := range requestsOf(f, m) {
			f.Add(uint8(i), request)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, request []byte) {
		method := methods[int(which)%len(methods)]
		if len(request) > 1<<16 {
			return
		}
		r.t = t
		before := allocated()
		err := r.call(method, request)
		if c := status.Code(err); !slices.Contains(answers, c) {
			t.Errorf("%s: %v", method, err)
		}
		if took := allocated() - before; took > 256<<20 {
			t.Errorf("%s: %d bytes of request made %d be allocated", method, len(request), took)
		}
		if need := r.conn.need.Load(); need != connectionCost {
			t.Errorf("%s: %d bytes are held after the call", method, need-connectionCost)
		}
		r.mend(t)
	})
}
