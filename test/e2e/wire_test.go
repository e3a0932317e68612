package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/server"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// pulsing starts a node with the rows 0 to 99 of items.
func pulsing(t *testing.T, o options) *testNode {
	t.Helper()
	n := start(t, t.TempDir(), o)
	n.items("items", 1)
	n.insert("items", seq(0, 100))
	n.pulse = &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 1, Freshness: strong}
	n.alive(t)
	return n
}

// rawCodec sends bytes as they are and takes whatever comes.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*(v.(*[]byte)) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// post sends a body as a gRPC request and returns the status in its trailers.
func (n *testNode) post(t *testing.T, method string, body io.Reader, headers ...string) (status string) {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(within(t), http.MethodPost, "http://"+n.addr+method, io.NopCloser(body))
	must(t, err)
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := tr.RoundTrip(r)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	must(t, err)
	if s := resp.Header.Get("Grpc-Status"); s != "" {
		return s
	}
	return resp.Trailer.Get("Grpc-Status")
}

// framed is a gRPC message whose header claims a length.
func framed(claims uint32, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, claims), body...)
}

const searchMethod = "/querynode.v1.QueryService/Search"

// TestMessagesThatAreTooLargeAreRefused: before they are read, and nothing is
// allocated for what they claim to hold.
func TestMessagesThatAreTooLargeAreRefused(t *testing.T) {
	n := pulsing(t, options{})
	var out []byte
	err := n.conn.Invoke(within(t), searchMethod, make([]byte, 70<<20), &out, grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallSendMsgSize(1<<30))
	if code := codeOf(err); code != codes.ResourceExhausted {
		t.Fatalf("70 MiB: %v", err)
	}
	n.alive(t)

	// A message of 1 GiB that never comes: its header is answered.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		held, w := io.Pipe()
		sent := make(chan error, 1)
		go func() { _, err := w.Write(framed(1<<30, 1, 2, 3)); sent <- err }()
		if s := n.post(t, searchMethod, held); s != "8" {
			t.Fatalf("1 GiB: status %s, want 8 (RESOURCE_EXHAUSTED)", s)
		}
		_ = held.Close()
		<-sent
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 200<<20 {
		t.Errorf("20 messages that claim 1 GiB made the node allocate %d MiB", grown>>20)
	}
	n.alive(t)
}

// TestBytesThatAreNoRequest: broken messages, unknown calls, other protocols.
func TestBytesThatAreNoRequest(t *testing.T) {
	t.Parallel()
	n := pulsing(t, options{})
	valid, err := proto.Marshal(n.pulse)
	must(t, err)
	notUTF8, err := proto.Marshal(&qnpb.SearchRequest{Collection: "items", Filter: "XXXX"})
	must(t, err)
	notUTF8 = bytes.Replace(notUTF8, []byte("XXXX"), []byte("\xff\xfe\xff\xfe"), 1)
	for _, c := range []struct {
		name, method string
		body         []byte
		status       string
		headers      []string
	}{
		{"as it should be", searchMethod, framed(uint32(len(valid)), valid...), "0", nil},
		{"not protobuf", searchMethod, framed(4, 0xff, 0xff, 0xff, 0xff), "3", nil},
		{"not UTF-8", searchMethod, framed(uint32(len(notUTF8)), notUTF8...), "3", nil},
		{"a field of 2 GiB in 6 bytes", searchMethod, framed(6, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x07), "3", nil},
		{"groups without end", searchMethod, framed(4, 0x0b, 0x0b, 0x0b, 0x0b), "3", nil},
		{"cut in the middle", searchMethod, framed(100, 1, 2, 3), "13", nil},
		{"no message", searchMethod, nil, "13", nil},
		{"compressed, it says", searchMethod, append([]byte{1, 0, 0, 0, 1}, 0), "13", nil},
		{"an unknown compression", searchMethod, append([]byte{1, 0, 0, 0, 1}, 0), "12", []string{"Grpc-Encoding", "zip"}},
		{"an unknown call", "/querynode.v1.QueryService/Nope", framed(0), "12", nil},
		{"an unknown service", "/nope", framed(0), "12", nil},
		{"a deadline that is over", searchMethod, framed(uint32(len(valid)), valid...), "4", []string{"Grpc-Timeout", "1n"}},
		{"a deadline that makes no sense", searchMethod, framed(uint32(len(valid)), valid...), "13", []string{"Grpc-Timeout", "soon"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if s := n.post(t, c.method, bytes.NewReader(c.body), c.headers...); s != c.status {
				t.Errorf("status %q, want %q", s, c.status)
			}
			n.alive(t)
		})
	}
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", "\x00\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		c, err := net.Dial("tcp", n.addr)
		must(t, err)
		_, err = c.Write([]byte(text))
		must(t, err)
		must(t, c.Close())
		n.alive(t)
	}
}

