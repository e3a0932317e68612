package embedded

import (
	"io"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// commit stores the batches of reqs with as few writes as the files allow and
// answers each.
func (t *topic) commit(reqs []*request) {
	group := make([]*request, 0, len(reqs))
	for _, r := range reqs {
		if err := t.refuse(r.p); err != nil {
			r.done <- outcome{err: err}
			continue
		}
		if len(group) > 0 && t.full(len(t.out)+len(r.buf)) {
			t.flush(group)
			group = group[:0]
		}
		t.out = append(t.out, r.buf...)
		group = append(group, r)
	}
	if len(group) > 0 {
		t.flush(group)
	}
}

// refuse says why p may not append.
func (t *topic) refuse(p *producer) error {
	t.mu.Lock()
	owner := t.mu.owner
	t.mu.Unlock()
	switch {
	case owner == p && t.doubt != nil:
		return errors.Wrapf(mq.ErrUnknownOutcome, "append to %s refused: an earlier write is in doubt: %v", t.name, t.doubt)
	case owner == p:
		return nil
	case p.letGo.Load():
		return errors.Wrapf(mq.ErrClosed, "append to %s", t.name)
	default:
		return errors.Wrapf(mq.ErrFenced, "append to %s by %s", t.name, p.what)
	}
}

// full reports whether n more bytes belong into a new segment.
func (t *topic) full(n int) bool {
	return t.file == nil || t.end > segmentHeaderBytes && t.end+int64(n) > t.o.SegmentBytes
}

// flush writes t.out, the batches of group, and answers them.
func (t *topic) flush(group []*request) {
	size := len(t.out)
	err := t.doubtError()
	if err == nil && t.full(size) {
		err = t.roll()
	}
	first := t.next
	if err == nil {
		err = t.write()
	}
	if cap(t.out) > 2*maxGroupBytes {
		t.out = nil
	}
	t.out = t.out[:0]
	if err == nil {
		t.publish(nil)
		t.stats.groups.Add(1)
		t.stats.messages.Add(t.next - first)
		t.stats.bytes.Add(uint64(size))
	}
	for _, r := range group {
		if err != nil {
			r.done <- outcome{err: errors.Wrapf(err, "append %d messages to %s", r.count, t.name)}
			continue
		}
		r.done <- outcome{first: first}
		first += uint64(r.count)
	}
}

func (t *topic) doubtError() error {
	if t.doubt == nil {
		return nil
	}
	return errors.Wrapf(mq.ErrUnknownOutcome, "an earlier write is in doubt: %v", t.doubt)
}

// write numbers the frames in t.out, writes them at the end and makes them
// durable. When it fails all is as before, or t.doubt is set.
func (t *topic) write() error {
	next, maxTS, lastTS, index := t.next, t.maxTS, t.lastTS, t.index
	first := t.first
	number(t.out, t.active.salt, t.next, func(off int, seq, ts uint64) {
		index = addIndex(index, t.end+int64(off), seq, maxTS)
		next, lastTS, maxTS = seq+1, ts, max(maxTS, ts)
		if first.IsZero() {
			first = position(seq, ts)
		}
	})
	if _, err := t.file.WriteAt(t.out, t.end); err != nil {
		return t.undo(err, false)
	}
	t.unsaved = true
	if t.o.Sync == SyncAlways {
		if err := t.file.Sync(true); err != nil {
			return t.undo(err, true)
		}
		t.unsaved = false
		t.stats.syncs.Add(1)
	}
	t.end += int64(len(t.out))
	if !t.unsaved {
		t.saved = t.end
	}
	t.next, t.maxTS, t.lastTS, t.index, t.first = next, maxTS, lastTS, index, first
	if t.o.Sync == SyncInterval && time.Since(t.lastSync) >= t.o.SyncInterval {
		t.syncLate()
	}
	return nil
}

// undo cuts a write that failed off again. What cause means for the caller: a
// classed error when nothing of it is stored, mq.ErrUnknownOutcome otherwise.
func (t *topic) undo(cause error, syncing bool) error {
	t.stats.failedWrites.Add(1)
	if t.o.Sync == SyncAlways {
		t.unsaved = false
	}
	err := t.file.Truncate(t.end)
	if err == nil {
		err = t.file.Sync(false)
	}
	if err == nil && (!syncing || noSpace(cause)) {
		t.log.Warn("append failed, nothing of it is stored", "topic", t.name, "file", t.active.path, "err", cause)
		return ioError(cause, "write %s", t.active.path)
	}
	// A kernel that failed to sync may have dropped what it could not write and
	// call the next sync good: only what was durable before counts.
	t.doubt = errors.CombineErrors(cause, err)
	t.log.Error("append failed, the end of the file is unknown until a producer is opened",
		"topic", t.name, "file", t.active.path, "durable", t.end, "err", t.doubt)
	return errors.Wrapf(mq.ErrUnknownOutcome, "%s at %d: %v", t.active.path, t.end, t.doubt)
}

// repair ends the doubt about the tail: the file is cut to what is durable and
// not written again.
func (t *topic) repair() error {
	err := t.file.Truncate(t.end)
	if err == nil && t.unsaved {
		// What was acknowledged and not synced the kernel may hold for synced, and not
		// write by itself.
		err = copyOver(t.file, t.saved, t.end)
	}
	if err == nil {
		err = t.file.Sync(false)
	}
	if err == nil && t.unsaved {
		err = t.tellLost()
	}
	if err != nil {
		return ioError(err, "cut %s to its durable length %d", t.active.path, t.end)
	}
	t.doubt, t.unsaved = nil, false
	_ = t.file.Close()
	t.file = nil
	return nil
}

// tellLost says what of the newest file is not what was written: of what it could not
// write a kernel may have let go.
func (t *topic) tellLost() error {
	r, err := t.active.scan(t.file, t.end, defaultReadBuffer, mark{Base: t.active.base, Length: t.end, Next: t.next})
	if err == nil && r.damages > 0 {
		t.stats.damages.Add(uint64(r.damages))
		t.log.Error("acknowledged messages are gone: the disk did not take them", "topic", t.name, "file", t.active.path,
			"places", r.damages, "first", r.first.Error())
	}
	return err
}

// copyOver writes what is in f from from up to to again where it is.
func copyOver(f file, from, to int64) error {
	buf := make([]byte, min(to-from, defaultReadBuffer))
	for at := from; at < to; {
		part := buf[:min(int64(len(buf)), to-at)]
		n, err := f.ReadAt(part, at)
		if n < len(part) {
			return errors.CombineErrors(err, io.ErrUnexpectedEOF)
		}
		if _, err := f.WriteAt(part, at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// sync makes what is written durable.
func (t *topic) sync() error {
	t.lastSync = time.Now()
	if err := t.file.Sync(true); err != nil {
		return ioError(err, "sync %s", t.active.path)
	}
	t.unsaved, t.saved = false, t.end
	t.stats.syncs.Add(1)
	return nil
}

// syncLate is the sync of acknowledged messages.
func (t *topic) syncLate() {
	if err := t.sync(); err != nil {
		t.doubt = err
		t.stats.failedWrites.Add(1)
		t.log.Error("sync failed: acknowledged messages may not be durable", "topic", t.name, "err", err.Error())
	}
}

// syncNow syncs what has not been.
func (t *topic) syncNow() error {
	if t.unsaved && t.doubt == nil {
		t.syncLate()
	}
	return t.doubtError()
}

// roll begins a new segment. When it fails, all is as before.
func (t *topic) roll() error {
	if t.file != nil {
		if err := t.syncNow(); err != nil {
			return err
		}
	}
	h := segmentHeader{base: t.next, maxTimestamp: t.maxTS, lastTimestamp: t.lastTS}
	if t.active != nil {
		h.prevBase, h.prevLength = t.active.base, t.end
	}
	seg, f, err := createSegment(t.o.fs, t.dir, h)
	if err != nil {
		t.stats.failedWrites.Add(1)
		t.log.Warn("a new file cannot be begun, nothing is stored in it", "topic", t.name, "first", t.next, "err", err)
		return ioError(err, "begin segment %d of %s", t.next, t.name)
	}
	t.seal()
	segs := append(t.segments()[:len(t.segments()):len(t.segments())], seg)
	t.file, t.active, t.end, t.saved, t.index = f, seg, segmentHeaderBytes, segmentHeaderBytes, nil
	t.publish(segs)
	return nil
}

// seal ends the newest segment.
func (t *topic) seal() {
	if t.active == nil {
		return
	}
	if t.active.length < 0 {
		t.active.length = t.end
		index := t.index
		t.active.index.Store(&index)
	}
	if t.file != nil {
		_ = t.file.Close() // synced before; nothing can be lost here
		t.file = nil
	}
}

// trim drops files that hold only messages before seq, at most trimAtOnce of
// them so that appends get their turn; more tells that there are others.
func (t *topic) trim(seq uint64) (more bool, err error) {
	if seq >= t.next {
		return false, errors.Wrapf(mq.ErrAhead, "trim %s to message %d, the next is %d", t.name, seq, t.next)
	}
	segs := t.segments()
	drop := 0
	for drop+1 < len(segs) && segs[drop+1].base <= seq && drop < trimAtOnce {
		drop++
	}
	if drop == 0 {
		return false, nil
	}
	t.publishFrom(segs[drop:]) // readers are told first, then the files go
	for i, s := range segs[:drop] {
		err := t.o.fs.remove(s.path)
		if err == nil {
			// One by one: after a power failure the files must not have a gap.
			// (A floor in the meta files would need room, which a full disk has not.)
			err = t.o.fs.syncDir(t.dir)
		} else {
			t.publishFrom(segs[i:])
		}
		if err != nil {
			return false, ioError(err, "trim %s: remove %s", t.name, s.path)
		}
		t.stats.trimmed.Add(1)
	}
	return drop == trimAtOnce, nil
}

// publishFrom makes segs all there is.
func (t *topic) publishFrom(segs []*segment) {
	first, err := t.oldest(segs)
	if err != nil {
		// The bounds may be a little too low for a while; reading is not touched.
		t.log.Warn("cannot read the oldest message", "topic", t.name, "err", err)
		first = position(segs[0].base, 0)
	}
	t.first = first
	t.publish(segs)
}

// own makes p the owner if its term allows.
func (t *topic) own(p *producer) error {
	if p.term < t.meta.Term {
		return errors.Wrapf(mq.ErrFenced, "open %s: term %d, the topic is at %d", p.what, p.term, t.meta.Term)
	}
	repaired := t.doubt != nil
	if repaired {
		if err := t.repair(); err != nil {
			return errors.Wrapf(err, "open %s: an earlier write is in doubt (%v)", p.what, t.doubt)
		}
	}
	// After a repair, so that the next open does not take what the disk has lost for a torn write,
	// and give its numbers out again.
	if risk := t.risk(); p.term > t.meta.Term || risk != t.meta.Unsynced || repaired {
		was := t.meta.Unsynced
		t.meta.Unsynced = risk
		if err := t.saveMeta(p.term); err != nil {
			t.meta.Unsynced = was
			return errors.Wrapf(err, "open %s: store term %d", p.what, p.term)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.letGo.Load() {
		return errclass.New(errclass.Closed, "open %s: given up", p.what)
	}
	t.mu.owner = p
	return nil
}
