package embedded

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/querynode/querynode/mq"
)

var policies = map[string]SyncPolicy{"always": SyncAlways, "interval": SyncInterval, "none": SyncNone}

// lazyOptions sync by themselves only if the policy is always.
func lazyOptions(t testing.TB, disk *memFS, dir string, p SyncPolicy, boot string) Options {
	o := memOptions(t, disk, dir)
	o.Sync, o.SyncInterval, o.SegmentBytes, o.boot = p, 1<<40, 1<<20, boot
	return o
}

// worst returns the disk as a power failure leaves it at worst: nothing is there that was
// not synced.
func (m *memFS) worst() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	for p, n := range m.safe {
		after.now[p] = &inode{data: slices.Clone(n.safe), safe: slices.Clone(n.safe)}
		after.safe[p] = after.now[p]
	}
	return after
}

func mustSync(t testing.TB, q *Queue) {
	t.Helper()
	if err := q.Sync(testCtx(t), topicName); err != nil {
		t.Fatalf("sync: %+v", err)
	}
}

// TestWhatWasSyncedOutlivesAPowerFailure: and that the rest is gone is said.
func TestWhatWasSyncedOutlivesAPowerFailure(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			disk, dir := newMemFS(), t.TempDir()
			q := mustOpen(t, lazyOptions(t, disk, dir, policy, "boot 1"))
			p := mustProducer(t, q, 1)
			appendSome(t, p, 1, 3)
			mustSync(t, q)
			appendSome(t, p, 4, 5)
			after := disk.worst()
			mustClose(t, q)

			q = mustOpen(t, lazyOptions(t, after, dir, policy, "boot 2"))
			want, said := numbers(1, 3), uint64(1)
			if policy == SyncAlways {
				want, said = numbers(1, 5), 0
			}
			got, _ := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, want...)
			if n := q.Stats().UnsyncedEnds; n != said {
				t.Errorf("%d topics are said to have lost messages, want %d", n, said)
			}
			mustProducer(t, q, 2)
			mustClose(t, q)
			q = mustOpen(t, lazyOptions(t, after, dir, policy, "boot 3"))
			_, _ = readAll(t, q, mq.ReaderOptions{})
			if n := q.Stats().UnsyncedEnds; n != 0 {
				t.Errorf("after a clean close %d topics are said to have lost messages", n)
			}
			mustClose(t, q)
		})
	}
}

// TestAKilledProcessLosesNothing: and nobody says so. What it had not synced is, once it
// is shown to the next process.
func TestAKilledProcessLosesNothing(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			disk, dir := newMemFS(), t.TempDir()
			q := mustOpen(t, lazyOptions(t, disk, dir, policy, "boot 1"))
			appendSome(t, mustProducer(t, q, 1), 1, 3)
			left := disk.killedUnsynced()
			mustClose(t, q)
			q = mustOpen(t, lazyOptions(t, left, dir, policy, "boot 1"))
			got, _ := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, numbers(1, 3)...)
			if n := q.Stats().UnsyncedEnds; n != 0 {
				t.Errorf("%d topics are said to have lost messages", n)
			}
			after := left.worst()
			mustClose(t, q)
			q = mustOpen(t, lazyOptions(t, after, dir, policy, "boot 2"))
			got, _ = readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, numbers(1, 3)...)
			mustClose(t, q)
		})
	}
}

// killedUnsynced is what the next process finds on the same machine.
func (m *memFS) killedUnsynced() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	for p, n := range m.now {
		after.now[p] = &inode{data: slices.Clone(n.data), safe: slices.Clone(n.safe), dirty: slices.Clone(n.dirty), lost: slices.Clone(n.lost)}
		if m.safe[p] != nil {
			after.safe[p] = after.now[p] // folders are as they were synced
		}
	}
	return after
}

// TestWhatASyncFailedForIsWrittenAgain: a kernel may call the next sync good without
// having written what the one before could not.
func TestWhatASyncFailedForIsWrittenAgain(t *testing.T) {
	disk, dir := newMemFS(), t.TempDir()
	q := mustOpen(t, lazyOptions(t, disk, dir, SyncNone, "boot 1"))
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 2)
	mustSync(t, q)
	appendSome(t, p, 3, 4)
	disk.setHook(failing(syscall.EIO, 1, "sync"))
	if err := q.Sync(testCtx(t), topicName); err == nil {
		t.Fatal("the sync that failed says nothing")
	}
	if err := q.Sync(testCtx(t), topicName); err == nil {
		t.Fatal("it is taken for synced")
	}
	written := 0
	disk.setHook(func(op, path string) error {
		if op == "write" && strings.Contains(path, segmentSuffix) {
			written++
		}
		return nil
	})
	mustProducer(t, q, 2)
	if written == 0 {
		t.Error("it was synced and not written again")
	}
	mustSync(t, q)
	after := disk.worst()
	mustClose(t, q)
	q = mustOpen(t, lazyOptions(t, after, dir, SyncNone, "boot 2"))
	got, _ := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, numbers(1, 4)...)
	mustClose(t, q)
}

// TestACleanCloseLeavesNothingInDoubt: also where there is no file to close, as nothing was
// ever written, or as a file whose end was in doubt was cut and is not written again.
func TestACleanCloseLeavesNothingInDoubt(t *testing.T) {
	doubt := func(t *testing.T, q *Queue, disk *memFS, p mq.Producer) {
		appendSome(t, p, 1, 3)
		disk.setHook(failing(syscall.EIO, 1, "sync"))
		if err := q.Sync(testCtx(t), topicName); err == nil {
			t.Fatal("the sync that failed says nothing")
		}
	}
	for name, c := range map[string]struct {
		live func(t *testing.T, q *Queue, disk *memFS, p mq.Producer)
		left int
	}{
		"nothing was written":        {func(*testing.T, *Queue, *memFS, mq.Producer) {}, 0},
		"repaired by the next owner": {func(t *testing.T, q *Queue, disk *memFS, p mq.Producer) { doubt(t, q, disk, p); mustProducer(t, q, 2) }, 3},
		"repaired by the close":      {doubt, 3},
	} {
		t.Run(name, func(t *testing.T) {
			disk, dir := newMemFS(), t.TempDir()
			q := mustOpen(t, lazyOptions(t, disk, dir, SyncInterval, "boot 1"))
			c.live(t, q, disk, mustProducer(t, q, 1))
			mustClose(t, q)

			q = mustOpen(t, lazyOptions(t, disk.worst(), dir, SyncInterval, "boot 2"))
			got, _ := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, numbers(1, c.left)...)
			if n := q.Stats().UnsyncedEnds; n != 0 {
				t.Errorf("after a clean close %d topics are said to have lost messages", n)
			}
			mustClose(t, q)
		})
	}
}
