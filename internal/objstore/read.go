package objstore

import (
	"context"
	"io"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// InfoOf returns what r, a reader from Bucket.Get, reads from: the whole
// object's Info, whatever the range. It is false for a reader that cannot tell.
func InfoOf(r io.Reader) (Info, bool) {
	if d, ok := r.(interface{ Info() Info }); ok {
		return d.Info(), true
	}
	return Info{}, false
}

// ReadAll reads a whole object of at most limit bytes. A larger one is of class
// Exhausted and is not read.
func ReadAll(ctx context.Context, b Bucket, key string, limit int64) ([]byte, error) {
	data, _, err := ReadVersion(ctx, b, key, limit)
	return data, err
}

// ReadVersion is ReadAll that also tells which version it read, for a Put with
// IfMatch: Info.ETag is that of the bytes returned, or of an older version (the
// Put then fails with ErrPrecondition, as it must).
func ReadVersion(ctx context.Context, b Bucket, key string, limit int64) ([]byte, Info, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the transfer of an object that is refused below
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, Info{}, err
	}
	info, ok := InfoOf(r)
	if !ok {
		// Head before Get: only an ETag older than the bytes is safe.
		if err := r.Close(); err != nil {
			return nil, Info{}, errors.Wrapf(err, "read %s", key)
		}
		if info, err = b.Head(ctx, key); err != nil {
			return nil, Info{}, err
		}
		if r, err = b.Get(ctx, key, 0, -1); err != nil {
			return nil, Info{}, err
		}
	}
	data, err := readLimited(r, key, min(info.Size, limit+1), limit)
	if cerr := r.Close(); err == nil && cerr != nil {
		err = errors.Wrapf(cerr, "read %s", key)
	}
	if err != nil {
		return nil, Info{}, err
	}
	return data, info, nil
}

func readLimited(r io.Reader, key string, hint, limit int64) ([]byte, error) {
	if hint > limit {
		return nil, errclass.New(errclass.Exhausted, "read %s: it has more than the %d bytes allowed", key, limit)
	}
	// hint is bounded by limit; one byte more lets the loop meet the end without growing.
	data := make([]byte, 0, hint+1)
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if int64(len(data)) > limit {
			return nil, errclass.New(errclass.Exhausted, "read %s: it has more than the %d bytes allowed", key, limit)
		}
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, errors.Wrapf(err, "read %s", key)
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// exactReader passes on exactly want bytes of r. It hands out the last of them
// only after r has proved to end there, so that whoever stores what it reads
// never holds a complete object of the wrong size.
type exactReader struct {
	r    io.Reader
	key  string
	want int64
	got  int64
	end  bool
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.end || len(p) == 0 {
		if e.end {
			return 0, io.EOF
		}
		return 0, nil
	}
	left := e.want - e.got
	if int64(len(p)) > left {
		p = p[:left]
	}
	n := 0
	if left > 0 {
		var err error
		n, err = e.r.Read(p)
		e.got += int64(n)
		switch {
		case e.got == e.want: // the end is probed below
		case errors.Is(err, io.EOF):
			return 0, errclass.New(errclass.Invalid, "put %s: the source ended after %d of the %d bytes announced", e.key, e.got, e.want)
		case err != nil:
			return n, err
		default:
			return n, nil
		}
	}
	if err := e.probe(); err != nil {
		return 0, err
	}
	e.end = true
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// probe verifies that the source has no byte more.
func (e *exactReader) probe() error {
	var one [1]byte
	for range 100 { // a Reader may return 0, nil, but not for ever
		n, err := e.r.Read(one[:])
		if n > 0 {
			return errclass.New(errclass.Invalid, "put %s: the source has more than the %d bytes announced", e.key, e.want)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// ctxReader stops a copy between two reads once ctx ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
