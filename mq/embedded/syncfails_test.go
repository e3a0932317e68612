package embedded

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// eventually waits until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestWhatIsShownAfterAFailedSyncIsOnTheDisk: a sync fails, the process is killed or closed, and the next
// one on the same machine shows what it finds in the kernel's memory, where the failure is not to be seen
// any more. All that it shows outlives a power failure once it has said that it is synced.
func TestWhatIsShownAfterAFailedSyncIsOnTheDisk(t *testing.T) {
	refused := func(t *testing.T, err error) {
		t.Helper()
		if !errors.Is(err, mq.ErrUnknownOutcome) || errclass.Of(err) != errclass.Retryable {
			t.Fatalf("class %v: %v", errclass.Of(err), err)
		}
	}
	roll := msg(7)
	roll.Payload = make([]byte, 6<<10)
	for name, c := range map[string]struct {
		policy SyncPolicy
		fail   func(t *testing.T, q *Queue, p mq.Producer)
	}{
		"append": {SyncAlways, func(t *testing.T, _ *Queue, p mq.Producer) {
			_, err := p.Append(testCtx(t), msg(4))
			refused(t, err)
		}},
		"sync": {SyncNone, func(t *testing.T, q *Queue, _ mq.Producer) { refused(t, q.Sync(testCtx(t), topicName)) }},
		"roll": {SyncNone, func(t *testing.T, _ *Queue, p mq.Producer) {
			_, err := p.Append(testCtx(t), roll)
			refused(t, err)
		}},
		"interval": {SyncInterval, func(t *testing.T, q *Queue, p mq.Producer) {
			eventually(t, "an append is refused", func() bool { return q.Stats().FailedWrites > 0 })
			_, err := p.Append(testCtx(t), msg(7))
			refused(t, err)
		}},
		"close": {SyncNone, func(t *testing.T, q *Queue, _ mq.Producer) {
			if err := q.Close(testCtx(t)); !errors.Is(err, syscall.EIO) {
				t.Fatalf("closed: %v", err)
			}
		}},
		"close after a failure": {SyncInterval, func(t *testing.T, q *Queue, _ mq.Producer) {
			refused(t, q.Sync(testCtx(t), topicName))
			if err := q.Close(testCtx(t)); !errors.Is(err, syscall.EIO) {
				t.Fatalf("closed: %v", err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			disk, dir := newMemFS(), t.TempDir()
			o := lazyOptions(t, disk, dir, c.policy, "boot 1")
			o.SegmentBytes = 4 << 10
			if name == "interval" {
				o.SyncInterval = time.Millisecond
			}
			q := mustOpen(t, o)
			p := mustProducer(t, q, 1)
			appendSome(t, p, 1, 3)
			mustSync(t, q)
			disk.setHook(failing(syscall.EIO, -1, "sync", "truncate"))
			if c.policy != SyncAlways {
				appendSome(t, p, 4, 6)
			}
			c.fail(t, q, p)
			if q.Stats().FailedWrites == 0 && !strings.HasPrefix(name, "close") {
				t.Error("no failure was counted")
			}
			left := disk.killedUnsynced()
			_ = q.Close(testCtx(t))

			q = mustOpen(t, lazyOptions(t, left, dir, c.policy, "boot 1"))
			shown, bad := readAll(t, q, mq.ReaderOptions{})
			if len(bad) > 0 || len(shown) < 6 && c.policy != SyncAlways || len(shown) < 3 {
				t.Fatalf("%d messages, %v", len(shown), bad)
			}
			mustSync(t, q)
			after := left.worst()
			mustClose(t, q)
			q = mustOpen(t, lazyOptions(t, after, dir, c.policy, "boot 2"))
			got, bad := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, numbers(1, len(shown))...)
			if len(bad) > 0 {
				t.Fatal(bad[0])
			}
			mustClose(t, q)
		})
	}
}

// TestWhatTheDiskHasLostIsTold, and its numbers are not given out again: a kernel may let go of what it
// could not write, before it is written again.
func TestWhatTheDiskHasLostIsTold(t *testing.T) {
	disk, dir := newMemFS(), t.TempDir()
	o := lazyOptions(t, disk, dir, SyncNone, "boot 1")
	q := mustOpen(t, o)
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 2)
	mustSync(t, q)
	appendSome(t, p, 3, 4)
	disk.setHook(failing(syscall.EIO, 1, "sync"))
	if err := q.Sync(testCtx(t), topicName); err == nil {
		t.Fatal("the sync that failed says nothing")
	}
	disk.evict()
	mustProducer(t, q, 1)
	if n := q.Stats().Damages; n == 0 {
		t.Error("nobody is told that acknowledged messages are gone")
	}
	after := disk.killed() // before there is a file that says how long this one is
	mustClose(t, q)

	o.fs = after.fileSystem()
	q = mustOpen(t, o)
	got, bad := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 1, 2)
	if len(bad) == 0 || q.Stats().TornTails > 0 {
		t.Errorf("readers are told of %d damages; %d torn writes", len(bad), q.Stats().TornTails)
	}
	at, err := mustProducer(t, q, 2).Append(testCtx(t), msg(5))
	if err != nil || at[0].ID < encodeSeq(5) {
		t.Errorf("message %x after what was lost: %v", at, err)
	}
	mustClose(t, q)
}

// TestASyncThatANewFileIsRefused: nothing is stored, and the producer goes on.
func TestASyncThatANewFileIsRefused(t *testing.T) {
	roll := msg(4)
	roll.Payload = make([]byte, 6<<10)
	for _, op := range []string{"sync", "syncdir"} {
		t.Run(op, func(t *testing.T) {
			disk := newMemFS()
			q := mustOpen(t, memOptions(t, disk, t.TempDir()))
			p := mustProducer(t, q, 1)
			appendSome(t, p, 1, 3)
			disk.setHook(func(what, _ string) error {
				if what == op {
					return syscall.EIO
				}
				return nil
			})
			_, err := p.Append(testCtx(t), roll)
			if errclass.Of(err) != errclass.Retryable || errors.Is(err, mq.ErrUnknownOutcome) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("class %v: %v", errclass.Of(err), err)
			}
			if n := q.Stats().FailedWrites; n != 1 {
				t.Errorf("%d failures were counted", n)
			}
			got, _ := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, 1, 2, 3)
			disk.setHook(nil)
			appendSome(t, p, 4, 60)
			checkRestart(t, q, disk, 60)
		})
	}
}
