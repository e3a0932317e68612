package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// smallDisk is a folder on a disk that can be full.
type smallDisk struct {
	dir   string
	fill  func() // nearly
	brim  func() // to the last byte
	free  func()
	queue func(mq.Queue) mq.Queue
}

// pretended is a disk whose queue says that it is full: what a test can have
// without the right to mount a small one.
func pretended(t *testing.T) *smallDisk {
	var full atomic.Bool
	return &smallDisk{
		dir: t.TempDir(), fill: func() {}, brim: func() { full.Store(true) }, free: func() { full.Store(false) },
		queue: func(q mq.Queue) mq.Queue { return &fullQueue{q, &full} },
	}
}

type fullQueue struct {
	mq.Queue
	full *atomic.Bool
}

// OpenProducer opens a producer whose appends fail while the disk is full.
func (q *fullQueue) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	p, err := q.Queue.OpenProducer(ctx, topic, o)
	return &fullProducer{p, q.full}, err
}

type fullProducer struct {
	mq.Producer
	full *atomic.Bool
}

// Append appends, or fails as on a full disk.
func (p *fullProducer) Append(ctx context.Context, msgs ...mq.Message) ([]mq.Position, error) {
	if p.full.Load() {
		return nil, errclass.Wrap(syscall.ENOSPC, errclass.Exhausted, "write")
	}
	return p.Producer.Append(ctx, msgs...)
}

// TestAFullDisk: writes are refused with a reason, reads of every level go on,
// and once there is room again so do writes. Nothing acknowledged is lost.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	t.Run("pretended", func(t *testing.T) { aFullDisk(t, pretended(t)) })
	t.Run("mounted", func(t *testing.T) {
		if d := mounted(t); d != nil {
			aFullDisk(t, d)
		}
	})
}

func aFullDisk(t *testing.T, d *smallDisk) {
	o := options{queue: d.queue, staleness: 100 * time.Millisecond}
	n := start(t, d.dir, o)
	n.items("items", 1)
	must2(t)(n.catalog.DropIndex(within(t), &qnpb.DropIndexRequest{Collection: "items", Index: "v_index"})) // no graph to build
	n.insert("items", seq(0, 200))
	n.pulse = &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 1}
	d.fill()
	acked := int64(200)
	var err error
	for err == nil {
		if acked > 1000 && d.queue != nil {
			d.brim()
		}
		ids := seq(acked, acked+200)
		if _, err = n.write.Append(within(t), insertOf("items", 200, rows(ids, 0)...)); err == nil {
			acked += 200
		}
	}
	n.refuses(t, err, codes.ResourceExhausted, "disk", "is full", "free some space")
	d.brim()
	t.Logf("full after %d rows: %v", acked, err)
	for _, level := range []qnpb.ConsistencyLevel{0, 1, 2, 4} {
		time.Sleep(o.staleness) // a BOUNDED read must not come to wait for what cannot be written
		n.pulse.Freshness = &qnpb.Freshness{Level: level}
		n.alive(t)
	}
	if c := n.count("items"); c != acked {
		t.Errorf("%d rows while the disk is full, %d were acknowledged", c, acked)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if r, err := n.write.Flush(ctx, &qnpb.FlushRequest{Collection: "items", Wait: true}); err == nil {
		t.Errorf("flushed to a full disk: %v", r)
	}
	n.alive(t)

	d.free()
	n.writesAgain("items", acked)
	acked++
	got := n.all("items", "")
	for id := range acked {
		if _, ok := got[id]; !ok {
			t.Fatalf("row %d is lost", id)
		}
	}
	n.flush("items")
	n.handedOff("items")
	if c := n.count("items"); c != acked {
		t.Errorf("%d rows once there is room, want %d", c, acked)
	}
	n.stop()
	n = start(t, d.dir, o)
	if c := n.count("items"); c != acked {
		t.Errorf("%d rows after a restart, want %d", c, acked)
	}
}

// writesAgain inserts a row, trying again for as long as it is told to.
func (n *testNode) writesAgain(coll string, id int64) {
	n.t.Helper()
	for until := time.Now().Add(hang); ; {
		_, err := n.write.Append(within(n.t), insertOf(coll, 1, rows([]int64{id}, 0)...))
		if err == nil {
			return
		}
		if c := codeOf(err); (c != codes.ResourceExhausted && c != codes.Unavailable) || time.Now().After(until) {
			n.t.Fatalf("with room again: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// fillUp writes a file that leaves about so much room on the disk.
func fillUp(t *testing.T, path string, room int) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	for some := 64 << 10; some > 0; {
		if _, err := f.Write(make([]byte, some)); err != nil {
			some /= 2
		}
	}
	st, err := f.Stat()
	must(t, err)
	must(t, f.Truncate(max(0, st.Size()-int64(room))))
	must(t, f.Close())
}

// TestADataFolderThatCannotBeWritten is refused at the start, by its name.
func TestADataFolderThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := readOnly(t)
	_, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "queue")})
	if !errclass.Is(err, errclass.Denied) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the queue: %v (%v), want one of class denied that names the folder", err, errclass.Of(err))
	}
	_, err = objstore.Open(t.Context(), "file://"+filepath.Join(dir, "objects"), objstore.Options{})
	if !errclass.Is(err, errclass.Denied) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the object storage: %v (%v), want one of class denied that names the folder", err, errclass.Of(err))
	}
}

// readOnly is a folder that this process may not write to.
func readOnly(t *testing.T) string {
	t.Helper()
	if d := mountedReadOnly(t); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere, and no read-only disk can be mounted here")
	}
	d := t.TempDir()
	must(t, os.Chmod(d, 0o500))
	return d
}
