package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/objstore"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

const wide = 64

// wideVector is the vector of a key: values that a float32 adds up exactly.
func wideVector(id int64) []float32 {
	r := rand.New(rand.NewPCG(uint64(id), 9))
	v := make([]float32, wide)
	for i := range v {
		v[i] = float32(r.IntN(17) - 8)
	}
	return v
}

// TestADatasetOfFourTimesTheMemory: growing segments are stored because memory is
// short, what is stored is served from mapped files, and inserts that come too fast
// are refused and may be repeated. Deletes always pass.
func TestADatasetOfFourTimesTheMemory(t *testing.T) {
	t.Parallel()
	const limit, rows = 1 << 20, 18_000 // 5 MiB of vectors, keys, prices and times
	dir := t.TempDir()
	o := options{memory: limit, flush: flush.Options{Interval: 10 * time.Millisecond, CheckpointInterval: 50 * time.Millisecond, Workers: 1}}
	n := start(t, dir, o)
	must2(t)(n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "items", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "price", Type: qnpb.DataType_DATA_TYPE_INT64},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: wide},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}}}))
	refused, highest, taken := 0, int64(0), time.Now()
	for from := int64(0); from < rows; {
		ids := seq(from, from+200)
		var price []int64
		var vs []float32
		for _, id := range ids {
			price = append(price, id*10)
			vs = append(vs, wideVector(id)...)
		}
		_, err := n.write.Append(within(t), insertOf("items", int64(len(ids)), ints("id", ids...), ints("price", price...),
			&qnpb.FieldData{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: wide, Values: vs}}}))
		// Writing a file of deletes takes 4 MiB for a moment, however few they are.
		highest = max(highest, n.set.Ledger().Total()-n.set.Ledger().Used()[segments.KindDeletes])
		switch status.Code(err) {
		case codes.OK:
			from, taken = from+int64(len(ids)), time.Now()
		case codes.ResourceExhausted:
			if refused++; time.Since(taken) > hang { // how often, is up to the machine
				t.Fatalf("no row is taken any more: %v; the ledger says %v, %d segments", err, n.set.Ledger().Used(), len(n.set.Collections()[0].Segments()))
			}
			must2(t)(n.write.Append(within(t), deleteOf("items", &qnpb.DeleteOperation{Ids: intIDs(-1)}))) // of nothing, but it passes
			_, changed := n.set.Version()
			select {
			case <-changed:
			case <-time.After(50 * time.Millisecond):
			}
		default:
			t.Fatalf("%v", err)
		}
	}
	t.Logf("%d inserts refused; at most %d of %d bytes in use", refused, highest, limit)
	if highest > limit*3/2 {
		t.Errorf("%d bytes were in use, the limit is %d", highest, limit)
	}
	n.delete("items", seq(0, 100))
	n.flush("items")
	n.handedOff("items")
	n.checkWide(rows)
	n.stop()
	n = start(t, dir, o)
	n.checkWide(rows)
}

