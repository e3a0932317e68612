package compact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

func wordsOf(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) })
}

// rig is a compactor over a catalog and a set with one collection.
type rig struct {
	t      *testing.T
	bucket *objstore.Mem
	cat    *catalog.Catalog
	coll   *catalog.Collection
	set    *segments.Set
	ch     *segments.Channel
	c      *Compactor
	dir    string
	term   uint64
	now    time.Time
	ticks  uint64
	gone   bool // the channel is not compacted here any more
}

const (
	keyField = schema.FirstFieldID
	vecField = schema.FirstFieldID + 1
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func newRig(t *testing.T, memory int64) *rig {
	t.Helper()
	r := &rig{t: t, bucket: objstore.NewMem(nil), dir: t.TempDir(), term: 1, now: time.UnixMilli(1_000_000)}
	var err error
	r.cat, err = catalog.Open(t.Context(), catalog.Options{Bucket: r.bucket})
	must(t, err)
	r.coll, err = r.cat.CreateCollection(t.Context(), catalog.CollectionSpec{Name: "items", Shards: 1, PChannels: []string{"p"}, CreatedTimestamp: 1,
		Schema: schema.Schema{Fields: []schema.Field{{ID: keyField, Name: "id", Type: schema.Int64, PrimaryKey: true}, {ID: vecField, Name: "v", Type: schema.FloatVector, Dim: 2}}}})
	must(t, err)
	p, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r.set, err = segments.New(segments.Options{Dir: filepath.Join(r.dir, "segments"), Pool: p, Bucket: r.bucket, Ledger: segments.NewLedger(memory), Logger: log})
	must(t, err)
	c := r.set.Add(segments.CollectionInfo{ID: r.coll.ID, Name: "items", Schema: &r.coll.Schema,
		Indexes: map[int64]segments.VectorIndex{vecField: {Type: "HNSW", Metric: index.L2}}})
	r.ch, err = c.Watch(r.vchannel(), segments.Position{}, nil)
	must(t, err)
	r.c, err = New(Options{Catalog: r.cat, Bucket: r.bucket, Dir: filepath.Join(r.dir, "compact"), Interval: -1, Logger: log, ReadSlack: -1,
		Channels: func() []Channel {
			if r.gone {
				return nil
			}
			return []Channel{{r.ch, r.term}}
		}, Now: func() time.Time { return r.now }, Policy: Policy{MaxDeltas: 3}})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must(t, r.c.Close(ctx))
		must(t, r.set.Close(ctx))
		must(t, p.Close(ctx))
		for kind, n := range r.set.Ledger().Used() {
			if n != 0 {
				t.Errorf("the ledger has %d bytes of %s", n, kind)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(r.dir, "compact", "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return r
}

func (r *rig) vchannel() string { return r.coll.VChannels[0].Name }

// tick is a timestamp within the last hour, later than the one before.
func (r *rig) tick() uint64 {
	r.ticks++
	return mq.FromTime(r.now.Add(-10*time.Minute)) + r.ticks
}

// segment stores a sealed segment with the keys and moves the checkpoint behind it.
func (r *rig) segment(id int64, keys ...int64) {
	r.t.Helper()
	ctx := r.t.Context()
	info := r.ch.Collection().Info()
	dir := filepath.Join(r.t.TempDir(), fmt.Sprint(id))
	meta := segments.Meta{ID: id, CollectionID: r.coll.ID, PartitionID: r.coll.Partitions[0].ID, VChannel: r.vchannel()}
	left := keys
	m, err := segments.Build(ctx, segments.BuildOptions{Dir: dir, Meta: meta, Info: info}, func() (*schema.Batch, error) {
		if len(left) == 0 {
			return nil, io.EOF
		}
		k := left[0]
		left = left[1:]
		return &schema.Batch{Rows: 1, Timestamps: []uint64{r.tick()}, Columns: []*schema.Column{
			{FieldID: keyField, Type: schema.Int64, Int: []int64{k}},
			{FieldID: vecField, Type: schema.FloatVector, Dim: 2, Float: []float32{float32(k), 1}},
		}}, nil
	})
	must(r.t, err)
	prefix := fmt.Sprintf("segments/%d/%d", r.coll.ID, id)
	must(r.t, flush.Upload(ctx, r.bucket, dir, prefix, m, time.Minute, nil))
	r.commit(catalog.FlushCommit{AddSegments: []catalog.Segment{{ID: id, CollectionID: r.coll.ID, PartitionID: meta.PartitionID, VChannel: meta.VChannel,
		Path: prefix, Rows: m.Rows, Bytes: m.DiskBytes(), MinTimestamp: m.MinTimestamp, MaxTimestamp: m.MaxTimestamp}}})
}

// deletes stores a file of deletes.
func (r *rig) deletes(keys ...int64) uint64 {
	r.t.Helper()
	at := r.tick()
	ts := make([]uint64, len(keys))
	for i := range ts {
		ts[i] = at
	}
	raw, err := segfile.EncodeDeletes(&schema.Column{FieldID: keyField, Type: schema.Int64, Int: keys}, ts)
	must(r.t, err)
	key := fmt.Sprintf("deltas/%d/%d", r.coll.ID, at)
	_, err = r.bucket.Put(r.t.Context(), key, bytes.NewReader(raw), int64(len(raw)), objstore.PutOptions{})
	must(r.t, err)
	r.commit(catalog.FlushCommit{AddDeltas: []catalog.Delta{{Path: key, Rows: int64(len(keys)), Bytes: int64(len(raw)), MinTimestamp: at, MaxTimestamp: at}}})
	return at
}

func (r *rig) commit(f catalog.FlushCommit) {
	r.t.Helper()
	at := r.tick()
	f.Term, f.Checkpoint, f.CheckpointTimestamp = r.term, fmt.Sprintf("x@%d", at), at
	_, err := r.cat.CommitFlush(r.t.Context(), r.vchannel(), f)
	must(r.t, err)
}

func (r *rig) entry() *catalog.Channel {
	r.t.Helper()
	c, err := r.cat.Channel(r.t.Context(), r.vchannel())
	must(r.t, err)
	return c
}

func (r *rig) run() ([]Done, error) { return r.c.Run(r.t.Context(), []Channel{{r.ch, r.term}}) }

// load makes the catalog's segments searchable, in one step, and lists the keys
// that a read at ts sees.
func (r *rig) see(ts uint64) (keys []int64) {
	r.t.Helper()
	e := r.entry()
	coll := r.ch.Collection()
	var listed []int64
	var load []segments.LoadRequest
	for _, s := range e.Segments {
		listed = append(listed, s.ID)
		req := segments.LoadRequest{SegmentID: s.ID, VChannel: s.VChannel, Path: s.Path}
		for _, d := range e.Deltas {
			if d.MaxTimestamp > s.FoldedTimestamp {
				req.Deltas = append(req.Deltas, segments.Delta{Path: d.Path, PartitionID: d.PartitionID, MaxTimestamp: d.MaxTimestamp})
			}
		}
		load = append(load, req)
	}
	var drop []int64
	for _, o := range r.ch.Superseded(listed, e.CheckpointTimestamp) {
		drop = append(drop, o.ID)
	}
	must(r.t, coll.Replace(r.t.Context(), r.vchannel(), load, drop))
	r.ch.Advance(segments.Position{ID: "x", Timestamp: mq.FromTime(r.now)})
	_, err := coll.Query(r.t.Context(), &segments.QueryRequest{Read: segments.Read{ReadTimestamp: ts, OutputFields: []int64{keyField}}},
		func(b *schema.Batch, _ uint64) error {
			keys = append(keys, b.Columns[0].Int...)
			return nil
		})
	must(r.t, err)
	return keys
}

func want(t *testing.T, got []int64, keys ...int64) {
	t.Helper()
	if !slices.Equal(got, keys) {
		t.Fatalf("keys %v, want %v", got, keys)
	}
}

func TestSmallSegmentsBecomeOne(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1, 2)
	r.segment(12, 3, 4)
	r.deletes(1)
	r.segment(13, 5, 1) // again
	before := r.tick()
	at := r.deletes(4)
	want(t, r.see(before), 1, 2, 3, 4, 5)
	done, err := r.run()
	must(t, err)
	if len(done) != 1 || !slices.Equal(done[0].Inputs, []int64{11, 12, 13}) || done[0].RowsIn != 6 || done[0].RowsOut != 6 || done[0].Why != whySmall {
		t.Fatalf("%+v", done)
	}
	e := r.entry()
	if len(e.Segments) != 1 || e.Segments[0].ID != done[0].Output || len(e.Deltas) != 0 {
		t.Fatalf("the catalog has %+v", e)
	}
	// What was hidden within the last hour is still there for reads in the past.
	want(t, r.see(before), 1, 2, 3, 4, 5)
	want(t, r.see(at), 1, 2, 3, 5)
	// Later it is not.
	r.now = r.now.Add(2 * time.Hour)
	done, err = r.run()
	must(t, err)
	if len(done) != 1 || done[0].Why != whyDeleted || done[0].RowsOut != 4 {
		t.Fatalf("%+v", done)
	}
	want(t, r.see(at), 1, 2, 3, 5)
	st := r.c.Status()
	if st.Stats.Jobs != 2 || st.Stats.RowsIn-st.Stats.RowsOut != 2 || st.Running != nil || len(st.Recent) != 2 || st.Stats.DeltasFreed != 2 {
		t.Errorf("%+v", st)
	}
}

func TestASegmentWithoutRowsLeavesTheCatalog(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1, 2)
	at := r.deletes(1, 2)
	want(t, r.see(at))
	r.now = r.now.Add(2 * time.Hour)
	done, err := r.run()
	must(t, err)
	if len(done) != 1 || done[0].Output != 0 || len(r.entry().Segments) != 0 || len(r.entry().Deltas) != 0 {
		t.Fatalf("%+v, the catalog has %+v", done, r.entry())
	}
	want(t, r.see(at))
}

func TestManyFilesOfDeletesBecomeOne(t *testing.T) {
	r := newRig(t, 0)
	keys := []int64{1, 2, 3, 4, 5, 6, 7, 8}
	r.segment(11, keys...)
	var at uint64
	for _, k := range keys[:5] {
		at = r.deletes(k)
	}
	_, err := r.run()
	must(t, err)
	e := r.entry()
	if len(e.Deltas) != 1 || e.Deltas[0].Rows != 5 || e.Deltas[0].MaxTimestamp != at {
		t.Fatalf("the catalog has %+v", e.Deltas)
	}
	want(t, r.see(at), 6, 7, 8)
	want(t, r.see(at-1), 5, 6, 7, 8)
}

func TestOnlyTheOwnerReplaces(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	_, err := r.cat.CommitFlush(t.Context(), r.vchannel(), catalog.FlushCommit{Term: 5})
	must(t, err)
	if _, err := r.run(); !errclass.Is(err, errclass.Fenced) {
		t.Fatalf("%v, want it fenced", err)
	}
	if len(r.entry().Segments) != 2 {
		t.Fatalf("the catalog has %+v", r.entry())
	}
}

// TestAFailureAtAnyStepIsHarmless fails each call of the object storage once, before
// or after it took effect (the long form: both).
func TestAFailureAtAnyStepIsHarmless(t *testing.T) {
	stride := int64(2)
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		stride = 1
	}
	for i, after := range []bool{false, true} {
		for step := 1 + int64(i)*(stride-1); ; step += stride {
			r := newRig(t, 0)
			r.segment(11, 1, 2)
			r.segment(12, 3)
			at := r.deletes(2)
			var calls atomic.Int64
			r.bucket.SetHook(func(objstore.Call) objstore.Fault {
				if calls.Add(1) == step {
					return objstore.Fault{Err: errors.New("the storage is away"), After: after}
				}
				return objstore.Fault{}
			})
			_, err := r.run()
			r.bucket.SetHook(nil)
			if calls.Load() < step {
				break // it took fewer calls
			}
			want(t, r.see(at), 1, 3)
			if err != nil {
				done, err := r.run()
				must(t, err)
				if len(r.entry().Segments) != 1 {
					t.Fatalf("step %d: the second try did %+v, the catalog has %+v", step, done, r.entry())
				}
			}
			want(t, r.see(at), 1, 3)
			want(t, r.see(at-1), 1, 2, 3)
		}
	}
}

func TestNoMemoryIsNoHarm(t *testing.T) {
	r := newRig(t, 100)
	r.segment(11, 1, 2, 3, 4, 5, 6, 7, 8)
	r.segment(12, 11, 12, 13, 14, 15, 16, 17)
	if _, err := r.run(); !errclass.Is(err, errclass.Exhausted) {
		t.Fatalf("%v, want class Exhausted", err)
	}
	if len(r.entry().Segments) != 2 {
		t.Errorf("the catalog has %+v", r.entry())
	}
}

// TestAnIndexIsNotBuiltWithoutRoomForIt: the rows of the job and their order would fit, what the build takes besides would not.
func TestAnIndexIsNotBuiltWithoutRoomForIt(t *testing.T) {
	const limit = 1 << 20
	r := newRig(t, limit)
	r.segment(11, 1, 2, 3, 4, 5, 6, 7, 8)
	r.segment(12, 11, 12, 13, 14, 15, 16, 17)
	step := segments.BuildBytes(r.ch.Collection().Info(), 15, r.c.o.Workers) / 2
	taken, err := r.set.Ledger().Reserve(segments.KindGrowing, limit)
	must(t, err)
	defer taken.Release()
	refused := false
	for free := int64(0); len(r.entry().Segments) == 2 && free < limit; free += step {
		must(t, taken.Grow(-step))
		if _, err := r.run(); err != nil {
			if !errclass.Is(err, errclass.Exhausted) {
				t.Fatalf("%v, want class Exhausted", err)
			}
			refused = refused || strings.Contains(err.Error(), fmt.Sprint(" of ", segments.KindBuild))
		}
	}
	if !refused || len(r.entry().Segments) != 1 {
		t.Errorf("a build was refused: %v; the catalog has %+v", refused, r.entry())
	}
}

func TestADroppedPartitionLeavesTheCatalog(t *testing.T) {
	r := newRig(t, 0)
	p, err := r.cat.CreatePartition(t.Context(), "items", "old", 1)
	must(t, err)
	r.commit(catalog.FlushCommit{AddSegments: []catalog.Segment{{ID: 20, CollectionID: r.coll.ID, PartitionID: p.ID, VChannel: r.vchannel(), Path: "segments/x"}}})
	r.segment(11, 1)
	_, err = r.cat.DropPartition(t.Context(), "items", "old")
	must(t, err)
	_, err = r.run()
	must(t, err)
	if e := r.entry(); len(e.Segments) != 1 || e.Segments[0].ID != 11 {
		t.Errorf("the catalog has %+v", e.Segments)
	}
}

// TestAPartitionThatIsCreatedMeanwhileStays: its first segment may be stored while files of deletes are made one, and is no segment of
// a partition that was dropped because the collection was read before that.
func TestAPartitionThatIsCreatedMeanwhileStays(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1, 2, 3, 4, 5, 6, 7, 8)
	for k := range int64(5) {
		r.deletes(k + 1)
	}
	created := false
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if !created && strings.HasPrefix(c.Key, "deltas/") {
			created = true
			p, err := r.cat.CreatePartition(t.Context(), "items", "new", 1)
			must(t, err)
			r.commit(catalog.FlushCommit{AddSegments: []catalog.Segment{{ID: 20, CollectionID: r.coll.ID, PartitionID: p.ID, VChannel: r.vchannel(), Path: "segments/x"}}})
		}
		return objstore.Fault{}
	})
	done, err := r.run()
	must(t, err)
	if !created {
		t.Fatal("no file of deletes was read")
	}
	if !slices.ContainsFunc(r.entry().Segments, func(s catalog.Segment) bool { return s.ID == 20 }) {
		t.Errorf("the catalog has %+v after %+v", r.entry().Segments, done)
	}
}