// TestDeadlinesAndCancelledCalls: a read that waits for what never comes ends
// when its time is up or its caller goes, and frees what it held.
func TestDeadlinesAndCancelledCalls(t *testing.T) {
	t.Parallel()
	n := pulsing(t, options{serve: func(o *server.Options) { o.DefaultTimeout = 50 * time.Millisecond }})
	future := proto.Clone(n.pulse).(*qnpb.SearchRequest)
	future.Freshness = &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: wal.FromTime(time.Now().Add(50 * time.Second))}
	_, err := n.query.Search(context.Background(), future)
	n.refuses(t, err, codes.DeadlineExceeded, "waited for timestamp")

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := n.query.Search(ctx, future); codeOf(err) != codes.DeadlineExceeded {
		t.Fatalf("with 1 ms: %v", err)
	}
	<-ctx.Done()
	if _, err := n.query.Search(ctx, n.pulse); codeOf(err) != codes.DeadlineExceeded {
		t.Fatalf("with no time left: %v", err)
	}
	n.alive(t)

	const callers = 50
	ctx, cancel = context.WithCancel(context.Background())
	ended := make(chan error, callers)
	for range callers {
		go func() { _, err := n.query.Search(ctx, future); ended <- err }()
	}
	cancel()
	for range callers {
		if err := <-ended; codeOf(err) != codes.Canceled && codeOf(err) != codes.DeadlineExceeded {
			t.Fatalf("a cancelled call: %v", err)
		}
	}
	n.alive(t)
	m, err := n.control.GetMetrics(within(t), &qnpb.GetMetricsRequest{})
	must(t, err)
	if m.GetReadsQueued() != 0 || m.GetPanicsRecovered() != 0 {
		t.Errorf("after cancelled calls: %v", m)
	}
}

// TestAPanicCostsOneCall: it becomes an error, and the node lives.
func TestAPanicCostsOneCall(t *testing.T) {
	t.Parallel()
	b := &panicky{key: make(chan string, 1)}
	n := pulsing(t, options{bucket: func(under objstore.Bucket) objstore.Bucket { b.Bucket = under; return b }})
	b.key <- "nope"
	_, err := n.catalog.DescribeCollection(within(t), &qnpb.DescribeCollectionRequest{Collection: "nope"})
	n.refuses(t, err, codes.Internal, "the node goes on")
}

// panicky panics once, in the read of an object whose key holds a text.
type panicky struct {
	objstore.Bucket
	key chan string
}

// Get reads, or panics.
func (b *panicky) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	select {
	case text := <-b.key:
		if strings.Contains(key, text) {
			panic("a bug")
		}
		b.key <- text
	default:
	}
	return b.Bucket.Get(ctx, key, offset, length)
}

// TestANodeTellsWhatItServesWithoutItsStorage: that is when it is asked.
func TestANodeTellsWhatItServesWithoutItsStorage(t *testing.T) {
	t.Parallel()
	b := &mute{}
	n := pulsing(t, options{bucket: func(under objstore.Bucket) objstore.Bucket { b.Bucket = under; return b }})
	segments := func() int {
		t.Helper()
		d, err := n.control.GetDistribution(within(t), &qnpb.GetDistributionRequest{})
		must(t, err)
		if len(d.GetDistribution().GetChannels()) == 0 {
			t.Error("no channels")
		}
		return len(d.GetDistribution().GetSegments())
	}
	before := segments()
	b.silent.Store(true)
	defer b.silent.Store(false)
	if got := segments(); got != before || got == 0 {
		t.Errorf("%d segments, with its storage %d", got, before)
	}
}

// mute is a storage that does not answer reads while it is silent.
type mute struct {
	objstore.Bucket
	silent atomic.Bool
}

// Get reads, or waits for the end of ctx.
func (b *mute) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if b.silent.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return b.Bucket.Get(ctx, key, offset, length)
}

// TestPingsAreAllowed: clients ping to keep connections open through proxies; a
// server that answers GOAWAY to them makes each pause an error. gRPC's default
// is to allow one in 5 minutes, and most clients send one in 10 s to 60 s.
func TestPingsAreAllowed(t *testing.T) {
	t.Parallel()
	var o server.Options
	o.EnsureDefaults()
	if o.MinPing > 10*time.Second {
		t.Errorf("a client may ping every %v only", o.MinPing)
	}
	const often = 2 * time.Millisecond
	for _, c := range []struct {
		name    string
		minPing time.Duration
		cut     bool
	}{{"within the limit", often / 2, false}, {"far too often", time.Hour, true}} {
		t.Run(c.name, func(t *testing.T) {
			n := pulsing(t, options{serve: func(o *server.Options) { o.MinPing = c.minPing }})
			if cut := pings(t, n.addr, 30, often); cut != c.cut {
				t.Errorf("pings every %v with a limit of %v: cut off %v, want %v", often, c.minPing, cut, c.cut)
			}
			n.alive(t)
		})
	}
}

// pings opens a connection, makes no call, and sends so many HTTP/2 pings, each
// after the answer to the one before and a pause. It reports whether the server
// cut it off.
func pings(t *testing.T, addr string, count int, pause time.Duration) (cut bool) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer func() { _ = c.Close() }()
	must(t, c.SetDeadline(time.Now().Add(hang)))
	const settings, ping, goaway, ack = 4, 6, 7, 1
	frame := func(kind, flags byte, payload []byte) {
		head := []byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}
		_, _ = c.Write(append(head, payload...)) // a server that cuts us off is seen by the reads
	}
	_, err = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	must(t, err)
	frame(settings, 0, nil)
	in := bufio.NewReader(c)
	head := make([]byte, 9)
	frame(ping, 0, make([]byte, 8))
	for answered := 0; answered < count; {
		if _, err := io.ReadFull(in, head); err != nil {
			return true
		}
		if _, err := io.CopyN(io.Discard, in, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
			return true
		}
		switch {
		case head[3] == goaway:
			return true
		case head[3] == settings && head[4]&ack == 0:
			frame(settings, ack, nil)
		case head[3] == ping && head[4]&ack != 0:
			answered++
			time.Sleep(pause) // what the test is about
			frame(ping, 0, make([]byte, 8))
		}
	}
	return false
}
