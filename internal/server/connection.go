package server

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/querynode/querynode/segments"
)

const (
	// connectionCost is what a connection takes: buffers to read and write, three
	// goroutines, tables for the compression of headers.
	connectionCost = 128 << 10
	// streamCost is what a call takes beside its request and answer: the stacks of
	// its goroutines, what gRPC keeps of it, and its headers, see maxHeaders.
	streamCost = 32 << 10
	// step is how much a connection takes from the ledger at a time.
	step = 64 << 10
	// stalls is how much of answers has to wait for a client that is said to take nothing.
	stalls = 256 << 10
	// small is up to where an answer counts as part of streamCost.
	small = 1 << 10
)

// connection is a client's connection with what it and its calls hold.
//
// Bytes that come in are counted as they are read, before gRPC has them, stream by
// stream, until the stream ends; see count. What calls take for decoded requests
// and for answers is added by take.
type connection struct {
	net.Conn
	guard *guard

	need     atomic.Int64 // bytes held
	reserved atomic.Int64 // bytes taken from the ledger for them, in steps
	incoming atomic.Int64 // of them of streams that are open
	partial  atomic.Int64 // streams whose requests are not here in full
	moved    atomic.Int64 // when the client took something last, in Unix nanoseconds

	in frames // of who reads, which is one goroutine

	mu struct {
		sync.Mutex
		out     frames
		streams map[uint32]stream // open ones
		last    uint32            // newest stream
		unsent  int64             // bytes of answers that have not been written
		closed  bool
		memory  *segments.Reservation
		first   *call // whose requests are on their way, oldest first
		newest  *call
	}
}

// stream is one call as the connection sees it.
type stream struct {
	held  int64
	whole bool // all that the client sends is here
}

// accept makes a connection; it is refused if not even that has room.
func (g *guard) accept(conn net.Conn) (*connection, error) {
	c := &connection{Conn: conn, guard: g, in: frames{skip: len(preface)}}
	c.mu.streams = map[uint32]stream{}
	c.mu.memory = g.ledger.Force(segments.KindCalls, 0)
	if err := c.take(connectionCost, true); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.conns[c] = struct{}{}
	return c, nil
}

// take adds n bytes to what the connection holds, or says why they have no room.
// They are given back by give.
func (c *connection) take(n int64, urgent bool) error {
	if c.need.Add(n) <= c.reserved.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.coverLocked(most(urgent))
	if err != nil {
		c.need.Add(-n)
	}
	return err
}

// coverLocked makes the ledger have what is held.
func (c *connection) coverLocked(most int64) error {
	need, reserved := c.need.Load(), c.reserved.Load()
	if need <= reserved {
		return nil
	}
	if err := c.mu.memory.GrowBeyond(steps(need)-reserved, most); err == nil {
		c.reserved.Store(steps(need))
		return nil
	}
	// Without room for a whole step there may be some for what is needed.
	if err := c.mu.memory.GrowBeyond(need-reserved, most); err != nil {
		return err
	}
	c.reserved.Store(need)
	return nil
}

// steps rounds up.
func steps(n int64) int64 { return (n + step - 1) / step * step }

// give gives n bytes back.
func (c *connection) give(n int64) {
	if n == 0 {
		return
	}
	if need := c.need.Add(-n); c.reserved.Load()-need > step || need <= 0 {
		c.mu.Lock()
		c.shrinkLocked()
		c.mu.Unlock()
	}
}

func (c *connection) shrinkLocked() {
	need := c.need.Load()
	keep := steps(need)
	if keep >= c.reserved.Load() {
		return
	}
	c.reserved.Store(keep)
	c.mu.memory.Commit(keep)
	c.guard.gaveBack()
	if need = c.need.Load(); need > keep { // somebody took what is not there any more
		c.mu.memory.Commit(need)
		c.reserved.Store(need)
	}
}

// force adds n bytes that are here already; it reports whether there was room.
func (c *connection) force(n int64) bool {
	if n <= 0 || c.need.Add(n) <= c.reserved.Load() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.coverLocked(callsBeyond) == nil {
		return true
	}
	need := c.need.Load()
	c.mu.memory.Commit(need)
	c.reserved.Store(need)
	return false
}

// lacks says why there is no room for more; nil = there is.
func (c *connection) lacks() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil
	}
	reserved := c.reserved.Load()
	if err := c.mu.memory.GrowBeyond(step, callsBeyond); err != nil {
		return err
	}
	c.reserved.Store(reserved + step)
	return nil
}

// Read reads from the client and counts what came.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n <= 0 {
		return n, err
	}
	more := c.countIn(b[:n])
	c.incoming.Add(more)
	if more < 0 {
		c.give(-more)
	} else if !c.force(more) {
		c.guard.relieve(c)
	}
	return n, err
}

