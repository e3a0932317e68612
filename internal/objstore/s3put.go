package objstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/minio/minio-go/v7"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

const (
	partSize = 8 << 20 // also the largest object sent in one piece
	maxParts = 10_000  // S3's limit

	// putIDKey is the metadata that marks a conditional put, for itself only.
	putIDKey = "Querynode-Put"
)

// Put implements Bucket. Every body travels with its SHA-256, which the server
// verifies.
func (s *S3) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	if err := checkPut(key, size, o); err != nil {
		return Info{}, err
	}
	ctx, leave, err := s.gate.enter(ctx, "put", key)
	if err != nil {
		return Info{}, err
	}
	defer leave()
	p := &s3Put{s: s, key: key, size: size, o: o, src: &exactReader{r: &ctxReader{ctx, r}, key: key, want: size}}
	if o.IfNoneMatch || o.IfMatch != "" {
		p.id = rand.Text()
	}
	if size > partSize {
		return p.multipart(ctx)
	}
	return p.single(ctx)
}

type s3Put struct {
	s    *S3
	key  string
	size int64
	o    PutOptions
	src  io.Reader
	id   string // of a conditional put
}

func (p *s3Put) options() minio.PutObjectOptions {
	// The sum goes into the signature; without the flag the library would, over
	// plain HTTP, sign chunk by chunk on top of it.
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", DisableContentSha256: true}
	if p.o.IfNoneMatch {
		o.SetMatchETagExcept("*")
	}
	if p.o.IfMatch != "" {
		o.SetMatchETag(p.o.IfMatch)
	}
	if p.id != "" {
		o.UserMetadata = map[string]string{putIDKey: p.id}
	}
	return o
}

func (p *s3Put) single(ctx context.Context) (Info, error) {
	data, err := p.readPart(make([]byte, 0, p.size), p.size)
	if err != nil {
		return Info{}, s3Error(ctx, err, "put", p.key)
	}
	sum := sha256.Sum256(data)
	return p.finish(ctx, func(ctx context.Context) (minio.UploadInfo, error) {
		return p.s.core.PutObject(ctx, p.s.bucket, p.s.prefix+p.key, bytes.NewReader(data), p.size, "", hex.EncodeToString(sum[:]), p.options())
	})
}

// readPart reads exactly n bytes, and at the last part also the end of the source.
func (p *s3Put) readPart(buf []byte, n int64) ([]byte, error) {
	buf = buf[:n]
	if n == 0 { // the check that an empty object's source is empty
		if _, err := p.src.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			return nil, err
		}
		return buf, nil
	}
	if _, err := io.ReadFull(p.src, buf); err != nil {
		return nil, err
	}
	return buf, nil
}

// finish runs the request that makes the object visible. When its condition
// fails after an earlier try whose answer was lost, that try may be the very
// one that won; the object's metadata tells.
func (p *s3Put) finish(ctx context.Context, commit func(context.Context) (minio.UploadInfo, error)) (Info, error) {
	var up minio.UploadInfo
	lost := false
	err := p.s.call(ctx, "put", p.key, func(ctx context.Context, n int) error {
		lost = n > 0
		var err error
		up, err = commit(ctx)
		return err
	})
	if p.id != "" && (errclass.Is(err, errclass.Conflict) || errclass.Is(err, errclass.NotFound)) {
		if lost {
			if info, meta, herr := p.s.head(ctx, p.key); herr == nil && metaValue(meta, putIDKey) == p.id {
				return info, nil
			}
		}
		// If-Match on a key that does not exist answers 404.
		return Info{}, errors.Wrapf(ErrPrecondition, "put %s", p.key)
	}
	if err != nil {
		return Info{}, err
	}
	return Info{Key: p.key, Size: p.size, ETag: up.ETag, ModTime: time.Now()}, nil
}

func metaValue(meta map[string]string, key string) string {
	for k, v := range meta {
		if strings.EqualFold(k, key) {
			return v
		}
	}
	return ""
}

// multipart sends an object in parts, UploadParallel at once. It aborts the
// upload if it fails; an upload that a killed process left is the storage's to
// expire (a lifecycle rule of the bucket).
func (p *s3Put) multipart(ctx context.Context) (Info, error) {
	name := p.s.prefix + p.key
	var id string
	err := p.s.call(ctx, "start upload of", p.key, func(ctx context.Context, _ int) (err error) {
		o := p.options()
		// The condition belongs to the end of the upload.
		id, err = p.s.core.NewMultipartUpload(ctx, p.s.bucket, name, minio.PutObjectOptions{ContentType: o.ContentType, UserMetadata: o.UserMetadata})
		return err
	})
	if err != nil {
		return Info{}, err
	}
	parts, err := p.sendParts(ctx, id)
	var info Info
	if err == nil {
		info, err = p.finish(ctx, func(ctx context.Context) (minio.UploadInfo, error) {
			return p.s.core.CompleteMultipartUpload(ctx, p.s.bucket, name, id, parts, completeOptions(p.options()))
		})
	}
	if err != nil {
		p.abort(ctx, name, id)
		return Info{}, err
	}
	return info, nil
}

