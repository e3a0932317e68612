package segments

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

func (r *rig) observeQueue(bytes int64) { r.set.ObserveQueue(func() int64 { return bytes }) }

func (r *rig) noRoomInQueue(bytes int64) error {
	r.t.Helper()
	_, err := r.set.RoomInQueue(bytes)
	wantClass(r.t, err, errclass.Exhausted)
	return err
}

// TestWhatIsMadeAndTheQueueShareTheDisk with the files of segments: these leave for
// what there is no other room for, and what has none is refused with the numbers.
func TestWhatIsMadeAndTheQueueShareTheDisk(t *testing.T) {
	r, _ := tierRig(t, rigOptions{})
	r.shrink(6)
	limit, base := r.set.Disk().Limit, r.set.Disk().Used
	one := r.holderOf(1).files(vectorField).bytes
	room, err := r.coll.ReserveDisk(2 * one)
	must(t, err)
	if d := r.set.Disk(); d.Making != 2*one || d.Used > limit || len(r.remote()) < 1 {
		t.Fatalf("%+v, remote %v", d, r.remote())
	}
	_, err = r.coll.ReserveDisk(limit)
	wantClass(t, err, errclass.Exhausted)
	if want := fmt.Sprintf("no room for %d bytes on the local disk", limit); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("of %d bytes are in use", limit)) {
		t.Errorf("%v does not say %q", err, want)
	}
	forced := r.coll.ForceDisk(limit)
	if d := r.set.Disk(); d.Used < limit || d.Making != 2*one+limit {
		t.Errorf("%+v", d)
	}
	r.noRoomInQueue(1)
	forced.Commit(one)
	forced.Commit(2 * one)
	for range 2 {
		forced.Release()
		room.Release()
	}
	r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10}) // all come back
	if d := r.set.Disk(); d.Making != 0 || d.Used > base {
		t.Errorf("%+v after all was given back, %d before", d, base)
	}
	written, err := r.set.RoomInQueue(one)
	must(t, err)
	if d := r.set.Disk(); d.Queue != one {
		t.Errorf("%+v", d)
	}
	written()
	r.observeQueue(3 * one)
	if d := r.set.Disk(); d.Queue != 3*one || d.Used > limit || len(r.remote()) < 2 {
		t.Errorf("%+v, remote %v", d, r.remote())
	}
	r.observeQueue(limit)
	err = r.noRoomInQueue(one)
	if want := fmt.Sprintf("%d of them by the queue", limit); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
	r.coll.Release(1)
	r.idle()
	wantClass(t, r.load(1), errclass.Exhausted)
	r.observeQueue(0)
	must(t, r.load(1))
	r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10})
	r.checkDisk()
	var none *DiskRoom
	none.Release()
}

// TestWhatCanHaveNoRoomEvictsNothing, and rows that do not fit an empty queue flush nothing.
func TestWhatCanHaveNoRoomEvictsNothing(t *testing.T) {
	r, _ := tierRig(t, rigOptions{})
	r.shrink(6)
	r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10})
	before, limit := len(r.remote()), r.set.Disk().Limit
	_, err := r.coll.ReserveDisk(limit + 1)
	wantClass(t, err, errclass.Exhausted)
	r.noRoomInQueue(limit)
	if after := len(r.remote()); after != before {
		t.Errorf("%d vectors are not on the local disk, %d before", after, before)
	}
	if r.set.DiskShort(1) {
		t.Error("everything is to be flushed for rows that have no room then either")
	}
}

// TestTheDiskIsShort after rows were refused, for all that grows, and while the queue
// has more than half of it, for what is large.
func TestTheDiskIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Set{disk: newLocalDisk(1000, 1)}
		want := func(small, large bool) {
			t.Helper()
			if s.DiskShort(1) != small || s.DiskShort(20) != large {
				t.Errorf("short for a small segment: %v, for a large one: %v", s.DiskShort(1), s.DiskShort(20))
			}
		}
		observe := func(n int64) { s.ObserveQueue(func() int64 { return n }) }
		time.Sleep(wantFor)
		want(false, false)
		observe(501)
		want(false, true)
		written, err := s.RoomInQueue(400)
		must(t, err)
		_, err = s.RoomInQueue(50) // a twentieth stays free
		wantClass(t, err, errclass.Exhausted)
		want(true, true)
		written()
		observe(10)
		time.Sleep(wantFor)
		want(false, false)
		s.disk.limit.Store(0)
		_, err = s.RoomInQueue(1 << 40)
		must(t, err)
		want(false, false)
	})
}

// TestRowsCountUntilTheQueueIsLookedAtWithThem: a look need not see what is written while it
// goes on, nor what has room and is written later.
func TestRowsCountUntilTheQueueIsLookedAtWithThem(t *testing.T) {
	s := &Set{disk: newLocalDisk(0, 1)}
	give := func(n int64) (written func()) {
		t.Helper()
		written, err := s.RoomInQueue(n)
		must(t, err)
		return written
	}
	look := func(bytes, want int64, meanwhile ...func()) {
		t.Helper()
		s.ObserveQueue(func() int64 {
			for _, do := range meanwhile {
				do()
			}
			return bytes
		})
		if got := s.Disk().Queue; got != want {
			t.Errorf("the queue has %d bytes, want %d", got, want)
		}
	}
	before, during := give(1), give(10)
	var after func()
	look(5000, 5111, during, func() { after = give(100) })
	look(5010, 5111, before) // the first of them may have been missed
	look(5011, 5111)
	after()
	if got := s.Disk().Queue; got != 5111 {
		t.Errorf("the queue has %d bytes once all are written", got)
	}
	look(5111, 5111)
}

// TestAQueueOnAVolumeOfItsOwn has its room there: what it has takes none of the segments', theirs takes none of its, and it
// is told apart.
func TestAQueueOnAVolumeOfItsOwn(t *testing.T) {
	s := &Set{disk: newLocalDisk(1000, 1)}
	d := s.disk
	d.apart, d.queueLimit = true, 200
	must(t, d.takeNow(1000, roomForRest))
	written, err := s.RoomInQueue(150)
	must(t, err)
	written()
	if _, err := s.RoomInQueue(41); errclass.DetailOf(err) != errclass.QueueLimit || !strings.Contains(err.Error(), "it has 150 of 200 bytes") {
		t.Errorf("more than the volume has, and the reserve: %v", err)
	}
	if got := s.Disk(); got.Used != 1000 || got.Queue != 150 || !got.QueueApart || got.QueueLimit != 200 {
		t.Errorf("%+v", got)
	}
	if !s.DiskShort(1) {
		t.Error("rows were refused, and what is growing is not flushed")
	}
	if err := d.takeNow(1, roomForRest); errclass.DetailOf(err) != errclass.DiskLimit || strings.Contains(err.Error(), "queue") {
		t.Errorf("more than the disk has: %v", err)
	}
	s.ObserveQueue(func() int64 { return 150 })
	d.mu.refused = time.Time{}
	if s.DiskShort(3) || !s.DiskShort(4) {
		t.Error("the queue has more than half of its volume: segments of a fiftieth of that are large")
	}
	s.ObserveQueue(func() int64 { return 0 })
	if _, err := s.RoomInQueue(191); err == nil || s.DiskShort(1) {
		t.Error("rows that will never have room have what is growing flushed")
	}
	d.queueLimit = 0
	written, err = s.RoomInQueue(1 << 40)
	must(t, err)
	written()
}
