package segments

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// Fields of the collection that tests use.
const (
	idField     = 100
	priceField  = 101
	colorField  = 102
	vectorField = 103
	dim         = 8
)

func items() *schema.Schema {
	return &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: idField, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: priceField, Name: "price", Type: schema.Int64},
		{ID: colorField, Name: "color", Type: schema.VarChar, Nullable: true},
		{ID: vectorField, Name: "v", Type: schema.FloatVector, Dim: dim},
	}}
}

const docField = 105

// itemsWithDocs are items with a JSON field that has the color of the key.
func itemsWithDocs() *schema.Schema {
	s := items()
	s.Fields = append(s.Fields, schema.Field{ID: docField, Name: "doc", Type: schema.JSON})
	return s
}

// docOf writes the color of a key in several ways; one without a color has none, or null, or no text.
func docOf(key int64) string {
	color := colors[key&3]
	if color == "" {
		return []string{"{}", `{"in": {"c": null}}`, `{"in": {"c": ["red"]}}`}[key%3]
	}
	return []string{`{"in":{"c":"` + color + `"}}`, `{"x": 1, "in": {"c" : "\u00` + fmt.Sprintf("%x", color[0]) + color[1:] + `", "d": 2} }`}[key/4%2]
}

// rig is a Set with one collection on one channel, and a model of what it holds.
type rig struct {
	t      *testing.T
	set    *Set
	coll   *Collection
	ch     *Channel
	bucket *objstore.Mem
	pool   *pool.Pool
	o      rigOptions
	dir    string

	now     uint64 // timestamp of the last message
	rows    []modelRow
	deletes []modelDelete
}

type rigOptions struct {
	schema *schema.Schema
	index  VectorIndex
	memory int64
	set    func(*Options)
}

// modelRow is a row as the model knows it.
type modelRow struct {
	key, price int64
	color      string // "" = null
	v          []float32
	ts         uint64
	partition  int64
	segment    int64
}

type modelDelete struct {
	key, partition int64
	ts             uint64
}

func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	if o.schema == nil {
		o.schema = items()
	}
	if o.index.Type == "" {
		o.index = VectorIndex{Type: "FLAT", Metric: index.L2}
	}
	r := &rig{t: t, o: o, dir: filepath.Join(t.TempDir(), "segments"), bucket: objstore.NewMem(nil), now: 1000}
	var err error
	r.pool, err = pool.New(pool.Options{Workers: 2})
	must(t, err)
	so := Options{Dir: r.dir, Pool: r.pool, Bucket: r.bucket, Ledger: NewLedger(o.memory), GrowingRows: 20_000,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if o.set != nil {
		o.set(&so)
	}
	r.set, err = New(so)
	must(t, err)
	r.coll = r.set.Add(r.info())
	r.ch, err = r.coll.Watch("v", Position{ID: "start", Timestamp: r.now}, nil)
	must(t, err)
	t.Cleanup(r.close)
	return r
}

func (r *rig) info() CollectionInfo {
	return CollectionInfo{ID: 1, Name: "items", Schema: r.o.schema, Indexes: map[int64]VectorIndex{vectorField: r.o.index}}
}

// close closes the set and fails the test if anything is left of it.
func (r *rig) close() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	if err := r.set.Close(ctx); err != nil {
		r.t.Errorf("close: %v", err)
	}
	must(r.t, r.pool.Close(ctx))
	for kind, n := range r.set.Ledger().Used() {
		if n != 0 {
			r.t.Errorf("after Close the ledger has %d bytes of %s", n, kind)
		}
	}
	if l := r.set.Ledger(); l.Ahead() != 0 || l.Leaving() != 0 {
		r.t.Errorf("after Close the ledger has %d bytes ahead, and %d segments that are to go", l.Ahead(), l.Leaving())
	}
	for kind, n := range r.set.Ledger().mu.beyond {
		if n != 0 {
			r.t.Errorf("after Close %d bytes of %s count as beyond the limit", n, kind)
		}
	}
	if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
		r.t.Errorf("after Close the folder is there: %v", err)
	}
	r.wantNothingLeft()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func wantClass(t testing.TB, err error, c errclass.Class) {
	t.Helper()
	if err == nil || errclass.Of(err) != c {
		t.Fatalf("got %v (class %v), want class %v", err, errclass.Of(err), c)
	}
}

// vectorOf is the vector of a key: different for each version.
func vectorOf(key, version int64) []float32 {
	rnd := rand.New(rand.NewPCG(uint64(key), uint64(version)))
	v := make([]float32, dim)
	for i := range v {
		v[i] = rnd.Float32()*2 - 1
	}
	return v
}

