package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// yard is a bucket with a collection, seen by one node.
type yard struct {
	*testing.T
	b   *objstore.Mem
	c   *Catalog
	col *Collection
}

// inYard runs a story in virtual time.
func inYard(t *testing.T, story func(t *testing.T, y *yard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		story(t, &yard{t, b, c, create(t, c, "movies")})
	})
}

// upload puts the files of a segment where a flush puts them.
func (y *yard) upload(id int64, try string) Segment {
	y.Helper()
	s := segment(y.col, 0, id)
	s.Path = fmt.Sprintf("%s/%d%s", SegmentFolder(y.col.ID), id, try)
	for _, f := range []string{"rows.parquet", "vector_101.npy", "manifest.json"} {
		putRaw(y, y.b, s.Path+"/"+f, "x")
	}
	return s
}

func (y *yard) uploadDelta(n int) Delta {
	y.Helper()
	d := delta(n)
	d.Path = fmt.Sprintf("%s/%s/%d.parquet", DeltaFolder(y.col.ID), y.col.VChannels[0].Name, n)
	putRaw(y, y.b, d.Path, "x")
	return d
}

func (y *yard) commit(f FlushCommit) error {
	y.Helper()
	f.Term = 1
	_, err := y.c.CommitFlush(y.Context(), y.col.VChannels[0].Name, f)
	return err
}

func (y *yard) sweep() Swept {
	y.Helper()
	s, err := y.c.Sweep(y.Context())
	must(y, err)
	return s
}

func (y *yard) there(prefix string) bool {
	y.Helper()
	return slices.ContainsFunc(keys(y, y.b), func(k string) bool { return strings.HasPrefix(k, prefix) })
}

func TestFilesThatNoManifestNamesAreSwept(t *testing.T) {
	inYard(t, func(t *testing.T, y *yard) {
		kept, lost, d, stray := y.upload(7, "-t1-aa"), y.upload(8, "-t1-bb"), y.uploadDelta(1), y.uploadDelta(2)
		must(t, y.commit(FlushCommit{AddSegments: []Segment{kept}, AddDeltas: []Delta{d}}))
		putRaw(t, y.b, "segments/notes.txt", "not ours")
		putRaw(t, y.b, SegmentFolder(y.col.ID)+"/readme/notes.txt", "not ours")
		y.sweep()
		time.Sleep(y.c.o.FileGrace)
		if s := y.sweep(); s.Orphans != 0 || !y.there(lost.Path) {
			t.Errorf("%+v, but nobody has said yet that they go", s)
		}
		time.Sleep(y.c.o.FileGrace)
		if s := y.sweep(); s.Orphans != 2 || y.there(lost.Path) || y.there(stray.Path) {
			t.Errorf("%+v, there are %v", s, keys(t, y.b))
		}
		for _, p := range []string{kept.Path + "/manifest.json", kept.Path + "/rows.parquet", d.Path, "segments/notes.txt", SegmentFolder(y.col.ID) + "/readme/notes.txt"} {
			if !y.there(p) {
				t.Errorf("%s is gone", p)
			}
		}
		if y.there(y.c.marksFolder()) {
			t.Error("marks are left")
		}
	})
}

// TestReplacedFilesStayForThoseThatReadTheManifestBefore, also when they are old,
// another node sweeps, and the one that replaced them was restarted.
func TestReplacedFilesStayForThoseThatReadTheManifestBefore(t *testing.T) {
	inYard(t, func(t *testing.T, y *yard) {
		old, d := y.upload(7, "-t1-aa"), y.uploadDelta(1)
		must(t, y.commit(FlushCommit{AddSegments: []Segment{old}, AddDeltas: []Delta{d}}))
		time.Sleep(100 * y.c.o.FileGrace)
		must(t, y.commit(FlushCommit{RemoveSegments: []int64{7}, AddSegments: []Segment{y.upload(9, "")}, RemoveDeltas: []string{d.Path}, Replace: true}))
		replaced := time.Now()
		y.c = open(t, y.b)
		for time.Since(replaced) < y.c.o.FileGrace {
			if y.sweep(); !y.there(old.Path+"/rows.parquet") || !y.there(d.Path) {
				t.Fatalf("gone %v after they were replaced", time.Since(replaced))
			}
			time.Sleep(time.Minute)
		}
		if s := y.sweep(); s.Orphans != 2 || y.there(old.Path) || y.there(d.Path) {
			t.Errorf("%+v, there are %v", s, keys(t, y.b))
		}
	})
}

