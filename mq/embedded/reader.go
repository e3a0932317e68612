package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// reader implements mq.Reader. It has one open file and one buffer, and sees
// only what the topic has published.
type reader struct {
	q       *Queue
	t       *topic
	what    string
	closing chan struct{} // closed by Close

	// Of Next only; file belongs to Next while busy.
	seq   uint64 // the message to give out next
	since uint64 // skip older ones until one is not
	seg   *segment
	file  file // nil between segments
	c     cursor
	upTo  uint64 // number of the message that follows c.limit
	key   string // the last one, to spare copies

	mu struct {
		sync.Mutex
		closed bool
		busy   bool
		idle   chan struct{} // closed when Next returns; nil when nobody waits for that
	}
}

func decodeSeq(pos mq.Position) (uint64, error) {
	if len(pos.ID) != 8 || pos.ID == encodeSeq(0) {
		return 0, errclass.New(errclass.Invalid, "position %s is not one of this queue", pos)
	}
	return binary.BigEndian.Uint64([]byte(pos.ID)), nil
}

func newReader(q *Queue, t *topic, o mq.ReaderOptions) (*reader, error) {
	if o.Name == "" {
		o.Name = "reader"
	}
	r := &reader{q: q, t: t, what: "reader " + t.name + "/" + o.Name, closing: make(chan struct{}), since: o.FromTimestamp}
	v, _ := t.look()
	first := t.firstSeq.Load()
	switch {
	case o.Latest && (o.FromTimestamp != 0 || !o.From.IsZero()), o.FromTimestamp != 0 && !o.From.IsZero():
		return nil, errclass.New(errclass.Invalid, "From, FromTimestamp and Latest exclude one another")
	case o.Latest:
		r.seq = v.next
	case o.FromTimestamp != 0:
		r.seq = first
		for _, seg := range v.segs {
			if seg.bad == nil && seg.maxTimestamp < o.FromTimestamp {
				r.seq = max(r.seq, seg.base)
			}
		}
	case o.From.IsZero():
		r.seq = first
	default:
		seq, err := decodeSeq(o.From)
		if err != nil {
			return nil, err
		}
		if seq >= v.next {
			return nil, errors.Wrapf(mq.ErrAhead, "message %d, the next is %d", seq, v.next)
		}
		if o.Exclusive {
			seq++
		}
		if seq < first {
			return nil, errors.Wrapf(mq.ErrTrimmed, "message %d, the oldest is %d", seq, first)
		}
		r.seq = seq
	}
	return r, nil
}

func (r *reader) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
	}
	if r.mu.busy {
		return errclass.New(errclass.Invalid, "next of %s: called by two goroutines", r.what)
	}
	r.mu.busy = true
	return nil
}

// leave gives the file back, and closes it if Close came meanwhile.
func (r *reader) leave() {
	r.mu.Lock()
	r.mu.busy = false
	closed, idle := r.mu.closed, r.mu.idle
	r.mu.idle = nil
	r.mu.Unlock()
	if closed {
		r.drop()
	}
	if idle != nil {
		close(idle)
	}
}

func (r *reader) drop() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// Next implements mq.Reader.
func (r *reader) Next(ctx context.Context) (mq.Message, error) {
	if err := r.enter(); err != nil {
		return mq.Message{}, err
	}
	defer r.leave()
	for {
		if err := ctx.Err(); err != nil {
			return mq.Message{}, errors.Wrapf(err, "next of %s", r.what)
		}
		if first := r.t.firstSeq.Load(); r.seq < first {
			return mq.Message{}, errors.Wrapf(mq.ErrTrimmed, "next of %s: at message %d, the oldest is %d", r.what, r.seq, first)
		}
		m, wait, err := r.step()
		if err != nil || wait == nil && !m.Position.IsZero() {
			return m, err
		}
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return mq.Message{}, errors.Wrapf(ctx.Err(), "next of %s", r.what)
		case <-r.closing:
			return mq.Message{}, errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
		}
		if err := r.t.ended(); err != nil {
			return mq.Message{}, errors.Wrapf(err, "next of %s", r.what)
		}
	}
}

// ended says why the topic's writer is gone: nothing will come any more.
func (t *topic) ended() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.stopped
}

// step returns a message, an error, a channel to wait on, or nothing: try again.
func (r *reader) step() (mq.Message, <-chan struct{}, error) {
	if r.file == nil {
		v, changed := r.t.look()
		i := v.holding(r.seq)
		if i < 0 || r.seq >= v.next {
			return mq.Message{}, changed, nil
		}
		return mq.Message{}, nil, r.open(v, i)
	}
	for {
		f, err := r.c.next()
		var d *damage
		switch {
		case err == nil && (f.seq < r.seq || f.timestamp < r.since):
			r.seq = max(r.seq, f.seq+1)
			continue
		case err == nil:
			r.seq, r.since = f.seq+1, 0
			if string(f.key) != r.key {
				r.key = string(f.key)
			}
			return mq.Message{
				Position: position(f.seq, f.timestamp), Timestamp: f.timestamp, Key: r.key, Payload: bytes.Clone(f.payload),
			}, nil, nil
		case errors.Is(err, io.EOF):
			return r.atLimit()
		case errors.As(err, &d):
			if d.next == 0 {
				d.next = max(r.upTo, d.first+1)
				r.c.seq = d.next
			}
			if d.next <= r.seq || d.timestamp != 0 && d.timestamp < r.since {
				r.seq = max(r.seq, d.next)
				continue
			}
			return mq.Message{}, nil, r.corrupt(d)
		default:
			return mq.Message{}, nil, ioError(err, "read %s at %d", r.seg.path, r.c.off)
		}
	}
}

