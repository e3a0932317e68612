package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

const crampedDim = 128

// cramped is a node with little room on its local disk.
type cramped struct {
	*running
	t     *testing.T
	query qnpb.QueryServiceClient
	write qnpb.WriteServiceClient
}

func startCramped(t *testing.T, limit int64, set ...string) *cramped {
	t.Helper()
	return serveCramped(t, startNode(t, testConfig(t, append([]string{fmt.Sprintf("disk.limit=%d", limit), "queue.pchannels=1", "growing.build_workers=1", "queue.sync=none"}, set...)...)))
}

// serveCramped makes the collection.
func serveCramped(t *testing.T, r *running) *cramped {
	t.Helper()
	waitServing(t, r)
	conn := dialNode(t, r.grpcLis.Addr().String())
	_, err := qnpb.NewCatalogServiceClient(conn).CreateCollection(t.Context(), &qnpb.CreateCollectionRequest{Name: "items", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: crampedDim},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}}})
	if err != nil {
		t.Fatal(err)
	}
	return &cramped{running: r, t: t, query: qnpb.NewQueryServiceClient(conn), write: qnpb.NewWriteServiceClient(conn)}
}

func (c *cramped) within() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

func crampedVectors(ids ...int64) *qnpb.FloatVectors {
	out := &qnpb.FloatVectors{Dim: crampedDim}
	for _, id := range ids {
		r := rand.New(rand.NewPCG(uint64(id), 5))
		for range crampedDim {
			out.Values = append(out.Values, float32(r.IntN(100)))
		}
	}
	return out
}

func (c *cramped) insert(ids []int64) error {
	_, err := c.write.Append(c.within(), &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: int64(len(ids)), Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
			{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: crampedVectors(ids...)}},
		}}}})
	return err
}

func (c *cramped) delete(ids ...int64) {
	c.t.Helper()
	_, err := c.write.Append(c.within(), &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{
		Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}}}})
	if err != nil {
		c.t.Errorf("a delete did not pass: %v", err)
	}
}

// numbers run from a number on.
func numbers(from, n int64) (ids []int64) {
	for i := range n {
		ids = append(ids, from+i)
	}
	return ids
}

// eventually does something until it is not refused for want of room any more, and
// says how often it was.
func (c *cramped) eventually(what string, do func() error) (refused int) {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; refused++ {
		err := do()
		if err == nil {
			return refused
		}
		if status.Code(err) != codes.ResourceExhausted || time.Now().After(deadline) {
			c.t.Fatalf("%s, after %d refusals: %v", what, refused, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// untilRefused inserts until there is no room, and says how many rows were taken before. Flushes may
// keep up with a machine that is slow at inserts, for a while.
func (c *cramped) untilRefused(batch int64) (rows int64, refusal error) {
	c.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); rows += batch {
		if err := c.insert(numbers(rows, batch)); status.Code(err) == codes.ResourceExhausted {
			return rows, err
		} else if err != nil {
			c.t.Fatalf("after %d rows: %v", rows, err)
		}
	}
	c.t.Fatalf("%d rows were taken, and none was refused", rows)
	return 0, nil
}

// check wants each of some rows to be the nearest to itself, with its own vector, and
// all of them to be counted.
func (c *cramped) check(rows int64, deleted ...int64) {
	c.t.Helper()
	strong := &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}
	for id := int64(5); id < rows; id += rows / 12 {
		r, err := c.query.Search(c.within(), &qnpb.SearchRequest{Collection: "items", TopK: 2, Vectors: crampedVectors(id), OutputFields: []string{"v"}, Freshness: strong})
		if err != nil {
			c.t.Fatal(err)
		}
		got := r.GetIds().GetInts().GetValues()
		if len(got) != 2 || got[0] != id || r.GetScores()[0] != 0 || !slices.Equal(r.GetFields()[0].GetVectors().GetValues()[:crampedDim], crampedVectors(id).Values) {
			c.t.Errorf("the nearest to %d are %v with %v", id, got, r.GetScores())
		}
	}
	s, err := c.query.Query(c.within(), &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"count(*)"}, Freshness: strong})
	if err != nil {
		c.t.Fatal(err)
	}
	if n, err := s.Recv(); err != nil || n.GetCount() != rows-int64(len(deleted)) {
		c.t.Errorf("%d rows, %v; want %d", n.GetCount(), err, rows-int64(len(deleted)))
	}
}