// TestACommitAndASweepNeverMiss: whatever the sweep has done when the commit of an
// upload comes that took as long as you like, either the commit is refused or the
// files are there for good. The commit happens between any two calls of the sweep,
// and the process that commits may be paused between any two of its own.
func TestACommitAndASweepNeverMiss(t *testing.T) {
	for round := range 4 {
		for n := int64(1); n <= 16; n++ {
			inYard(t, func(t *testing.T, y *yard) {
				s := y.upload(7, "-t1-aa")
				for range round { // how far the sweeps before have come
					time.Sleep(y.c.o.FileGrace)
					y.sweep()
				}
				time.Sleep(y.c.o.FileGrace)
				var calls atomic.Int64
				err := errors.New("not tried")
				y.b.SetHook(func(objstore.Call) objstore.Fault {
					if calls.Add(1) == n {
						y.b.SetHook(nil)
						err = y.commit(FlushCommit{AddSegments: []Segment{s}})
					}
					return objstore.Fault{}
				})
				y.sweep()
				y.b.SetHook(nil)
				for range 3 {
					time.Sleep(y.c.o.FileGrace)
					y.sweep()
				}
				if whole := y.there(s.Path + "/manifest.json"); calls.Load() >= n && whole != (err == nil) {
					t.Errorf("round %d, commit before call %d of the sweep: %v, files there: %v", round, n, err, whole)
				}
				if err != nil && calls.Load() >= n {
					wantClass(t, err, errclass.Conflict, "another path")
				}
				if y.there(y.c.marksFolder()) {
					t.Error("marks are left")
				}
			})
		}
	}
}

// TestACommitThatIsPausedIsTooLate: between its look at the marks and its put lies
// any time, but not more than its deadline.
func TestACommitThatIsPausedIsTooLate(t *testing.T) {
	for _, pause := range []time.Duration{25 * time.Second, 3 * time.Hour} {
		inYard(t, func(t *testing.T, y *yard) {
			s := y.upload(7, "-t1-aa")
			time.Sleep(y.c.o.FileGrace)
			paused := false
			y.b.SetHook(func(call objstore.Call) objstore.Fault {
				if call.Op != objstore.OpPut || !strings.Contains(call.Key, "/channels/") || paused {
					return objstore.Fault{}
				}
				paused = true
				for end := time.Now().Add(pause); time.Now().Before(end); time.Sleep(5 * time.Minute) {
					_, err := open(t, y.b).Sweep(context.Background())
					must(t, err)
				}
				return objstore.Fault{}
			})
			err := y.commit(FlushCommit{AddSegments: []Segment{s}})
			y.b.SetHook(nil)
			time.Sleep(3 * y.c.o.FileGrace)
			y.sweep()
			ch, _ := y.c.Channel(t.Context(), y.col.VChannels[0].Name)
			if named := len(ch.Segments) == 1; named && !y.there(s.Path+"/manifest.json") {
				t.Errorf("paused for %v: %v, named but gone", pause, err)
			}
		})
	}
}

