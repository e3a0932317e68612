package embedded

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// openTopic reads what is there of a topic, repairs what a crash left, and
// returns it ready for run. It creates the topic if there is none.
func openTopic(o *Options, stats *counters, name string) (*topic, error) {
	t := &topic{
		name: name, dir: filepath.Join(o.Dir, escape(name)), o: o, stats: stats,
		log: o.Logger, next: 1, wake: make(chan struct{}, 1), lastSync: time.Now(),
	}
	if err := o.fs.mkdir(t.dir); err != nil {
		return nil, ioError(err, "create %s", t.dir)
	}
	bases, tmps, err := listTopic(o.fs, t.dir)
	if err != nil {
		return nil, ioError(err, "list %s", t.dir)
	}
	for _, path := range tmps {
		cleanTemp(o, stats, path)
	}
	if err := t.loadMeta(len(bases) > 0); err != nil {
		return nil, err
	}
	if begin := t.meta.Begin; begin > 0 {
		t.next = begin
		if d := t.meta.Durable; d.Next == begin {
			t.maxTS, t.lastTS = d.MaxTimestamp, d.LastTimestamp
		}
	}
	segs, err := t.openSegments(bases)
	if err == nil && len(segs) > 0 {
		err = t.recoverLast(segs[len(segs)-1])
	}
	if err != nil {
		return nil, err
	}
	t.tellUnsynced()
	if d := t.meta.Durable; t.next < d.Next {
		t.log.Error("durable messages are gone", "topic", name, "from", t.next, "to", d.Next-1)
		stats.damages.Add(1)
		t.next, t.maxTS, t.lastTS = d.Next, max(t.maxTS, d.MaxTimestamp), d.LastTimestamp
		t.closeFile()
	}
	if len(segs) > 0 {
		t.publishFrom(segs)
	} else {
		t.firstSeq.Store(t.next)
		t.publish(nil)
	}
	return t, nil
}

func (t *topic) closeFile() {
	if t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}

// cleanTemp removes what a crash left; that it stays is no reason not to start.
func cleanTemp(o *Options, stats *counters, path string) {
	if err := o.fs.remove(path); err != nil {
		o.Logger.Warn("cannot remove a temporary file", "file", path, "err", err)
		return
	}
	stats.tempsRemoved.Add(1)
}

func (t *topic) loadMeta(hasSegments bool) error {
	m, found, whole, err := readMeta(t.o.fs, t.dir)
	switch {
	case err != nil:
		return errors.Wrapf(err, "open topic %s", t.name)
	case !found && hasSegments:
		return errclass.New(errclass.Corrupt, "open topic %s: %s holds segments but neither meta-a nor meta-b", t.name, t.dir)
	case found && m.Topic != t.name:
		return errclass.New(errclass.Corrupt, "open topic %s: %s belongs to topic %s", t.name, t.dir, m.Topic)
	case !found:
		m = meta{Version: metaVersion, Topic: t.name}
	}
	t.meta = m
	if whole {
		return nil
	}
	t.meta.Edition++
	err = t.meta.write(t.o.fs, t.dir)
	if found && err != nil {
		t.log.Warn("cannot restore the second copy of the meta file", "topic", t.name, "err", err)
		return nil
	}
	if err == nil && !found {
		err = ioError(t.o.fs.syncDir(t.o.Dir), "create topic %s", t.name)
	}
	return errors.Wrapf(err, "create topic %s", t.name)
}

// openSegments reads the headers. The length of a file is what its successor
// says: bytes behind that were in doubt when the successor was begun.
func (t *topic) openSegments(bases []uint64) ([]*segment, error) {
	segs := make([]*segment, len(bases))
	for i, base := range bases {
		seg, err := openSegment(t.o.fs, t.dir, base)
		if err != nil {
			return nil, ioError(err, "open segment %s", segmentPath(t.dir, base))
		}
		segs[i] = seg
		if seg.bad != nil {
			t.stats.damages.Add(1)
			t.log.Error("segment cannot be read", "topic", t.name, "file", seg.path, "err", seg.bad)
			continue
		}
		if i > 0 && seg.prevBase == segs[i-1].base {
			if prev := segs[i-1]; prev.length < seg.prevLength {
				t.stats.damages.Add(1)
				t.log.Error("segment is too short", "topic", t.name, "file", prev.path, "length", prev.length, "want", seg.prevLength)
			} else {
				prev.length = seg.prevLength
			}
		}
	}
	return segs, nil
}