var colors = []string{"red", "green", "blue", ""}

// batch builds rows of keys at a version.
func (r *rig) batch(keys []int64, version int64) *schema.Batch {
	b := &schema.Batch{Rows: len(keys)}
	for _, f := range r.o.schema.Columns() {
		c := schema.NewColumn(f, len(keys))
		for _, k := range keys {
			switch f.ID {
			case idField:
				c.Int = append(c.Int, k)
			case priceField:
				c.Int = append(c.Int, k*10+version)
			case colorField:
				c.Str = append(c.Str, colors[k&3])
				c.Valid = append(c.Valid, colors[k&3] != "")
			case docField:
				c.Str = append(c.Str, docOf(k))
			case vectorField:
				c.Float = append(c.Float, vectorOf(k, version)...)
			}
		}
		b.Columns = append(b.Columns, c)
	}
	return b
}

func (r *rig) tick() Position {
	r.now += 10 // so that there is room between two messages
	return Position{ID: fmt.Sprint(r.now), Timestamp: r.now}
}

// put inserts rows into a growing segment of partition 7, or another.
func (r *rig) put(segment int64, keys []int64, version int64, upsert bool, partition ...int64) {
	r.t.Helper()
	at, p := r.tick(), int64(7)
	if len(partition) > 0 {
		p = partition[0]
	}
	must(r.t, r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: p, Batch: r.batch(keys, version), Upsert: upsert}, at))
	r.ch.Advance(at)
	for _, k := range keys {
		if upsert {
			r.deletes = append(r.deletes, modelDelete{k, 0, at.Timestamp})
		}
		r.rows = append(r.rows, modelRow{k, k*10 + version, colors[k&3], vectorOf(k, version), at.Timestamp, p, segment})
	}
}

func (r *rig) insert(segment int64, keys ...int64) { r.t.Helper(); r.put(segment, keys, 0, false) }

func (r *rig) upsert(segment, version int64, keys ...int64) {
	r.t.Helper()
	r.put(segment, keys, version, true)
}

// delete deletes keys; it returns the timestamp.
func (r *rig) delete(keys ...int64) uint64 { return r.deleteIn(0, keys...) }

func (r *rig) deleteIn(partition int64, keys ...int64) uint64 {
	at := r.tick()
	r.ch.ApplyDeletes(partition, &schema.Column{FieldID: idField, Type: schema.Int64, Int: keys}, at)
	r.ch.Advance(at)
	for _, k := range keys {
		r.deletes = append(r.deletes, modelDelete{k, partition, at.Timestamp})
	}
	return at.Timestamp
}

func (r *rig) seal(segment int64) {
	at := r.tick()
	r.ch.ApplySeal([]int64{segment}, at)
	r.ch.Advance(at)
}

// upload builds the sealed form of a growing segment and puts it into the bucket.
func (r *rig) upload(segment int64) string {
	r.t.Helper()
	list, release := r.ch.Growing()
	defer release()
	i := slices.IndexFunc(list, func(g *Growing) bool { return g.Meta().ID == segment })
	if i < 0 {
		r.t.Fatalf("no growing segment %d", segment)
	}
	g := list[i]
	done := false
	return r.uploadRows(BuildOptions{Meta: g.Meta(), Info: r.coll.Info()}, func() (*schema.Batch, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		return g.Batch(0, g.Rows()), nil
	})
}

func (r *rig) uploadRows(o BuildOptions, next func() (*schema.Batch, error)) string {
	r.t.Helper()
	o.Dir = filepath.Join(r.t.TempDir(), fmt.Sprint(o.Meta.ID))
	m, err := Build(r.t.Context(), o, next)
	must(r.t, err)
	prefix := fmt.Sprintf("segments/%d", o.Meta.ID)
	for _, name := range append(m.FileNames(), segfile.ManifestName) {
		raw, err := os.ReadFile(filepath.Join(o.Dir, name))
		must(r.t, err)
		r.object(path.Join(prefix, name), raw)
	}
	return prefix
}

func (r *rig) object(key string, raw []byte) {
	r.t.Helper()
	r.putObject(r.t, key, raw)
}

func (r *rig) putObject(t testing.TB, key string, raw []byte) {
	t.Helper()
	_, err := r.bucket.Put(t.Context(), key, bytes.NewReader(raw), int64(len(raw)), objstore.PutOptions{})
	must(t, err)
}

func (r *rig) load(segment int64, deltas ...Delta) error {
	return r.coll.Load(r.t.Context(), LoadRequest{SegmentID: segment, VChannel: "v", Path: fmt.Sprintf("segments/%d", segment), Deltas: deltas})
}