func TestForeignSegmentsWaitToBeAdded(t *testing.T) {
	inYard(t, func(t *testing.T, y *yard) {
		s := y.upload(FirstForeignID+5, "")
		for range 4 {
			time.Sleep(y.c.o.FileGrace)
			y.sweep()
		}
		must(t, y.commit(FlushCommit{AddSegments: []Segment{s}}))
		must(t, y.commit(FlushCommit{RemoveSegments: []int64{s.ID}, AddSegments: []Segment{y.upload(9, "")}, Replace: true}))
		y.sweep()
		if !y.there(s.Path) {
			t.Error("gone at once when it was replaced")
		}
		time.Sleep(y.c.o.FileGrace)
		if s := y.sweep(); s.Orphans != 1 {
			t.Errorf("%+v, want what was replaced", s)
		}
		if y.there(s.Path) {
			t.Error("it is still there")
		}
	})
}

// TestFilesOfACollectionThatIsGoneAreSwept: an upload may end after the drop did.
func TestFilesOfACollectionThatIsGoneAreSwept(t *testing.T) {
	inYard(t, func(t *testing.T, y *yard) {
		_, err := y.c.DropCollection(t.Context(), "movies", 9)
		must(t, err)
		time.Sleep(y.c.o.DropGrace)
		if s := y.sweep(); s.Collections != 1 {
			t.Fatalf("%+v", s)
		}
		y.upload(7, "-t1-aa")
		y.upload(FirstForeignID+5, "")
		for range 2 {
			time.Sleep(y.c.o.FileGrace)
			y.sweep()
		}
		if y.there(SegmentFolder(y.col.ID)) {
			t.Errorf("there are %v", keys(t, y.b))
		}
	})
}

// TestWithoutItsCatalogNothingIsSwept: then the files are all that is left.
func TestWithoutItsCatalogNothingIsSwept(t *testing.T) {
	inYard(t, func(t *testing.T, y *yard) {
		s := y.upload(7, "-t1-aa")
		must(t, y.commit(FlushCommit{AddSegments: []Segment{s}}))
		for _, k := range keys(t, y.b) {
			if strings.HasPrefix(k, y.c.o.Prefix+"/") {
				must(t, y.b.Delete(t.Context(), k))
			}
		}
		for range 4 {
			time.Sleep(y.c.o.FileGrace)
			if _, err := y.c.Sweep(t.Context()); err == nil {
				t.Error("nobody is told")
			}
		}
		if !y.there(s.Path + "/rows.parquet") {
			t.Error("the files are gone")
		}
	})
}

// TestASweepBelievesTheStoragesClock, not its own, by which all may be old.
func TestASweepBelievesTheStoragesClock(t *testing.T) {
	inYard(t, func(t *testing.T, y *yard) {
		time.Sleep(time.Hour)
		at, err := y.c.storageTime(t.Context())
		must(t, err)
		info, err := y.b.Head(t.Context(), y.c.clockKey())
		must(t, err)
		if !at.Equal(info.ModTime) {
			t.Errorf("%v, the storage says %v", at, info.ModTime)
		}
		y.b.SetHook(func(objstore.Call) objstore.Fault { return objstore.Fault{Err: errors.New("the storage is away")} })
		_, err = y.c.Sweep(t.Context())
		if err == nil {
			t.Error("a failed sweep says nothing")
		}
	})
}

// TestASweepOfFilesThatIsCutShortIsTakenUp by the next one, whichever write was its last.
func TestASweepOfFilesThatIsCutShortIsTakenUp(t *testing.T) {
	for n := int64(1); n <= 10; n++ {
		inYard(t, func(t *testing.T, y *yard) {
			s, keep := y.upload(7, "-t1-aa"), y.upload(8, "")
			must(t, y.commit(FlushCommit{AddSegments: []Segment{keep}}))
			for range 2 {
				time.Sleep(y.c.o.FileGrace)
				crashAt(y.b, n, n%2 == 0)
				_, _ = y.c.Sweep(t.Context())
				y.b.SetHook(nil)
			}
			for range 2 {
				time.Sleep(y.c.o.FileGrace)
				y.sweep()
			}
			if y.there(s.Path) || y.there(y.c.marksFolder()) || !y.there(keep.Path+"/rows.parquet") {
				t.Errorf("cut short at write %d: %v", n, keys(t, y.b))
			}
		})
	}
}
