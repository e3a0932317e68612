package server

import (
	"context"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// highest watches what calls hold until the returned function is called.
func (r *rig) highest() func() int64 {
	done, result := make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		for {
			most = max(most, r.held())
			select {
			case <-done:
				result <- most
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	}()
	return func() int64 { close(done); return <-result }
}

// TestLargeRequestsAgainstASmallLedger: what has no room is refused with the
// numbers, deletes pass, and in the end nothing is held.
func TestLargeRequestsAgainstASmallLedger(t *testing.T) {
	const limit, clients, each = 32 << 20, 12, 4
	r := newRig(t, limit)
	r.create(r.dial())
	var conns []*grpc.ClientConn
	for range clients / each {
		conns = append(conns, r.dial())
	}
	request := insertOf(0, 1000, 4000) // 4 MiB
	highest := r.highest()
	var all sync.WaitGroup
	var ok, refused atomic.Int64
	for i := range clients {
		w := qnpb.NewWriteServiceClient(conns[i/each])
		all.Go(func() {
			for range 2 {
				_, err := w.Append(r.within(), request)
				switch {
				case err == nil:
					ok.Add(1)
				case status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "bytes"):
					refused.Add(1)
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	all.Go(func() {
		w := qnpb.NewWriteServiceClient(r.dial())
		for id := range int64(50) {
			if _, err := w.Append(r.within(), deleteOf(id)); err != nil {
				t.Errorf("a delete did not pass: %v", err)
			}
		}
	})
	all.Wait()
	most := highest()
	t.Logf("%d inserts passed, %d refused; calls held %d bytes at most", ok.Load(), refused.Load(), most)
	if refused.Load() == 0 || most > limit+urgentBeyond+(clients+2)*step {
		t.Errorf("%d were refused, calls held %d bytes", refused.Load(), most)
	}
	r.quiet(len(conns) + 2)
	for _, c := range conns {
		must(t, c.Close())
	}
	r.quiet(2)
}

// TestManySmallBytesThatAreLargeOnceDecoded are refused before they are decoded.
func TestManySmallBytesThatAreLargeOnceDecoded(t *testing.T) {
	r := newRig(t, 8<<20)
	conn := r.dial()
	r.create(conn)
	request := &qnpb.AppendRequest{Collection: "things", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: 1}}}
	for range 100_000 { // 200 kB on the wire, 45 MB with what is made of it
		request.GetInsert().Fields = append(request.GetInsert().Fields, &qnpb.FieldData{})
	}
	highest := r.highest()
	_, err := qnpb.NewWriteServiceClient(conn).Append(r.within(), request)
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "no room to decode the request") {
		t.Errorf("%v", err)
	}
	if most := highest(); most > 16<<20 {
		t.Errorf("calls held %d bytes", most)
	}
	r.quiet(1)
}

// faucet is a connection whose two directions a test can close.
type faucet struct {
	net.Conn
	closed        chan struct{}
	once          sync.Once
	reads, writes chan struct{} // closed = open
	allow         atomic.Int64  // bytes that may be written before writes counts
}

func newFaucet(t *testing.T) (*faucet, grpc.DialOption) {
	f := &faucet{closed: make(chan struct{}), reads: make(chan struct{}), writes: make(chan struct{})}
	f.allow.Store(math.MaxInt64)
	t.Cleanup(func() { f.once.Do(func() { close(f.closed) }) })
	return f, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		f.Conn = conn
		return f, err
	})
}

func (f *faucet) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

// Write writes what is allowed, then waits.
func (f *faucet) Write(b []byte) (int, error) {
	now := int(min(int64(len(b)), max(f.allow.Add(-int64(len(b)))+int64(len(b)), 0)))
	n, err := f.Conn.Write(b[:now])
	if err != nil || now == len(b) {
		return n, err
	}
	select {
	case <-f.writes:
	case <-f.closed:
		return n, net.ErrClosed
	}
	m, err := f.Conn.Write(b[now:])
	return n + m, err
}

// TestRequestsThatNeverEndAreRefusedForThoseThatDo: bytes count while they come in,
// and the oldest request on its way is refused when they have no room.
func TestRequestsThatNeverEndAreRefusedForThoseThatDo(t *testing.T) {
	const limit = 4 << 20
	r := newRig(t, limit)
	good := r.dial()
	r.create(good)
	request := insertOf(0, 1000, 8000) // 8 MiB
	var conns []*grpc.ClientConn
	var results sync.WaitGroup
	var refused atomic.Int64
	highest := r.highest()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var faucets []*faucet
	for range 8 {
		f, option := newFaucet(t)
		faucets = append(faucets, f)
		f.allow.Store(7 << 20)
		conn := r.dial(option)
		conns = append(conns, conn)
		results.Go(func() {
			_, err := qnpb.NewWriteServiceClient(conn).Append(ctx, request)
			if status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "no room for the rest of the request") {
				refused.Add(1)
			}
		})
	}
	r.eventually("some are refused", func() bool { return refused.Load() > 0 })
	if _, err := qnpb.NewWriteServiceClient(good).Append(r.within(), deleteOf(1)); err != nil {
		t.Errorf("a delete did not pass: %v", err)
	}
	if _, err := qnpb.NewQueryServiceClient(good).Search(r.within(), &qnpb.SearchRequest{Collection: "things", TopK: 1,
		Vectors: &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, thingDim)}}); err != nil {
		t.Errorf("a small search did not pass: %v", err)
	}
	cancel()
	results.Wait()
	most := highest()
	t.Logf("%d refused, calls held %d bytes at most", refused.Load(), most)
	if most > limit+callsBeyond+16*step {
		t.Errorf("calls held %d bytes", most)
	}
	for i, c := range conns {
		_ = faucets[i].Close()
		_ = c.Close()
	}
	r.quiet(1)
}

