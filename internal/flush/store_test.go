package flush

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/segments"
)

func keys(ids ...int64) *schema.Column {
	return &schema.Column{FieldID: 100, Type: schema.Int64, Int: ids}
}

// remove applies deletes of keys at a timestamp.
func (r *rig) remove(partition int64, at uint64, ids ...int64) {
	r.ch.ApplyDeletes(partition, keys(ids...), segments.Position{ID: strconv.FormatUint(at, 10), Timestamp: at})
}

// stored reads a file of deletes from object storage.
func (r *rig) stored(d catalog.Delta) (keys []int64, timestamps []uint64) {
	r.t.Helper()
	raw, err := objstore.ReadAll(r.t.Context(), r.f.o.Bucket, d.Path, 1<<20)
	must(r.t, err)
	k, ts, err := segfile.DecodeDeletes(raw)
	must(r.t, err)
	if d.Rows != int64(len(ts)) || d.MinTimestamp != ts[0] || d.MaxTimestamp != ts[len(ts)-1] || d.Bytes != int64(len(raw)) {
		r.t.Errorf("%+v, and there are %v of %d bytes", d, ts, len(raw))
	}
	return k.Int, ts
}

// TestDeletesAreStoredByPartition, in one file each, with their own timestamps; newer ones are not.
func TestDeletesAreStoredByPartition(t *testing.T) {
	r := newRig(t)
	r.remove(0, 110, 1, 2)
	r.remove(7, 120, 3)
	r.remove(0, 130, 1)
	r.remove(0, 150, 5)
	deltas, err := r.f.storeDeletes(t.Context(), r.ch, 3, 100, 140)
	must(t, err)
	if len(deltas) != 2 {
		t.Fatalf("%d files", len(deltas))
	}
	for _, d := range deltas {
		k, ts := r.stored(d)
		wantKeys, wantTS := []int64{1, 2, 1}, []uint64{110, 110, 130}
		if d.PartitionID == 7 {
			wantKeys, wantTS = []int64{3}, []uint64{120}
		}
		if !slices.Equal(k, wantKeys) || !slices.Equal(ts, wantTS) {
			t.Fatalf("partition %d: %v at %v", d.PartitionID, k, ts)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.f.o.Dir, "*")); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
	if deltas, err = r.f.storeDeletes(t.Context(), r.ch, 3, 140, 149); err != nil || len(deltas) != 0 {
		t.Fatalf("%v, %v", deltas, err)
	}
}

