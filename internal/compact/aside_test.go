package compact

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/segfile"
)

// damage overwrites an object; mend puts back what it was.
func (r *rig) damage(key string) (mend func()) {
	r.t.Helper()
	whole, err := objstore.ReadAll(r.t.Context(), r.bucket, key, 1<<20)
	must(r.t, err)
	put := func(raw []byte) {
		r.t.Helper()
		_, err := r.bucket.Put(r.t.Context(), key, bytes.NewReader(raw), int64(len(raw)), objstore.PutOptions{})
		must(r.t, err)
	}
	put([]byte("nothing of the kind"))
	return func() { put(whole) }
}

// aside are the paths of what is set aside.
func (r *rig) aside() (paths []string) {
	for _, a := range r.c.Status().Aside {
		paths = append(paths, a.Path)
	}
	return paths
}

// inputs are what jobs have replaced.
func inputs(done []Done) (ids [][]int64) {
	for _, d := range done {
		ids = append(ids, d.Inputs)
	}
	return ids
}

// TestADamagedSegmentIsSetAside: the others of its channel are compacted all the same.
func TestADamagedSegmentIsSetAside(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	r.segment(13, 3)
	mend := r.damage(r.entry().Segments[1].Path + "/" + segfile.ManifestName)
	done, err := r.run()
	if !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), "segment 12") {
		t.Fatalf("%v, want class Corrupt", err)
	}
	if len(done) != 1 || !slices.Equal(done[0].Inputs, []int64{11, 13}) {
		t.Fatalf("%+v", done)
	}
	if st := r.c.Status(); len(st.Aside) != 1 || st.Aside[0].SegmentID != 12 || st.Aside[0].Error == "" || !strings.Contains(st.Failing[r.vchannel()], "segments/1/12 is set aside") || st.Stats.Failed != 1 {
		t.Fatalf("%+v", st)
	}
	if done, err = r.run(); err != nil || len(done) != 0 {
		t.Fatalf("%+v, %v: there was nothing left to do", done, err)
	}
	mend()
	r.now = r.now.Add(asideFor)
	done, err = r.run()
	must(t, err)
	if len(done) != 1 || len(done[0].Inputs) != 2 || len(r.entry().Segments) != 1 || len(r.aside()) != 0 {
		t.Fatalf("it was not tried again: %+v, %+v", done, r.entry().Segments)
	}
}

// TestADamagedFileOfDeletesIsSetAside: segments that it may hide rows of are left as
// they are, so that none of these comes back; the others are compacted.
func TestADamagedFileOfDeletesIsSetAside(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1, 2)
	r.segment(12, 3, 4)
	r.deletes(2, 3)
	r.segment(13, 5)
	r.segment(14, 6)
	mend := r.damage(r.entry().Deltas[0].Path)
	done, err := r.run()
	if !errclass.Is(err, errclass.Corrupt) || !strings.Contains(err.Error(), r.entry().Deltas[0].Path) {
		t.Fatalf("%v, want class Corrupt and the path", err)
	}
	if got := inputs(done); len(got) != 1 || !slices.Equal(got[0], []int64{13, 14}) {
		t.Fatalf("%v were replaced, want 13 and 14, which are newer than the deletes", got)
	}
	e := r.entry()
	if len(e.Segments) != 3 || len(e.Deltas) != 1 || !slices.Equal(r.aside(), []string{e.Deltas[0].Path}) {
		t.Fatalf("%+v; set aside: %v", e, r.aside())
	}
	for range 3 { // no endless tries
		if done, err := r.run(); err != nil || len(done) != 0 {
			t.Fatalf("%+v, %v: there was nothing left to do", done, err)
		}
	}
	if n := r.c.Status().Stats.Failed; n != 1 {
		t.Errorf("%d jobs failed", n)
	}
	mend()
	want(t, r.see(r.tick()), 1, 4, 5, 6)
	r.now = r.now.Add(asideFor)
	_, err = r.run()
	must(t, err)
	if e := r.entry(); len(e.Segments) != 1 || len(r.aside()) != 0 {
		t.Fatalf("it was not tried again: %+v", e)
	}
	want(t, r.see(r.tick()), 1, 4, 5, 6)
}

// TestADamagedFileOfDeletesOfAPartition holds up no other partition.
func TestADamagedFileOfDeletesOfAPartition(t *testing.T) {
	here := catalog.Segment{PartitionID: 1, MinTimestamp: 5, MaxTimestamp: 9}
	folded := here
	folded.FoldedTimestamp = 20
	for _, c := range []struct {
		delta    catalog.Delta
		segment  catalog.Segment
		concerns bool
	}{
		{catalog.Delta{MaxTimestamp: 6}, here, true},
		{catalog.Delta{MaxTimestamp: 5}, here, false}, // no row is older
		{catalog.Delta{MaxTimestamp: 6, PartitionID: 1}, here, true},
		{catalog.Delta{MaxTimestamp: 6, PartitionID: 2}, here, false},
		{catalog.Delta{MaxTimestamp: 20}, folded, false},
		{catalog.Delta{MaxTimestamp: 21}, folded, true},
	} {
		if got := concerns(&c.delta, &c.segment); got != c.concerns {
			t.Errorf("%+v and %+v: %v", c.delta, c.segment, got)
		}
	}
}