// slow reads nothing before the faucet is opened; the handshake has passed.
type slow struct {
	*faucet
	left atomic.Int64 // bytes that may still be read
}

func (s *slow) Read(b []byte) (int, error) {
	if s.left.Load() <= 0 {
		select {
		case <-s.reads:
			s.left.Store(math.MaxInt64)
		case <-s.closed:
			return 0, net.ErrClosed
		}
	}
	n, err := s.Conn.Read(b)
	s.left.Add(-int64(n))
	return n, err
}

func newSlow(t *testing.T) (*slow, grpc.DialOption) {
	s := &slow{faucet: &faucet{closed: make(chan struct{}), reads: make(chan struct{}), writes: make(chan struct{})}}
	s.allow.Store(math.MaxInt64)
	s.left.Store(math.MaxInt64)
	t.Cleanup(func() { s.once.Do(func() { close(s.closed) }) })
	return s, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		s.Conn = conn
		return s, err
	})
}

// TestAnswersCountUntilTheyHaveBeenRead: clients that do not read get no more than
// there is room for, others go on, and what they held is given back when they read,
// when they cancel, and when they go.
func TestAnswersCountUntilTheyHaveBeenRead(t *testing.T) {
	const limit = 64 << 20
	r := newRig(t, limit)
	good := r.dial()
	r.create(good)
	for from := int64(0); from < 2000; from += 1000 {
		_, err := qnpb.NewWriteServiceClient(good).Append(r.within(), insertOf(from, from+1000, 500))
		must(t, err)
	}
	large := &qnpb.SearchRequest{Collection: "things", TopK: 2000, Vectors: &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, 20*thingDim)},
		Freshness: &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}} // 250 kB of ids and scores
	if _, err := qnpb.NewQueryServiceClient(good).Search(r.within(), large); err != nil {
		t.Fatal(err)
	}
	every := &qnpb.QueryRequest{Collection: "things", Filter: "id >= 0", OutputFields: []string{"note", "v"}}
	r.quiet(1)
	before := r.held()
	for _, end := range []string{"read", "cancel", "close"} {
		s, option := newSlow(t)
		conn := r.dial(option)
		q := qnpb.NewQueryServiceClient(conn)
		_, err := q.Search(r.within(), &qnpb.SearchRequest{Collection: "things", TopK: 1, Vectors: &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, thingDim)}})
		must(t, err)
		s.left.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		var all sync.WaitGroup
		var ok atomic.Int64
		for range 10 {
			all.Go(func() {
				_, err := q.Search(ctx, large)
				if err == nil {
					ok.Add(1)
				} else if c := status.Code(err); end == "read" && (c != codes.ResourceExhausted || !strings.Contains(err.Error(), "bytes")) {
					t.Errorf("%v", err)
				}
			})
			all.Go(func() {
				st, err := q.Query(ctx, every)
				for err == nil {
					_, err = st.Recv()
				}
			})
		}
		r.eventually("answers wait", func() bool { return r.held() > before+2<<20 })
		_, err = qnpb.NewQueryServiceClient(good).Search(r.within(), &qnpb.SearchRequest{Collection: "things", TopK: 1, Vectors: &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, thingDim)}})
		must(t, err)
		switch end {
		case "read":
			close(s.reads)
			all.Wait()
			if ok.Load() == 0 {
				t.Error("no answer came")
			}
			r.quiet(2)
		case "cancel":
			cancel()
			all.Wait()
			close(s.reads)
			r.quiet(2)
		}
		cancel()
		must(t, conn.Close())
		all.Wait()
		r.quiet(1)
	}
}

