package embedded

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// stored returns the disk of a process that appended messages 1..n and was
// killed: no clean end has left a durable mark.
func stored(t *testing.T, dir string, n int) *memFS {
	t.Helper()
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, dir))
	appendSome(t, mustProducer(t, q, 1), 1, n)
	after := disk.killed()
	mustClose(t, q)
	return after
}

// reopen opens the queue over disk with its last segment file cut or changed by edit.
func reopenEdited(t *testing.T, disk *memFS, dir string, edit func(last *inode)) (*Queue, *memFS) {
	t.Helper()
	d := disk.killed()
	paths := d.segmentPaths()
	edit(d.now[paths[len(paths)-1]])
	return mustOpen(t, memOptions(t, d, dir)), d
}

func TestTornTailIsCutAtEveryOffset(t *testing.T) {
	dir := t.TempDir()
	disk := stored(t, dir, 5)
	path := disk.segmentPaths()[0]
	full := len(disk.data(path))
	last := full - len(encodeBatch(nil, msgs(5, 5)))
	for size := last; size < full; size++ {
		q, _ := reopenEdited(t, disk, dir, func(n *inode) { n.data = n.data[:size] })
		got, bad := readAll(t, q, mq.ReaderOptions{})
		wantMessages(t, got, numbers(1, 4)...)
		cut := uint64(1)
		if size == last {
			cut = 0
		}
		if s := q.Stats(); len(bad) > 0 || s.TornTails != cut || s.Damages != 0 {
			t.Fatalf("cut at %d: %+v, %v", size, s, bad)
		}
		appendSome(t, mustProducer(t, q, 1), 5, 6)
		got, _ = readAll(t, q, mq.ReaderOptions{})
		wantMessages(t, got, numbers(1, 6)...)
		mustClose(t, q)
	}
}

func TestTornBatchDisappearsAsAWhole(t *testing.T) {
	dir, disk := t.TempDir(), newMemFS()
	q := mustOpen(t, memOptions(t, disk, dir))
	p := mustProducer(t, q, 1)
	appendSome(t, p, 1, 2)
	whole := len(disk.data(disk.segmentPaths()[0]))
	if _, err := p.Append(testCtx(t), msgs(3, 6)...); err != nil {
		t.Fatal(err)
	}
	full := disk.killed()
	mustClose(t, q)
	for size := whole; size < len(full.data(full.segmentPaths()[0])); size += 3 {
		q, _ := reopenEdited(t, full, dir, func(n *inode) { n.data = n.data[:size] })
		got, bad := readAll(t, q, mq.ReaderOptions{})
		wantMessages(t, got, 1, 2)
		if len(bad) > 0 {
			t.Fatal(bad[0])
		}
		mustClose(t, q)
	}
}

func TestZerosAtTheEndAreATornWrite(t *testing.T) {
	dir := t.TempDir()
	q, _ := reopenEdited(t, stored(t, dir, 4), dir, func(n *inode) { n.data = append(n.data, make([]byte, 5000)...) })
	got, bad := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 1, 2, 3, 4)
	if len(bad) > 0 || q.Stats().TornTails != 1 {
		t.Fatalf("%+v %v", q.Stats(), bad)
	}
}

// TestFlippedByte flips single bytes all over the files. What is damaged is named
// with its place, all else is there, and appends go on behind it.
func TestFlippedByte(t *testing.T) {
	dir := t.TempDir()
	const n = 90 // two files and a bit
	disk := stored(t, dir, n)
	paths := disk.segmentPaths()
	if len(paths) < 2 {
		t.Fatalf("one file only")
	}
	for i, path := range paths {
		for off := 0; off < len(disk.data(path)); off += 17 {
			d := disk.killed()
			d.now[path].data[off] ^= 0x10
			q := mustOpen(t, memOptions(t, d, dir))
			got, bad := readAll(t, q, mq.ReaderOptions{})
			checkFlip(t, q, path, off, n, got, bad)
			at := appendSome(t, mustProducer(t, q, 1), n+1, n+2)
			if encodeSeq(n) >= at[0].ID {
				t.Fatalf("file %d offset %d: number %x is given out again", i, off, at[0].ID)
			}
			again, _ := readAll(t, q, mq.ReaderOptions{})
			if len(again) != len(got)+2 {
				t.Fatalf("file %d offset %d: %d messages, then two more, then %d", i, off, len(got), len(again))
			}
			mustClose(t, q)
		}
	}
}

