package segments

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/pool"
)

// Options configure a Set.
type Options struct {
	// Dir is where segment files are kept while they are loaded; the Set owns
	// it and removes it on Close. Required.
	Dir string
	// Pool runs searches; one task per segment. Required. The caller closes it after the Set.
	Pool *pool.Pool
	// Ledger accounts memory. Nil = one without a limit.
	Ledger *Ledger
	// Bucket is where sealed segments come from. Required for Load.
	Bucket objstore.Bucket
	// GrowingRows is the number of rows that a growing segment reserves address
	// space for. 0 = 1,000,000. More rows than that cost a copy.
	GrowingRows int
	// LoadConcurrency is how many segments are loaded at once. 0 = 2.
	LoadConcurrency int
	// LoadTimeout bounds the load of one segment. 0 = 10 minutes.
	LoadTimeout time.Duration
	// QuarantineAfter is how many panics or corrupt reads a segment is allowed. 0 = 3.
	QuarantineAfter int
	// Logger gets what an operator should see. Nil = discard.
	Logger *slog.Logger
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	if o.Ledger == nil {
		o.Ledger = NewLedger(0)
	}
	if o.GrowingRows == 0 {
		o.GrowingRows = 1_000_000
	}
	if o.LoadConcurrency == 0 {
		o.LoadConcurrency = 2
	}
	if o.LoadTimeout == 0 {
		o.LoadTimeout = 10 * time.Minute
	}
	if o.QuarantineAfter == 0 {
		o.QuarantineAfter = 3
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("segments: Dir is required"))
	}
	if o.Pool == nil {
		errs = append(errs, errors.New("segments: Pool is required"))
	}
	for _, v := range []struct {
		name string
		n    int64
	}{{"GrowingRows", int64(o.GrowingRows)}, {"LoadConcurrency", int64(o.LoadConcurrency)},
		{"LoadTimeout", int64(o.LoadTimeout)}, {"QuarantineAfter", int64(o.QuarantineAfter)}} {
		if v.n < 0 {
			errs = append(errs, errors.Newf("segments: %s is %d, want 0 (default) or more", v.name, v.n))
		}
	}
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

// Set is everything that is searchable on this node. Open it with New, Close it
// before its Pool.
type Set struct {
	o       Options
	group   *lifecycle.Group
	scratch sync.Pool // *scratch
	loads   *loads
	builder *graphBuilder

	mu struct {
		sync.Mutex
		collections map[int64]*Collection
		version     int64
		changed     chan struct{} // closed at the next change
		open        int           // segments not closed yet
		closeErrs   []error
	}
}

// New returns a running, empty Set.
func New(o Options) (*Set, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, errors.Wrapf(err, "create segment folder %s", o.Dir)
	}
	s := &Set{o: o}
	s.mu.collections = map[int64]*Collection{}
	s.mu.changed = make(chan struct{})
	s.scratch.New = func() any { return newScratch() }
	s.group = lifecycle.NewGroup(context.Background(), func(name string, err error) {
		if err != nil && !errors.Is(err, context.Canceled) {
			o.Logger.Error("segments: goroutine ended with an error", "name", name, "error", err)
		}
	})
	s.loads = newLoads(o.LoadConcurrency)
	s.builder = newGraphBuilder(s)
	if err := s.group.Go("growing graph builder", s.builder.run); err != nil {
		return nil, err
	}
	return s, nil
}

// Add makes a collection known; adding the same id again returns the one that is there.
func (s *Set) Add(info CollectionInfo) *Collection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.mu.collections[info.ID]; ok {
		return c
	}
	c := newCollection(s, info)
	s.mu.collections[info.ID] = c
	return c
}

// Collection returns a collection that was added.
func (s *Set) Collection(id int64) (*Collection, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.mu.collections[id]
	return c, ok
}

// Collections returns all collections in order of their ids.
func (s *Set) Collections() []*Collection {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Sorted(maps.Keys(s.mu.collections))
	out := make([]*Collection, 0, len(ids))
	for _, id := range ids {
		out = append(out, s.mu.collections[id])
	}
	return out
}

