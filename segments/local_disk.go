package segments

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// localDisk keeps what the node has on the local disk within a limit: the files of
// sealed segments, those that are being made of others (see DiskRoom), and the queue. One on a
// volume of its own has a limit of its own there, and is none of what this one bounds.
// Vectors and indexes (see fieldFiles) leave when their room is needed, those that were
// used the longest time ago first; the rest of a segment stays while it is loaded.
type localDisk struct {
	limit atomic.Int64  // 0 = none; tests change it
	slots chan struct{} // fetches at a time
	turn  chan struct{} // whoever waits for room; capacity 1

	apart      bool  // the queue is on a volume of its own
	queueLimit int64 // what it may have there; 0 = no limit

	// waitedFor says that freed is not nil; changed with it, read without the lock.
	waitedFor atomic.Bool

	mu struct {
		sync.Mutex
		used   int64 // but for the queue
		fields int   // that have room
		making int64 // of used, what is being made
		delete int64 // of used, deletes that are not in object storage

		queue   int64     // what the queue had when it was looked at last, and what was written to it since the look began
		granted int64     // rows that are being written to it
		written int64     // to it, since the last look at it began
		refused time.Time // when rows had no room last
		local   map[*fieldFiles]bool
		freed   chan struct{} // closed when some room may have become free; nil = nobody waits
	}
	fetches, fetchedBytes, failed, evictions, evictedBytes atomic.Int64
}

// DiskStats tell what is on the local disk, and what goes between it and object
// storage.
type DiskStats struct {
	Limit        int64 // bytes; 0 = none
	Used         int64 // bytes: segments, what is being made of them, and the queue unless it is apart
	Making       int64 // of them by compactions and flushes under way
	Deletes      int64 // of them deletes that are not in object storage, as far as they are not in memory
	Queue        int64 // bytes of the queue
	QueueApart   bool  // which is on a volume of its own
	QueueLimit   int64 // bytes it may have there; 0 = no limit, or it is not apart
	Fields       int   // vector fields of segments whose files are on the local disk
	Fetches      int64 // fields that were fetched because a read needed them, or in the background
	FetchedBytes int64
	FetchErrors  int64
	Evictions    int64 // fields whose files gave their room to others
	EvictedBytes int64
}

// Disk tells what is on the local disk.
func (s *Set) Disk() DiskStats {
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	return DiskStats{Limit: d.limit.Load(), Used: d.mu.used + d.sharedLocked(), Making: d.mu.making, Deletes: d.mu.delete, Queue: d.queueLocked(), QueueApart: d.apart, QueueLimit: d.queueLimit, Fields: len(d.mu.local), Fetches: d.fetches.Load(), FetchedBytes: d.fetchedBytes.Load(),
		FetchErrors: d.failed.Load(), Evictions: d.evictions.Load(), EvictedBytes: d.evictedBytes.Load()}
}

func newLocalDisk(limit int64, fetches int) *localDisk {
	d := &localDisk{slots: make(chan struct{}, fetches), turn: make(chan struct{}, 1)}
	d.limit.Store(limit)
	d.mu.local = map[*fieldFiles]bool{}
	return d
}

// room is what files may take of the local disk.
type room int

const (
	roomForRest  room = iota // of a segment, which stays while it is loaded
	roomForField             // may be evicted
	roomForQueue             // rows that are about to be written; leaves a reserve free
)

// needs is how many bytes must be free for n to be taken.
func (d *localDisk) needs(n int64, of room) int64 {
	if of == roomForQueue {
		return n + d.queueBudget()/diskReserve
	}
	return n
}

// takeFree takes n bytes if so many are free. One field has room whatever the limit:
// reads then go on field by field, where they could not at all.
func (d *localDisk) takeFree(n int64, of room) bool {
	need := d.needs(n, of)
	d.mu.Lock()
	defer d.mu.Unlock()
	if of == roomForQueue && d.apart {
		if d.queueLimit > 0 && need > d.queueLimit-d.queueLocked() {
			return false
		}
		d.mu.granted += n
		return true
	}
	if limit := d.limit.Load(); limit > 0 && need > limit-d.mu.used-d.sharedLocked() && (of != roomForField || d.mu.fields > 0) {
		return false
	}
	switch of {
	case roomForQueue:
		d.mu.granted += n
		return true
	case roomForField:
		d.mu.fields++
	}
	d.mu.used += n
	return true
}

