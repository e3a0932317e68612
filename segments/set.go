package segments

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/lifecycle"
)

// Set is everything that is searchable on this node. Open it with New, Close it
// before its Pool.
type Set struct {
	o       Options
	group   *lifecycle.Group // loads and lists: they end when Close begins
	late    *lifecycle.Group // closing of segments: goes on until no reader is left
	scratch sync.Pool        // *scratch, one per task
	merges  sync.Pool        // *merger, one per search
	reads   sync.Pool        // *searching, the same
	loads   *loads
	disk    *localDisk
	builder *listBuilder
	scalars *scalarBuilder
	pages   keptPages

	deleteFiles atomic.Uint64 // of channels, so far
	buffered    atomic.Int64  // bytes of deletes that channels have in memory
	watched     atomic.Int64  // channels

	// Tests lower and replace these.
	listsAfter int
	indexAfter int
	create     func(name string) (io.WriteCloser, error)

	mu struct {
		sync.Mutex
		collections map[int64]*Collection
		version     int64
		changed     chan struct{} // closed at the next change
		open        int           // segments not closed yet
		held        uint64        // segments that were opened
		closing     bool
		empty       chan struct{} // not nil while Close waits; closed when open is 0
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
		return nil, diskError(err, "create segment folder %s", o.Dir)
	}
	s := &Set{o: o, listsAfter: listsAfter, indexAfter: indexRows}
	s.create = func(name string) (io.WriteCloser, error) { return os.Create(name) }
	s.sweep()
	s.mu.collections = map[int64]*Collection{}
	s.mu.changed = make(chan struct{})
	s.scratch.New = func() any { return newScratch() }
	s.merges.New = func() any { return &merger{} }
	s.reads.New = func() any { return &searching{} }
	onExit := func(name string, err error) {
		if err != nil && !errors.Is(err, context.Canceled) {
			o.Logger.Error("segments: goroutine ended with an error", "name", name, "error", err)
		}
	}
	s.group = lifecycle.NewGroup(context.Background(), onExit)
	s.late = lifecycle.NewGroup(context.Background(), onExit)
	s.loads, s.disk = newLoads(o.LoadConcurrency), newLocalDisk(o.DiskBytes, o.FetchConcurrency)
	s.disk.apart, s.disk.queueLimit = o.QueueApart, o.QueueBytes
	s.builder, s.scalars = newListBuilder(s), newScalarBuilder(s)
	s.pages.ledger = o.Ledger
	if err := s.group.Go("memory tiers", s.tend); err != nil {
		return nil, err
	}
	if err := s.group.Go("growing list builder", s.builder.run); err != nil {
		return nil, err
	}
	if err := s.group.Go("scalar index builder", s.scalars.run); err != nil {
		return nil, err
	}
	return s, nil
}

// leftover is the name of a loaded segment's folder, of one being fetched, or of a file of deletes.
var leftover = regexp.MustCompile(`^([0-9]+-[0-9a-z]+(\.tmp)?|deletes-[0-9]+)$`)

// sweep removes what a run that was killed left in the folder. A failure costs
// disk space, not the start.
func (s *Set) sweep() {
	entries, err := os.ReadDir(s.o.Dir)
	for _, e := range entries {
		if leftover.MatchString(e.Name()) {
			err = errors.CombineErrors(err, os.RemoveAll(filepath.Join(s.o.Dir, e.Name())))
		}
	}
	if err != nil {
		s.o.Logger.Warn("segments: leftovers of an earlier run not removed", "error", err)
	}
}

// Add makes a collection known; adding the same id again returns the one that is
// there. After Close it returns one that nothing can be watched or loaded in.
func (s *Set) Add(info CollectionInfo) *Collection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.mu.collections[info.ID]; ok {
		return c
	}
	c := newCollection(s, info)
	if s.mu.closing {
		c.mu.gone = true // nobody else has it yet
		return c
	}
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

// hold wraps a segment that is open now; it is counted until reap has closed it.
func (s *Set) hold(seg segment, growing bool) *holder {
	s.mu.Lock()
	s.mu.open++
	s.mu.held++
	serial := s.mu.held
	s.mu.Unlock()
	return &holder{segment: seg, growing: growing, serial: serial, task: "search segment " + strconv.FormatInt(seg.Meta().ID, 10)}
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
	if err := s.late.Go("close segment "+strconv.FormatInt(h.Meta().ID, 10), reap); err != nil {
		_ = s.reap(h) // Close has given up waiting: do it here; reap keeps the error
	}
}

func (s *Set) reap(h *holder) error {
	err := guard("close segment "+strconv.FormatInt(h.Meta().ID, 10), h.close)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open--
	if s.mu.empty != nil && s.mu.open == 0 {
		close(s.mu.empty)
		s.mu.empty = nil
	}
	if err != nil {
		s.mu.closeErrs = append(s.mu.closeErrs, errors.Wrapf(err, "close segment %d", h.Meta().ID))
	}
	return err
}

// segmentDir is the folder of a loaded segment.
func (s *Set) segmentDir(id int64) string {
	return filepath.Join(s.o.Dir, strconv.FormatInt(id, 10))
}

// Close stops loads and background work, drops every collection and waits for
// the readers until ctx ends. It returns what could not be closed and how many
// segments are still held by readers. It may be called again to wait longer.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	s.mu.closing = true
	s.mu.Unlock()
	for _, c := range s.Collections() {
		s.Remove(c.Info().ID)
	}
	s.builder.releaseAll()
	s.scalars.releaseAll()
	s.pages.close()
	errs := []error{errors.Wrap(s.group.Close(ctx), "segments")}
	select {
	case <-s.unread():
	case <-ctx.Done():
	}
	errs = append(errs, errors.Wrap(s.late.Close(ctx), "segments"))
	s.mu.Lock()
	open := s.mu.open
	errs = append(errs, s.mu.closeErrs...)
	s.mu.Unlock()
	if open > 0 {
		errs = append(errs, errors.Newf("segments: %d segments are still held by readers", open))
	} else {
		errs = append(errs, errors.Wrap(os.RemoveAll(s.o.Dir), "remove segment folder"))
	}
	return errors.Join(errs...)
}

// unread is closed when every segment has been closed. Nothing opens one any
// more when Close calls it: loads have ended and channels refuse rows.
func (s *Set) unread() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if s.mu.empty == nil {
		s.mu.empty = make(chan struct{})
	}
	return s.mu.empty
}

// workers is how many tasks of one search are useful at a time.
func workers() int { return runtime.GOMAXPROCS(0) }
