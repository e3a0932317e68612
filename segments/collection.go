package segments

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// VectorIndex says how a vector field is indexed.
type VectorIndex struct {
	Type           string // an index.Kind
	Metric         index.Metric
	M              int     // HNSW, HNSW_SQ; 0 = default
	EfConstruction int     // HNSW, HNSW_SQ; 0 = default
	Lists          int     // IVF_FLAT, IVF_SQ8, SCANN; 0 = chosen by rows
	Recall         float32 // wanted of searches that do not say; 0 = the index's default
	RowBytes       int     // AUTOINDEX: memory of an index by row at most; 0 = not bounded
	K1, B          float64 // BM25; see sparse.NewBM25
}

// CollectionInfo says what a collection is on this node.
type CollectionInfo struct {
	ID int64
	// Version of what the catalog knew: Update passes over what is older than what it
	// has. 0 = as old as can be.
	Version uint64
	Name    string
	Schema  *schema.Schema
	Indexes map[int64]VectorIndex // by field id; a field without one is searched exactly with COSINE, words with BM25
	// Scalars are types of indexes of other fields, by field id: sealed segments get
	// them at once, not when filters have earned them.
	Scalars map[int64]string
	// TTL is the age beyond which rows are invisible, and dropped by compactions. 0 = rows do not age.
	TTL time.Duration
	// Retention is how long reads in the past are answered. Nil = as the node is configured.
	Retention *time.Duration
	// Warmup says when vectors and indexes of segments come to the local disk. "" = as
	// the node is configured.
	Warmup Warmup
}

// index says how a vector field is indexed.
func (i *CollectionInfo) index(fieldID int64) VectorIndex {
	x := i.Indexes[fieldID]
	if ofTexts(i.Schema, fieldID) {
		if x.Metric != index.BM25 {
			return textIndex()
		}
		return x
	}
	if !x.Metric.Valid() && !x.Metric.OfBits() {
		return VectorIndex{Type: indexFlat, Metric: index.Cosine}
	}
	return x
}

// indexFlat is the type of an index that is an exact scan.
const indexFlat = "FLAT"

// Collection is a collection on this node: its channels, and the view of its
// segments that readers see. All methods are safe for concurrent use.
type Collection struct {
	set  *Set
	info atomic.Pointer[CollectionInfo]

	mu struct {
		sync.Mutex
		view     *view
		channels map[string]*Channel
		dropped  map[int64]bool    // partitions; their ids are never used again
		left     map[string]uint64 // how far channels that were unwatched had come
		anew     chan struct{}     // a channel is unwatched only to be watched again; closed when that is over. Nil = none is
		gone     bool              // removed from the Set
	}
}

func newCollection(s *Set, info CollectionInfo) *Collection {
	c := &Collection{set: s}
	c.info.Store(&info)
	c.mu.view = &view{refs: 1}
	c.mu.channels = map[string]*Channel{}
	c.mu.dropped = map[int64]bool{}
	c.mu.left = map[string]uint64{}
	return c
}

// Info says what the collection is.
func (c *Collection) Info() CollectionInfo { return *c.info.Load() }

// schema is the newest schema of the collection.
func (c *Collection) schema() *schema.Schema { return c.info.Load().Schema }

// Update replaces name and indexes: segments that are built from now on use
// them, and those of scalar fields are built for the segments that are there. The
// schema may only have gained fields and lost some; an older one than there is is not
// taken, for rows may have come that need the newer one.
func (c *Collection) Update(info CollectionInfo) {
	defer c.indexScalars()
	for {
		old := c.info.Load()
		if info.Version < old.Version {
			return // somebody has read it late
		}
		next := info
		if old.Schema.Version > next.Schema.Version {
			next.Schema = old.Schema
		}
		if c.info.CompareAndSwap(old, &next) {
			return
		}
	}
}

// Channel returns the channel if it is watched.
func (c *Collection) Channel(vchannel string) (*Channel, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.mu.channels[vchannel]
	return ch, ok
}

// Channels returns the watched channels in order of their names.
func (c *Collection) Channels() []*Channel {
	return c.appendChannels(nil)
}

