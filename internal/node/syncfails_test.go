package node

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
)

// refusing is the disk of a queue that may refuse to sync, in a folder of its own.
type refusing struct {
	t      *testing.T
	dir    string
	policy embedded.SyncPolicy

	mu      sync.Mutex
	with    error
	what    string // is refused: see kindOf; "" = all
	refused int
	safe    map[string]int64 // how long its files were when they were synced
}

// kindOf tells what is synced by the path by which it was opened: a folder, a file of messages,
// or one that has no name yet.
func kindOf(path string) (kind, name string, size int64) {
	st, err := os.Stat(path)
	name, begun := strings.CutSuffix(path, ".tmp")
	switch {
	case err == nil && st.IsDir():
		return "folder", path, 0
	case err == nil && begun:
		return "new file", name, st.Size()
	}
	if st, err = os.Stat(name); err != nil {
		return "nothing", name, 0
	}
	return "file", name, st.Size()
}

func (d *refusing) before(path string) error {
	kind, name, size := kindOf(path)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.with != nil && (d.what == "" || d.what == kind) {
		d.refused++
		return &fs.PathError{Op: "sync", Path: path, Err: d.with}
	}
	d.safe[name] = size
	return nil
}

// refuse has syncs of what fail from now on; nil = no more.
func (d *refusing) refuse(with error, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.with, d.what, d.refused = with, what, 0
}

func (d *refusing) refusals() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}

// on opens a node on the disk.
func (d *refusing) on(w *world) *rig {
	q, err := embedded.Open(embedded.Options{Dir: d.dir, Sync: d.policy, SyncInterval: time.Hour, SegmentBytes: 4 << 10, MaxPayloadBytes: 1 << 20, BeforeSync: d.before})
	must(d.t, err)
	w.queue = func() mq.Queue { return q }
	return w.open(func(o *Options) { o.Sole = true })
}

// powerOff makes another disk that is as this one after a power failure at worst: of each file
// there is what was synced.
func (d *refusing) powerOff() *refusing {
	d.t.Helper()
	left := &refusing{t: d.t, dir: filepath.Join(d.t.TempDir(), "left"), policy: d.policy, safe: map[string]int64{}}
	must(d.t, os.CopyFS(left.dir, os.DirFS(d.dir)))
	d.mu.Lock()
	safe := maps.Clone(d.safe)
	d.mu.Unlock()
	must(d.t, filepath.WalkDir(left.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".seg") {
			return err
		}
		rel, err := filepath.Rel(left.dir, path)
		if err != nil {
			return err
		}
		return os.Truncate(path, safe[filepath.Join(d.dir, rel)])
	}))
	return left
}

func newRefusing(t *testing.T, policy embedded.SyncPolicy) *refusing {
	return &refusing{t: t, dir: filepath.Join(t.TempDir(), "q"), policy: policy, safe: map[string]int64{}}
}

// tries inserts rows and returns how that ended.
func (r *rig) tries(ids ...int64) error {
	r.t.Helper()
	_, err := r.Insert(within(r.t), things, "", &schema.Batch{Rows: len(ids), Columns: []*schema.Column{keysOf(ids...),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*len(ids))}}}, false)
	return err
}

// reads fails unless a read that waits for nothing sees so many rows.
func (r *rig) reads(want int64) {
	r.t.Helper()
	got, _, err := r.countAt(within(r.t), Freshness{Level: Eventually}, false)
	must(r.t, err)
	if got != want {
		r.t.Fatalf("%d rows are read, want %d", got, want)
	}
}

// troubled waits until the node says to people what is wrong.
func (r *rig) troubled(what string) {
	r.t.Helper()
	eventually(r.t, "it is told: "+what, func() bool { return strings.Contains(strings.Join(r.Troubles(), "\n"), what) })
}

// accepts inserts rows, trying again for as long as it is told to.
func (r *rig) accepts(ids ...int64) {
	r.t.Helper()
	eventually(r.t, "inserts are taken again", func() bool {
		err := r.tries(ids...)
		if err != nil && !errclass.Of(err).Retry() {
			r.t.Fatalf("with a disk that works again: %+v", err)
		}
		return err == nil
	})
}