func checkFlip(t *testing.T, q *Queue, path string, off, n int, got []mq.Message, bad []*mq.CorruptError) {
	t.Helper()
	if off < segmentHeaderBytes {
		wantMessages(t, got, numbers(1, n)...) // the header is there twice
		if len(bad) > 0 {
			t.Fatal(bad[0])
		}
		return
	}
	if len(bad) != 1 || len(got) != n-1 {
		t.Fatalf("offset %d of %s: %d messages, %d errors (%v), stats %+v", off, path, len(got), len(bad), bad, q.Stats())
	}
	lost := int(bad[0].Position.ID[7])
	wantMessages(t, got, append(numbers(1, lost-1), numbers(lost+1, n)...)...)
	var from, to int
	place := bad[0].Detail[strings.Index(bad[0].Detail, path)+len(path):]
	if _, err := fmt.Sscanf(place, ", bytes %d to %d,", &from, &to); err != nil || off < from || off >= to {
		t.Fatalf("a flip at %d of %s is reported as %q (%v)", off, path, bad[0].Detail, err)
	}
	if !errors.Is(bad[0], mq.ErrCorrupt) {
		t.Fatal("not ErrCorrupt")
	}
}

func TestReadingOntoAndBehindDamage(t *testing.T) {
	dir := t.TempDir()
	disk := stored(t, dir, 10)
	n := disk.now[disk.segmentPaths()[0]]
	n.data[bytes.Index(n.data, []byte("000005."))] ^= 1
	q := mustOpen(t, memOptions(t, disk, dir))
	for _, o := range []mq.ReaderOptions{{From: position(5, 0)}, {From: position(4, 0), Exclusive: true}} {
		got, bad := readAll(t, q, o)
		wantMessages(t, got, 6, 7, 8, 9, 10)
		if len(bad) != 1 || bad[0].Position != position(5, 50) {
			t.Fatal(bad)
		}
	}
	got, bad := readAll(t, q, mq.ReaderOptions{From: position(5, 0), Exclusive: true})
	wantMessages(t, got, 6, 7, 8, 9, 10)
	if len(bad) != 0 {
		t.Fatal(bad)
	}
	r, err := q.OpenReader(testCtx(t), topicName, mq.ReaderOptions{From: position(5, 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Next(testCtx(t))
	if errclass.Of(err) != errclass.Corrupt {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
}

// TestDurableEndIsNoTornWrite: after a clean Close even the last bytes cannot be
// a torn write, whatever they look like. The last batch is 7 and 8.
func TestDurableEndIsNoTornWrite(t *testing.T) {
	last := len(encodeBatch(nil, msgs(8, 8)))
	for name, edit := range map[string]func(n *inode){
		"zeros":             func(n *inode) { clear(n.data[len(n.data)-last:]) },
		"cut in a frame":    func(n *inode) { n.data = n.data[:len(n.data)-60] },
		"cut at its header": func(n *inode) { n.data = n.data[:len(n.data)-last+5] },
	} {
		t.Run(name, func(t *testing.T) {
			dir, disk := t.TempDir(), newMemFS()
			q := mustOpen(t, memOptions(t, disk, dir))
			p := mustProducer(t, q, 1)
			appendSome(t, p, 1, 6)
			if _, err := p.Append(testCtx(t), msgs(7, 8)...); err != nil {
				t.Fatal(err)
			}
			mustClose(t, q)
			edit(disk.now[disk.segmentPaths()[0]])
			checkEndGone(t, mustOpen(t, memOptions(t, disk, dir)), 7, 8)
		})
	}
	t.Run("cut before the frame", func(t *testing.T) {
		dir, disk := t.TempDir(), newMemFS()
		q := mustOpen(t, memOptions(t, disk, dir))
		appendSome(t, mustProducer(t, q, 1), 1, 8)
		mustClose(t, q)
		n := disk.now[disk.segmentPaths()[0]]
		n.data = n.data[:len(n.data)-last]
		checkEndGone(t, mustOpen(t, memOptions(t, disk, dir)), 7, 8)
	})
}

// checkEndGone checks that messages 1..good are there, that gone is named, and
// that its number is not given out again.
func checkEndGone(t *testing.T, q *Queue, good, gone int) {
	t.Helper()
	got, bad := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, numbers(1, good)...)
	if len(bad) != 1 || bad[0].Position.ID != encodeSeq(uint64(gone)) {
		t.Fatalf("damage: %v", bad)
	}
	if at := appendSome(t, mustProducer(t, q, 1), gone+1, gone+1); at[0].ID != encodeSeq(uint64(gone+1)) {
		t.Fatalf("next is %s", at[0])
	}
	got, bad = readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, append(numbers(1, good), gone+1)...)
	if len(bad) != 1 {
		t.Fatalf("damage: %v", bad)
	}
}

// TestPayloadsThatLookLikeFrames: a payload may hold a piece of a segment file.
// When the frame around it is damaged, what is inside is not taken for messages.
func TestPayloadsThatLookLikeFrames(t *testing.T) {
	dir := t.TempDir()
	inside := stored(t, dir, 9)
	piece := inside.data(inside.segmentPaths()[0])[segmentHeaderBytes:]
	disk := newMemFS()
	q := mustOpen(t, memOptions(t, disk, dir))
	p := mustProducer(t, q, 1)
	trap := msg(1)
	trap.Payload = slices.Concat(bytes.Repeat([]byte(marker), 50), piece)
	if _, err := p.Append(testCtx(t), trap); err != nil {
		t.Fatal(err)
	}
	appendSome(t, p, 2, 4)
	after := disk.killed()
	mustClose(t, q)
	after.now[after.segmentPaths()[0]].data[segmentHeaderBytes+13] ^= 1 // its length
	q = mustOpen(t, memOptions(t, after, dir))
	got, bad := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 2, 3, 4)
	if len(bad) != 1 || bad[0].Position.ID != encodeSeq(1) {
		t.Fatal(bad)
	}
}

func TestUnreadableAndMissingFiles(t *testing.T) {
	dir := t.TempDir()
	disk := stored(t, dir, 130)
	paths := disk.segmentPaths()
	if len(paths) < 3 {
		t.Fatalf("%d files", len(paths))
	}
	bases := make([]int, len(paths)+1)
	for i, p := range paths {
		b, _ := parseSegmentName(filepath.Base(p))
		bases[i] = int(b)
	}
	bases[len(paths)] = 131
	for i, path := range paths {
		for _, what := range []string{"missing", "no header"} {
			if what == "missing" && (i == 0 || i == len(paths)-1) {
				continue // the first looks trimmed; the last may have been empty
			}
			d := disk.killed()
			if what == "missing" {
				delete(d.now, path)
			} else {
				clear(d.now[path].data[:segmentHeaderBytes])
			}
			q := mustOpen(t, memOptions(t, d, dir))
			got, bad := readAll(t, q, mq.ReaderOptions{})
			wantMessages(t, got, append(numbers(1, bases[i]-1), numbers(bases[i+1], 130)...)...)
			if len(bad) != 1 || bad[0].Position.ID != encodeSeq(uint64(bases[i])) {
				t.Fatalf("file %d %s: %v", i, what, bad)
			}
			at := appendSome(t, mustProducer(t, q, 1), 131, 131)
			if at[0].ID < encodeSeq(131) {
				t.Fatalf("file %d %s: number %s is given out again", i, what, at[0])
			}
			mustClose(t, q)
		}
	}
}

func TestMetaFiles(t *testing.T) {
	dir := t.TempDir()
	disk := stored(t, dir, 3)
	meta := metaPaths(filepath.Join(dir, topicName))
	for _, path := range meta { // one bad copy costs nothing and is restored
		d := disk.killed()
		d.now[path].data[20] ^= 1
		q := mustOpen(t, memOptions(t, d, dir))
		got, _ := readAll(t, q, mq.ReaderOptions{})
		wantMessages(t, got, 1, 2, 3)
		if _, err := q.OpenProducer(testCtx(t), topicName, mq.ProducerOptions{Term: 0}); !errors.Is(err, mq.ErrFenced) {
			t.Fatalf("the term is forgotten: %v", err)
		}
		if a, b := d.data(meta[0]), d.data(meta[1]); !bytes.Equal(a, b) {
			t.Fatalf("not restored: %s, %s", a, b)
		}
		mustClose(t, q)
	}
	d := disk.killed()
	d.now[meta[0]].data[20] ^= 1
	delete(d.now, meta[1])
	q := mustOpen(t, memOptions(t, d, dir))
	_, err := q.Bounds(testCtx(t), topicName)
	if errclass.Of(err) != errclass.Corrupt || !strings.Contains(err.Error(), meta[0]) {
		t.Fatalf("class %v: %v", errclass.Of(err), err)
	}
	// The other topics live, and a repaired file is enough to go on.
	if _, err := q.OpenProducer(testCtx(t), "another", mq.ProducerOptions{}); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.now[meta[0]].data[20] ^= 1
	d.mu.Unlock()
	got, _ := readAll(t, q, mq.ReaderOptions{})
	wantMessages(t, got, 1, 2, 3)
}

func TestLeftoversAreRemovedOrLeft(t *testing.T) {
	dir := t.TempDir()
	disk := stored(t, dir, 3)
	tmp := segmentPath(filepath.Join(dir, topicName), 4) + tmpSuffix
	for _, path := range []string{tmp, filepath.Join(dir, "x.tmp")} {
		disk.now[path] = &inode{data: []byte("half a file")}
	}
	stuck := disk.killed()
	stuck.setHook(func(op, path string) error {
		if op == "remove" {
			return errors.New("no")
		}
		return nil
	})
	for _, d := range []*memFS{stuck, disk} {
		q := mustOpen(t, memOptions(t, d, dir))
		appendSome(t, mustProducer(t, q, 1), 4, 4)
		got, _ := readAll(t, q, mq.ReaderOptions{})
		wantMessages(t, got, 1, 2, 3, 4)
		mustClose(t, q)
	}
	if disk.now[tmp] != nil {
		t.Fatal("still there")
	}
}
