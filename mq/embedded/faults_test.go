package embedded

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// failing makes operations on segment files, also under their temporary name,
// fail with err, times times (< 0: always).
func failing(err error, times int64, ops ...string) func(op, path string) error {
	var n atomic.Int64
	return func(op, path string) error {
		for _, o := range ops {
			if op == o && strings.Contains(path, segmentSuffix) && (times < 0 || n.Add(1) <= times) {
				return err
			}
		}
		return nil
	}
}

// checkRestart checks that a new process finds messages 1..n.
func checkRestart(t *testing.T, q *Queue, disk *memFS, n int) {
	t.Helper()
	got, _ := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, numbers(1, n)...)
	after := disk.killed()
	mustClose(t, q)
	q = mustOpen(t, memOptions(t, after, q.o.Dir))
	got, bad := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, numbers(1, n)...)
	if len(bad) > 0 {
		t.Fatal(bad[0])
	}
}

// TestFullDisk: the client gets an error, the node serves on, nothing is lost,
// and appends work again once there is room.
func TestFullDisk(t *testing.T) {
	small, roll := msg(4), msg(4)
	roll.Payload = make([]byte, 6<<10) // begins a new file
	for _, c := range []struct {
		name string
		m    mq.Message
		hook func(op, path string) error
	}{
		{"write", small, failing(syscall.ENOSPC, 1, "write")},
		{"part of a write", small, failing(shortWrite{33, syscall.ENOSPC}, 1, "write")},
		{"sync", small, failing(syscall.ENOSPC, 1, "sync")},
		{"new file", roll, failing(syscall.ENOSPC, 1, "open")},
		{"header of the new file", roll, failing(syscall.ENOSPC, 1, "write")},
		{"sync of the new file", roll, failing(syscall.ENOSPC, 1, "sync")},
		{"rename of the new file", roll, failing(syscall.ENOSPC, 1, "rename")},
		{"new file and its removal", roll, failing(syscall.ENOSPC, -1, "rename", "remove")},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := newMemFS()
			q := mustOpen(t, memOptions(t, disk, t.TempDir()))
			p := mustProducer(t, q, 1)
			appendSome(t, p, 1, 3)
			disk.setHook(c.hook)
			_, err := p.Append(testCtx(t), c.m)
			if errclass.Of(err) != errclass.Exhausted || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("class %v: %v", errclass.Of(err), err)
			}
			got, _ := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, 1, 2, 3)
			disk.setHook(nil)
			appendSome(t, p, 4, 60)
			checkRestart(t, q, disk, 60)
		})
	}
}

// TestRealFullDisk does it with a small file system of its own, where that may be mounted.
func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	o := smallOptions(filepath.Join(dir, "queue"))
	q := mustOpen(t, o)
	p := mustProducer(t, q, 1)
	n := 0
	var full error
	for full == nil && n < 10000 {
		var at []mq.Position
		if at, full = p.Append(testCtx(t), msg(n+1)); full == nil {
			n += len(at)
		}
	}
	if errclass.Of(full) != errclass.Exhausted {
		t.Fatalf("class %v: %v", errclass.Of(full), full)
	}
	got, _ := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, numbers(1, n)...)
	if err := q.Trim(testCtx(t), topicName, position(uint64(n), 0)); err != nil {
		t.Fatalf("a full disk cannot be trimmed: %+v", err)
	}
	appendSome(t, p, n+1, n+50)
	mustClose(t, q)
	q = mustOpen(t, o)
	defer mustClose(t, q)
	got, bad := readAll(t, q, mq.ReaderOptions{From: position(uint64(n), 0)})
	wantMessages(t, got, numbers(n, n+50)...)
	if len(bad) > 0 {
		t.Fatal(bad[0])
	}
}

// TestFailedSync: the outcome is unknown, the producer refuses, readers go on,
// and the next producer finds a file that is cut to what was durable.
func TestFailedSync(t *testing.T) {
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, t.TempDir()))
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 3)
	disk.setHook(failing(syscall.EIO, 1, "sync"))
	for range 2 {
		_, err := p.Append(testCtx(t), msg(99))
		if !errors.Is(err, mq.ErrUnknownOutcome) || errclass.Of(err) != errclass.Retryable {
			t.Fatalf("class %v: %v", errclass.Of(err), err)
		}
	}
	got, _ := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 1, 2, 3)
	files := len(disk.segmentPaths())
	appendSome(t, mustProducer(t, q, 1), 4, 6)
	if len(disk.segmentPaths()) != files+1 {
		t.Fatal("the file whose sync failed is written again")
	}
	checkRestart(t, q, disk, 6)
}

// TestFailedWriteThatCannotBeCutOff is in doubt until the disk works again.
func TestFailedWriteThatCannotBeCutOff(t *testing.T) {
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, t.TempDir()))
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 3)
	disk.setHook(func(op, _ string) error {
		switch op {
		case "write":
			return shortWrite{70, syscall.ENOSPC}
		case "truncate":
			return syscall.EIO
		}
		return nil
	})
	if _, err := p.Append(testCtx(t), msg(4)); !errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if _, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 1}); errclass.Of(err) != errclass.Retryable {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
	got, _ := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 1, 2, 3)
	disk.setHook(nil)
	appendSome(t, mustProducer(t, q, 1), 4, 6)
	checkRestart(t, q, disk, 6)
}

