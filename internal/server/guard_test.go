package server

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// client is a connection over which a test sends frames.
type client struct {
	*connection
	t    *testing.T
	wire net.Conn
}

func (r *rig) client() *client {
	r.t.Helper()
	ours, theirs := net.Pipe()
	r.t.Cleanup(func() { _ = theirs.Close() })
	c, err := r.guard.accept(ours)
	must(r.t, err)
	r.t.Cleanup(func() { _ = c.Close() })
	c.in.skip = 0 // no preface
	return &client{c, r.t.(*testing.T), theirs}
}

// send brings in the headers of a stream and so many bytes of its request; whole = all of it.
func (c *client) send(stream uint32, n int, whole bool) {
	c.t.Helper()
	var out []byte
	add := func(kind, flags byte, n int) {
		out = append(out, byte(n>>16), byte(n>>8), byte(n), kind, flags)
		out = binary.BigEndian.AppendUint32(out, stream)
		out = append(out, make([]byte, n)...)
	}
	add(frameHeaders, 0, 8)
	for ; n > 16<<10; n -= 16 << 10 {
		add(frameData, 0, 16<<10)
	}
	last := byte(0)
	if whole {
		last = flagEndStream
	}
	add(frameData, last, n)
	go func() { _, _ = c.wire.Write(out) }()
	for got := 0; got < len(out); {
		n, err := c.Read(make([]byte, 32<<10))
		must(c.t, err)
		got += n
	}
}

// waits is a call that waits for the request of a stream.
func (c *client) waits(stream uint32) *call {
	x := &call{conn: c.connection, stream: stream, refused: make(chan error, 1)}
	c.expect(x)
	return x
}

// refusals counts how often relief is asked for until nothing is refused any more, and
// tells which of the calls were, in order.
func (r *rig) refusals(c *client, calls ...*call) (order []int) {
	r.t.Helper()
	for range len(calls) + 1 {
		r.guard.refuseOne(c.connection)
		for i, x := range calls {
			select {
			case <-x.refused:
				order = append(order, i)
			default:
			}
		}
	}
	return order
}

// TestARequestThatIsHereInWholeIsNotRefused: it only waits to be decoded, on a machine that
// has much else to do, and may be a delete. Those that are on their way are: large ones
// first, also where another connection brings more.
func TestARequestThatIsHereInWholeIsNotRefused(t *testing.T) {
	r := newRig(t, 32<<20)
	a, b := r.client(), r.client()
	a.send(1, 100, true)
	a.send(3, 4<<20, true)
	a.send(5, 100, false)
	a.send(7, 1<<20, false)
	b.send(1, 100, false)
	b.send(3, 100, true)
	b.send(5, 2<<20, false)
	whole, huge, begun, most := a.waits(1), a.waits(3), a.waits(5), a.waits(7)
	small, whole2, much := b.waits(1), b.waits(3), b.waits(5)
	ended := b.waits(9) // by its client
	full, more := r.ledger.Force(segments.KindGrowing, 64<<20), r.ledger.Force(segments.KindCalls, 0)
	defer full.Release()
	defer more.Release()
	must(t, more.GrowBeyond(callsBeyond, callsBeyond))
	calls := []*call{whole, huge, begun, most, small, whole2, much, ended}
	if got := r.refusals(b, calls...); !slices.Equal(got, []int{3, 6, 2, 4}) {
		t.Errorf("refused in order: %v", got)
	}
	if b.lacks() == nil {
		t.Error("there is room: nothing was shown")
	}
	for _, x := range calls {
		x.conn.expectNot(x)
	}
}

// TestHugeRequestsAreRefusedBeforeADeleteOfManyKeys that is on its way beside them, and came before them.
func TestHugeRequestsAreRefusedBeforeADeleteOfManyKeys(t *testing.T) {
	r := newRig(t, 32<<20)
	c := r.client()
	c.send(1, 800<<10, false)
	c.send(3, 2<<20, false)
	c.send(5, 8<<20, false)
	calls := []*call{c.waits(1), c.waits(3), c.waits(5)}
	full, more := r.ledger.Force(segments.KindGrowing, 64<<20), r.ledger.Force(segments.KindCalls, 0)
	defer full.Release()
	defer more.Release()
	must(t, more.GrowBeyond(callsBeyond, callsBeyond))
	if got := r.refusals(c, calls...); !slices.Equal(got, []int{1, 2, 0}) {
		t.Errorf("refused in order: %v", got)
	}
	for _, x := range calls {
		x.conn.expectNot(x)
	}
}

// TestTheStreamOfACallIsKnown, which gRPC keeps to itself: without it none is known to be here in whole.
func TestTheStreamOfACallIsKnown(t *testing.T) {
	r := newRig(t, 0)
	good := r.dial()
	r.create(good)
	f, option := newFaucet(t)
	f.allow.Store(64 << 10)
	conn := r.dial(option)
	done := make(chan error, 1)
	go func() {
		_, err := qnpb.NewWriteServiceClient(conn).Append(r.within(), insertOf(0, 100, 4000))
		done <- err
	}()
	r.eventually("its stream is one of the connection", func() bool {
		for _, c := range r.guard.connections() {
			c.mu.Lock()
			x := c.mu.first
			known := false
			if x != nil {
				s, open := c.mu.streams[x.stream]
				known = open && !s.whole
			}
			c.mu.Unlock()
			if known {
				return true
			}
		}
		return false
	})
	close(f.writes)
	must(t, <-done)
	must(t, conn.Close())
}
