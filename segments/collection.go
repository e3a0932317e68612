package segments

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// VectorIndex says how a vector field is indexed.
type VectorIndex struct {
	Type           string // FLAT, HNSW or AUTOINDEX
	Metric         index.Metric
	M              int // HNSW; 0 = default
	EfConstruction int // HNSW; 0 = default
}

// CollectionInfo says what a collection is on this node.
type CollectionInfo struct {
	ID      int64
	Name    string
	Schema  *schema.Schema
	Indexes map[int64]VectorIndex // by field id; a field without one is searched exactly with COSINE
}

// Collection is a collection on this node: its channels, and the view of its
// segments that readers see. All methods are safe for concurrent use.
type Collection struct {
	set  *Set
	info atomic.Pointer[CollectionInfo]

	mu struct {
		sync.Mutex
		view     *view
		channels map[string]*Channel
	}
}

// view is an immutable list of segments. refs counts its Snapshots, plus one
// while it is the current view; it is guarded by Collection.mu.
type view struct {
	refs     int
	segments []*holder // ascending by id
}

func (v *view) find(id int64) (*holder, bool) {
	i, ok := slices.BinarySearchFunc(v.segments, id, func(h *holder, id int64) int {
		switch {
		case h.Meta().ID < id:
			return -1
		case h.Meta().ID > id:
			return 1
		}
		return 0
	})
	if !ok {
		return nil, false
	}
	return v.segments[i], true
}

func newCollection(s *Set, info CollectionInfo) *Collection {
	c := &Collection{set: s}
	c.info.Store(&info)
	c.mu.view = &view{refs: 1}
	c.mu.channels = map[string]*Channel{}
	return c
}

// Info says what the collection is.
func (c *Collection) Info() CollectionInfo { return *c.info.Load() }

// Update replaces name and indexes: segments that are built from now on use
// them. The schema may only have gained fields.
func (c *Collection) Update(info CollectionInfo) { c.info.Store(&info) }

// Snapshot is a set of segments that does not change and is not closed while it
// is held. Release it once.
type Snapshot struct {
	coll *Collection
	view *view
	once sync.Once
}

// Acquire returns the segments that are searchable now. The lock covers a
// pointer and a counter.
func (c *Collection) Acquire() *Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.view.refs++
	return &Snapshot{coll: c, view: c.mu.view}
}

// Release lets go of the snapshot; releasing twice is harmless.
func (s *Snapshot) Release() { s.once.Do(func() { s.coll.letGo(s.view) }) }

func (c *Collection) letGo(v *view) {
	c.mu.Lock()
	v.refs--
	last := v.refs == 0
	c.mu.Unlock()
	if last {
		for _, h := range v.segments {
			c.set.unref(h)
		}
	}
}

// swap publishes a view without the segments of drop and with those of add, in
// one step. An added segment replaces one of the same id.
func (c *Collection) swap(add []*holder, drop func(*holder) bool) {
	c.mu.Lock()
	old := c.mu.view
	next := &view{refs: 1}
	for _, h := range old.segments {
		replaced := slices.ContainsFunc(add, func(a *holder) bool { return a.Meta().ID == h.Meta().ID })
		if !replaced && (drop == nil || !drop(h)) {
			next.segments = append(next.segments, h)
		}
	}
	next.segments = append(next.segments, add...)
	slices.SortFunc(next.segments, func(a, b *holder) int {
		if a.Meta().ID < b.Meta().ID {
			return -1
		}
		return 1
	})
	for _, h := range next.segments {
		h.refs.Add(1)
	}
	c.mu.view = next
	c.mu.Unlock()
	c.letGo(old)
	c.set.changed()
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
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Channel, 0, len(c.mu.channels))
	for _, ch := range c.mu.channels {
		out = append(out, ch)
	}
	slices.SortFunc(out, func(a, b *Channel) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return out
}

// Watch adds a channel that starts right after from. flushed are the segments
// that the catalog has as sealed: rows replayed for them are dropped.
func (c *Collection) Watch(vchannel string, from Position, flushed []int64) (*Channel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.mu.channels[vchannel]; ok {
		return nil, errclass.New(errclass.Exists, "channel %s is watched already", vchannel)
	}
	ch := newChannel(c, vchannel, from, flushed)
	c.mu.channels[vchannel] = ch
	return ch, nil
}

// Unwatch removes a channel: its growing segments leave the view, those who wait
// for its timestamp get an error. Sealed segments stay but get no more deletes,
// so the caller releases them too.
func (c *Collection) Unwatch(vchannel string) {
	c.mu.Lock()
	ch, ok := c.mu.channels[vchannel]
	delete(c.mu.channels, vchannel)
	c.mu.Unlock()
	if !ok {
		return
	}
	ch.close()
	c.swap(nil, func(h *holder) bool { return h.growing && h.Meta().VChannel == vchannel })
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
func (c *Collection) DropPartition(partitionID int64) {
	for _, ch := range c.Channels() {
		ch.dropPartition(partitionID)
	}
	c.swap(nil, func(h *holder) bool { return h.Meta().PartitionID == partitionID })
}

// drop takes everything out of the view.
func (c *Collection) drop() {
	for _, ch := range c.Channels() {
		c.Unwatch(ch.name)
	}
	c.swap(nil, func(*holder) bool { return true })
}