// recoverLast finds the end of the newest segment and cuts off a torn write.
func (t *topic) recoverLast(seg *segment) error {
	size := seg.length
	seg.length = -1
	t.active, t.end = seg, size
	if seg.bad != nil {
		// How many messages it held is unknown: go on behind the most it can have.
		t.next = seg.base + uint64(size)/frameHeaderBytes + 1
		return nil
	}
	f, err := t.o.fs.open(seg.path, os.O_RDWR)
	if err != nil {
		return ioError(err, "open segment %s", seg.path)
	}
	r, err := seg.scan(f, size, defaultReadBuffer, t.meta.Durable)
	if err == nil && r.end < size {
		t.stats.tornTails.Add(1)
		t.log.Warn("a write that was cut short is removed", "topic", t.name, "file", seg.path, "offset", r.end, "bytes", size-r.end)
		if err = f.Truncate(r.end); err == nil {
			err = f.Sync(false)
		}
	}
	if err != nil {
		_ = f.Close()
		return ioError(err, "recover segment %s", seg.path)
	}
	if r.damages > 0 {
		t.stats.damages.Add(uint64(r.damages))
		t.log.Error("segment is damaged", "topic", t.name, "file", seg.path, "places", r.damages, "first", r.first.Error())
	}
	if err := t.makeDurable(f, seg, &r); err != nil {
		_ = f.Close()
		return ioError(err, "sync segment %s", seg.path)
	}
	t.file, t.end, t.saved, t.next, t.maxTS, t.lastTS, t.index = f, r.end, r.end, r.next, r.maxTimestamp, r.lastTimestamp, r.index
	if r.seal {
		t.closeFile()
	}
	return nil
}

// makeDurable syncs what a process that was killed may have written and not synced: it is
// shown from now on, and somebody may remember how far that was. A sync that failed under
// that process left the kernel with pages that it holds for synced, so that what may be among
// them is written again.
func (t *topic) makeDurable(f file, seg *segment, r *scanned) error {
	from := int64(segmentHeaderBytes)
	if d := t.meta.Durable; d.Base == seg.base {
		from = max(from, d.Length)
	}
	if from >= r.end {
		return nil
	}
	switch t.meta.Unsynced {
	case "": // each group was synced before the next was written
		from = max(from, min(r.last, r.end-maxGroupBytes))
	case t.o.boot, unknownBoot:
	default:
		from = r.end // the machine has been down: what is read is from the disk
	}
	if err := copyOver(f, from, r.end); err != nil {
		return err
	}
	return f.Sync(true)
}

// oldest returns the position of the first message in segs that can be read;
// zero when there is none.
func (t *topic) oldest(segs []*segment) (mq.Position, error) {
	for _, seg := range segs {
		if seg.bad != nil {
			continue
		}
		limit := seg.length
		if limit < 0 {
			limit = t.end
		}
		pos, err := t.oldestIn(seg, limit)
		if err != nil || !pos.IsZero() {
			return pos, err
		}
	}
	return mq.Position{}, nil
}

func (t *topic) oldestIn(seg *segment, limit int64) (mq.Position, error) {
	f, err := t.o.fs.open(seg.path, os.O_RDONLY)
	if err != nil {
		return mq.Position{}, err
	}
	defer f.Close()
	c := cursor{src: f, salt: seg.salt, off: segmentHeaderBytes, limit: limit, seq: seg.base, window: minReadBufferBytes}
	for {
		fr, err := c.next()
		var d *damage
		switch {
		case err == nil:
			return position(fr.seq, fr.timestamp), nil
		case errors.Is(err, io.EOF):
			return mq.Position{}, nil
		case !errors.As(err, &d):
			return mq.Position{}, err
		}
	}
}

// cleanRoot removes temporary files beside the topics.
func cleanRoot(o *Options, stats *counters) error {
	_, tmps, err := listTopic(o.fs, o.Dir)
	if err != nil {
		return ioError(err, "list %s", o.Dir)
	}
	for _, path := range tmps {
		cleanTemp(o, stats, path)
	}
	return nil
}