// Remove takes a collection and all its segments away. Readers that hold a
// Snapshot finish on it.
func (s *Set) Remove(id int64) {
	s.mu.Lock()
	c, ok := s.mu.collections[id]
	delete(s.mu.collections, id)
	s.mu.Unlock()
	if ok {
		c.drop()
	}
}

// Version grows with each change of what is searchable; Changed is closed at the next one.
func (s *Set) Version() (version int64, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.version, s.mu.changed
}

func (s *Set) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.version++
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// Ledger is the memory ledger.
func (s *Set) Ledger() *Ledger { return s.o.Ledger }

// opened counts a segment whose memory has to be given back.
func (s *Set) opened() {
	s.mu.Lock()
	s.mu.open++
	s.mu.Unlock()
}

// unref lets go of a segment; the last one closes it, away from the caller.
func (s *Set) unref(h *holder) {
	if h.refs.Add(-1) > 0 {
		return
	}
	s.discard(h)
}

// discard closes a segment that no view holds.
func (s *Set) discard(h *holder) {
	reap := func(context.Context) error { return s.reap(h) }
	if err := s.group.Go("close segment "+strconv.FormatInt(h.Meta().ID, 10), reap); err != nil {
		_ = s.reap(h) // the set is closing: do it here; reap keeps the error
	}
}

func (s *Set) reap(h *holder) error {
	err := h.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open--
	if err != nil {
		s.mu.closeErrs = append(s.mu.closeErrs, errors.Wrapf(err, "close segment %d", h.Meta().ID))
	}
	return err
}

// segmentDir is the folder of a loaded segment.
func (s *Set) segmentDir(id int64) string {
	return filepath.Join(s.o.Dir, strconv.FormatInt(id, 10))
}

// Close stops loads and background work, drops every collection and waits until
// ctx ends. It returns what could not be closed and how many segments are still
// held by readers.
func (s *Set) Close(ctx context.Context) error {
	for _, c := range s.Collections() {
		s.Remove(c.Info().ID)
	}
	s.builder.releaseAll()
	errs := []error{errors.Wrap(s.group.Close(ctx), "segments")}
	s.mu.Lock()
	if s.mu.open > 0 {
		errs = append(errs, errors.Newf("segments: %d segments are still held by readers", s.mu.open))
	}
	errs = append(errs, s.mu.closeErrs...)
	empty := s.mu.open == 0
	s.mu.Unlock()
	if empty {
		errs = append(errs, errors.Wrap(os.RemoveAll(s.o.Dir), "remove segment folder"))
	}
	return errors.Join(errs...)
}

// SegmentStatus describes one segment for people and coordinators.
type SegmentStatus struct {
	Meta
	State        string // growing, sealed (growing, waiting for its flush), loaded, quarantined
	Rows         int
	DeletedRows  int
	MemoryBytes  int64
	MappedBytes  int64
	Indexes      map[int64]string // by field id
	Error        string
	MinTimestamp uint64
	MaxTimestamp uint64
}

// Segments describes the segments of the collection that are searchable now.
func (c *Collection) Segments() []SegmentStatus {
	snap := c.Acquire()
	defer snap.Release()
	out := make([]SegmentStatus, 0, len(snap.view.segments))
	for _, h := range snap.view.segments {
		st := SegmentStatus{Meta: h.Meta(), DeletedRows: len(h.hidden().entries), MemoryBytes: h.bytes(), Indexes: map[int64]string{}}
		switch seg := h.segment.(type) {
		case *Growing:
			seg.describe(&st)
		case *Sealed:
			seg.describe(&st)
		}
		if why := h.quarantined(); why != "" {
			st.State, st.Error = "quarantined", why
		}
		out = append(out, st)
	}
	return out
}

func (g *Growing) describe(st *SegmentStatus) {
	st.State, st.Rows = "growing", g.Rows()
	if g.sealed.Load() {
		st.State = "sealed"
	}
	if st.Rows > 0 {
		st.MinTimestamp, st.MaxTimestamp = g.timestamp(0), g.timestamp(uint32(st.Rows-1))
	}
	for _, v := range g.vectors {
		st.Indexes[v.fieldID] = "FLAT"
		if v.graph.Load() != nil {
			st.Indexes[v.fieldID] = "HNSW"
		}
	}
}

// workers is how many tasks of one search are useful at a time.
func workers() int { return runtime.GOMAXPROCS(0) }
