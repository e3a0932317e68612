package segments

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

// A sealed segment is warm or cold. Warm, its scalars are on the heap; cold, they are
// in a mapped file of the run's folder, from where the kernel takes pages back when
// memory is short and reads them again when they are touched. Vectors, indexes and
// key filters are mapped files in both. What is left of a cold segment on the heap
// does not grow with its rows, but for a bit for each row once some are deleted.
//
// The mapped file holds text with the headers of the strings, so that a column of a
// cold segment is used as any other. It ends with the segment: whatever outlives a
// read is copied. See Sealed.gather.
//
// Indexes over scalars are built again for a cold segment, if filters earn them and
// memory allows: those of the warm one alias its columns.
//
// Segments become cold when memory runs short: those that were read the longest
// time ago first. They become warm by being loaded again.

// tier is what a warm segment and its cold copy share, besides everything but the
// rows: the warm one may have readers left when the cold one is released.
type tier struct {
	disk *localDisk // nil = what the segment has on the local disk is not accounted
	mu   struct {
		sync.Mutex
		users  int
		raw    []byte // mapped; nil = warm
		onDisk int64  // on the local disk, but for vectors and indexes
	}
}

// takeDisk accounts n more bytes on the local disk.
func (t *tier) takeDisk(n int64) {
	if t.disk == nil {
		return
	}
	t.disk.force(n)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.onDisk += n
}

// giveDisk gives back what is accounted on the local disk.
func (t *tier) giveDisk() {
	t.mu.Lock()
	n := t.mu.onDisk
	t.mu.onDisk = 0
	t.mu.Unlock()
	if t.disk != nil {
		t.disk.give(n, roomForRest)
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

// cooled returns a copy of the segment whose scalars are in a mapped file, nil if
// there is one already. Both are to be closed.
func (s *Sealed) cooled() (*Sealed, error) {
	w := &spillWriter{}
	cold := *s
	cold.rows = &schema.Batch{Rows: s.rows.Rows, Timestamps: s.rows.Timestamps}
	spill(w, &cold.rows.Timestamps)
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
		spillText(w, &twin.Str)
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
	s.tier.takeDisk(int64(w.size))
	cold.spilled = int64(w.size)
	cold.scalars = newScalarIndexes(s.ledger)
	return &cold, nil
}

// spillWriter collects columns that go into one file.
type spillWriter struct {
	size  int
	parts []spillPart
}

// spillPart is a piece of the file: bytes, or the headers of strings and the strings.
type spillPart struct {
	at    int
	size  int
	bytes []byte
	texts []string
	set   func(mapped []byte)
}

// add notes a piece; each begins where every type may.
func (w *spillWriter) add(p spillPart) {
	p.at = w.size
	w.parts = append(w.parts, p)
	w.size += (p.size + 63) &^ 63
}

// spill notes a slice of plain values; once the file is mapped, it becomes the
// file's part.
func spill[T bool | int | int64 | uint64 | uint32 | float32 | float64](w *spillWriter, p *[]T) {
	s := *p
	if len(s) == 0 {
		return
	}
	width := int(unsafe.Sizeof(s[0]))
	w.add(spillPart{
		bytes: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*width), size: len(s) * width,
		set: func(mapped []byte) {
			*p = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mapped))), len(s))
		},
	})
}

// headerBytes is the size of a string without its bytes.
const headerBytes = int(unsafe.Sizeof(""))

// spillText is spill for texts. The headers are made in the mapped memory, whose
// address is in them.
func spillText(w *spillWriter, p *[]string) {
	texts := *p
	if len(texts) == 0 {
		return
	}
	size := headerBytes * len(texts)
	for _, s := range texts {
		size += len(s)
	}
	w.add(spillPart{texts: texts, size: size, set: func(mapped []byte) {
		headers := unsafe.Slice((*string)(unsafe.Pointer(unsafe.SliceData(mapped))), len(texts))
		at := headerBytes * len(texts)
		for i, s := range texts {
			headers[i] = ""
			if len(s) > 0 {
				headers[i] = unsafe.String(&mapped[at], len(s))
				at += len(s)
			}
		}
		*p = headers
	}})
}

// write writes the piece and fills it up to where the next one begins.
func (p *spillPart) write(out *bufio.Writer) error {
	var zeros [4096]byte
	if _, err := out.Write(p.bytes); err != nil {
		return err
	}
	for left := headerBytes * len(p.texts); left > 0; { // so that the disk has room for the headers
		n, err := out.Write(zeros[:min(left, len(zeros))])
		if err != nil {
			return err
		}
		left -= n
	}
	for _, s := range p.texts {
		if _, err := out.WriteString(s); err != nil {
			return err
		}
	}
	_, err := out.Write(zeros[:-p.size&63])
	return err
}

// store writes the file, maps it and points the columns into it. The file has no
// name any more when it returns: it goes with the mapping.
func (w *spillWriter) store(name string) (raw []byte, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError(err, "create %s", name)
	}
	defer func() { err = errors.CombineErrors(err, errors.CombineErrors(os.Remove(name), f.Close())) }()
	// Written, not mapped, so that a full disk is an error and no fault.
	out := bufio.NewWriterSize(f, 1<<20)
	for i := range w.parts {
		if err := w.parts[i].write(out); err != nil {
			return nil, diskError(err, "write %s", name)
		}
	}
	if err := out.Flush(); err != nil {
		return nil, diskError(err, "write %s", name)
	}
	if raw, err = mapSpill(f, w.size); err != nil {
		return nil, err
	}
	err = guard("point columns into "+name, func() error {
		for _, p := range w.parts {
			p.set(raw[p.at : p.at+p.size])
		}
		return sealSpill(raw)
	})
	if err != nil {
		return nil, errors.CombineErrors(err, unmapSpill(raw))
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
	c.indexScalars()
	cold.heap.Commit(cold.fixedBytes())
	cold.commitMapped()
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
	cold.commitMapped()
	return cold
}

// commitMapped accounts what is mapped but for vectors and indexes.
func (s *Sealed) commitMapped() {
	bytes, _ := s.file.Bytes()
	s.mapped.Commit(bytes + s.spilled)
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

// coolColdest makes room in memory: indexes forget what they have learnt from searches, which
// they will learn again. If that is not enough it makes segments cold, the one that was read the longest time ago
// first, until memory is not short any more or all are. One that cannot be made cold
// does not keep the others from it, unless the disk is full.
func (s *Set) coolColdest(ctx context.Context) error {
	l := s.o.Ledger
	if !l.Short(coolAt) {
		return nil
	}
	var failed error
	type candidate struct {
		coll *Collection
		id   int64
		used int64
	}
	var all []candidate
	for _, c := range s.Collections() {
		snap := c.Acquire()
		for _, h := range snap.view.segments {
			seg, ok := h.segment.(*Sealed)
			if !ok {
				continue
			}
			seg.forget()
			if seg.spilled == 0 && h.quarantined() == "" {
				all = append(all, candidate{c, h.Meta().ID, h.used.Load()})
			}
		}
		snap.Release()
	}
	slices.SortFunc(all, func(a, b candidate) int { return int(min(max(a.used-b.used, -1), 1)) })
	for _, x := range all {
		if !l.Short(coolTo) || ctx.Err() != nil {
			return nil
		}
		if _, err := x.coll.Cool(x.id); err != nil {
			failed = errors.CombineErrors(failed, err)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
		}
	}
	return failed
}