func TestTheLoopLooksWhenItIsKicked(t *testing.T) {
	r := newRig(t, 0)
	for id := int64(11); id < 15; id++ {
		r.segment(id, id)
	}
	told := make(chan Done, 1)
	o := r.c.o
	o.Interval, o.Dir, o.OnCompacted = time.Hour, filepath.Join(r.dir, "loop"), func(d Done) { told <- d }
	c, err := New(o)
	must(t, err)
	c.Kick()
	if d := <-told; len(d.Inputs) != 4 {
		t.Errorf("%+v", d)
	}
	must(t, c.Close(t.Context()))
	must(t, c.Close(t.Context()))
	if _, err := c.Run(t.Context(), []Channel{{r.ch, 1}}); err == nil {
		t.Error("a closed compactor compacts")
	}
}

// TestWhatIsHiddenAfterTheCheckpointIsNotRewritten: its deletes are in no file yet.
func TestWhatIsHiddenAfterTheCheckpointIsNotRewritten(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1, 2, 3)
	want(t, r.see(r.tick()), 1, 2, 3)
	r.ch.ApplyDeletes(0, &schema.Column{FieldID: keyField, Type: schema.Int64, Int: []int64{1}}, segments.Position{ID: "y", Timestamp: mq.FromTime(r.now) + 1})
	r.now = r.now.Add(2 * time.Hour)
	done, err := r.run()
	must(t, err)
	if len(done) != 0 {
		t.Errorf("%+v", done)
	}
}

// TestASegmentThatLosesNothingKeepsNoOtherFromIt: what is known to be deleted of it is in
// no file. It is left as it is, and the others are merged.
func TestASegmentThatLosesNothingKeepsNoOtherFromIt(t *testing.T) {
	r := newRig(t, 0)
	many := make([]int64, 100)
	for i := range many {
		many[i] = int64(i)
	}
	r.segment(11, many...)
	for id := range int64(4) {
		r.segment(12+id, 1000+id)
	}
	r.see(r.tick())
	at := r.tick()
	r.ch.ApplyDeletes(0, &schema.Column{FieldID: keyField, Type: schema.Int64, Int: many[:50]}, segments.Position{ID: "y", Timestamp: at})
	r.segment(16, 2000)
	r.now = r.now.Add(2 * time.Hour)
	done, err := r.run()
	must(t, err)
	if len(done) == 0 || done[0].Why != whySmall || r.c.Status().Stats.Failed != 0 {
		t.Errorf("%+v, %+v", done, r.c.Status())
	}
}
