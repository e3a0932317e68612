package segfile

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

var writeGolden = flag.Bool("write-golden", false, "write testdata/v2 anew (only for a new format version, into a new folder)")

const goldenDir = "testdata/v1"

// goldenBatch is what testdata/v1 was written of. Do not change it.
func goldenBatch() (Meta, *schema.Batch) {
	meta := testMeta()
	return meta, batch(&meta.Schema, 0, 9)
}

func TestSegmentsOfVersion1StayReadable(t *testing.T) {
	_, rows := goldenBatch()
	s := open(t, copyDir(t, goldenDir))
	if err := s.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	checkRows(t, s, rows)
	if m := s.Manifest(); m.Version != 1 || m.SegmentID != 42 || m.Rows != 9 || m.StartPosition != "00ff@1" {
		t.Fatalf("%+v", m)
	}
	x, img, ok := s.Index(101)
	if !ok || x.Type != "FLAT" || string(img) != "an index" {
		t.Fatalf("%+v %q", x, img)
	}
	keys, ts, err := s.Deletes()
	if err != nil || !slices.Equal(keys.Int, []int64{3, 5}) || !slices.Equal(ts, []uint64{1 << 40, 1<<40 + 1}) {
		t.Fatalf("%+v, %v, %v", keys, ts, err)
	}
	for i := range int64(9) {
		if !s.MayHaveInt(i) {
			t.Fatalf("key %d is denied", i)
		}
	}
}

const goldenDir2 = "testdata/v2"

// TestSegmentsOfVersion2StayReadable: testdata/v2 is of fullSchema as it was then,
// which its manifest has.
func TestSegmentsOfVersion2StayReadable(t *testing.T) {
	if *writeGolden {
		if err := os.RemoveAll(goldenDir2); err != nil {
			t.Fatal(err)
		}
		meta := fullMeta()
		writeGoldenSegment(t, goldenDir2, meta, batch(&meta.Schema, 0, 9))
	}
	s := open(t, copyDir(t, goldenDir2))
	if err := s.Verify(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	m := s.Manifest()
	if m.Version != 2 || m.Rows != 9 {
		t.Fatalf("%+v", m)
	}
	checkRows(t, s, batch(&m.Schema, 0, 9))
}

func writeGoldenSegment(t *testing.T, dir string, meta Meta, rows *schema.Batch) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := Create(dir, meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteIndex(IndexMeta{FieldID: 101, Type: "FLAT", Metric: "L2"}, writeText("an index")); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteDeletes(&schema.Column{FieldID: 100, Type: schema.Int64, Int: []int64{3, 5}}, []uint64{1 << 40, 1<<40 + 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(context.Background()); err != nil {
		t.Fatal(err)
	}
}
