package catalog

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

func put(t *testing.T, b objstore.Bucket, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if _, err := b.Put(t.Context(), k, strings.NewReader("x"), 1, objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func there(t *testing.T, b objstore.Bucket, key string) bool {
	t.Helper()
	_, err := b.Head(t.Context(), key)
	if err != nil && !errclass.Is(err, errclass.NotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func sweepOnce(t *testing.T, c *Catalog) Swept {
	t.Helper()
	s, err := c.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// segmentOf commits a segment with files and a file of deletes.
func segmentOf(t *testing.T, c *Catalog, b objstore.Bucket, col *Collection, partition, id int64) {
	t.Helper()
	v := col.VChannels[0].Name
	folder, delta := fmt.Sprintf("segments/%d/%d", col.ID, id), fmt.Sprintf("deltas/%d/%s/%d.parquet", col.ID, v, id)
	put(t, b, folder+"/rows.parquet", folder+"/manifest.json", delta)
	_, err := c.CommitFlush(t.Context(), v, FlushCommit{
		AddSegments: []Segment{{ID: id, CollectionID: col.ID, PartitionID: partition, VChannel: v, Path: folder}},
		AddDeltas:   []Delta{{Path: delta, PartitionID: partition}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSweepRemovesWhatNoManifestNames: an upload that was not committed goes once
// it is old; what is named, young, or none of the catalog's business stays.
func TestSweepRemovesWhatNoManifestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		col := create(t, c, "one")
		segmentOf(t, c, b, col, col.Partitions[0].ID, 50)
		foreign := []string{
			fmt.Sprintf("segments/%d/%d/manifest.json", col.ID, int64(maxGivenID)+7), // built elsewhere
			fmt.Sprintf("segments/%d/mine/manifest.json", col.ID), "segments/readme", "deltas/1/x", "others/1/2/3",
		}
		orphans := []string{
			fmt.Sprintf("segments/%d/60/rows.parquet", col.ID), fmt.Sprintf("segments/%d/60/manifest.json", col.ID),
			"segments/999/61/rows.parquet", // of a collection that is gone
			fmt.Sprintf("deltas/%d/%s/1-2-p0.parquet", col.ID, col.VChannels[0].Name),
		}
		put(t, b, append(foreign, orphans...)...)
		time.Sleep(c.o.OrphanAge - time.Minute)
		young := fmt.Sprintf("segments/%d/60/vector_101.npy", col.ID) // its upload goes on
		put(t, b, young)
		time.Sleep(time.Hour)
		if s := sweepOnce(t, c); s.Orphans != 0 {
			t.Errorf("swept at first sight: %+v", s)
		}
		time.Sleep(c.o.DropGrace)
		if s := sweepOnce(t, c); s.Orphans != 2 || !there(t, b, orphans[0]) {
			t.Errorf("%+v; the segment that is still uploaded must stay", s)
		}
		time.Sleep(c.o.OrphanAge)
		sweepOnce(t, c)
		time.Sleep(c.o.DropGrace)
		sweepOnce(t, c)
		for _, k := range append(orphans, young) {
			if there(t, b, k) {
				t.Errorf("%s is left", k)
			}
		}
		for _, k := range append(foreign, fmt.Sprintf("segments/%d/50/rows.parquet", col.ID), fmt.Sprintf("segments/%d/50/manifest.json", col.ID),
			fmt.Sprintf("deltas/%d/%s/50.parquet", col.ID, col.VChannels[0].Name)) {
			if !there(t, b, k) {
				t.Errorf("%s is gone", k)
			}
		}
	})
}

// TestSweepRemovesDroppedPartitions: manifests first, files after the grace.
func TestSweepRemovesDroppedPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		col := create(t, c, "one")
		p, err := c.CreatePartition(t.Context(), "one", "old", 9)
		if err != nil {
			t.Fatal(err)
		}
		segmentOf(t, c, b, col, col.Partitions[0].ID, 50)
		segmentOf(t, c, b, col, p.ID, 51)
		time.Sleep(c.o.OrphanAge)
		if s := sweepOnce(t, c); s.Segments != 0 {
			t.Errorf("%+v, nothing was dropped", s)
		}
		if _, err := c.DropPartition(t.Context(), "one", "old"); err != nil {
			t.Fatal(err)
		}
		if s := sweepOnce(t, c); s.Segments != 2 || s.Orphans != 0 {
			t.Errorf("%+v, want a segment and its deletes out of the manifest, and the files still there", s)
		}
		ch, err := c.Channel(t.Context(), col.VChannels[0].Name)
		if err != nil || len(ch.Segments) != 1 || len(ch.Deltas) != 1 || ch.Segments[0].ID != 50 {
			t.Errorf("%+v, %v", ch, err)
		}
		time.Sleep(c.o.DropGrace)
		if s := sweepOnce(t, c); s.Orphans != 2 {
			t.Errorf("%+v", s)
		}
		for id, want := range map[int]bool{50: true, 51: false} {
			if got := there(t, b, fmt.Sprintf("segments/%d/%d/rows.parquet", col.ID, id)); got != want {
				t.Errorf("segment %d there: %v", id, got)
			}
		}
	})
}

// TestSweepTakesNoFileWhileAManifestCannotBeRead: it might be named there.
func TestSweepTakesNoFileWhileAManifestCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		col := create(t, c, "one")
		segmentOf(t, c, b, col, col.Partitions[0].ID, 50)
		key := c.channelKey(col.VChannels[0].Name)
		time.Sleep(c.o.OrphanAge)
		for range 3 {
			b.SetHook(func(call objstore.Call) objstore.Fault {
				if call.Op == objstore.OpGet && call.Key == key {
					return objstore.Fault{Err: errclass.New(errclass.Retryable, "away")}
				}
				return objstore.Fault{}
			})
			if s, err := c.Sweep(t.Context()); err == nil || s.Orphans > 0 {
				t.Errorf("%+v, %v", s, err)
			}
			time.Sleep(c.o.DropGrace)
		}
		b.SetHook(nil)
		if !there(t, b, fmt.Sprintf("segments/%d/50/rows.parquet", col.ID)) {
			t.Error("a file that is named is gone")
		}
	})
}

// TestManifestsAreReadSideBySide: a listing takes a few rounds, not one for each
// collection.
func TestManifestsAreReadSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		for i := range 40 {
			create(t, c, fmt.Sprint("c", i))
		}
		var now, most atomic.Int64
		slow := slowBucket{b, &now, &most}
		c2, err := Open(t.Context(), Options{Bucket: slow})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		all, err := c2.ListCollections(t.Context())
		if err != nil || len(all) != 40 {
			t.Fatal(len(all), err)
		}
		// 40 collections, two reads of 10 ms each.
		if took := time.Since(start); took > 40*2*10*time.Millisecond/4 || most.Load() > readers {
			t.Errorf("it took %s, with up to %d reads at a time", took, most.Load())
		}
		for i := 1; i < len(all); i++ {
			if all[i-1].Name >= all[i].Name {
				t.Errorf("%s before %s", all[i-1].Name, all[i].Name)
			}
		}
	})
}

// slowBucket takes 10 ms for each read, and counts them.
type slowBucket struct {
	objstore.Bucket
	now, most *atomic.Int64
}

func (b slowBucket) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for m := b.most.Load(); n > m && !b.most.CompareAndSwap(m, n); m = b.most.Load() {
	}
	time.Sleep(10 * time.Millisecond)
	return b.Bucket.Get(ctx, key, offset, length)
}