// loaded waits until all rows are in sealed segments.
func (c *cramped) loaded() {
	c.t.Helper()
	control := qnpb.NewControlServiceClient(dialNode(c.t, c.grpcLis.Addr().String()))
	if _, err := c.write.Flush(c.within(), &qnpb.FlushRequest{Collection: "items"}, grpc.WaitForReady(true)); err != nil {
		c.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		d, err := control.GetDistribution(c.within(), &qnpb.GetDistributionRequest{})
		if err != nil {
			c.t.Fatal(err)
		}
		growing := slices.ContainsFunc(d.GetDistribution().GetSegments(), func(s *qnpb.SegmentStatus) bool { return s.GetState() != "loaded" && s.GetRows() > 0 })
		if !growing {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not all is loaded: %v, %v", d.GetDistribution().GetSegments(), c.node.Problem())
		}
	}
}

// onDisk is what the node really has in its folder, but for object storage.
func (c *cramped) onDisk() int64 { return folderBytes(c.dir.run) + folderBytes(c.cfg.Queue.Dir) }

// TestADatasetLargerThanTheDisk is taken, and read back from object storage as it was,
// whatever the warm-up policy; the disk's limit holds, and rows wait for room in it.
func TestADatasetLargerThanTheDisk(t *testing.T) {
	for _, policy := range []string{"sync", "async", "none"} {
		t.Run(policy, func(t *testing.T) {
			const limit, rows, batch = 5 << 18, 4_000, 250 // 2 MiB of vectors in 1.25 MiB
			c := startCramped(t, limit, "load.warmup="+policy, "growing.seal_rows=500", "compaction.enabled=false")
			highest, refused := int64(0), 0
			for from := int64(0); from < rows; from += batch {
				refused += c.eventually("insert", func() error { return c.insert(numbers(from, batch)) })
				c.delete(from)
				highest = max(highest, c.onDisk())
			}
			c.loaded()
			var deleted []int64
			for from := int64(0); from < rows; from += batch {
				deleted = append(deleted, from)
			}
			for range 2 {
				c.check(rows, deleted...)
				highest = max(highest, c.onDisk())
			}
			d := c.set.Disk()
			t.Logf("refused %d times; %+v; %d bytes on the disk at most", refused, d, highest)
			if d.Evictions == 0 || d.Fetches == 0 || d.FetchErrors > 0 {
				t.Errorf("nothing left the disk, or came back: %+v", d)
			}
			const slack = 1 << 20 // a field that is read, what a flush makes, and the entries of the log between two looks
			room := int64(limit)
			if d.Fields == 1 {
				room += 300 << 10 // one field has room whatever the queue leaves
			}
			if d.Used > room || highest > limit+slack {
				t.Errorf("%d bytes are accounted and %d were on the disk, the limit is %d", d.Used, highest, limit)
			}
		})
	}
}

// TestAFullDiskRefusesRows with the numbers, and lets deletes pass; what is growing is
// flushed then, so that the queue lets go of its files and rows have room again.
func TestAFullDiskRefusesRows(t *testing.T) {
	const limit, batch = 1 << 20, 200
	c := startCramped(t, limit, "compaction.enabled=false")
	rows, refusal := c.untilRefused(batch)
	for _, want := range []string{"no room for", "on the local disk", fmt.Sprintf("of %d bytes are in use", limit), "by the queue", "disk.limit", "try again"} {
		if !strings.Contains(refusal.Error(), want) {
			t.Errorf("%v does not say %q", refusal, want)
		}
	}
	c.delete(1, 2, 3)
	c.eventually("insert", func() error { return c.insert(numbers(rows, batch)) })
	rows += batch
	c.loaded()
	c.check(rows, 1, 2, 3)
	if got := folderBytes(c.cfg.Queue.Dir); got > limit {
		t.Errorf("the queue has %d bytes", got)
	}
}