// TestOfAFileWithOlderAndNewerDeletesAPartIsStored: deletes go to the local disk without asking where a checkpoint will be. What
// is newer than it must not be in a file that says how far it goes.
func TestOfAFileWithOlderAndNewerDeletesAPartIsStored(t *testing.T) {
	r := newRig(t)
	var files []*segments.DeleteFile
	for at := uint64(110); at < 150; at++ {
		r.remove(0, at, int64(at), 7)
		if at == 125 || at == 149 {
			var err error
			files, err = r.ch.DeleteFiles(t.Context(), 0, segments.Latest)
			must(t, err)
		}
	}
	if len(files) != 2 {
		t.Fatalf("%d files on the local disk", len(files))
	}
	for _, c := range []struct{ from, to, first, last uint64 }{{100, 119, 110, 119}, {119, 125, 120, 125}, {125, 149, 126, 149}, {119, 130, 120, 130}, {130, 149, 131, 149}, {100, 149, 110, 149}} {
		deltas, err := r.f.storeDeletes(t.Context(), r.ch, 3, c.from, c.to)
		must(t, err)
		if len(deltas) != 1 {
			t.Fatalf("(%d, %d]: %d files", c.from, c.to, len(deltas))
		}
		k, ts := r.stored(deltas[0])
		if n := int(c.last-c.first) + 1; len(k) != 2*n || ts[0] != c.first || ts[2*n-1] != c.last || k[0] != int64(c.first) {
			t.Errorf("(%d, %d]: %v at %v", c.from, c.to, k, ts)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.f.o.Dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// What is to be stored was removed otherwise: an error, not a file less.
	must(t, os.Remove(files[0].Path))
	for _, to := range []uint64{119, 125, 149} {
		if deltas, err := r.f.storeDeletes(t.Context(), r.ch, 3, 100, to); err == nil {
			t.Errorf("up to %d: %v", to, deltas)
		}
	}
	must(t, os.WriteFile(files[0].Path, nil, 0o600)) // to be removed
}

// TestNoTwoTriesUploadToTheSamePath: an owner that was replaced may upload yet
// when its successor has committed, and a sweep may delete what it found old.
func TestNoTwoTriesUploadToTheSamePath(t *testing.T) {
	r := newRig(t)
	seen := map[string]bool{}
	r.remove(0, 110, 1)
	for range 2 {
		deltas, err := r.f.storeDeletes(t.Context(), r.ch, 3, 100, 140)
		must(t, err)
		for _, p := range []string{deltas[0].Path, segmentPath(1, 77, 3), segmentPath(1, 77, 4)} {
			if seen[p] {
				t.Errorf("%s is used again", p)
			}
			seen[p] = true
		}
	}
}

// TestTheLedgerHasWhatABuildTakes until it has ended.
func TestTheLedgerHasWhatABuildTakes(t *testing.T) {
	r := newRig(t)
	info := r.coll.Info()
	info.Version++
	info.Indexes = map[int64]segments.VectorIndex{101: {Type: "HNSW", Metric: index.L2}}
	r.coll.Update(info)
	const rows = 3
	for range rows {
		r.grow(1, 1)
	}
	growing, release := r.ch.Growing()
	defer release()
	during := int64(0)
	r.f.o.OnProgress = func(Progress) { during = r.coll.Ledger().Used()[segments.KindBuild] }
	disk := r.coll.ForceDisk(0)
	defer disk.Release()
	m, _, err := r.f.build(t.Context(), r.ch, growing[0], filepath.Join(t.TempDir(), "1"), disk)
	must(t, err)
	if want := segments.BuildBytes(r.coll.Info(), rows, r.f.o.Workers); m.Rows != rows || want == 0 || during != want {
		t.Errorf("%d rows are built: the ledger has %d bytes for it, want %d", m.Rows, during, want)
	}
	if left := r.coll.Ledger().Used()[segments.KindBuild]; left != 0 {
		t.Errorf("the ledger has %d bytes once it is built", left)
	}
}

// TestRowsAreCopiedByBytes: 8,192 of 4,096 values each would be 128 MiB that nobody has reserved.
func TestRowsAreCopiedByBytes(t *testing.T) {
	for _, c := range []struct {
		rows  int
		bytes int64
		want  int
	}{{1_000_000, 1_000_000 * 600, batchRows}, {20_000, 20_000 * 16 << 10, 512}, {3, 3 * 2 * batchBytes, 1}, {3, 0, batchRows}} {
		if got := batchOf(c.rows, c.bytes); got != c.want {
			t.Errorf("of %d rows of %d bytes %d are copied at a time, want %d", c.rows, c.bytes, got, c.want)
		}
	}
}

// built writes a small segment to a folder.
func (r *rig) built() (string, *segfile.Manifest) {
	r.t.Helper()
	dir := filepath.Join(r.t.TempDir(), "1")
	b := &schema.Batch{Rows: 1, Timestamps: []uint64{1}, Columns: []*schema.Column{keys(1), {FieldID: 101, Type: schema.FloatVector, Dim: 2, Float: []float32{1, 2}}}}
	m, err := segments.Build(r.t.Context(), segments.BuildOptions{Dir: dir, Meta: segments.Meta{ID: 1, CollectionID: 1, VChannel: "v"}, Info: r.coll.Info()},
		func() (*schema.Batch, error) {
			if b == nil {
				return nil, io.EOF
			}
			out := b
			b = nil
			return out, nil
		})
	must(r.t, err)
	return dir, m
}

// TestTheManifestIsUploadedLast: without it the segment does not exist, so that
// one that was cut short is not there.
func TestTheManifestIsUploadedLast(t *testing.T) {
	r := newRig(t)
	dir, m := r.built()
	var mu sync.Mutex
	var puts []string
	failAt := -1
	bucket := objstore.NewMem(func(c objstore.Call) objstore.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Op != objstore.OpPut {
			return objstore.Fault{}
		}
		if puts = append(puts, filepath.Base(c.Key)); len(puts) == failAt {
			return objstore.Fault{Err: errclass.New(errclass.Retryable, "storage is down")}
		}
		return objstore.Fault{}
	})
	var last, total int64
	must(t, Upload(t.Context(), bucket, dir, "segments/1/1", m, time.Minute, func(done, all int64) { last, total = done, all }))
	if len(puts) != len(m.Files)+1 || puts[len(puts)-1] != segfile.ManifestName {
		t.Fatalf("uploaded %v", puts)
	}
	if last != total || total != m.DiskBytes() {
		t.Fatalf("%d of %d bytes", last, total)
	}
	puts, failAt = nil, 2
	if err := Upload(t.Context(), bucket, dir, "segments/1/2", m, time.Minute, nil); !errclass.Is(err, errclass.Retryable) {
		t.Fatal(err)
	}
	if slices.Contains(puts, segfile.ManifestName) {
		t.Fatal("a manifest of a segment that is not complete")
	}
}

// TestAnUploadToHungStorageMeetsItsDeadline.
func TestAnUploadToHungStorageMeetsItsDeadline(t *testing.T) {
	r := newRig(t)
	dir, m := r.built()
	bucket := objstore.NewMem(func(objstore.Call) objstore.Fault { return objstore.Fault{Hang: true} })
	if err := Upload(t.Context(), bucket, dir, "segments/1/1", m, time.Millisecond, nil); err == nil {
		t.Fatal("uploaded")
	}
}

// TestTheQueueIsNeededFromTheLowestCheckpoint of all channels on it, and whole as
// long as one has none.
func TestTheQueueIsNeededFromTheLowestCheckpoint(t *testing.T) {
	r := newRig(t)
	c := r.f.o.Catalog
	s := *r.coll.Info().Schema
	var names []string
	for _, name := range []string{"a", "b"} {
		coll, err := c.CreateCollection(t.Context(), catalog.CollectionSpec{Name: name, Schema: s, Shards: 1, PChannels: []string{"p"}})
		must(t, err)
		names = append(names, coll.VChannels[0].Name)
	}
	commit := func(name, at string, ts uint64) {
		t.Helper()
		_, err := c.CommitFlush(t.Context(), name, catalog.FlushCommit{Term: 1, Checkpoint: at, CheckpointTimestamp: ts})
		must(t, err)
	}
	lowest := func() (string, bool) {
		t.Helper()
		p, ok, err := lowestCheckpoint(t.Context(), c, "p")
		must(t, err)
		return p.ID, ok
	}
	commit(names[0], positionText(segments.Position{ID: "20", Timestamp: 20}), 20)
	if at, ok := lowest(); ok {
		t.Fatalf("%s, though a channel has no checkpoint", at)
	}
	commit(names[1], positionText(segments.Position{ID: "10", Timestamp: 10}), 10)
	if at, ok := lowest(); !ok || at != "10" {
		t.Fatalf("%s, %t", at, ok)
	}
	commit(names[1], positionText(segments.Position{ID: "30", Timestamp: 30}), 30)
	if at, ok := lowest(); !ok || at != "20" {
		t.Fatalf("%s, %t", at, ok)
	}
	if _, ok, err := lowestCheckpoint(t.Context(), c, "other"); ok || err != nil {
		t.Fatalf("%t, %v", ok, err)
	}
	commit(names[0], "no position", 40)
	if _, _, err := lowestCheckpoint(t.Context(), c, "p"); !errclass.Is(err, errclass.Corrupt) {
		t.Fatal(err)
	}
}

// TestABuildWaitsForRoom, for a while: what comes then is enough for an index, and where none comes the segment is stored without it. Then the
// next one does not wait, until there is room again.
func TestABuildWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := segments.NewLedger(1 << 20)
		r := newRigWith(t, ledger)
		info := r.coll.Info()
		info.Version++
		info.Indexes = map[int64]segments.VectorIndex{101: {Type: "HNSW", Metric: index.L2}}
		r.coll.Update(info)
		r.grow(1, 1)
		growing, release := r.ch.Growing()
		defer release()
		full := ledger.Force(segments.KindCalls, 2<<20)
		took := func(ctx context.Context, want time.Duration, short bool) {
			t.Helper()
			began := time.Now()
			room, err := r.f.roomToBuild(ctx, growing[0])
			must(t, err)
			if took := time.Since(began); took != want || (room.Short() != nil) != short {
				t.Errorf("after %v, want %v; %v", took, want, room.Short())
			}
			room.Release()
		}
		gone, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if _, err := r.f.roomToBuild(gone, growing[0]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who is stopped meanwhile: %v", err)
		}
		time.AfterFunc(time.Second-time.Millisecond, full.Release)
		took(t.Context(), time.Second, false)
		full = ledger.Force(segments.KindCalls, 2<<20)
		took(t.Context(), r.f.o.RoomTimeout, true)
		took(t.Context(), 0, true)
		full.Release()
		took(t.Context(), 0, false)
		if used := ledger.Used()[segments.KindBuild]; used != 0 {
			t.Errorf("%d bytes are left", used)
		}
	})
}
