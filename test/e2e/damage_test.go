package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// firstBuilt is where ids of segments that no node made begin.
const firstBuilt = int64(1) << 52

// build makes a sealed segment of the collection items with the keys, in
// imports/<name> of the node's object storage.
func (n *testNode) build(t *testing.T, name string, id int64, keys []int64, change func(*segments.Meta)) string {
	t.Helper()
	r, err := n.catalog.DescribeCollection(within(t), &qnpb.DescribeCollectionRequest{Collection: "items"})
	must(t, err)
	c := r.GetCollection()
	sc := schema.Schema{Version: 1}
	for _, f := range c.GetSchema().GetFields() {
		sc.Fields = append(sc.Fields, schema.Field{ID: f.GetId(), Name: f.GetName(), Type: schema.Type(f.GetType()), PrimaryKey: f.GetPrimaryKey(),
			Dim: int(f.GetDim()), MaxLength: int(f.GetMaxLength()), Nullable: f.GetNullable()})
	}
	b := &schema.Batch{Rows: len(keys)}
	for i, d := range rows(keys, 0) {
		col, err := rowpb.ToColumn(d, sc.Fields[i])
		must(t, err)
		b.Columns = append(b.Columns, col)
	}
	now := wal.FromTime(time.Now())
	for range keys {
		b.Timestamps = append(b.Timestamps, now)
	}
	meta := segments.Meta{ID: id, CollectionID: c.GetId(), PartitionID: c.GetPartitions()[0].GetId(), VChannel: c.GetChannels()[0].GetVchannel()}
	if change != nil {
		change(&meta)
	}
	dir := filepath.Join(n.dir, "objects", "imports", name)
	must(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	left := []*schema.Batch{b}
	_, err = segments.Build(t.Context(), segments.BuildOptions{Dir: dir, Meta: meta,
		Info: segments.CollectionInfo{ID: c.GetId(), Name: "items", Schema: &sc, Indexes: map[int64]segments.VectorIndex{sc.Fields[3].ID: {Type: "HNSW", Metric: index.L2}}},
	}, func() (*schema.Batch, error) {
		if len(left) == 0 {
			return nil, io.EOF
		}
		defer func() { left = left[1:] }()
		return left[0], nil
	})
	must(t, err)
	return "imports/" + name
}

// load loads a folder of object storage as a segment of items.
func (n *testNode) load(t *testing.T, path string) (*qnpb.LoadSegmentsResponse, error) {
	t.Helper()
	return n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items", Paths: []string{path}})
}

// rewrite replaces a file by what change makes of it.
func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(raw), 0o644))
}

func flip(raw []byte) []byte { raw[len(raw)/2] ^= 0x10; return raw }

func cut(raw []byte) []byte { return raw[:len(raw)-1] }

// forge changes a manifest and gives it a right checksum.
func forge(change func(m map[string]any)) func([]byte) []byte {
	return func(raw []byte) []byte {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		m := map[string]any{}
		if err := d.Decode(&m); err != nil {
			panic(err)
		}
		delete(m, "crc32c")
		change(m)
		body, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			panic(err)
		}
		body = bytes.TrimSuffix(body, []byte("\n}"))
		return fmt.Appendf(body, ",\n  \"crc32c\": \"%08x\"\n}\n", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	}
}

func file(m map[string]any, i int) map[string]any { return m["files"].([]any)[i].(map[string]any) }

// TestABuiltSegmentIsLoadedByItsPath: once, and again without harm.
func TestABuiltSegmentIsLoadedByItsPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1)
	n.insert("items", seq(0, 100))
	path := n.build(t, "good", firstBuilt, seq(1000, 1100), nil)
	for range 2 {
		r, err := n.load(t, path+"/")
		must(t, err)
		if !slices.Equal(r.GetSegmentIds(), []int64{firstBuilt}) || r.GetRows() != 100 {
			t.Fatalf("loaded %v", r)
		}
		if c := n.count("items"); c != 200 {
			t.Fatalf("%d rows, want 200", c)
		}
	}
	if got := n.nearest("items", vectorOf(1042, 0), 1, ""); !slices.Equal(got, []int64{1042}) {
		t.Fatalf("nearest to a built row: %v", got)
	}
	_, err := n.load(t, n.build(t, "copy", firstBuilt, seq(0, 3), nil))
	n.refuses(t, err, codes.FailedPrecondition, "build it with another id")
	n.delete("items", seq(1000, 1010))
	if c := n.count("items"); c != 190 {
		t.Fatalf("%d rows after a delete of built rows, want 190", c)
	}
	n.stop()
	n = start(t, dir, options{})
	if c := n.count("items"); c != 190 {
		t.Fatalf("%d rows after a restart, want 190", c)
	}
}

