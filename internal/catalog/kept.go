package catalog

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/querynode/querynode/internal/objstore"
)

// Manifests are read far more often than they change, so a catalog keeps those that
// it has read or written, with their ETags. Nothing is taken for true because it is
// kept: either the object has been read again and has the same ETag, which saves its
// decoding, or a listing has shown that ETag, which saves the read too.

// keptBytes bounds the manifests that are kept, by their size in the bucket;
// keptLargest bounds each.
const (
	keptBytes   = 32 << 20
	keptLargest = 4 << 20
)

// kept holds manifests. They are shared, and never changed.
type kept struct {
	mu struct {
		sync.Mutex
		of    map[string]keptManifest // by key
		bytes int64
	}
}

type keptManifest struct {
	etag  string
	m     copier // nil = raw has not been decoded yet
	raw   []byte // of what was written here
	bytes int64
}

// copier is a manifest that can be kept.
type copier interface {
	manifest
	// copied returns a manifest that shares nothing with this one that can be changed.
	copied() manifest
}

// keptOf returns what the key held in the version etag, not to be changed; nil if that
// is not kept.
func keptOf[T any, M interface {
	*T
	manifest
}](k *kept, key, etag string) M {
	e, ok := k.get(key, etag)
	if !ok {
		return nil
	}
	if e.m == nil {
		m, err := decode[T, M](key, e.raw)
		if err != nil {
			return nil
		}
		k.put(key, keptManifest{etag: etag, m: any(m).(copier), bytes: e.bytes})
		return m
	}
	m, _ := e.m.(M)
	return m
}

func (k *kept) get(key, etag string) (e keptManifest, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok = k.mu.of[key]
	return e, ok && etag != "" && e.etag == etag
}

// put keeps a manifest that nobody will change.
func (k *kept) put(key string, e keptManifest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(key)
	if e.etag == "" || e.bytes > keptLargest {
		return
	}
	if k.mu.of == nil {
		k.mu.of = map[string]keptManifest{}
	}
	for other := range k.mu.of { // any: what is needed comes back with its next read
		if k.mu.bytes+e.bytes <= keptBytes {
			break
		}
		k.dropLocked(other)
	}
	k.mu.of[key] = e
	k.mu.bytes += e.bytes
}

// drop forgets what is not there any more.
func (k *kept) drop(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(key)
}

func (k *kept) dropLocked(key string) {
	k.mu.bytes -= k.mu.of[key].bytes
	delete(k.mu.of, key)
}

// loadListed is loadShared of an object that a listing has shown.
func loadListed[T any, M interface {
	*T
	manifest
}](ctx context.Context, c *Catalog, info objstore.Info, limit int64) (M, string, error) {
	if m := keptOf[T, M](&c.kept, info.Key, info.ETag); m != nil {
		return m, info.ETag, nil
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	return loadShared[T, M](ctx, c, info.Key, limit)
}

func (c *Collection) copied() manifest {
	out := *c
	out.Schema.Fields, out.Schema.Functions = slices.Clone(c.Schema.Fields), slices.Clone(c.Schema.Functions)
	out.Partitions, out.Aliases, out.VChannels = slices.Clone(c.Partitions), slices.Clone(c.Aliases), slices.Clone(c.VChannels)
	out.Indexes = slices.Clone(c.Indexes)
	for i := range out.Indexes {
		out.Indexes[i].Params = maps.Clone(out.Indexes[i].Params)
	}
	out.Properties = maps.Clone(c.Properties)
	return &out
}

func (c *Channel) copied() manifest {
	out := *c
	out.Segments, out.Deltas = slices.Clone(c.Segments), slices.Clone(c.Deltas)
	return &out
}

func (e *nameEntry) copied() manifest {
	out := *e
	return &out
}