// appendChannels appends the channels to out, which is empty, in order of their names.
func (c *Collection) appendChannels(out []*Channel) []*Channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.mu.channels {
		out = append(out, ch)
	}
	slices.SortFunc(out, func(a, b *Channel) int { return cmp.Compare(a.name, b.name) })
	return out
}

// Watch adds a channel that starts right after from. flushed are the segments
// that the catalog has as sealed, by id, with the timestamp of their newest row, Latest = it is not known:
// rows replayed for them are dropped. Sealed
// segments that stayed when the channel was unwatched are dropped if deletes
// before from have passed them by.
func (c *Collection) Watch(vchannel string, from Position, flushed map[int64]uint64) (*Channel, error) {
	c.mu.Lock()
	left, stayed := c.mu.left[vchannel]
	c.mu.Unlock()
	if stayed && left < from.Timestamp {
		c.swap(nil, func(h *holder) bool { return h.Meta().VChannel == vchannel })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.gone {
		return nil, errclass.New(errclass.Closed, "watch channel %s: collection %q has been removed", vchannel, c.Info().Name)
	}
	if _, ok := c.mu.channels[vchannel]; ok {
		return nil, errclass.New(errclass.Exists, "channel %s is watched already", vchannel)
	}
	ch := newChannel(c, vchannel, from, flushed)
	c.mu.channels[vchannel] = ch
	return ch, nil
}

// Unwatch removes a channel: its growing segments leave the view, those who wait
// for its timestamp get an error. Sealed segments stay, unreadable, but get no
// more deletes.
func (c *Collection) Unwatch(vchannel string) {
	c.mu.Lock()
	ch, ok := c.mu.channels[vchannel]
	delete(c.mu.channels, vchannel)
	if ok {
		c.mu.left[vchannel] = 0 // until it is known, in case it is watched again at once
	}
	c.mu.Unlock()
	if !ok {
		return
	}
	growing, applied := ch.close()
	c.mu.Lock()
	c.mu.left[vchannel] = applied.Timestamp
	c.mu.Unlock()
	c.swap(nil, func(h *holder) bool { return slices.Contains(growing, h) })
}

// Anew says that a channel is about to be unwatched only to be watched again: until
// the returned function is called, reads wait rather than do without it. The
// caller does that with one channel at a time.
func (c *Collection) Anew() (over func()) {
	done := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.anew = done
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.anew = nil
		close(done)
	})
}

// settled waits until no channel is being watched anew, and says whether one was.
func (c *Collection) settled(ctx context.Context) (waited bool, err error) {
	for {
		c.mu.Lock()
		anew := c.mu.anew
		c.mu.Unlock()
		if anew == nil {
			return waited, nil
		}
		waited = true
		select {
		case <-anew:
		case <-ctx.Done():
			return true, errclass.Wrap(ctx.Err(), errclass.Retryable, "a channel of collection %q is being watched anew", c.Info().Name)
		}
	}
}

// Release takes sealed segments out of the view; each is closed by its last
// reader and its files are removed then. It returns the ids that were there.
func (c *Collection) Release(ids ...int64) []int64 {
	var found []int64
	c.swap(nil, func(h *holder) bool {
		if h.growing || !slices.Contains(ids, h.Meta().ID) {
			return false
		}
		found = append(found, h.Meta().ID)
		return true
	})
	return found
}

// DropPartition takes every segment of the partition out of the view at once.
// None comes back: rows and loads of it are refused from now on.
func (c *Collection) DropPartition(partitionID int64) {
	c.mu.Lock()
	c.mu.dropped[partitionID] = true
	c.mu.Unlock()
	for _, ch := range c.Channels() {
		ch.dropPartition(partitionID)
	}
	c.swap(nil, func(h *holder) bool { return h.Meta().PartitionID == partitionID })
}

// Dropped reports whether DropPartition was called for the partition.
func (c *Collection) Dropped(partitionID int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.dropped[partitionID]
}

// drop takes everything out of the view, for good.
func (c *Collection) drop() {
	c.mu.Lock()
	c.mu.gone = true
	c.mu.Unlock()
	for _, ch := range c.Channels() {
		c.Unwatch(ch.name)
	}
	c.swap(nil, func(*holder) bool { return true })
}