// TestWhoTakesNothingLosesItsConnectionWhenMemoryIsShort, and not before.
func TestWhoTakesNothingLosesItsConnectionWhenMemoryIsShort(t *testing.T) {
	r := newRig(t, 64<<20)
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	c, err := r.guard.accept(a)
	must(t, err)
	must(t, c.take(stalls, false))
	c.sending(stalls)
	now := time.Now()
	if d := c.stalledFor(now.Add(stalled)); d > stalled+time.Second || d < stalled-time.Second {
		t.Fatalf("stalled for %s", d)
	}
	r.guard.hangUpOnStalled(now)
	if len(r.guard.connections()) != 1 {
		t.Fatal("hung up at once")
	}
	r.guard.looked.Store(0)
	r.guard.hangUpOnStalled(now.Add(2 * stalled))
	if len(r.guard.connections()) != 0 || r.held() != 0 {
		t.Fatalf("%d connections, %d bytes", len(r.guard.connections()), r.held())
	}
	c.sent(stalls) // late, counts no more
	if r.held() != 0 {
		t.Fatalf("%d bytes", r.held())
	}
}

// TestADeleteOfManyKeysPassesWhereCallsHaveTakenAll: it has room to be put together and decoded, and so has its answer.
func TestADeleteOfManyKeysPassesWhereCallsHaveTakenAll(t *testing.T) {
	r := newRig(t, 32<<20)
	conn := r.dial()
	r.create(conn)
	full, calls := r.ledger.Force(segments.KindGrowing, 40<<20), r.ledger.Force(segments.KindCalls, 0)
	must(t, calls.GrowBeyond(callsBeyond-1<<20, callsBeyond)) // what comes in has room, and hardly more
	ids := make([]int64, 100_000)
	for i := range ids {
		ids[i] = 1<<40 + int64(i)
	}
	w := qnpb.NewWriteServiceClient(conn)
	for range 3 {
		done, err := w.Append(r.within(), deleteOf(ids...))
		if err != nil || done.GetRows() != int64(len(ids)) || len(done.GetIds().GetInts().GetValues()) != len(ids) {
			t.Errorf("%d rows: %v", done.GetRows(), err)
		}
	}
	if _, err := w.Append(r.within(), insertOf(0, 1000, 600)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an insert of as many bytes passed: nothing was shown: %v", err)
	}
	calls.Release()
	full.Release()
	r.quiet(1)
}

// TestAFullNodeAnswersWhatIsSmall, and takes connections, until its reserve is used up.
func TestAFullNodeAnswersWhatIsSmall(t *testing.T) {
	r := newRig(t, 32<<20)
	conn := r.dial()
	r.create(conn)
	full := r.ledger.Force(segments.KindGrowing, 40<<20)
	other := r.dial()
	if _, err := qnpb.NewWriteServiceClient(other).Append(r.within(), deleteOf(1)); err != nil {
		t.Errorf("a delete did not pass: %v", err)
	}
	large := &qnpb.SearchRequest{Collection: "things", TopK: 1, Vectors: &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, thingDim<<18)}} // 16 MiB
	if _, err := qnpb.NewQueryServiceClient(other).Search(r.within(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large request: %v", err)
	}
	calls := r.ledger.Force(segments.KindCalls, 0)
	must(t, calls.GrowBeyond(callsBeyond-r.held(), callsBeyond))
	if _, err := qnpb.NewWriteServiceClient(other).Append(r.within(), deleteOf(2)); err != nil {
		t.Errorf("a delete did not pass: %v", err)
	}
	calls.Release()
	full.Release()
	r.quiet(2)
}