// TestFilesOfTheQueueAreSmallWhereTheDiskIs.
func TestFilesOfTheQueueAreSmallWhereTheDiskIs(t *testing.T) {
	for _, c := range []struct {
		configured, disk int64
		topics           int
		want             int64
	}{{64 << 20, 0, 2, 64 << 20}, {64 << 20, 100 << 30, 2, 64 << 20}, {64 << 20, 256 << 20, 2, 16 << 20}, {64 << 20, 1 << 20, 16, 64 << 10}, {1 << 16, 1 << 30, 1, 1 << 16}} {
		if got := queueFile(c.configured, c.disk, c.topics); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestASmallVolumeIsSharedWithoutAWord: no disk.limit is set, and the files of the queue
// are small all the same, so that trimming gives room.
func TestASmallVolumeIsSharedWithoutAWord(t *testing.T) {
	const free, file, batch = 10 << 20, 1 << 20, 200 // a batch is 100 KiB
	cfg := testConfig(t, "disk.limit=0", "queue.pchannels=1", "queue.sync=none", "growing.build_workers=1")
	var looked atomic.Int64
	r, err := start(t.Context(), cfg, startOptions{version: "test", free: func(string) (int64, error) { looked.Add(1); return free, nil }})
	if err != nil {
		t.Fatal(err)
	}
	c := serveCramped(t, stopAtEnd(t, r))
	if got := r.set.Disk().Limit; got != free/100*diskPercent || looked.Load() != 1 {
		t.Errorf("of %d bytes free, looked at %d times, the node takes %d", free, looked.Load(), got)
	}
	for from := int64(0); from < 20*batch; from += batch {
		if err := c.insert(numbers(from, batch)); err != nil {
			t.Fatal(err)
		}
	}
	largest := int64(0)
	_ = filepath.WalkDir(cfg.Queue.Dir, func(_ string, d fs.DirEntry, err error) error {
		if info, ierr := d.Info(); err == nil && ierr == nil && !d.IsDir() {
			largest = max(largest, info.Size())
		}
		return nil
	})
	if largest < file/2 || largest > file*5/4 {
		t.Errorf("the largest file of the queue has %d bytes, want about %d", largest, file)
	}
}

// TestAFullVolumeIsALimit: 0 bytes free are not the same as nobody knowing.
func TestAFullVolumeIsALimit(t *testing.T) {
	for free, want := range map[int64]int64{-1: 0, 0: 1, 99: 1, 1_000: 800} {
		if got := diskBudget(free, ""); got != want {
			t.Errorf("of %d bytes free the node takes %d, want %d", free, got, want)
		}
	}
	r, err := start(t.Context(), testConfig(t, "disk.limit=0", "queue.pchannels=1"), startOptions{version: "test", free: func(string) (int64, error) { return 0, nil }})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, r)
	if got := r.set.Disk().Limit; got <= 0 {
		t.Errorf("nothing is free, and the limit is %d, which is none", got)
	}
}

// TestAQueueOnAnotherVolume has what is free there, and the segments what is free where the data folder is.
func TestAQueueOnAnotherVolume(t *testing.T) {
	const data, queue, batch = 100 << 20, 2 << 20, 200 // a batch is 100 KiB
	cfg := testConfig(t, "disk.limit=0", "queue.pchannels=1", "queue.sync=none", "growing.build_workers=1", "queue.dir="+filepath.Join(t.TempDir(), "log", "queue"))
	r, err := start(t.Context(), cfg, startOptions{version: "test", sameVolume: func(string, string) bool { return false }, free: func(dir string) (int64, error) {
		if strings.HasPrefix(cfg.Queue.Dir, dir) {
			return queue, nil
		}
		return data, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := serveCramped(t, stopAtEnd(t, r))
	if got := r.set.Disk(); got.Limit != data/100*diskPercent || got.QueueLimit != queue/100*diskPercent || !got.QueueApart {
		t.Errorf("of %d bytes and %d: %+v", data, queue, got)
	}
	rows, refusal := c.untilRefused(batch)
	if !strings.Contains(refusal.Error(), "on the volume of the queue") {
		t.Fatalf("%d rows: %v", rows, refusal)
	}
	c.eventually("insert", func() error { return c.insert(numbers(rows, batch)) }) // what is growing is flushed
	_, text := get(t, r, "/metrics")
	for _, want := range []string{fmt.Sprintf("querynode_queue_disk_limit_bytes %v", float64(queue/100*diskPercent)), fmt.Sprintf("querynode_disk_limit_bytes %v", float64(data/100*diskPercent))} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

// TestVolumesAreToldApart also of folders that have yet to be made.
func TestVolumesAreToldApart(t *testing.T) {
	dir := t.TempDir()
	if !sameVolume(dir, filepath.Join(dir, "a", "b")) {
		t.Error("a folder in another one is on another volume")
	}
	if _, err := os.Stat("/proc/self"); err == nil && sameVolume(dir, "/proc") {
		t.Error("/proc is on the volume of a temporary folder")
	}
}