// corrupt moves past d and reports it.
func (r *reader) corrupt(d *damage) error {
	first := max(d.first, r.seq)
	r.seq = max(r.seq, d.next)
	r.t.stats.corruptReads.Add(1)
	e := &mq.CorruptError{
		Topic:    r.t.name,
		Position: position(first, d.timestamp),
		Detail: fmt.Sprintf("file %s, bytes %d to %d, messages %d to %d: %s",
			r.seg.path, d.from, d.to, first, d.next-1, d.why),
	}
	r.t.log.Error("corrupt message", "reader", r.what, "err", e)
	return errclass.Mark(e, errclass.Corrupt)
}

// atLimit is called when all that was published of the segment has been read.
func (r *reader) atLimit() (mq.Message, <-chan struct{}, error) {
	v, changed := r.t.look()
	i := v.holding(r.seg.base)
	if i < 0 || v.segs[i] != r.seg {
		r.drop() // trimmed: Next finds out
		return mq.Message{}, nil, nil
	}
	limit, last := v.extent(i)
	if limit > r.c.limit {
		r.c.limit, r.upTo = limit, v.upTo(i)
		return mq.Message{}, nil, nil
	}
	r.upTo = v.upTo(i)
	if r.c.seq < r.upTo {
		d := &damage{from: limit, to: limit, first: r.c.seq, next: r.upTo, why: "messages are missing"}
		r.c.seq = r.upTo
		if d.next > r.seq {
			return mq.Message{}, nil, r.corrupt(d)
		}
	}
	if last {
		return mq.Message{}, changed, nil
	}
	r.drop()
	return mq.Message{}, nil, nil
}

// extent returns how much of segment i may be read, and whether it is the newest.
func (v view) extent(i int) (limit int64, last bool) {
	if i == len(v.segs)-1 {
		return v.end, true
	}
	return v.segs[i].length, false
}

// upTo returns the number of the first message that is not in segment i.
func (v view) upTo(i int) uint64 {
	if i == len(v.segs)-1 {
		return v.next
	}
	return v.segs[i+1].base
}

// open opens segment i of v at or before the message wanted.
func (r *reader) open(v view, i int) error {
	seg := v.segs[i]
	limit, last := v.extent(i)
	r.seg, r.upTo = seg, v.upTo(i)
	if seg.bad != nil {
		return r.corrupt(&damage{to: limit, first: r.seq, next: r.upTo, why: seg.bad.Error()})
	}
	f, err := r.t.o.fs.open(seg.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		if r.seq < r.t.firstSeq.Load() {
			return nil // trimmed: Next finds out
		}
		return r.corrupt(&damage{to: limit, first: r.seq, next: r.upTo, why: "the file is gone"})
	}
	if err != nil {
		return ioError(err, "open %s", seg.path)
	}
	from := indexEntry{off: segmentHeaderBytes, seq: seg.base}
	if r.seq > seg.base || r.since != 0 {
		index := v.index
		if !last {
			if index, err = seg.points(f, limit, r.q.o.ReadBufferBytes); err != nil {
				_ = f.Close()
				return ioError(err, "index %s", seg.path)
			}
		}
		from = before(index, from, func(e indexEntry) bool {
			return e.seq <= r.seq || r.since != 0 && e.maxTimestamp < r.since
		})
	}
	r.file = f
	r.seq = max(r.seq, from.seq)
	r.c = cursor{src: f, salt: seg.salt, off: from.off, limit: limit, seq: from.seq, window: r.q.o.ReadBufferBytes, buf: r.c.buf[:0]}
	return nil
}

// Close implements mq.Reader.
func (r *reader) Close(ctx context.Context) error {
	r.mu.Lock()
	again := r.mu.closed
	if !again {
		r.mu.closed = true
		close(r.closing)
	}
	busy := r.mu.busy
	if busy && r.mu.idle == nil {
		r.mu.idle = make(chan struct{})
	}
	idle := r.mu.idle
	r.mu.Unlock()
	if busy {
		select {
		case <-idle:
		case <-ctx.Done():
			select {
			case <-idle:
			default:
				return errclass.Wrap(ctx.Err(), errclass.Closed, "close %s: a read has not returned", r.what)
			}
		}
	} else if !again { // the file is dropped once: here, or by the Next that was busy
		r.drop()
	}
	r.q.forget(r)
	return nil
}