func TestFailedTermIsNotGranted(t *testing.T) {
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, t.TempDir()))
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 1)
	disk.setHook(func(op, path string) error {
		if op == "rename" && strings.Contains(path, "meta") {
			return syscall.ENOSPC
		}
		return nil
	})
	if _, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 2}); errclass.Of(err) != errclass.Exhausted {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
	appendSome(t, p, 2, 2) // still the owner
	disk.setHook(nil)
	appendSome(t, mustProducer(t, q, 2), 3, 3)
	checkRestart(t, q, disk, 3)
}

// TestHungDisk: every call comes back, and says what is stuck.
func TestHungDisk(t *testing.T) {
	disk := newMemFS()
	o := memOptions(t, disk, t.TempDir())
	o.grace = time.Millisecond
	q := mustOpen(t, o)
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 2)
	hung, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	disk.setHook(func(op, _ string) error {
		if op == "sync" && once.CompareAndSwap(false, true) {
			close(hung)
			<-goOn
		}
		return nil
	})
	short := func() context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		go func() { <-hung; cancel() }()
		return ctx
	}
	first := short()
	if _, err := p.Append(first, msg(3)); !errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if _, err := q.OpenProducer(short(), topicName, mq.ProducerOptions{Term: 2}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := q.Trim(short(), topicName, position(1, 0)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got, _ := readAll(t, q, mq.ReaderOptions{}) // readers see what is durable
	wantMessages(t, got, 1, 2)
	if err := q.Close(short()); err == nil || !strings.Contains(err.Error(), "log "+topicName) {
		t.Fatalf("Close does not say what is stuck: %v", err)
	}
	if _, err := Open(o); errclass.Of(err) != errclass.Conflict {
		t.Fatalf("the folder is free while its writer lives: %v", err)
	}
	close(goOn)
	mustClose(t, q)
	q = mustOpen(t, o)
	got, _ = readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 1, 2, 3) // unknown became: it is there
}

// TestAppendGivenUpBeforeTheWrite: what the writer has not taken yet is withdrawn;
// nothing is in doubt and the producer goes on.
func TestAppendGivenUpBeforeTheWrite(t *testing.T) {
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, t.TempDir()))
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 2)
	hung, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	disk.setHook(func(op, _ string) error {
		if op == "sync" && once.CompareAndSwap(false, true) {
			close(hung)
			<-goOn
		}
		return nil
	})
	first := make(chan error, 1)
	go func() { _, err := p.Append(context.Background(), msg(3)); first <- err }()
	<-hung
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error, 1)
	go func() { _, err := p.Append(ctx, msg(99)); second <- err }()
	slot := q.mu.topics[topicName].topic
	for waiting := 0; waiting == 0; runtime.Gosched() {
		slot.mu.Lock()
		waiting = len(slot.mu.pending)
		slot.mu.Unlock()
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) || errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	appendSome(t, p, 4, 4)
	checkRestart(t, q, disk, 4)
}

// TestPanicInTheWriter: nobody is left waiting.
func TestPanicInTheWriter(t *testing.T) {
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, t.TempDir()))
	p := mustProducer(t, q, 1)
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	disk.setHook(func(op, _ string) error {
		if op == "write" {
			panic("a bug")
		}
		return nil
	})
	ctx := testCtx(t)
	if _, err := p.Append(ctx, msg(1)); !errors.Is(err, mq.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if _, err := r.Next(ctx); errclass.Of(err) != errclass.Internal {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
	if ctx.Err() != nil {
		t.Fatal("somebody was left waiting")
	}
	disk.setHook(nil)
	for { // the topic is opened anew from its files, once the dead writer is gone
		p, err := q.OpenProducer(ctx, topicName, mq.ProducerOptions{Term: 2})
		if err == nil {
			appendSome(t, p, 1, 1)
			break
		}
		if errclass.Of(err) != errclass.Internal {
			t.Fatalf("class %v: %v", errclass.Of(err), err)
		}
	}
	checkRestart(t, q, disk, 1)
}

func TestErrorsOfOpenNameTheFolder(t *testing.T) {
	dir := t.TempDir()
	q := mustOpen(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir})
	if errclass.Of(err) != errclass.Conflict || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "process ") {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
	pid, _ := os.ReadFile(filepath.Join(dir, "LOCK"))
	if !strings.Contains(err.Error(), strings.TrimSpace(string(pid))) {
		t.Fatalf("%q is not in %v", pid, err)
	}
	mustClose(t, q)
	mustClose(t, mustOpen(t, Options{Dir: dir}))

	disk := newMemFS()
	q = mustOpen(t, memOptions(t, disk, dir))
	disk.setHook(func(string, string) error { return syscall.EACCES })
	_, err = q.Bounds(testCtx(t), topicName)
	if errclass.Of(err) != errclass.Denied || !strings.Contains(err.Error(), filepath.Join(dir, topicName)) {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
	_, err = Open(Options{Dir: filepath.Join(dir, "LOCK", "below a file")})
	if err == nil || !strings.Contains(err.Error(), "LOCK") {
		t.Fatal(err)
	}
	_, err = Open(Options{SegmentBytes: 1, Sync: 9})
	for _, field := range []string{"Dir", "SegmentBytes", "Sync"} {
		if errclass.Of(err) != errclass.Invalid || !strings.Contains(err.Error(), field) {
			t.Fatalf("%s is not named: %v", field, err)
		}
	}
}