// checkWide compares counts, rows and exact searches with what was inserted; the
// first hundred rows were deleted.
func (n *testNode) checkWide(rows int64) {
	n.t.Helper()
	if c := n.count("items"); c != rows-100 {
		n.t.Fatalf("%d rows, want %d", c, rows-100)
	}
	cold := 0
	var mapped int64
	for _, c := range n.set.Collections() {
		for _, st := range c.Segments() {
			mapped += st.MappedBytes
			if st.Cold {
				cold++
			}
		}
	}
	l := n.set.Ledger()
	// The growing ones give their memory back once nobody reads them any more.
	for deadline := time.Now().Add(hang); l.Total() > l.Limit() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if mapped < 4*l.Limit() || l.Total() > l.Limit() || l.Used()[segments.KindMapped] < mapped {
		n.t.Errorf("%d bytes are mapped, %d of %d used; the ledger says %v", mapped, l.Total(), l.Limit(), l.Used())
	}
	n.t.Logf("%d cold segments, %d bytes mapped, %d of %d used", cold, mapped, l.Total(), l.Limit())
	all := n.all("items", "id % 97 == 0")
	for id := int64(0); id < rows; id += 97 {
		if p, ok := all[id]; ok != (id >= 100) || ok && p != id*10 {
			n.t.Fatalf("row %d: %d, %v", id, p, ok)
		}
	}
	for _, of := range []int64{100, rows / 2, rows - 1} {
		q := wideVector(of)
		r, err := n.query.Search(within(n.t), &qnpb.SearchRequest{Collection: "items", TopK: 5, Freshness: strong, OutputFields: []string{"price"},
			Vectors: &qnpb.FloatVectors{Dim: wide, Values: q}})
		must(n.t, err)
		var want []float32
		for id := int64(100); id < rows; id++ {
			d := float32(0)
			for i, x := range wideVector(id) {
				d += (x - q[i]) * (x - q[i])
			}
			want = append(want, d)
		}
		slices.Sort(want)
		if !slices.Equal(r.GetScores(), want[:5]) {
			n.t.Fatalf("search for %d: scores %v, want %v", of, r.GetScores(), want[:5])
		}
		for i, id := range r.GetIds().GetInts().GetValues() {
			if p := r.GetFields()[0].GetInts().GetValues()[i]; p != id*10 {
				n.t.Fatalf("row %d has price %d", id, p)
			}
		}
	}
}

// TestRowsOfShortVectorsAreStoredWithinTheLimit: an index over them takes several times what the rows do, and what stores them cannot be
// refused memory. They are stored while there is enough.
func TestRowsOfShortVectorsAreStoredWithinTheLimit(t *testing.T) {
	t.Parallel()
	const limit, rows, batch, short = 16 << 20, 100_000, 1000, 4
	n := start(t, t.TempDir(), options{memory: limit, flush: flush.Options{Interval: 10 * time.Millisecond, Workers: 1}})
	must2(t)(n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "items", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: short},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "HNSW_SQ", Metric: "L2", Params: map[string]string{"M": "8", "efConstruction": "40"}}}}))
	r, highest, taken := rand.New(rand.NewPCG(7, 7)), int64(0), time.Now()
	for from := int64(0); from < rows; {
		var vs []float32
		for range batch * short {
			vs = append(vs, r.Float32())
		}
		_, err := n.write.Append(within(t), insertOf("items", batch, ints("id", seq(from, from+batch)...),
			&qnpb.FieldData{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: short, Values: vs}}}))
		highest = max(highest, n.set.Ledger().Total())
		switch status.Code(err) {
		case codes.OK:
			from, taken = from+batch, time.Now()
		case codes.ResourceExhausted:
			if time.Since(taken) > hang {
				t.Fatalf("no row is taken any more: %v; the ledger says %v", err, n.set.Ledger().Used())
			}
			_, changed := n.set.Version()
			select {
			case <-changed:
			case <-time.After(20 * time.Millisecond):
			}
		default:
			t.Fatalf("%v", err)
		}
	}
	n.flush("items")
	highest = max(highest, n.set.Ledger().Total())
	t.Logf("at most %d of %d bytes in use; %d segments", highest, limit, len(n.set.Collections()[0].Segments()))
	if highest > limit*5/4 {
		t.Errorf("%d bytes were in use, the limit is %d", highest, limit)
	}
	if c := n.count("items"); c != rows {
		t.Errorf("%d rows are found, want %d", c, rows)
	}
	if ahead := n.set.Ledger().Ahead(); ahead != 0 {
		t.Errorf("%d bytes are ahead, and nothing is growing", ahead)
	}
}