// TestDamagedSegmentsAreRefused: what is damaged is named, does not get into the
// catalog, and leaves nothing behind; the collection answers as before.
func TestDamagedSegmentsAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	n.insert("items", seq(0, 100))
	n.pulse = &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 1, Freshness: strong}
	good := filepath.Join(n.dir, "objects", n.build(t, "good", firstBuilt, seq(1000, 3500), nil))
	list, err := os.ReadDir(good)
	must(t, err)
	type damage struct {
		name string
		do   func(dir string)
		code codes.Code
		says string
	}
	var all []damage
	for _, e := range list {
		name := e.Name()
		code, says := codes.NotFound, name
		if name == "manifest.json" {
			says = "no segment there"
		}
		all = append(all,
			damage{"a bit flipped in " + name, func(dir string) { rewrite(t, filepath.Join(dir, name), flip) }, codes.DataLoss, ""},
			damage{"a byte less of " + name, func(dir string) { rewrite(t, filepath.Join(dir, name), cut) }, codes.DataLoss, ""},
			damage{"a byte more of " + name, func(dir string) {
				rewrite(t, filepath.Join(dir, name), func(raw []byte) []byte { return append(raw, 0) })
			}, codes.DataLoss, ""},
			damage{"nothing in " + name, func(dir string) { rewrite(t, filepath.Join(dir, name), func([]byte) []byte { return nil }) }, codes.DataLoss, ""},
			damage{"no " + name, func(dir string) { must(t, os.Remove(filepath.Join(dir, name))) }, code, says})
	}
	forged := func(name string, change func(map[string]any), code codes.Code, says string) {
		all = append(all, damage{name, func(dir string) { rewrite(t, filepath.Join(dir, "manifest.json"), forge(change)) }, code, says})
	}
	forged("a newer version", func(m map[string]any) { m["version"] = 99 }, codes.Unimplemented, "upgrade querynode")
	forged("another format", func(m map[string]any) { m["format"] = "tar" }, codes.DataLoss, "format")
	forged("a size one too large", func(m map[string]any) { file(m, 0)["size"] = size(file(m, 0)) + 1 }, codes.DataLoss, "")
	forged("a size of half a TiB", func(m map[string]any) { file(m, 0)["size"] = int64(1) << 39 }, codes.DataLoss, "")
	forged("a negative size", func(m map[string]any) { file(m, 0)["size"] = -1 }, codes.DataLoss, "")
	forged("more rows than there are", func(m map[string]any) { m["rows"] = 2501 }, codes.DataLoss, "")
	forged("2^31-1 rows", func(m map[string]any) { m["rows"] = 1<<31 - 1 }, codes.DataLoss, "")
	forged("no rows", func(m map[string]any) { m["rows"] = 0 }, codes.DataLoss, "")
	forged("a file outside the folder", func(m map[string]any) { file(m, 0)["name"] = "../../../catalog/ids.json" }, codes.DataLoss, "")
	forged("no files", func(m map[string]any) { m["files"] = []any{} }, codes.DataLoss, "")
	forged("of another collection", func(m map[string]any) { m["collection_id"] = 999 }, codes.InvalidArgument, "of collection 999")
	forged("of another channel", func(m map[string]any) { m["vchannel"] = "topic-0_1v7" }, codes.InvalidArgument, "which \"items\" does not have")
	forged("of another partition", func(m map[string]any) { m["partition_id"] = 999 }, codes.InvalidArgument, "of partition 999")
	forged("of another schema", func(m map[string]any) {
		m["schema"].(map[string]any)["fields"].([]any)[1].(map[string]any)["type"] = "Double"
	}, codes.DataLoss, "")
	for i, d := range all {
		t.Run(d.name, func(t *testing.T) {
			name := fmt.Sprintf("damaged-%d", i)
			dir := filepath.Join(n.dir, "objects", "imports", name)
			must(t, os.CopyFS(dir, os.DirFS(good)))
			d.do(dir)
			_, err := n.load(t, "imports/"+name)
			n.refuses(t, err, d.code, d.says)
			if d.code == codes.DataLoss && !strings.Contains(err.Error(), name) {
				t.Errorf("%v does not name the segment", err)
			}
			must(t, os.RemoveAll(dir))
		})
	}
	if c := n.count("items"); c != 100 {
		t.Errorf("%d rows, want the 100 of before", c)
	}
	if left, _ := filepath.Glob(filepath.Join(n.dir, "run-*", "segments", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	r, err := n.load(t, "imports/good")
	must(t, err)
	if r.GetRows() != 2500 || n.count("items") != 2600 {
		t.Errorf("the undamaged one: %v, then %d rows", r, n.count("items"))
	}
}

func size(f map[string]any) int64 {
	v, err := f["size"].(json.Number).Int64()
	if err != nil {
		panic(err)
	}
	return v
}

// TestADamagedSegmentDoesNotKeepANodeFromServing: a segment of the catalog rots
// while the node is down. The node comes up, says which one it is, never
// pretends that its rows were never there, and serves them once they are restored.
func TestADamagedSegmentDoesNotKeepANodeFromServing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1)
	n.items("others", 1)
	n.insert("others", seq(0, 50))
	n.insert("items", seq(0, 100))
	id := n.flush("items")[0]
	n.handedOff("items")
	n.insert("items", seq(100, 400))
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(400, 500))
	n.stop()

	files, err := filepath.Glob(filepath.Join(dir, "objects", "segments", "*", fmt.Sprint(id)+"-*", "*.npy"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("vectors of segment %d: %v", id, files)
	}
	rewrite(t, files[0], flip)

	n = start(t, dir, options{})
	if c := n.count("others"); c != 50 {
		t.Fatalf("another collection has %d rows, want 50", c)
	}
	search := &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(300, 0)}, TopK: 3, Freshness: strong}
	_, err = n.query.Search(within(t), search)
	n.refuses(t, err, codes.DataLoss, fmt.Sprintf("segment %d with 100 rows", id), "allow_partial")
	st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"count(*)"}, Freshness: strong})
	must(t, err)
	_, err = st.Recv()
	n.refuses(t, err, codes.DataLoss, fmt.Sprintf("segment %d", id))
	search.AllowPartial = true
	r, err := n.query.Search(within(t), search)
	must(t, err)
	if f := r.GetStats().GetFailures(); len(f) != 1 || f[0].GetSegmentId() != id || f[0].GetReason() != "corrupt" || f[0].GetRetryable() {
		t.Errorf("failures: %v", f)
	}
	if s := r.GetStats().GetSearchedShare(); s < 0.79 || s > 0.81 {
		t.Errorf("searched share %v, want 400 of 500 rows", s)
	}
	if ids := r.GetIds().GetInts().GetValues(); len(ids) != 3 || ids[0] != 300 {
		t.Errorf("partial answer: %v", ids)
	}
	d, err := n.control.GetDistribution(within(t), &qnpb.GetDistributionRequest{})
	must(t, err)
	if !slices.ContainsFunc(d.GetDistribution().GetSegments(), func(s *qnpb.SegmentStatus) bool {
		return s.GetId() == id && s.GetState() == "quarantined" && s.GetError() != "" && s.GetRows() == 100
	}) {
		t.Errorf("the distribution does not show it: %v", d.GetDistribution().GetSegments())
	}
	// Writes and flushes go on.
	n.insert("items", seq(500, 520))
	n.flush("items")

	_, err = n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items", SegmentIds: []int64{id}})
	n.refuses(t, err, codes.DataLoss, fmt.Sprintf("segment %d", id))
	_, err = n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"})
	n.refuses(t, err, codes.DataLoss, fmt.Sprintf("segment %d", id))

	// Without it on purpose: nothing fails, and it stays away.
	_, err = n.control.ReleaseSegments(within(t), &qnpb.ReleaseSegmentsRequest{Collection: "items", SegmentIds: []int64{id}})
	must(t, err)
	if c := n.count("items"); c != 420 {
		t.Errorf("%d rows without it, want 420", c)
	}
	rewrite(t, files[0], flip)
	_, err = n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items", SegmentIds: []int64{id}})
	must(t, err)
	if c := n.count("items"); c != 520 {
		t.Errorf("%d rows once it is restored, want 520", c)
	}
}