// TestADiskThatRefusesToSync: what is written fails and may be tried again, reads go on, and once the disk
// is well so does all else. What was acknowledged is there, also after a power failure, and nothing else is.
func TestADiskThatRefusesToSync(t *testing.T) {
	for name, c := range map[string]struct {
		with error
		what string
		rows int64 // that are tried: a file has room for a hundred and some
	}{
		"an input or output error":        {syscall.EIO, "file", 10},
		"no space":                        {syscall.ENOSPC, "file", 10},
		"an error, of a new file":         {syscall.EIO, "new file", 300},
		"an error, of the folder":         {syscall.EIO, "folder", 300},
		"no space for a new file":         {syscall.EDQUOT, "new file", 300},
		"all of it read-only, for errors": {syscall.EROFS, "", 10},
	} {
		t.Run(name, func(t *testing.T) {
			w, d := newWorld(t), newRefusing(t, embedded.SyncAlways)
			r := d.on(w).ready()
			r.create()
			r.insert(between(0, 100)...)
			r.has(100)
			d.refuse(c.with, c.what)
			for range 3 {
				err := r.tries(between(1000, 1000+c.rows)...)
				if !errclass.Of(err).Retry() {
					t.Fatalf("class %v: %+v", errclass.Of(err), err)
				}
				r.reads(100)
			}
			if d.refusals() == 0 {
				t.Fatal("nothing was to be synced")
			}
			full := errors.Is(c.with, syscall.ENOSPC) || errors.Is(c.with, syscall.EDQUOT)
			if !full { // of a full disk those are told who write
				r.troubled(topic)
			}
			left := d.powerOff()
			d.refuse(nil, "")
			r.accepts(between(100, 110)...)
			r.has(110)
			r.kill() // and so nothing of it is stored
			for _, c := range []struct {
				d    *refusing
				rows int64
			}{{d, 110}, {left, 100}} {
				r = c.d.on(w).ready()
				r.has(c.rows)
				r.accepts(between(c.rows, c.rows+10)...)
				r.has(c.rows + 10)
				r.kill()
			}
		})
	}
}

// TestNothingIsStoredBeyondALogThatCannotBeSynced: where what is acknowledged is synced later, a segment is
// stored once all of it is safe in the log. While it cannot be, that is told, rows are kept and read, and a
// power failure leaves a log that reaches what is stored.
func TestNothingIsStoredBeyondALogThatCannotBeSynced(t *testing.T) {
	for _, policy := range []embedded.SyncPolicy{embedded.SyncInterval, embedded.SyncNone} {
		w, d := newWorld(t), newRefusing(t, policy)
		r := d.on(w).ready()
		r.create()
		r.insert(between(0, 50)...)
		r.flush()
		r.checkpointed()
		r.insert(between(50, 80)...)
		r.has(80)
		d.refuse(syscall.EIO, "file")
		_, _, err := r.Flush(within(t), things, false)
		must(t, err)
		eventually(t, "a sync is refused", func() bool { return d.refusals() > 0 })
		r.troubled("sync")
		if n := len(r.stored()); n != 1 {
			t.Fatalf("%d segments are stored", n)
		}
		r.reads(80)
		left := d.powerOff()
		r.kill()

		r = left.on(w).ready()
		n, _, err := r.count(within(t), false)
		must(t, err)
		if n < 50 {
			t.Fatalf("%d rows are left of 50 that were stored", n)
		}
		r.accepts(between(100, 110)...)
		r.flush()
		r.has(n + 10)
		r.kill()
	}
}

// TestASyncThatFailedOnceIsMadeGood: what is sealed is stored after it, and outlives a power failure then.
func TestASyncThatFailedOnceIsMadeGood(t *testing.T) {
	w, d := newWorld(t), newRefusing(t, embedded.SyncInterval)
	r := d.on(w).ready()
	r.create()
	r.insert(between(0, 50)...)
	r.has(50)
	d.refuse(syscall.EIO, "file")
	_, _, err := r.Flush(within(t), things, false)
	must(t, err)
	eventually(t, "a sync is refused", func() bool { return d.refusals() > 0 })
	d.refuse(nil, "")
	eventually(t, "the segment is stored", func() bool { return len(r.stored()) == 1 })
	r.has(50)
	left := d.powerOff()
	r.kill()
	r = left.on(w).ready()
	r.has(50)
	r.accepts(between(50, 60)...)
	r.has(60)
	r.close()
}

// TestANodeThatClosesOnADiskThatRefusesToSyncSaysSo, in time, and the next one on the machine has all that was acknowledged.
func TestANodeThatClosesOnADiskThatRefusesToSyncSaysSo(t *testing.T) {
	for _, policy := range []embedded.SyncPolicy{embedded.SyncAlways, embedded.SyncInterval} {
		w, d := newWorld(t), newRefusing(t, policy)
		r := d.on(w).ready()
		r.create()
		r.insert(between(0, 50)...)
		d.refuse(syscall.EIO, "")
		if policy == embedded.SyncAlways && r.tries(1000) == nil {
			t.Fatal("acknowledged though it is not synced")
		}
		r.dead.Store(true) // its end is judged here
		if err := r.o.Queue.Close(within(t)); !errors.Is(err, syscall.EIO) {
			t.Fatalf("closed: %v", err)
		}
		r.close()
		d.refuse(nil, "")
		r = d.on(w).ready()
		r.has(50)
		r.insert(between(50, 60)...)
		r.flush()
		r.has(60)
		r.close()
	}
}

// stored are the segments of the catalog.
func (r *rig) stored() []catalog.Segment {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	c, err := r.o.Catalog.Channel(within(r.t), coll.VChannels[0].Name)
	must(r.t, err)
	return c.Segments
}