// countIn returns how many bytes the streams hold more.
func (c *connection) countIn(b []byte) (more int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.each(b, func(f frame) {
		switch f.kind {
		case frameHeaders:
			if f.stream > c.mu.last && !c.mu.closed {
				c.mu.last = f.stream
				more += streamCost
				whole := f.flags&flagEndStream != 0
				c.mu.streams[f.stream] = stream{streamCost, whole}
				if !whole {
					c.partial.Add(1)
				}
			}
		case frameData:
			s, open := c.mu.streams[f.stream]
			if !open {
				return
			}
			if f.length > 0 {
				n := frameCost(f.length)
				s.held += n
				more += n
			}
			if f.flags&flagEndStream != 0 && !s.whole {
				s.whole = true
				c.partial.Add(-1)
			}
			c.mu.streams[f.stream] = s
		case frameReset:
			more -= c.endLocked(f.stream)
		}
	})
	return more
}

// frameCost is the memory that the data of a frame takes until it is decoded.
func frameCost(n int) int64 {
	const entry = 128 // in gRPC's list of what came, and its buffer's head
	return int64(bufferSize(n)) + entry
}

// endLocked forgets a stream and returns what it held.
func (c *connection) endLocked(stream uint32) int64 {
	s, open := c.mu.streams[stream]
	if open && !s.whole {
		c.partial.Add(-1)
	}
	delete(c.mu.streams, stream)
	return s.held
}

// Write writes to the client and sees which streams end.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	var ended int64
	c.mu.Lock()
	if c.mu.unsent > 0 && n > 0 {
		c.moved.Store(time.Now().UnixNano())
	}
	c.mu.out.each(b[:n], func(f frame) {
		if f.kind == frameReset || (f.kind == frameHeaders || f.kind == frameData) && f.flags&flagEndStream != 0 {
			ended += c.endLocked(f.stream)
		}
	})
	c.mu.Unlock()
	c.incoming.Add(-ended)
	c.give(ended)
	return n, err
}

// Close closes the connection. What its streams and answers held is given back:
// nobody reads them any more. What calls hold that still run is theirs to give.
func (c *connection) Close() error {
	c.guard.mu.Lock()
	delete(c.guard.mu.conns, c)
	c.guard.mu.Unlock()
	c.mu.Lock()
	var held int64
	if !c.mu.closed {
		c.mu.closed = true
		held = connectionCost + c.mu.unsent
		for _, s := range c.mu.streams {
			held += s.held
		}
		clear(c.mu.streams)
	}
	c.mu.Unlock()
	err := c.Conn.Close()
	c.give(held)
	return err
}

// sending counts an answer of n bytes that take has made room for. When it has been
// written, sent gives them back; or Close, when it never will be.
func (c *connection) sending(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.unsent == 0 {
		c.moved.Store(time.Now().UnixNano())
	}
	c.mu.unsent += n
	if c.mu.closed { // Close did not see it
		c.mu.unsent -= n
		c.need.Add(-n)
		c.shrinkLocked()
	}
}

func (c *connection) sent(n int64) {
	c.mu.Lock()
	closed := c.mu.closed
	if !closed {
		c.mu.unsent -= n
	}
	c.mu.Unlock()
	if !closed {
		c.give(n)
	}
}

// stalledFor is how long the client has not taken anything of what waits for it.
func (c *connection) stalledFor(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.unsent < stalls {
		return 0
	}
	return now.Sub(time.Unix(0, c.moved.Load()))
}

// guarded are the credentials of a server whose connections are counted, after
// they have been decrypted.
type guarded struct {
	credentials.TransportCredentials
	guard *guard
}

// counted is what gRPC knows about a connection, with the connection.
type counted struct {
	credentials.AuthInfo
	conn *connection
}

// GetSecurityValue is what channelz shows of the encryption.
func (c *counted) GetSecurityValue() credentials.ChannelzSecurityValue {
	if s, ok := c.AuthInfo.(credentials.ChannelzSecurityInfo); ok {
		return s.GetSecurityValue()
	}
	return nil
}

// ServerHandshake lets a connection in.
func (g *guarded) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	c, err := g.guard.accept(conn)
	if err != nil {
		return nil, nil, err
	}
	return c, &counted{info, c}, nil
}

// Clone returns a copy that counts in the same place.
func (g *guarded) Clone() credentials.TransportCredentials {
	return &guarded{g.TransportCredentials.Clone(), g.guard}
}

// connectionOf returns the connection of a call; nil if it did not come over one.
func connectionOf(ctx context.Context) *connection {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	if info, ok := p.AuthInfo.(*counted); ok {
		return info.conn
	}
	return nil
}
