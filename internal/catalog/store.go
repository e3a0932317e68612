package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Sizes up to which a manifest is read and written.
const (
	maxSmallManifest   = 64 << 10
	maxCollectionBytes = 8 << 20
	maxChannelBytes    = 64 << 20
)

// manifest is what a key of the catalog holds.
type manifest interface {
	header() *Header
	// format is the oldest format that can hold it: nodes that are older than this
	// one read on for as long as they can.
	format() int
	validate() error
}

// decode reads a manifest and verifies it. limit has been enforced by the reader.
func decode[T any, M interface {
	*T
	manifest
}](key string, data []byte) (M, error) {
	var h Header
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, errclass.Wrap(err, errclass.Corrupt, "manifest %s is not JSON", key)
	}
	if h.Format > Format {
		return nil, errclass.New(errclass.Unimplemented, "manifest %s has format %d, this build reads up to %d: update this node", key, h.Format, Format)
	}
	if h.Format < 1 || h.Version < 1 {
		return nil, errclass.New(errclass.Corrupt, "manifest %s has format %d and version %d, want 1 or more", key, h.Format, h.Version)
	}
	m := M(new(T))
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // it would be lost at the next write
	if err := dec.Decode(m); err != nil {
		return nil, errclass.Wrap(err, errclass.Corrupt, "manifest %s", key)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errclass.New(errclass.Corrupt, "manifest %s has something after its end", key)
	}
	if err := m.validate(); err != nil {
		return nil, errclass.Wrap(err, errclass.Corrupt, "manifest %s", key)
	}
	return m, nil
}

// encode writes a manifest, one value a line so that people can read and diff it.
func encode(key string, m manifest, limit int64) ([]byte, error) {
	m.header().Format = m.format()
	if err := m.validate(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, errors.Wrapf(err, "write manifest %s", key)
	}
	if int64(len(data)) >= limit {
		return nil, errclass.With(errclass.New(errclass.Exhausted, "manifest %s would have %d bytes, at most %d", key, len(data), limit), errclass.Limit)
	}
	return append(data, '\n'), nil
}

// load reads the manifest at key and its ETag. It belongs to the caller.
func load[T any, M interface {
	*T
	manifest
}](ctx context.Context, c *Catalog, key string, limit int64) (M, string, error) {
	m, etag, err := loadShared[T, M](ctx, c, key, limit)
	if k, ok := any(m).(copier); ok && err == nil {
		m, _ = k.copied().(M)
	}
	return m, etag, err
}

// loadShared is load of a manifest that the caller does not change.
func loadShared[T any, M interface {
	*T
	manifest
}](ctx context.Context, c *Catalog, key string, limit int64) (M, string, error) {
	data, info, err := objstore.ReadVersion(ctx, c.o.Bucket, key, limit)
	if errclass.Is(err, errclass.Exhausted) {
		return nil, "", errclass.Wrap(err, errclass.Corrupt, "manifest %s is too large to be one", key)
	}
	if err != nil {
		if errclass.Is(err, errclass.NotFound) {
			c.kept.drop(key)
		}
		return nil, "", err
	}
	if m := keptOf[T, M](&c.kept, key, info.ETag); m != nil {
		return m, info.ETag, nil
	}
	m, err := decode[T, M](key, data)
	if k, ok := any(m).(copier); ok && err == nil {
		c.kept.put(key, keptManifest{etag: info.ETag, m: k, bytes: int64(len(data))})
	}
	return m, info.ETag, err
}

// put writes the manifest over the version etag, or where nothing is if etag is
// "". The version grows by one.
func (c *Catalog) put(ctx context.Context, key string, m manifest, limit int64, etag string) error {
	if etag == "" {
		m.header().Version = 0
	}
	m.header().Version++
	data, err := encode(key, m, limit)
	if err != nil {
		return err
	}
	info, err := c.o.Bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{IfNoneMatch: etag == "", IfMatch: etag})
	if _, ok := m.(copier); ok && err == nil {
		c.kept.put(key, keptManifest{etag: info.ETag, raw: data, bytes: int64(len(data))})
	}
	return err
}

// errUnchanged is returned by a change that finds nothing to do.
var errUnchanged = errors.New("catalog: unchanged")

// change reads the manifest at key, applies fn and writes it back, again and
// again until nobody else was faster. repeated tells fn that an earlier try may
// have been written although its answer was lost: what fn finds done may be its
// own doing. fn returns errUnchanged when there is nothing to write.
func change[T any, M interface {
	*T
	manifest
}](ctx context.Context, c *Catalog, key string, limit int64, fn func(m M, repeated bool) error) (M, error) {
	repeated := false
	for try := 0; ; try++ {
		m, etag, err := load[T, M](ctx, c, key, limit)
		if err == nil {
			err = fn(m, repeated)
			if errors.Is(err, errUnchanged) {
				return m, nil
			}
			if err == nil {
				if err = c.put(ctx, key, m, limit, etag); err == nil {
					return m, nil
				}
				repeated = repeated || errclass.Is(err, errclass.Retryable)
			}
		}
		if err := c.again(ctx, key, err, try); err != nil {
			return nil, err
		}
	}
}

// again decides after a failed try whether there is another, and waits before
// it, longer each time and at random. It returns err, or nil for another try.
func (c *Catalog) again(ctx context.Context, key string, err error, try int) error {
	conflict := errors.Is(err, objstore.ErrPrecondition)
	switch {
	case ctx.Err() != nil:
		return c.late(ctx, key, err)
	case !conflict && !errclass.Is(err, errclass.Retryable):
		return err
	case try+1 >= c.o.MaxTries:
		return errclass.Wrap(err, errclass.Retryable, "manifest %s: gave up after %d tries", key, c.o.MaxTries)
	}
	if conflict {
		c.conflicts.Add(1)
	} else {
		c.retries.Add(1)
		c.o.Logger.Warn("catalog: storage failed, trying again", slog.String("key", key), slog.Any("error", err))
	}
	longest := min(2*time.Millisecond<<min(try, 8), 500*time.Millisecond)
	t := time.NewTimer(rand.N(longest) + time.Microsecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return c.late(ctx, key, err)
	}
}

// late is the error of a call whose context ended while it worked on key.
func (c *Catalog) late(ctx context.Context, key string, err error) error {
	cause := context.Cause(ctx)
	if err != nil && !errors.Is(err, cause) {
		cause = errors.WithSecondaryError(cause, err)
	}
	return errclass.Wrap(cause, errclass.Retryable, "manifest %s", key)
}
