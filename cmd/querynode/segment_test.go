package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

func TestASegmentBuiltHereIsLoadedThere(t *testing.T) {
	sh, r := served(t)
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)", "--field", "note:varchar(9):nullable", "--index", "v:HNSW:L2")
	dir := filepath.Join(t.TempDir(), "segment")
	bucket := "file://" + filepath.Join(r.cfg.Node.DataDir, "objects")
	built := sh.doc("segment", "build", "--out", dir, "--input", fvecs(t, 500), "--collection", "points", "--storage", bucket)
	if built["rows"] != 500.0 {
		t.Fatalf("built: %v", built)
	}
	contains(t, sh.ok("segment", "verify", dir), "all 4 files are as they were written")
	contains(t, sh.ok("segment", "inspect", dir), "500 rows", "HNSW L2 M=16 efConstruction=200", "id (key)", "499", "vector")

	contains(t, sh.ok("load", "points", "--path", built["path"].(string)), "500 rows")
	if out := sh.ok("query", "points", "--count", "--consistency", "strong"); out != "500\n" {
		t.Errorf("count is %q", out)
	}
	contains(t, sh.ok("search", "points", "--id", "77", "-k", "1"), "77")
}

func TestSegmentBuildRefusesWhatNoNodeCouldLoad(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "wide", "--field", "id:int64:pk", "--field", "v:vector(4)", "--shards", "2")
	sh.ok("collection", "create", "given", "--field", "id:int64:pk:auto", "--field", "v:vector(4)")
	sh.ok("collection", "create", "other", "--field", "id:int64:pk", "--field", "v:vector(5)")
	sh.ok("collection", "create", "l2", "--field", "id:int64:pk", "--field", "v:vector(4)", "--index", "v:HNSW:L2")
	for name, want := range map[string]string{"wide": "2 shards", "given": "gives the keys", "other": "no column for field \"v\"", "nope": "collection list"} {
		out := filepath.Join(t.TempDir(), "s")
		sh.fails(exitError, []string{want}, "segment", "build", "--out", out, "--input", fvecs(t, 3), "--collection", name)
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a folder was left", name)
		}
	}
	sh.fails(exitError, []string{"is searched with L2"}, "segment", "build", "--out", filepath.Join(t.TempDir(), "s"), "--input", fvecs(t, 3), "--collection", "l2", "--metric", "IP")
	sh.fails(exitUsage, []string{"go with --collection"}, "segment", "build", "--out", "x", "--input", fvecs(t, 3), "--storage", "file:///x")
}

// TestSegmentBuildRefusesNumbersThatAreNotFinite: by itself, and of a number that is too large for its field.
func TestSegmentBuildRefusesNumbersThatAreNotFinite(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "ratios", "--field", "id:int64:pk", "--field", "v:vector(2)", "--field", "ratio:float:nullable")
	type row struct {
		ID    int64     `parquet:"id"`
		V     []float32 `parquet:"v"`
		Ratio float64   `parquet:"ratio"`
	}
	rows := make([]row, buildRows+2)
	for i := range rows {
		rows[i] = row{int64(i), []float32{1, 2}, 0.5}
	}
	file := func(last float64) string {
		rows[buildRows+1].Ratio = last
		path := filepath.Join(t.TempDir(), "rows.parquet")
		if err := parquet.WriteFile(path, rows); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for says, last := range map[string]float64{"NaN": math.NaN(), "+Inf": 1e39} {
		path := file(last)
		sh.fails(exitError, []string{"rows from 4096", `field "ratio": row 1 is ` + says}, "segment", "build", "--out", filepath.Join(t.TempDir(), "s"), "--input", path, "--collection", "ratios")
		sh.fails(exitError, []string{`field "ratio": row 1 is ` + says}, "insert", "ratios", path, "--batch", strconv.Itoa(buildRows))
	}
	sh.fails(exitError, []string{"row 1 is +Inf"}, "segment", "build", "--out", filepath.Join(t.TempDir(), "s"), "--input", file(math.Inf(1)))
	sh.ok("segment", "build", "--out", filepath.Join(t.TempDir(), "s"), "--input", file(0), "--collection", "ratios", "--index", "FLAT")
}

func TestVerifyNamesFileAndBlock(t *testing.T) {
	sh := &shell{t: t}
	dir := filepath.Join(t.TempDir(), "segment")
	sh.ok("segment", "build", "--out", dir, "--input", fvecs(t, 70_000), "--index", "FLAT", "--metric", "L2", "--segment-id", "9")
	if doc := sh.doc("segment", "verify", dir); doc["ok"] != true || doc["segment_id"] != 9.0 {
		t.Errorf("verify: %v", doc)
	}
	var vectors string
	for _, name := range files(t, dir) {
		if strings.HasSuffix(name, ".npy") {
			vectors = filepath.Join(dir, name)
		}
	}
	f, err := os.OpenFile(vectors, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 1<<20+17); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	sh.fails(exitError, []string{filepath.Base(vectors), "block 1", "next:"}, "segment", "verify", dir)
	code, out, _ := command(t, nil, "segment", "verify", dir, "--json")
	if code != exitError || !strings.Contains(out, `"ok": false`) {
		t.Errorf("verify --json: exit code %d\n%s", code, out)
	}
	sh.fails(exitError, []string{"no segment", "manifest.json"}, "segment", "inspect", t.TempDir())
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSegmentIDsMadeUpHereMeetNoNodes(t *testing.T) {
	sh := &shell{t: t}
	a := sh.doc("segment", "build", "--out", filepath.Join(t.TempDir(), "a"), "--input", fvecs(t, 2))
	id, err := strconv.ParseFloat(strings.TrimSpace(jsonNumber(a["segment_id"])), 64)
	if err != nil || id < 1<<52 || id >= 1<<53 {
		t.Errorf("segment id %v, want one from 2^52 that any JSON reader can hold", a["segment_id"])
	}
}

func jsonNumber(v any) string { return strconv.FormatFloat(v.(float64), 'f', -1, 64) }
