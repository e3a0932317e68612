package embedded

import (
	"io"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// countingFS counts the bytes that are read.
func countingFS(n *atomic.Int64) *fileSystem {
	s := osFiles(nil)
	open := s.open
	s.open = func(path string, flag int) (file, error) {
		f, err := open(path, flag)
		if err != nil {
			return nil, err
		}
		return &countingFile{f, n}, nil
	}
	return s
}

type countingFile struct {
	file
	n *atomic.Int64
}

func (f *countingFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(b, off)
	f.n.Add(int64(n))
	return n, err
}

// TestSeekDoesNotScan: to find a place in a topic of several files, less is read
// than one of them holds, in a file whose index is in memory; and one file at
// most where it has to be built.
func TestSeekDoesNotScan(t *testing.T) {
	var read atomic.Int64
	o := Options{Dir: t.TempDir(), SegmentBytes: 1 << 20, ReadBufferBytes: 16 << 10, Sync: SyncNone, fs: countingFS(&read)}
	q := mustOpen(t, o)
	p := mustProducer(t, q, 1)
	const n = 4000 // 4 MB
	for i := 1; i <= n; i += 100 {
		batch := msgs(i, i+99)
		for j := range batch {
			batch[j].Payload = append(batch[j].Payload, make([]byte, 1000)...)
		}
		if _, err := p.Append(testCtx(t), batch...); err != nil {
			t.Fatal(err)
		}
	}
	seek := func(q *Queue, limit int64) {
		t.Helper()
		for _, at := range []int{1, 1500, 2900, n} {
			for _, o := range []mq.ReaderOptions{{From: position(uint64(at), 0)}, {FromTimestamp: uint64(10*at - 1)}} {
				before := read.Load()
				r, err := q.OpenReader(testCtx(t), topicName, o)
				if err != nil {
					t.Fatal(err)
				}
				m, err := r.Next(testCtx(t))
				if err != nil || m.Timestamp != uint64(10*at) {
					t.Fatalf("%+v: %d, %v", o, m.Timestamp, err)
				}
				mustClose(t, r)
				if got := read.Load() - before; got > limit {
					t.Fatalf("%+v: %d bytes were read, %d are allowed", o, got, limit)
				}
			}
		}
	}
	seek(q, 2*indexEveryBytes)
	mustClose(t, q)
	q = mustOpen(t, o)
	if _, err := q.Bounds(testCtx(t), topicName); err != nil {
		t.Fatal(err)
	}
	seek(q, o.SegmentBytes+2*indexEveryBytes)
	seek(q, 2*indexEveryBytes)
}

// TestTimestampsThatAreOutOfOrder: the first message with a timestamp of at least
// the one asked for is found even so.
func TestTimestampsThatAreOutOfOrder(t *testing.T) {
	q := mustOpen(t, memOptions(t, newMemFS(), t.TempDir()))
	p := mustProducer(t, q, 1)
	stamps := []uint64{50, 10, 70, 20, 60, 90, 30, 80, 100}
	for range 6 { // over several files
		for i, ts := range stamps {
			if _, err := p.Append(testCtx(t), mq.Message{Timestamp: ts, Payload: make([]byte, 300+i)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range stamps {
			stamps[i] += 55
		}
	}
	all, _ := readAll(t, q, mq.ReaderOptions{})
	for since := uint64(1); since < 380; since++ {
		want := mq.Position{}
		for _, m := range all {
			if m.Timestamp >= since {
				want = m.Position
				break
			}
		}
		if want.IsZero() {
			break
		}
		r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{FromTimestamp: since})
		if err != nil {
			t.Fatal(err)
		}
		m, err := r.Next(testCtx(t))
		if err != nil || m.Position != want {
			t.Fatalf("from %d: %s, %v; want %s", since, m.Position, err, want)
		}
		mustClose(t, r)
	}
}

// TestReadersLeaveNoOpenFiles counts what the file system was asked to open and close.
func TestReadersLeaveNoOpenFiles(t *testing.T) {
	var open atomic.Int64
	s := osFiles(nil)
	real := s.open
	s.open = func(path string, flag int) (file, error) {
		f, err := real(path, flag)
		if err == nil {
			open.Add(1)
			f = &closeCounter{f, &open}
		}
		return f, err
	}
	o := smallOptions(t.TempDir())
	o.fs = s
	q := mustOpen(t, o)
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 400)
	writers := open.Load()
	for i := 1; i < 400; i += 40 {
		r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{From: position(uint64(i), 0)})
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if _, err := r.Next(testCtx(t)); err != nil {
				t.Fatal(err)
			}
		}
		if i%80 == 1 {
			mustClose(t, r)
		}
	}
	if open.Load() != writers+5 {
		t.Fatalf("%d files are open for 5 readers", open.Load()-writers)
	}
	if err := q.Trim(testCtx(t), topicName, position(399, 0)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, q)
	if open.Load() != 0 {
		t.Fatalf("%d files are still open", open.Load())
	}
	if _, err := os.Stat(o.Dir); err != nil {
		t.Fatal(err)
	}
}

type closeCounter struct {
	file
	n *atomic.Int64
}

func (f *closeCounter) Close() error {
	f.n.Add(-1)
	return f.file.Close()
}

// TestReadErrorIsNotDamage: a read that fails is tried again by the next Next.
func TestReadErrorIsNotDamage(t *testing.T) {
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, t.TempDir()))
	appendSome(t, mustProducer(t, q, 1), 1, 3)
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	disk.setHook(failing(io.ErrNoProgress, 2, "read"))
	for range 2 {
		if _, err := r.Next(testCtx(t)); !errors.Is(err, io.ErrNoProgress) || errors.Is(err, mq.ErrCorrupt) {
			t.Fatal(err)
		}
	}
	m, err := r.Next(testCtx(t))
	if err != nil {
		t.Fatal(err)
	}
	wantMessages(t, []mq.Message{m}, 1)
}
