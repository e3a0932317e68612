package segments

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

// A sealed segment is served from one of two tiers. Warm, its scalars are on the
// heap; cold, those of fixed width are in a mapped file of the run's folder, from
// where the kernel takes pages back when memory is short and reads them again when
// they are touched. Vectors, indexes and key filters are mapped files in both.
// Text stays on the heap: answers hold it after the segment has gone.
//
// Segments become cold when memory runs short: those that were read the longest
// time ago first. They become warm by being loaded again.

// tier is what a warm segment and its cold copy share, besides everything but the
// rows: the warm one may have readers left when the cold one is released.
type tier struct {
	mu struct {
		sync.Mutex
		users int
		raw   []byte // mapped; nil = warm
	}
}

func newTier() *tier {
	t := &tier{}
	t.mu.users = 1
	return t
}

// cool takes the mapped file of the cold copy; false if there is one already.
func (t *tier) cool(raw []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.raw != nil || t.mu.users != 1 {
		return false
	}
	t.mu.users++
	t.mu.raw = raw
	return true
}

// leave lets go; the last one unmaps the file, and may close the rest.
func (t *tier) leave() (last bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.users--; t.mu.users > 0 {
		return false, nil
	}
	raw := t.mu.raw
	t.mu.raw = nil
	return true, unmapSpill(raw)
}

// cooled returns a copy of the segment whose scalars of fixed width are in a
// mapped file, nil if there is one already. Both are to be closed.
func (s *Sealed) cooled() (*Sealed, error) {
	w := &spillWriter{}
	cold := *s
	cold.rows = &schema.Batch{Rows: s.rows.Rows, Timestamps: s.rows.Timestamps}
	for _, c := range s.rows.Columns {
		twin := *c
		cold.rows.Columns = append(cold.rows.Columns, &twin)
		if c == s.keys {
			cold.keys = &twin
		}
		spill(w, &twin.Bool)
		spill(w, &twin.Int)
		spill(w, &twin.Float)
		spill(w, &twin.Double)
		spill(w, &twin.Offsets)
		spill(w, &twin.Valid)
	}
	spill(w, &cold.order)
	raw, err := w.store(filepath.Join(s.dir, "scalars-"+strconv.FormatInt(time.Now().UnixNano(), 36)))
	if err != nil {
		return nil, err
	}
	if !s.tier.cool(raw) {
		return nil, unmapSpill(raw)
	}
	cold.spilled = int64(w.size)
	return &cold, nil
}

// spillWriter collects slices that go into one file.
type spillWriter struct {
	size  int
	parts []spillPart
}

type spillPart struct {
	bytes []byte
	at    int
	set   func(mapped []byte)
}

// spill notes a slice of plain values; once the file is mapped, it becomes the
// file's part.
func spill[T bool | int | int64 | uint64 | uint32 | float32 | float64](w *spillWriter, p *[]T) {
	s := *p
	if len(s) == 0 {
		return
	}
	width := int(unsafe.Sizeof(s[0]))
	w.parts = append(w.parts, spillPart{
		bytes: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*width), at: w.size,
		set: func(mapped []byte) {
			*p = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mapped))), len(s))
		},
	})
	w.size += (len(s)*width + 63) &^ 63 // each begins where every type may
}

// store writes the file, maps it and points the slices into it. The file has no
// name any more when it returns: it goes with the mapping.
func (w *spillWriter) store(name string) (raw []byte, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError(err, "create %s", name)
	}
	defer func() { err = errors.CombineErrors(err, errors.CombineErrors(os.Remove(name), f.Close())) }()
	// Written, not mapped, so that a full disk is an error and no fault.
	out := bufio.NewWriterSize(f, 1<<20)
	var pad [64]byte
	for _, p := range w.parts {
		if _, err := out.Write(p.bytes); err != nil {
			return nil, diskError(err, "write %s", name)
		}
		if n := len(p.bytes) % 64; n != 0 {
			if _, err := out.Write(pad[n:]); err != nil {
				return nil, diskError(err, "write %s", name)
			}
		}
	}
	if err := out.Flush(); err != nil {
		return nil, diskError(err, "write %s", name)
	}
	if raw, err = mapSpill(f, w.size); err != nil {
		return nil, err
	}
	for _, p := range w.parts {
		p.set(raw[p.at : p.at+len(p.bytes)])
	}
	return raw, nil
}

