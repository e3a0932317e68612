package node

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// built makes a segment with the keys in object storage, as old as its place in time
// says, which is long before all else.
func (r *rig) built(id int64, keys ...int64) (folder string) {
	r.t.Helper()
	return r.builtWith(0, id, keys...)
}

// builtWith is built with vectors that begin with x.
func (r *rig) builtWith(x float32, id int64, keys ...int64) (folder string) {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	dir := filepath.Join(r.t.TempDir(), "built")
	left := []*schema.Batch{{Rows: len(keys), Columns: []*schema.Column{keysOf(keys...),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*len(keys))}}}}
	for i := range keys {
		left[0].Columns[1].Float[2*i] = x
		left[0].Timestamps = append(left[0].Timestamps, uint64(i+1)<<18)
	}
	m, err := segments.Build(within(r.t), segments.BuildOptions{Dir: dir,
		Meta: segments.Meta{ID: id, CollectionID: coll.ID, PartitionID: coll.Partitions[0].ID, VChannel: coll.VChannels[0].Name},
		Info: segments.CollectionInfo{ID: coll.ID, Name: things, Schema: &coll.Schema}}, func() (*schema.Batch, error) {
		if len(left) == 0 {
			return nil, io.EOF
		}
		defer func() { left = left[1:] }()
		return left[0], nil
	})
	must(r.t, err)
	folder = fmt.Sprint("imports/", id)
	must(r.t, flush.Upload(within(r.t), r.o.Bucket, dir, folder, m, hangs, nil))
	return folder
}

func (r *rig) add(folder string) {
	r.t.Helper()
	_, err := r.AddSegments(within(r.t), things, []string{folder})
	must(r.t, err)
}

// inFiles sees to it that all that was written is in files, deletes too: once a segment
// has been flushed the checkpoint follows, whatever its timer says.
func (r *rig) inFiles() {
	r.t.Helper()
	r.insert(filler)
	r.flush()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	v := coll.VChannels[0]
	last := r.acknowledged(v.Name, v.PChannel)
	eventually(r.t, "the checkpoint is behind what was written", func() bool {
		c, err := r.o.Catalog.Channel(within(r.t), v.Name)
		return err == nil && c.CheckpointTimestamp >= last
	})
}

// filler is a key of which there may be several rows.
const filler = 30

func (r *rig) compacted() {
	r.t.Helper()
	_, err := r.Compact(within(r.t), things)
	must(r.t, err)
}

// deltas is the number of files of deletes that are kept.
func (r *rig) deltas() int {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	c, err := r.o.Catalog.Channel(within(r.t), coll.VChannels[0].Name)
	must(r.t, err)
	return len(c.Deltas)
}

// TestAddedRowsAreAsOldAsTheirArrival: deletes and upserts that were acknowledged
// before a segment was added do not hide its rows, those after it do. It is all the same
// where they are by then (buffered, in a file, in a file that others have replaced, forgotten),
// whether the node started anew in between, and whether the segment was compacted since.
func TestAddedRowsAreAsOldAsTheirArrival(t *testing.T) {
	// What is done to what has been written so far.
	late := func(r *rig, w *world) *rig { return r } // nothing: it is buffered
	restart := func(r *rig, w *world) *rig { r.kill(); return w.open(keepsNothing).ready() }
	file := func(r *rig, w *world) *rig { r.inFiles(); return r }
	fold := func(r *rig, w *world) *rig {
		r.inFiles()
		eventually(r.t, "no file of deletes is kept", func() bool { r.compacted(); return r.deltas() == 0 })
		return r
	}
	then := map[string]func(r *rig, w *world) *rig{"late": late, "restart": restart, "file": file, "fold": fold,
		"fold, restart": func(r *rig, w *world) *rig { return restart(fold(r, w), w) },
	}
	for before, first := range then {
		for after, second := range then {
			if before != "late" && after != "late" && after != "fold, restart" && os.Getenv("QUERYNODE_TEST_LONG") == "" {
				continue
			}
			t.Run(before+"; add; "+after, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.open(keepsNothing).ready()
				r.create()
				r.load()
				folder, twin := r.built(1<<52, between(0, 10)...), r.built(1<<52+1, 0, 1, 20)
				r.insert(5, 6, filler)
				r.remove(0, 1, 2, 6)
				r = first(r, w)
				r.load()
				r.add(folder)
				r.has(11) // 0 to 9, and 30: of key 5 there are two rows, the newer counts
				r.remove(0, 3, 5)
				r.has(8)
				r = second(r, w)
				r.load()
				r.has(8)
				r.add(twin) // 0 again, and 1 is as it was
				r.has(10)
				r = second(r, w)
				r.load()
				r.has(10)
				r.remove(1, 20)
				r.has(8)
				r = second(r, w)
				r.compacted()
				r.has(8)
			})
		}
	}
}

// TestOfTwoAddedSegmentsTheLaterIsNewer: though nothing was written between them.
func TestOfTwoAddedSegmentsTheLaterIsNewer(t *testing.T) {
	r := newWorld(t).open(keepsNothing).ready()
	r.create()
	r.load()
	for i := range int64(4) {
		r.add(r.builtWith(float32(i), 1<<52+[]int64{3, 1, 2, 0}[i], 7)) // their ids say nothing
		r.has(1)
		_, err := r.Query(within(t), &Query{Select: Select{Collection: things, OutputFields: []string{"v"}, Freshness: Freshness{Level: Strong}}},
			func(rows *Rows) error {
				for _, c := range rows.Batch.Columns {
					if c.FieldID == thingID+1 && c.Float[0] != float32(i) {
						t.Errorf("after %d segments the row is of number %v", i+1, c.Float[0])
					}
				}
				return nil
			})
		must(t, err)
	}
}

// keepsNothing makes a node that retains no moment of the past, and stores deletes only
// when it stores rows.
func keepsNothing(o *Options) {
	o.Compact.Retention, o.Compact.ReadSlack, o.Compact.Interval = -1, -1, -1
	o.Flush.CheckpointInterval = time.Hour
}

// A node gives ids below 2^52 to the segments of rows that are written. If one that was
// built elsewhere had such an id first, the rows would be taken for its own.
func TestASegmentDoesNotTakeAnIDThatRowsWillGet(t *testing.T) {
	w := newWorld(t)
	r := w.open(func(o *Options) { o.Flush.SealRows = 1 }).ready()
	r.create()
	next, err := r.o.Catalog.AllocateIDs(within(t), 1)
	must(t, err)
	if _, err := r.AddSegments(within(t), things, []string{r.built(next+3, 1000)}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("want an error of class Invalid, got %v", err)
	}
	for i := range int64(10) {
		r.insert(i)
	}
	r.has(10)
}
