package segments

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
)

// filesOn are files of ten bytes on the disk that fetch, map and unmap nothing.
func filesOn(t *testing.T, d *localDisk, name string) *fieldFiles {
	t.Helper()
	f := &fieldFiles{disk: d, what: name, bytes: 10, timeout: time.Second,
		fetch: func(context.Context, func(int64)) error { return nil },
		open:  func(bool) error { return nil }, shut: func() error { return nil }, failed: func(err error) { t.Error(err) }}
	must(t, f.settle(t.Context(), false, func(int64) {}))
	return f
}

// onList is how many files may be evicted.
func (d *localDisk) onList() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.local)
}

// TestFilesThatAreBeingClosedAreNotEvicted, nor counted as room that could be had: their
// segment unmaps them.
func TestFilesThatAreBeingClosedAreNotEvicted(t *testing.T) {
	d := newLocalDisk(100, 1)
	f, other := filesOn(t, d, "f"), filesOn(t, d, "other")
	f.mu.used, other.mu.used = 1, 2
	f.mu.closed = true // close has begun, and waits for what is under way
	if _, idle := f.idle(); idle {
		t.Error("files that are being closed count as idle")
	}
	if got := d.victim(); got != other {
		t.Fatalf("%v leaves, want the other files", got)
	}
	if got := d.victim(); got != nil {
		t.Errorf("%s leaves too", got.what)
	}
}

// TestSegmentsAreClosedWhileOthersNeedTheirRoom ends, and leaves nothing on the disk.
func TestSegmentsAreClosedWhileOthersNeedTheirRoom(t *testing.T) {
	for range 100 {
		d := newLocalDisk(1000, 4)
		var all []*fieldFiles
		for i := range 50 {
			all = append(all, filesOn(t, d, fmt.Sprint(i)))
		}
		var both sync.WaitGroup
		both.Go(func() {
			for _, f := range all {
				if err := f.close(); err != nil {
					t.Error(err)
				}
			}
		})
		both.Go(func() {
			for range 50 {
				if d.takeNow(600, roomForRest) == nil {
					d.give(600, roomForRest)
				}
			}
		})
		both.Wait()
		if n := d.onList(); n != 0 || d.mu.used != 0 || d.mu.fields != 0 {
			t.Fatalf("%d files on the list, %d bytes, %d fields", n, d.mu.used, d.mu.fields)
		}
	}
}

// TestFilesThatWereClosedDoNotComeBack to the list of those that may be evicted: a fetch
// has told its result before it puts them there.
func TestFilesThatWereClosedDoNotComeBack(t *testing.T) {
	d := newLocalDisk(100, 1)
	f := filesOn(t, d, "f")
	must(t, f.close())
	d.enter(f)
	if n := d.onList(); n != 0 {
		t.Errorf("%d files that were closed are on the list", n)
	}
}

// TestRoomInTheQueueTakesNoMoreThanItNeeds, not for a moment: a field that waits for room
// would not hear that the rest was given back.
func TestRoomInTheQueueTakesNoMoreThanItNeeds(t *testing.T) {
	s := &Set{disk: newLocalDisk(1000, 1)}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 5000 {
				written, err := s.RoomInQueue(0)
				if err != nil {
					t.Error(err)
					return
				}
				written()
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		writers.Wait()
		close(ended)
	}()
	for {
		if used := s.Disk().Used; used != 0 {
			t.Errorf("%d bytes are taken for no rows", used)
			break
		}
		select {
		case <-ended:
		default:
			continue
		}
		break
	}
	<-ended
	if written, err := s.RoomInQueue(951); err == nil {
		written()
		t.Error("the reserve is given to rows")
	}
	written, err := s.RoomInQueue(950)
	must(t, err)
	written()
	if d := s.Disk(); d.Used != 950 || d.Queue != 950 {
		t.Errorf("%+v", d)
	}
}

// TestFilesAreNotFetchedAheadIntoTheRoomOfRows that are about to be written to the queue.
func TestFilesAreNotFetchedAheadIntoTheRoomOfRows(t *testing.T) {
	s, started := &Set{disk: newLocalDisk(100, 1)}, 0
	written, err := s.RoomInQueue(60)
	must(t, err)
	f := &fieldFiles{disk: s.disk, what: "f", bytes: 50, timeout: time.Second,
		run: func(string, func(context.Context) error) error { started++; return errors.New("not now") }}
	f.settleLater()
	written()
	f.settleLater()
	if started != 0 {
		t.Errorf("%d fetches of 50 bytes began with 40 free", started)
	}
	s.ObserveQueue(func() int64 { return 0 })
	if f.settleLater(); started != 1 {
		t.Errorf("%d fetches with 100 bytes free", started)
	}
}