// Cool makes a loaded segment cold. It returns false if the segment is not there,
// growing, or cold already.
func (c *Collection) Cool(id int64) (bool, error) {
	snap := c.Acquire()
	defer snap.Release()
	h, ok := snap.view.find(id)
	if !ok || h.growing || h.quarantined() != "" {
		return false, nil
	}
	s, ok := h.segment.(*Sealed)
	if !ok || s.spilled > 0 {
		return false, nil
	}
	var cold *Sealed
	err := guard("cool segment", func() (err error) {
		cold, err = s.cooled()
		return err
	})
	if err != nil || cold == nil {
		return false, errors.Wrapf(err, "cool segment %d", id)
	}
	next := c.set.hold(cold, false)
	next.used.Store(h.used.Load())
	if !c.exchange(h, next) {
		c.set.discard(next)
		return false, nil
	}
	cold.heap.Commit(cold.fixedBytes())
	cold.mapped.Commit(cold.file.Manifest().MappedBytes() + cold.spilled)
	c.set.o.Logger.Info("segments: cold", "segment", id, "mapped", cold.spilled, "heap", cold.fixedBytes())
	return true, nil
}

// coldAtOnce returns the cold form of a segment that nobody else has yet; s itself
// if it cannot be had.
func (s *Set) coldAtOnce(warm *Sealed) *Sealed {
	cold, err := warm.cooled()
	if err != nil || cold == nil {
		s.o.Logger.Warn("segments: memory is short and a segment stays warm", "segment", warm.meta.ID, "error", err)
		return warm
	}
	_ = warm.close() // the cold one has the rest
	cold.mapped.Commit(cold.file.Manifest().MappedBytes() + cold.spilled)
	return cold
}

// exchange publishes a view with next in the place of h, if h is in the view. Both
// take the same deletes at all times.
func (c *Collection) exchange(h, next *holder) bool {
	c.mu.Lock()
	old := c.mu.view
	i := slices.Index(old.segments, h)
	if i < 0 {
		c.mu.Unlock()
		return false
	}
	v := &view{refs: 1, segments: slices.Clone(old.segments)}
	v.segments[i] = next
	for _, s := range v.segments {
		s.refs.Add(1)
	}
	c.mu.view = v
	c.mu.Unlock()
	c.letGo(old)
	c.set.changed()
	return true
}

// coolAt is the share of the ledger's limit, in percent, above which segments are
// made cold, and coolTo the one that is aimed at.
const (
	coolAt = 70
	coolTo = 60
)

// tend makes segments cold while memory is short.
func (s *Set) tend(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.o.Ledger.short:
		}
		if err := s.coolColdest(ctx); err != nil {
			s.o.Logger.Warn("segments: memory is short and a segment could not be made cold", "error", err)
		}
	}
}

// coolColdest makes segments cold, the one that was read the longest time ago
// first, until memory is not short any more or all are.
func (s *Set) coolColdest(ctx context.Context) error {
	l := s.o.Ledger
	if !l.Above(coolAt) {
		return nil
	}
	type candidate struct {
		coll *Collection
		id   int64
		used int64
	}
	var all []candidate
	for _, c := range s.Collections() {
		snap := c.Acquire()
		for _, h := range snap.view.segments {
			if seg, ok := h.segment.(*Sealed); ok && seg.spilled == 0 && h.quarantined() == "" {
				all = append(all, candidate{c, h.Meta().ID, h.used.Load()})
			}
		}
		snap.Release()
	}
	slices.SortFunc(all, func(a, b candidate) int { return int(min(max(a.used-b.used, -1), 1)) })
	for _, x := range all {
		if !l.Above(coolTo) || ctx.Err() != nil {
			return nil
		}
		if _, err := x.coll.Cool(x.id); err != nil {
			return err
		}
	}
	return nil
}
