package server

import (
	"context"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// envelope is what a request is decoded into: the codec finds the call in it.
type envelope struct {
	call    *call
	request any
	here    bool  // whoever waits for it decodes it
	err     error // why it was not decoded
}

// received is how the receiving of a request ended.
type received struct {
	err  error
	lost bool // it did not come, or not as gRPC wants it
}

// receive reads the request. If it is not here in full, that happens in another
// goroutine, because gRPC reads a message to its end once it has begun, and when
// there is no memory for it the client is to hear why.
func (c *call) receive(ctx context.Context, request any) error {
	if c.conn == nil || c.conn.partial.Load() == 0 {
		c.into = envelope{call: c, request: request, here: true}
		err := c.recv(&c.into)
		c.lost = err != nil
		if err == nil {
			err = c.into.err
		}
		return err
	}
	if c.done == nil {
		c.done, c.refused = make(chan received, 1), make(chan error, 1)
	}
	if c.stream == 0 {
		c.stream = streamOf(ctx)
	}
	c.conn.expect(c)
	defer c.conn.expectNot(c)
	if err := c.server.receivers.receive(c, request); err != nil {
		return err
	}
	select {
	case got := <-c.done:
		c.lost = got.lost
		return got.err
	case err := <-c.refused:
		return refused(err, "no room for the rest of the request")
	case <-ctx.Done():
		return c.leave(ctx)
	}
}

// leave stops waiting for a request, unless it is being decoded: that does not take
// long, and its memory counts until then.
func (c *call) leave(ctx context.Context) error {
	c.mu.Lock()
	c.mu.left = true
	decoding := c.mu.decoding
	c.mu.Unlock()
	if decoding {
		return (<-c.done).err
	}
	return ctx.Err()
}

// decoding reports whether somebody still waits for the request.
func (c *call) decoding(is bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.decoding = is
	return !c.mu.left
}

// expect puts a call among those whose requests are on their way.
func (c *connection) expect(x *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x.coming, x.before, x.after = true, c.mu.newest, nil
	if c.mu.newest == nil {
		c.mu.first = x
	} else {
		c.mu.newest.after = x
	}
	c.mu.newest = x
}

// expectNot takes it out again.
func (c *connection) expectNot(x *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expectNotLocked(x)
}

func (c *connection) expectNotLocked(x *call) {
	if !x.coming {
		return
	}
	x.coming = false
	if x.before == nil {
		c.mu.first = x.after
	} else {
		x.before.after = x.after
	}
	if x.after == nil {
		c.mu.newest = x.before
	} else {
		x.after.before = x.before
	}
	x.before, x.after = nil, nil
}

// refuseOldest refuses the request that has been on its way for the longest time, of
// those that hold at least so many bytes.
func (c *connection) refuseOldest(why error, least int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := c.mu.first; x != nil; x = x.after {
		s, open := c.mu.streams[x.stream]
		ended := !open && x.stream != 0 // what it held has been given back
		if ended || s.whole || s.held < least {
			continue
		}
		c.expectNotLocked(x)
		select {
		case x.refused <- why:
		default: // of the message before
		}
		return true
	}
	return false
}

// streamOf returns the number of a call's stream on its connection; 0 = it is not known.
// gRPC tells it nobody, so it is read from the field that has it.
func streamOf(ctx context.Context) uint32 {
	s := reflect.Indirect(reflect.ValueOf(grpc.ServerTransportStreamFromContext(ctx)))
	if s.Kind() != reflect.Struct {
		return 0
	}
	id := s.FieldByName("id")
	if !id.IsValid() || id.Kind() != reflect.Uint32 {
		return 0
	}
	return uint32(id.Uint())
}

// arrived decodes a request that is here in full. What it will take is reserved
// before, together with the copies that its call makes of it.
func (e *envelope) arrived(data mem.BufferSlice, decode func(mem.BufferSlice, any) error) {
	c := e.call
	if c.conn == nil {
		e.err = decode(data, e.request)
		return
	}
	if !e.here {
		c.conn.expectNot(c)
		if !c.decoding(true) {
			e.err = errclass.New(errclass.Closed, "nobody waits for the request any more")
			return
		}
		defer c.decoding(false)
	}
	e.err = e.decode(data, decode)
}

func (e *envelope) decode(data mem.BufferSlice, decode func(mem.BufferSlice, any) error) error {
	const noRoom = "no room to decode the request"
	c := e.call
	wire := data.Len()
	urgent := c.m.always || makesRoom(e.request, data)
	if len(data) > 1 { // decoders want it in one piece
		piece := int64(bufferSize(wire))
		if err := c.take(noRoom, piece, urgent); err != nil {
			return err
		}
		defer c.drop(piece)
		whole := data.MaterializeToBuffer(&c.server.guard.buffers)
		defer whole.Free()
		data = mem.BufferSlice{whole}
	}
	if m, ok := e.request.(proto.Message); ok && wire > 0 {
		b := data[0].ReadOnlyData()
		// The bytes on the wire count already, until the stream ends.
		size := max(c.decoded(m, b)-int64(wire), int64(wire))
		if err := c.take(noRoom, size, urgent); err != nil {
			return err
		}
	}
	if err := decode(data, e.request); err != nil {
		return errclass.Wrap(err, errclass.Invalid, "the request is not a %s", e.name())
	}
	return nil
}

func (e *envelope) name() string {
	if m, ok := e.request.(proto.Message); ok {
		return string(m.ProtoReflect().Descriptor().FullName())
	}
	return "message"
}

// receivers are goroutines that wait for requests to come in.
type receivers struct {
	group *lifecycle.Group
	jobs  chan job
}

type job struct {
	call *call
	into *envelope
}

// newReceivers starts n of them.
func newReceivers(n int) (*receivers, error) {
	r := &receivers{group: lifecycle.NewGroup(context.Background(), nil), jobs: make(chan job)}
	for range n {
		err := r.group.Go("receiver", func(ctx context.Context) error {
			for {
				select {
				case j := <-r.jobs:
					j.do()
				case <-ctx.Done():
					return nil
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// receive has the request of a call received; the result comes to call.done.
func (r *receivers) receive(c *call, request any) error {
	j := job{c, &envelope{call: c, request: request}}
	select {
	case r.jobs <- j:
		return nil
	default:
	}
	return r.group.Go("receiver of one request", func(context.Context) error {
		j.do()
		return nil
	})
}

func (j job) do() {
	err := lifecycle.Call(j.call.m.method, func() error { return j.call.recv(j.into) })
	got := received{err: err, lost: err != nil}
	if err == nil {
		got.err = j.into.err
	}
	j.call.done <- got
}
