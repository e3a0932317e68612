package objstore

import (
	"bytes"
	"context"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/minio/minio-go/v7"

	"github.com/querynode/querynode/internal/errclass"
)

// Get implements Bucket. A transfer that breaks is taken up again where it
// broke, from the same version of the object.
func (s *S3) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.CombineErrors(CheckKey(key), checkRange(key, offset)); err != nil {
		return nil, err
	}
	ctx, leave, err := s.gate.enter(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	r := &s3Reader{s: s, ctx: ctx, leave: leave, at: offset, end: math.MaxInt64}
	if length >= 0 && length <= math.MaxInt64-offset {
		r.end = offset + length
	}
	if r.end == r.at {
		// HTTP has no empty range.
		r.info, _, err = s.head(ctx, key)
	} else {
		r.info.Key = key
		err = r.connect()
	}
	if err != nil {
		leave()
		return nil, err
	}
	return r, nil
}

// s3Reader is the body of an object. Only its reader uses it.
type s3Reader struct {
	s       *S3
	ctx     context.Context
	leave   func()
	info    Info
	at, end int64 // what is left to read; end is cut to the object's at the first answer
	failed  int   // breaks since the last byte

	body *idleBody // nil = not connected
}

func (r *s3Reader) Info() Info { return r.info }

// connect asks for the bytes [at, end) of the version first seen.
func (r *s3Reader) connect() error {
	return r.s.call(r.ctx, "get", r.info.Key, func(ctx context.Context, _ int) error {
		var o minio.GetObjectOptions
		if r.at > 0 || r.end < math.MaxInt64 {
			last := r.end - 1
			if r.end == math.MaxInt64 {
				last = 0 // in SetRange's words: from at (> 0 here) to the end
			}
			if err := o.SetRange(r.at, last); err != nil {
				return err
			}
		}
		if r.info.ETag != "" {
			if err := o.SetMatchETag(r.info.ETag); err != nil {
				return err
			}
		}
		return r.request(ctx, o)
	})
}

// request sends one GET. Its context outlives the deadline of the try, which
// covers the wait for the header only.
func (r *s3Reader) request(try context.Context, o minio.GetObjectOptions) error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	stop := context.AfterFunc(try, func() { cancel(context.Cause(try)) })
	body, stat, header, err := r.s.core.GetObject(ctx, r.s.bucket, r.s.prefix+r.info.Key, o)
	if !stop() && err == nil {
		err = errors.CombineErrors(context.Cause(try), body.Close())
	}
	if err != nil {
		cancel(err)
		if badRange(err) {
			return r.emptyRange(try)
		}
		return err
	}
	info := r.s.info(stat)
	info.Key = r.info.Key
	if from, size, ok := contentRange(header.Get("Content-Range")); ok {
		info.Size = size
		if from != r.at {
			err = errclass.New(errclass.Retryable, "the server sent bytes from %d, asked for from %d", from, r.at)
		}
	} else if r.at > 0 {
		err = errclass.New(errclass.Unimplemented, "the server does not serve ranges")
	}
	if err != nil {
		cancel(err)
		_ = body.Close()
		return err
	}
	r.info = info
	r.end = max(r.at, min(r.end, info.Size))
	r.body = newIdleBody(ctx, cancel, body, r.s.o.IdleTimeout)
	return nil
}

// contentRange reads "bytes 5-9/100": the first byte sent and the object's size.
func contentRange(h string) (from, size int64, ok bool) {
	h, ok = strings.CutPrefix(h, "bytes ")
	span, total, ok2 := strings.Cut(h, "/")
	first, _, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	size, err2 := strconv.ParseInt(total, 10, 64)
	return from, size, ok && ok2 && ok3 && err == nil && err2 == nil && from >= 0 && size > from
}

// emptyRange answers a range behind the end of the object.
func (r *s3Reader) emptyRange(ctx context.Context) error {
	stat, err := r.s.core.StatObject(ctx, r.s.bucket, r.s.prefix+r.info.Key, minio.StatObjectOptions{})
	if err != nil {
		return err
	}
	key := r.info.Key
	r.info = r.s.info(stat)
	r.info.Key = key
	r.end = r.at
	r.body = newIdleBody(r.ctx, func(error) {}, io.NopCloser(bytes.NewReader(nil)), r.s.o.IdleTimeout)
	return nil
}

func (r *s3Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, errors.Wrapf(ended(r.ctx, err), "read %s", r.info.Key)
		}
		if r.at == r.end {
			return 0, io.EOF
		}
		if r.body == nil {
			if err := r.connect(); err != nil {
				return 0, err
			}
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.end-r.at)])
		r.at += int64(n)
		if n > 0 {
			r.failed = 0
			return n, nil // an error comes again at the next call, or does not matter
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // at < end: the server sent less than announced
		}
		err = s3Error(r.ctx, err, "read", r.info.Key)
		r.failed++
		if !errclass.Is(err, errclass.Retryable) || r.failed == s3Tries || !pause(r.ctx, r.failed-1) {
			return 0, err
		}
		r.disconnect()
	}
}

func (r *s3Reader) disconnect() {
	if r.body != nil {
		r.body.close()
		r.body = nil
	}
}

// Close drops what has not been read.
func (r *s3Reader) Close() error {
	r.at = r.end
	r.disconnect()
	r.leave()
	return nil
}

// idleBody is a response body that gives up when no byte comes for limit. Time
// between two reads does not count: a slow consumer is not a silent server.
type idleBody struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	limit  time.Duration
	timer  *time.Timer
}

func newIdleBody(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, limit time.Duration) *idleBody {
	b := &idleBody{ctx: ctx, cancel: cancel, body: body, limit: limit}
	b.timer = time.AfterFunc(limit, func() { cancel(errTimeout) })
	b.timer.Stop()
	return b
}

func (b *idleBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.body.Read(p)
	b.timer.Stop()
	if err != nil && n == 0 && b.ctx.Err() != nil {
		err = ended(b.ctx, err)
	}
	return n, err
}

// close cancels before it closes, so that closing does not drain the body. The
// error of closing an abandoned body says nothing.
func (b *idleBody) close() {
	b.timer.Stop()
	b.cancel(context.Canceled)
	_ = b.body.Close()
}