// TestOthersAreMergedWithoutADamagedFileOfDeletes.
func TestOthersAreMergedWithoutADamagedFileOfDeletes(t *testing.T) {
	r := newRig(t, 0)
	keys := []int64{1, 2, 3, 4, 5, 6, 7, 8}
	r.segment(11, keys...)
	var at uint64
	for _, k := range keys[:5] {
		at = r.deletes(k)
	}
	mend := r.damage(r.entry().Deltas[2].Path)
	if _, err := r.run(); !errclass.Is(err, errclass.Corrupt) {
		t.Fatalf("%v, want class Corrupt", err)
	}
	if e := r.entry(); len(e.Deltas) != 2 || len(r.aside()) != 1 {
		t.Fatalf("the catalog has %+v; set aside: %v", e.Deltas, r.aside())
	}
	mend()
	want(t, r.see(at), 6, 7, 8)
}

// TestWhatIsAsideIsForgottenWithItsSegment.
func TestWhatIsAsideIsForgottenWithItsSegment(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	r.damage(r.entry().Segments[0].Path + "/" + segfile.ManifestName)
	if _, err := r.run(); !errclass.Is(err, errclass.Corrupt) {
		t.Fatal(err)
	}
	r.commit(catalog.FlushCommit{RemoveSegments: []int64{11}})
	_, err := r.run()
	must(t, err)
	if a := r.aside(); len(a) != 0 {
		t.Errorf("%v", a)
	}
}

// TestWhatMayPassIsNotSetAside: storage that is away is no damage.
func TestWhatMayPassIsNotSetAside(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if strings.HasPrefix(c.Key, "segments/") {
			return objstore.Fault{Err: errclass.New(errclass.Retryable, "the storage is away")}
		}
		return objstore.Fault{}
	})
	if _, err := r.run(); !errclass.Is(err, errclass.Retryable) || len(r.aside()) != 0 {
		t.Fatalf("%v, set aside: %v", err, r.aside())
	}
	r.bucket.SetHook(nil)
	done, err := r.run()
	must(t, err)
	if len(done) != 1 {
		t.Fatalf("%+v", done)
	}
}

// TestManyDamagedFilesAreSetAsideInTurns: a channel does not hold up others for all of
// its files, and is compacted in the end.
func TestManyDamagedFilesAreSetAsideInTurns(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	var gone []catalog.Segment
	for i := range maxAsides + 3 {
		s := r.entry().Segments[0]
		s.ID, s.Path = 100+int64(i), fmt.Sprintf("segments/none/%d", i)
		gone = append(gone, s)
	}
	r.commit(catalog.FlushCommit{AddSegments: gone})
	done, err := r.run()
	if !errclass.Is(err, errclass.NotFound) || len(done) != 0 || len(r.aside()) != maxAsides+1 {
		t.Fatalf("%v, %+v, %d set aside", err, done, len(r.aside()))
	}
	done, err = r.run()
	if !errclass.Is(err, errclass.NotFound) || len(done) != 1 || !slices.Equal(done[0].Inputs, []int64{11, 12}) || len(r.aside()) != maxAsides+3 {
		t.Fatalf("%v, %+v, %d set aside", err, done, len(r.aside()))
	}
	if st := r.c.Status(); st.Stats.Failed != maxAsides+3 || st.Stats.Jobs != 1 {
		t.Errorf("%+v", st.Stats)
	}
}

// TestWhatFailedIsForgottenWithItsChannel: a collection that was dropped leaves no
// alarm behind.
func TestWhatFailedIsForgottenWithItsChannel(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	r.damage(r.entry().Segments[0].Path + "/" + segfile.ManifestName)
	if _, err := r.run(); !errclass.Is(err, errclass.Corrupt) {
		t.Fatal(err)
	}
	r.bucket.SetHook(func(objstore.Call) objstore.Fault {
		return objstore.Fault{Err: errclass.New(errclass.Retryable, "the storage is away")}
	})
	r.c.round(t.Context())
	if st := r.c.Status(); len(st.Aside) != 1 || len(st.Failing) != 1 || !strings.Contains(st.Failing[r.vchannel()], "away") {
		t.Fatalf("%+v", st)
	}
	r.gone = true
	r.c.round(t.Context())
	if st := r.c.Status(); len(st.Aside) != 0 || len(st.Failing) != 0 {
		t.Errorf("%+v", st)
	}
}