// completeOptions keeps only what the last request of an upload may carry.
func completeOptions(o minio.PutObjectOptions) minio.PutObjectOptions {
	o.UserMetadata, o.ContentType = nil, ""
	return o
}

// abort runs even when ctx has ended, for a short while.
func (p *s3Put) abort(ctx context.Context, name, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(5*time.Second, p.s.tryTimeout()))
	defer cancel()
	if err := p.s.core.AbortMultipartUpload(ctx, p.s.bucket, name, id); err != nil {
		p.s.o.Logger.Warn("bucket: an upload was neither completed nor aborted; its parts stay until the bucket's lifecycle rule removes them",
			"key", p.key, "upload", id, "error", err)
	}
}

// part is a piece of an upload on its way: to a worker with data, back with the result.
type part struct {
	n    int
	data []byte
	sent minio.CompletePart
	err  error
}

// sendParts reads the source in the calling goroutine and hands its parts to
// workers. At most one part more than there are workers is in memory.
func (p *s3Put) sendParts(ctx context.Context, id string) (_ []minio.CompletePart, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	size := max(partSize, (p.size+maxParts-1)/maxParts)
	count := int((p.size + size - 1) / size)
	workers := min(p.s.o.UploadParallel, count)
	todo, results := make(chan part), make(chan part, workers)
	group := lifecycle.NewGroup(ctx, func(name string, err error) {
		if errclass.Is(err, errclass.Panicked) {
			cancel(err)
		}
	})
	defer func() {
		cancel(context.Canceled)
		// The workers' requests end with the context; the wait is for the last of them.
		wait, stop := context.WithTimeout(context.WithoutCancel(ctx), p.s.o.CallTimeout)
		defer stop()
		err = s3Error(context.WithoutCancel(ctx), errors.CombineErrors(err, group.Close(wait)), "put", p.key)
	}()
	for i := range workers {
		if err := group.Go("upload "+strconv.Itoa(i)+" of "+p.key, func(ctx context.Context) error {
			return p.work(ctx, id, todo, results)
		}); err != nil {
			return nil, err
		}
	}
	return p.feed(ctx, size, count, make([][]byte, workers+1), todo, results)
}

// feed reads the parts, hands them out and collects the results until all count
// parts are sent or one fails. free holds the buffers; nil = not made yet.
func (p *s3Put) feed(ctx context.Context, size int64, count int, free [][]byte, todo chan<- part, results <-chan part) ([]minio.CompletePart, error) {
	done := make([]minio.CompletePart, 0, count)
	var cur part
	next := 1
	for len(done) < count {
		if cur.n == 0 && next <= count && len(free) > 0 {
			buf := free[len(free)-1]
			free = free[:len(free)-1]
			if buf == nil {
				buf = make([]byte, 0, size)
			}
			data, err := p.readPart(buf, min(size, p.size-int64(next-1)*size))
			if err != nil {
				return nil, ended(ctx, err)
			}
			cur, next = part{n: next, data: data}, next+1
		}
		var out chan<- part
		if cur.n > 0 {
			out = todo
		}
		select {
		case out <- cur:
			cur = part{}
		case r := <-results:
			if r.err != nil {
				return nil, r.err
			}
			done = append(done, r.sent)
			free = append(free, r.data)
		case <-ctx.Done():
			return nil, ended(ctx, ctx.Err())
		}
	}
	slices.SortFunc(done, func(a, b minio.CompletePart) int { return a.PartNumber - b.PartNumber })
	return done, nil
}

// work sends parts until ctx ends.
func (p *s3Put) work(ctx context.Context, id string, todo <-chan part, results chan<- part) error {
	for {
		select {
		case t := <-todo:
			t.sent, t.err = p.sendPart(ctx, id, t)
			select {
			case results <- t:
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *s3Put) sendPart(ctx context.Context, id string, t part) (minio.CompletePart, error) {
	sum := sha256.Sum256(t.data)
	var sent minio.ObjectPart
	err := p.s.call(ctx, "put", p.key, func(ctx context.Context, _ int) (err error) {
		sent, err = p.s.core.PutObjectPart(ctx, p.s.bucket, p.s.prefix+p.key, id, t.n, bytes.NewReader(t.data), int64(len(t.data)),
			minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum[:]), DisableContentSha256: true})
		return err
	})
	return minio.CompletePart{PartNumber: t.n, ETag: sent.ETag}, err
}