// force takes n bytes whatever the limit, and evicts what it can if that is too many.
func (d *localDisk) force(n int64) {
	if !d.evictFor(n, roomForRest) {
		d.give(-n, roomForRest)
	}
}

// give gives n bytes back.
func (d *localDisk) give(n int64, of room) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.used -= n
	if of == roomForField {
		d.mu.fields--
	}
	d.wakeLocked()
}

func (d *localDisk) wakeLocked() {
	if d.mu.freed != nil {
		close(d.mu.freed)
		d.mu.freed = nil
		d.waitedFor.Store(false)
	}
}

// wake tells whoever waits for room that files are not used any more.
func (d *localDisk) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeLocked()
}

// takeNow takes n bytes, and evicts files that nobody uses for them. Class Exhausted
// if that is not enough; what is not for a field then evicts nothing.
func (d *localDisk) takeNow(n int64, of room) error {
	if need := d.needs(n, of); of != roomForField && !d.couldTake(need) || !d.evictFor(n, of) {
		return d.noRoom(need)
	}
	return nil
}

// evictFor takes n bytes, and evicts files that nobody uses until so many are free. It
// reports false if all have left and there is no room still.
func (d *localDisk) evictFor(n int64, of room) bool {
	for !d.takeFree(n, of) {
		f := d.victim()
		if f == nil {
			return false
		}
		f.leave()
	}
	return true
}

// couldTake reports whether n bytes would be free if all files that nobody uses left.
func (d *localDisk) couldTake(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit.Load() == 0 || d.freeLocked(n) >= n
}

// freeLocked is how many bytes are free, with those of files that nobody uses where it
// takes them to have enough.
func (d *localDisk) freeLocked(enough int64) int64 {
	free := d.limit.Load() - d.mu.used - d.sharedLocked()
	for f := range d.mu.local {
		if free >= enough {
			break
		}
		if _, idle := f.idle(); idle {
			free += f.bytes
		}
	}
	return free
}

func (d *localDisk) noRoom(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.apart {
		return errclass.With(errclass.New(errclass.Exhausted,
			"no room for %d bytes on the local disk: %d of %d bytes are in use; release segments, or give the node more (disk.limit)", n, d.mu.used, d.limit.Load()), errclass.DiskLimit)
	}
	return errclass.With(errclass.New(errclass.Exhausted,
		"no room for %d bytes on the local disk: %d of %d bytes are in use, %d of them by the queue; release segments, flush, or give the node more (disk.limit)",
		n, d.mu.used+d.queueLocked(), d.limit.Load(), d.queueLocked()), errclass.DiskLimit)
}

// take takes room for a field, and waits for files to be used no more.
func (d *localDisk) take(ctx context.Context, n int64) error {
	select { // first come, first served: a large file is not kept waiting by small ones
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for %d bytes of the local disk", n)
	}
	for {
		d.mu.Lock()
		if d.mu.freed == nil {
			d.mu.freed = make(chan struct{})
			d.waitedFor.Store(true)
		}
		freed := d.mu.freed
		d.mu.Unlock()
		err := d.takeNow(n, roomForField)
		if err == nil {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return errclass.Wrap(err, errclass.Retryable, "all of the local disk is being read")
		}
	}
}

// victim takes the files that were used the longest time ago off the list and marks
// them as leaving; nil if all are in use.
func (d *localDisk) victim() *fieldFiles {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		var oldest *fieldFiles
		at := int64(0)
		for f := range d.mu.local {
			if used, idle := f.idle(); idle && (oldest == nil || used < at) {
				oldest, at = f, used
			}
		}
		if oldest == nil {
			return nil
		}
		if oldest.beginLeaving() { // else somebody was faster, and it is not idle the next time
			delete(d.mu.local, oldest)
			return oldest
		}
	}
}

// enter puts files on the list of those that may be evicted, unless they have been
// closed meanwhile: whoever closes takes them off once.
func (d *localDisk) enter(f *fieldFiles) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.mayLeave() {
		d.mu.local[f] = true
	}
}

// remove takes files off the list.
func (d *localDisk) remove(f *fieldFiles) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.local, f)
}
