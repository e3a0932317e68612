package segments

import (
	"sync"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// DiskRoom is room on the local disk for files that are not of a loaded segment: what
// compactions and flushes make. Nil holds nothing. It is safe for concurrent use.
type DiskRoom struct {
	disk *localDisk
	mu   struct {
		sync.Mutex
		bytes int64
	}
}

// ReserveDisk takes n bytes of the local disk, for which vectors and indexes leave it
// if need be. An error of class Exhausted with the numbers says that there is no room.
func (c *Collection) ReserveDisk(n int64) (*DiskRoom, error) {
	d := c.set.disk
	if err := d.takeNow(n, roomForRest); err != nil {
		return nil, err
	}
	return d.making(n), nil
}

// ForceDisk is ReserveDisk whatever the limit, for what makes room elsewhere: a flush
// lets go of a part of the queue.
func (c *Collection) ForceDisk(n int64) *DiskRoom {
	d := c.set.disk
	d.force(n)
	return d.making(n)
}

// making notes n bytes that have been taken.
func (d *localDisk) making(n int64) *DiskRoom {
	r := &DiskRoom{disk: d}
	r.mu.bytes = n
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.making += n
	return r
}

// Commit sets the room to what is really used.
func (r *DiskRoom) Commit(n int64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	more := n - r.mu.bytes
	r.mu.bytes = n
	r.mu.Unlock()
	if more > 0 {
		r.disk.force(more)
	} else {
		r.disk.give(-more, roomForRest)
	}
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.disk.mu.making += more
}

// Release gives everything back. Releasing twice is harmless.
func (r *DiskRoom) Release() { r.Commit(0) }

// diskReserve is the part of the limit, 1/diskReserve, that rows leave free, so that
// deletes, loads and what is being made still have room.
const diskReserve = 20

// LargeShare is the part of a limit, 1/LargeShare, from which on a growing segment is large:
// its flush makes room worth an upload, while those of many small ones would make as many
// files and compactions.
const LargeShare = 50

// ObserveQueue looks by measure what the queue has on the local disk, in bytes, one
// look at a time. Vectors and indexes leave it if that is too much with the rest. Rows that
// are written meanwhile, or were given room and are still to be written, count besides:
// measure need not have seen them.
func (s *Set) ObserveQueue(measure func() int64) {
	d := s.disk
	d.mu.Lock()
	d.mu.written = 0
	d.mu.Unlock()
	bytes := measure()
	d.mu.Lock()
	d.mu.queue = bytes + d.mu.written
	d.wakeLocked()
	d.mu.Unlock()
	d.force(0)
}

// RoomInQueue takes room for n bytes of rows that are about to be written to a queue on
// the local disk; written says that they have been, or will not be, and is called once. They
// count until a look at the queue that begins after that. Vectors and indexes
// leave the disk for them if need be and it is theirs. Class Exhausted, with the numbers, if that is
// not enough: what is growing is to be flushed then, see DiskShort.
func (s *Set) RoomInQueue(n int64) (written func(), err error) {
	d := s.disk
	if d.apart {
		err = d.takeApart(n)
	} else {
		err = d.takeNow(n, roomForQueue)
	}
	if err != nil {
		need := d.needs(n, roomForQueue)
		d.mu.Lock()
		defer d.mu.Unlock()
		// Flushes help only where there would be room without the queue.
		free := d.queueLimit
		if !d.apart {
			free = d.freeLocked(need) + d.queueLocked()
		}
		if free >= need {
			d.mu.refused = time.Now()
		}
		return nil, err
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.granted -= n
		d.mu.queue += n
		d.mu.written += n
	}, nil
}

// takeApart takes room for rows on the volume of the queue, where nothing can leave for them.
func (d *localDisk) takeApart(n int64) error {
	if d.takeFree(n, roomForQueue) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errclass.With(errclass.New(errclass.Exhausted,
		"no room for %d bytes on the volume of the queue: it has %d of %d bytes; flush, or give it more (disk.queue_limit)",
		d.needs(n, roomForQueue), d.queueLocked(), d.queueLimit), errclass.QueueLimit)
}

// queueBudget is the limit that the queue is under: its own, or that of the disk.
func (d *localDisk) queueBudget() int64 {
	if d.apart {
		return d.queueLimit
	}
	return d.limit.Load()
}

// queueLocked is what the queue has, or is about to have.
func (d *localDisk) queueLocked() int64 { return d.mu.queue + d.mu.granted }

// sharedLocked is what of that counts against the disk's limit.
func (d *localDisk) sharedLocked() int64 {
	if d.apart {
		return 0
	}
	return d.queueLocked()
}

// DiskShort reports whether a growing segment of so many bytes is to be flushed, so
// that the queue lets go of files: each of them if rows were refused a moment ago, large
// ones if the queue has more than half of what it may have, be that the disk.
func (s *Set) DiskShort(bytes int64) bool {
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	limit := d.queueBudget()
	if limit == 0 {
		return false
	}
	refused := time.Since(d.mu.refused) < wantFor
	return refused || d.queueLocked() > limit/2 && bytes >= limit/LargeShare
}