// handOff flushes a growing segment and loads it in its place.
func (r *rig) handOff(segment int64) {
	r.t.Helper()
	r.seal(segment)
	r.upload(segment)
	must(r.t, r.load(segment))
}

// visible lists what the model shows at T, by key: the newest row of each.
func (r *rig) visible(at uint64) map[int64]modelRow {
	out := map[int64]modelRow{}
	for _, row := range r.rows {
		if row.ts > at || r.gone(row, at) {
			continue
		}
		out[row.key] = row // rows are in timestamp order
	}
	return out
}

// gone is the visibility rule.
func (r *rig) gone(row modelRow, at uint64) bool {
	return slices.ContainsFunc(r.deletes, func(d modelDelete) bool {
		return d.key == row.key && (d.partition == 0 || d.partition == row.partition) && row.ts < d.ts && d.ts <= at
	})
}

func (r *rig) plan(filter string) *expr.Plan {
	r.t.Helper()
	p, err := expr.Compile(filter, r.coll.Info().Schema, nil, "")
	must(r.t, err)
	return p
}

// prices returns key and price of the rows that a query sees, in its order.
func (r *rig) prices(q QueryRequest) (keys, prices []int64) {
	r.t.Helper()
	q.OutputFields = []int64{idField, priceField}
	res, err := r.coll.Query(r.t.Context(), &q, func(b *schema.Batch, _ uint64) error {
		keys = append(keys, b.Columns[0].Int...)
		prices = append(prices, b.Columns[1].Int...)
		return nil
	})
	must(r.t, err)
	if q.Limit == 0 && q.Offset == 0 && res.Count != int64(len(keys)) {
		r.t.Fatalf("count %d, %d rows", res.Count, len(keys))
	}
	return keys, prices
}

// check compares a query at T with the model.
func (r *rig) check(at uint64) {
	r.t.Helper()
	want := r.visible(at)
	keys, prices := r.prices(QueryRequest{Read: Read{ReadTimestamp: at}})
	if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
		r.t.Fatalf("at %d: keys out of order or twice: %v", at, keys)
	}
	for i, k := range keys {
		if row, ok := want[k]; !ok || row.price != prices[i] {
			r.t.Fatalf("at %d: key %d has price %d, want %+v", at, k, prices[i], row)
		}
	}
	if len(keys) != len(want) {
		r.t.Fatalf("at %d: %d rows, want %d", at, len(keys), len(want))
	}
	if n := r.count(at); n != int64(len(want)) {
		r.t.Fatalf("at %d: count(*) %d, want %d", at, n, len(want))
	}
}

func (r *rig) count(at uint64) int64 {
	r.t.Helper()
	res, err := r.coll.Query(r.t.Context(), &QueryRequest{Read: Read{ReadTimestamp: at}, CountOnly: true}, nil)
	must(r.t, err)
	return res.Count
}

// checkAlways compares with the model at every timestamp of a message and
// between them.
func (r *rig) checkAlways() {
	r.t.Helper()
	for at := uint64(1000); at <= r.now; at += 5 {
		r.check(at)
	}
}

func (r *rig) search(q SearchRequest) (*SearchResult, error) {
	q.FieldID = vectorField
	if q.Metric == 0 {
		q.Metric = r.o.index.Metric
	}
	if q.NQ == 0 {
		q.NQ = len(q.Vectors) / dim
	}
	return r.coll.Search(r.t.Context(), &q)
}

func (r *rig) found(q SearchRequest) *SearchResult {
	r.t.Helper()
	res, err := r.search(q)
	must(r.t, err)
	return res
}

func (r *rig) status(segment int64) SegmentStatus {
	r.t.Helper()
	for _, st := range r.coll.Segments() {
		if st.ID == segment {
			return st
		}
	}
	r.t.Fatalf("no segment %d", segment)
	return SegmentStatus{}
}

func seq(from, to int64) (keys []int64) {
	for k := from; k < to; k++ {
		keys = append(keys, k)
	}
	return keys
}

// delta puts a file of deletes into the bucket.
func (r *rig) delta(key string, d *DeleteBatch) Delta {
	r.t.Helper()
	raw, err := segfile.EncodeDeletes(d.Keys, d.Timestamps)
	must(r.t, err)
	r.object(key, raw)
	return Delta{Path: key, PartitionID: d.Partition, MaxTimestamp: slices.Max(d.Timestamps)}
}

// hangs is how long a test waits for what should happen at once, on a machine that has
// much else to do.
const hangs = 3 * time.Minute

// eventually waits until ok says so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(hangs); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", hangs, what)
		}
	}
}