// TestDeletesInMemoryAreBounded: rows that are not stored keep the checkpoint where
// it is, and the deletes after it in memory. Too many of these have the rows stored.
func TestDeletesInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	const bound = 4096
	n := start(t, t.TempDir(), options{deleteBytes: bound, flush: flush.Options{Interval: 10 * time.Millisecond, CheckpointInterval: time.Hour}})
	n.items("items", 1)
	n.insert("items", seq(0, 50))
	for from := int64(0); from < 40; from += 4 {
		for range 5 {
			n.delete("items", append(seq(from, from+4), seq(1000, 1020)...))
		}
	}
	deadline := time.After(hang)
	for n.set.Ledger().Used()[segments.KindDeletes] > bound {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d bytes of deletes are in memory", n.set.Ledger().Used()[segments.KindDeletes])
		}
	}
	if c := n.count("items"); c != 10 {
		t.Errorf("%d rows, want 10", c)
	}
	n.stop()
	n = start(t, n.dir, options{})
	if c := n.count("items"); c != 10 {
		t.Errorf("%d rows after a restart, want 10", c)
	}
}

// away is object storage that takes no segments and no deletes while it is away.
type away struct {
	objstore.Bucket
	gone *atomic.Bool
}

func (a away) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if a.gone.Load() && (strings.HasPrefix(key, "segments/") || strings.HasPrefix(key, "deltas/")) {
		return objstore.Info{}, errclass.New(errclass.Retryable, "storage is away")
	}
	return a.Bucket.Put(ctx, key, r, size, o)
}

// TestDeletesInMemoryAreBoundedWhileStorageIsAway: they always pass, go to the local disk, and do so again when the log is read anew.
// Once storage is back they go there, and neither memory nor disk has them any more.
func TestDeletesInMemoryAreBoundedWhileStorageIsAway(t *testing.T) {
	t.Parallel()
	const bound, most = 16 << 10, 4*16<<10 + 8<<20 // to write some of them takes the rest
	var gone atomic.Bool
	gone.Store(true)
	o := options{deleteBytes: bound, flush: flush.Options{Interval: 10 * time.Millisecond, CheckpointInterval: 50 * time.Millisecond},
		bucket: func(b objstore.Bucket) objstore.Bucket { return away{b, &gone} }}
	n := start(t, t.TempDir(), o)
	n.items("items", 1)
	n.insert("items", seq(0, 2000))
	deletes := func() int64 { return n.set.Ledger().Used()[segments.KindDeletes] }
	spilled := func() []string {
		files, err := filepath.Glob(filepath.Join(n.run, "segments", "deletes-*"))
		must(t, err)
		return files
	}
	for from := int64(0); from < 1500; from += 30 {
		n.delete("items", append(seq(from, from+30), seq(10_000+from*100, 13_000+from*100)...))
		if used := deletes(); used > most {
			t.Fatalf("%d bytes of deletes are in memory", used)
		}
	}
	check := func(when string) {
		t.Helper()
		if c := n.count("items"); c != 500 {
			t.Errorf("%s: %d rows, want 500", when, c)
		}
	}
	check("while storage is away")
	if n := len(spilled()); n < 10 {
		t.Errorf("%d files of deletes", n)
	}
	n.stop()

	n = open(t, n.dir, o)
	for at := time.Now(); ; {
		if used := deletes(); used > most {
			t.Fatalf("%d bytes of deletes are in memory while the log is read", used)
		}
		select {
		case <-n.node.Ready():
		case <-time.After(time.Millisecond):
			if time.Since(at) > hang {
				t.Fatalf("not ready: %v", n.node.Problem())
			}
			continue
		}
		break
	}
	check("after a restart")
	gone.Store(false)
	n.flush("items")
	n.handedOff("items")
	for at := time.Now(); len(spilled()) > 0 || deletes() > bound; time.Sleep(time.Millisecond) {
		if time.Since(at) > hang {
			t.Fatalf("%d files of deletes and %d bytes in memory, and storage is back", len(spilled()), deletes())
		}
	}
	check("once storage is back")
	n.stop()
	n = start(t, n.dir, o)
	check("after all of it was stored")
}
