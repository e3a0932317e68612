package embedded

import (
	"bytes"
	"fmt"
	"io"

	"github.com/cockroachdb/errors"
)

// cursor reads the frames of one segment file in order. Recovery, the building
// of indexes, and readers use it. It allocates its window, or the size of one
// frame once that frame is known to fit in the file.
type cursor struct {
	src   io.ReaderAt
	salt  uint64
	off   int64  // where the next frame begins
	limit int64  // nothing at or after it is read
	seq   uint64 // the number that the next frame should have

	window int
	buf    []byte // bytes of the file from bufOff on
	bufOff int64
}

// damage is a stretch of a segment that holds no valid frame. The cursor that
// returned it stands behind it.
type damage struct {
	from, to    int64
	first, next uint64 // messages first to next-1 are lost; next 0 = up to the end of what the cursor may read
	timestamp   uint64 // of the only lost message, when its header is whole; else 0
	cut         bool   // a whole header, and the file ends inside its frame
	why         string
}

func (d *damage) Error() string {
	return fmt.Sprintf("bytes %d to %d, message %d: %s", d.from, d.to, d.first, d.why)
}

// fill returns the n bytes at off, valid until the next call; fewer when the file ends.
func (c *cursor) fill(off int64, n int) ([]byte, error) {
	if off >= c.bufOff && off+int64(n) <= c.bufOff+int64(len(c.buf)) {
		return c.buf[off-c.bufOff:][:n], nil
	}
	want := int(max(int64(n), min(int64(c.window), c.limit-off)))
	if cap(c.buf) < want || cap(c.buf) > 2*c.window && want <= c.window {
		c.buf = make([]byte, max(want, min(c.window, 4*want)))
	}
	got, err := c.src.ReadAt(c.buf[:want], off)
	c.buf, c.bufOff = c.buf[:got], off
	if err != nil && !errors.Is(err, io.EOF) {
		c.buf = c.buf[:0]
		return nil, err
	}
	return c.buf[:min(n, got)], nil
}

// next returns the next frame, io.EOF at the limit, *damage, or an I/O error, after
// which it may be called again. The frame is valid until the next call.
func (c *cursor) next() (frame, error) {
	rest := c.limit - c.off
	if rest <= 0 {
		return frame{}, io.EOF
	}
	b, err := c.fill(c.off, int(min(rest, frameHeaderBytes)))
	if err != nil {
		return frame{}, err
	}
	h, ok := parseHeader(b, c.salt)
	switch {
	case !ok || h.seq < c.seq:
		return frame{}, c.resync("no valid frame header")
	case h.seq > c.seq:
		d := &damage{from: c.off, to: c.off, first: c.seq, next: h.seq, why: "messages are missing"}
		c.seq = h.seq
		return frame{}, d
	case h.size() > rest:
		d := &damage{from: c.off, to: c.limit, first: c.seq, timestamp: h.timestamp, cut: true, why: "the frame is cut short"}
		c.off = c.limit
		return frame{}, d
	}
	if b, err = c.fill(c.off, int(h.size())); err != nil {
		return frame{}, err
	}
	at := c.off
	c.off += h.size()
	c.seq++
	if int64(len(b)) < h.size() || checksum(b[frameHeaderBytes:]) != h.bodySum {
		return frame{}, &damage{from: at, to: c.off, first: h.seq, next: c.seq, timestamp: h.timestamp, why: "checksum of the message is wrong"}
	}
	keyEnd := frameHeaderBytes + h.keyLen
	return frame{header: h, key: b[frameHeaderBytes:keyEnd], payload: b[keyEnd:]}, nil
}

// resync looks for the next valid frame header behind off. It costs one pass: a
// marker in a payload is told from a frame by the salted header checksum.
func (c *cursor) resync(why string) error {
	d := &damage{from: c.off, to: c.limit, first: c.seq, why: why}
	for at := c.off + 1; at < c.limit; {
		b, err := c.fill(at, int(min(c.limit-at, int64(c.window))))
		if err != nil {
			return err
		}
		i := bytes.Index(b, []byte(marker))
		if i < 0 {
			if len(b) < len(marker) {
				break
			}
			at += int64(len(b) - len(marker) + 1)
			continue
		}
		at += int64(i)
		if b, err = c.fill(at, int(min(c.limit-at, frameHeaderBytes))); err != nil {
			return err
		}
		// A number is plausible if the lost messages could have stood in the gap.
		if h, ok := parseHeader(b, c.salt); ok && h.seq >= c.seq && h.seq-c.seq <= uint64(at-c.off)/frameHeaderBytes+1 {
			d.to, d.next = at, h.seq
			c.off, c.seq = at, h.seq
			return d
		}
		at++
	}
	c.off = c.limit
	return d
}
