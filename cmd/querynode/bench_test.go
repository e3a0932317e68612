package main

import (
	"bytes"
	enc "encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// cloud writes n random vectors as .fvecs and returns the file and the vectors.
func cloud(t *testing.T, seed uint64, n, dim int) (string, *matrix) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	m := &matrix{dim: dim}
	var raw []byte
	for range n {
		raw = enc.LittleEndian.AppendUint32(raw, uint32(dim))
		for range dim {
			v := float32(rng.NormFloat64())
			m.values = append(m.values, v)
			raw = enc.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
	}
	path := filepath.Join(t.TempDir(), "cloud.fvecs")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, m
}

// nearestOf finds the k nearest rows by sorting none of it away.
func nearestOf(m index.Metric, base *matrix, q []float32, k int) []int32 {
	var out []int32
	taken := map[int]bool{}
	for range k {
		best, at := math.Inf(1), -1
		for r := range base.rows() {
			if d := exactDistance(m, q, base.row(r)); !taken[r] && d < best {
				best, at = d, r
			}
		}
		taken[at] = true
		out = append(out, int32(at))
	}
	return out
}

// ivecs writes the k nearest rows of each query.
func ivecs(t *testing.T, m index.Metric, base, queries *matrix, k int) string {
	t.Helper()
	var raw []byte
	for q := range queries.rows() {
		raw = enc.LittleEndian.AppendUint32(raw, uint32(k))
		for _, r := range nearestOf(m, base, queries.row(q), k) {
			raw = enc.LittleEndian.AppendUint32(raw, uint32(r))
		}
	}
	path := filepath.Join(t.TempDir(), "truth.ivecs")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBenchIndexMeasuresWhatItSays(t *testing.T) {
	sh := &shell{t: t}
	baseFile, base := cloud(t, 1, 1200, 12)
	queryFile, queries := cloud(t, 2, 20, 12)
	for _, c := range []struct {
		metric string
		args   []string
	}{
		{"l2", []string{"--index", "hnsw", "--threads", "2"}},
		{"cosine", []string{"--index", "HNSW", "--truth", ivecs(t, index.Cosine, base, queries, 10)}},
		{"ip", []string{"--index", "FLAT"}},
		{"l2", []string{"--filter-share", "0.1", "--filter-shape", "clustered", "--index", "HNSW"}},
		{"l2", []string{"--filter-share", "0.3", "--filter-new", "--default-effort", "--index", "SCANN"}},
	} {
		args := append([]string{"bench", "index", "--base", baseFile, "--queries", queryFile, "--metric", c.metric,
			"--recall", "0.5,0.95", "--seconds", "0.001", "--batch", "7", "--m", "8", "--ef-construction", "40", "--dir", t.TempDir()}, c.args...)
		out := sh.ok(append(args, "--json")...)
		var f indexFigures
		if err := json.Unmarshal([]byte(out), &f); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		q, single := f.QPSBatch["0.95"], f.QPS["0.95"]
		if f.Found["0.95"] < 0.95 || q == nil || *q <= 0 || single == nil || *single <= 0 {
			t.Errorf("%v: recall 0.95 measured at %v: %s", c.args, f.Found["0.95"], out)
		}
		if asked := slices.Contains(c.args, "--default-effort"); asked != (f.QPS["default"] != nil) || asked && f.Found["default"] < 0.9 || f.New != slices.Contains(c.args, "--filter-new") {
			t.Errorf("%v: %s", c.args, out)
		}
		if f.Rows != 1200 || f.Dim != 12 || f.DiskBytes < 48 || f.LoadSeconds <= 0 || f.Kind == "FLAT" && f.Found["0.5"] != 1 {
			t.Errorf("%v: %s", c.args, out)
		}
		var plain map[string]any
		if err := json.Unmarshal([]byte(out), &plain); err != nil || strings.Count(strings.TrimSpace(out), "\n") != 0 {
			t.Errorf("not one line of JSON: %v\n%s", err, out)
		}
		for _, key := range []string{"qps", "build_s", "build_cpu_s", "disk_bytes_per_vector", "resident_bytes_per_vector", "load_s", "params"} {
			if _, ok := plain[key]; !ok {
				t.Errorf("%v: no %q in %s", c.args, key, out)
			}
		}
	}
	contains(t, sh.ok("bench", "index", "--base", baseFile, "--queries", queryFile, "--metric", "l2", "--seconds", "0.001", "--recall", "0.9"), "RECALL", "BUILD_S")
}

// TestBenchIndexSaysWhatAQueryReads, how fast that may be at best, and where the time goes.
func TestBenchIndexSaysWhatAQueryReads(t *testing.T) {
	sh := &shell{t: t}
	baseFile, _ := cloud(t, 1, 3000, 16)
	queryFile, _ := cloud(t, 2, 20, 16)
	profile := filepath.Join(t.TempDir(), "cpu.prof")
	out := sh.ok("bench", "index", "--base", baseFile, "--queries", queryFile, "--metric", "l2", "--recall", "0.9", "--seconds", "0.01", "--dir", t.TempDir(),
		"--index", "hnsw_sq", "--threads", "2", "--bound", "--cpu-profile", profile, "--json")
	var f indexFigures
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e := f.Work["0.9"]
	if e == nil || e.Bound == nil || e.Share == nil || len(e.Reads) < 3 {
		t.Fatalf("%s", out)
	}
	bytes, took := 0.0, 0.0
	for _, r := range e.Reads {
		bytes, took = bytes+r.Count*float64(r.Bytes), took+r.Count**r.NS
	}
	if e.Rows <= e.Ranked || e.Rows >= 3000 || e.Ranked < 10 || e.Hops < 1 || math.Abs(bytes-e.Bytes) > 0.05*bytes {
		t.Errorf("%+v", e)
	}
	if bound := 2e9 / took; math.Abs(bound-*e.Bound) > 0.05*bound || math.Abs(*f.QPS["0.9"] / *e.Bound - *e.Share) > 0.001 {
		t.Errorf("bound %v, share %v: %s", *e.Bound, *e.Share, out)
	}
	if raw, err := os.ReadFile(profile); err != nil || len(raw) == 0 {
		t.Errorf("profile: %d bytes, %v", len(raw), err)
	}
	sh.fails(exitUsage, []string{"--bound"}, "bench", "index", "--base", baseFile, "--queries", queryFile, "--metric", "l2", "--bound", "--filter-share", "0.1")
	sh.fails(exitUsage, []string{"--filter-new"}, "bench", "index", "--base", baseFile, "--queries", queryFile, "--metric", "l2", "--filter-new")
}

func TestBenchMemory(t *testing.T) {
	sh := &shell{t: t}
	var f memoryFigures
	out := sh.ok("bench", "memory", "--mib", "1", "--sizes", "64,4096", "--threads", "1", "--json")
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(f.Reads) != 2 || len(f.Streams) != 1 || f.Streams[0].GB <= 0 {
		t.Fatalf("%s", out)
	}
	for _, r := range f.Reads {
		if r.Small <= 0 || r.Huge <= 0 || r.GB <= 0 || r.Threads != 1 {
			t.Errorf("%+v", r)
		}
	}
	for _, args := range [][]string{{"--mib", "0"}, {"--sizes", "0"}, {"--mib", "1", "--sizes", "2000000"}, {"--threads", "0"}} {
		sh.fails(exitUsage, []string{args[len(args)-2]}, append([]string{"bench", "memory"}, args...)...)
	}
}

func TestBenchIndexRefuses(t *testing.T) {
	sh := &shell{t: t}
	base, _ := cloud(t, 1, 30, 4)
	wide, _ := cloud(t, 1, 3, 5)
	_, rows := cloud(t, 1, 300, 4)
	far := ivecs(t, index.L2, rows, &matrix{values: rows.row(299), dim: 4}, 3)
	dir := t.TempDir()
	for _, c := range []struct {
		want string
		args []string
	}{
		{"metric", []string{"--base", base, "--queries", base, "--metric", "hamming"}},
		{"dimension", []string{"--base", base, "--queries", wide, "--metric", "l2"}},
		{"want at least 10 of 30", []string{"--base", base, "--queries", base, "--metric", "l2", "--truth", far}},
		{"there are 30 rows", []string{"--base", base, "--queries", base, "--query-limit", "1", "-k", "3", "--metric", "l2", "--truth", far}},
		{"leave it out", []string{"--base", base, "--queries", base, "--metric", "l2", "--truth", far, "--filter-share", "0.5"}},
		{"--recall", []string{"--base", base, "--queries", base, "--metric", "l2", "--recall", "1.5"}},
	} {
		sh.fails(exitUsage, []string{c.want}, append([]string{"bench", "index", "--dir", dir}, c.args...)...)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBenchServeMeasuresANode(t *testing.T) {
	sh, _ := served(t)
	baseFile, base := cloud(t, 1, 600, 8)
	queryFile, queries := cloud(t, 2, 12, 8)
	sh.ok("collection", "create", "c", "--from", baseFile, "--index", "vector:HNSW:L2")
	sh.ok("insert", "c", baseFile)
	args := []string{"bench", "serve", "--collection", "c", "--queries", queryFile, "--duration", "50ms", "--concurrency", "4", "--consistency", "strong"}
	for _, more := range [][]string{
		{"--truth", ivecs(t, index.L2, base, queries, 10), "--recall", "0.95"},
		{"--nq", "3", "--connections", "2", "--ef", "200"}, // asks the node for exact answers
	} {
		got := sh.doc(append(args, more...)...)
		if got["recall"].(float64) < 0.95 || got["qps"].(float64) <= 0 || got["p99_ms"].(float64) <= 0 || got["errors"].(float64) != 0 {
			t.Errorf("%v: %v", more, got)
		}
		for _, key := range []string{"p50_ms", "p95_ms", "server_cpu_s_per_1k"} {
			if _, ok := got[key]; !ok {
				t.Errorf("no %q in %v", key, got)
			}
		}
	}
	turns := filepath.Join(t.TempDir(), "filters.txt")
	write := func(lines string) {
		if err := os.WriteFile(turns, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// More than there are queries, and one that few rows match.
	write(strings.Repeat("id % 2 == 0\nid % 2 == 1\n\n", 10) + "id < 12\n")
	if got := sh.doc(append(args, "--filters", turns)...); got["recall"].(float64) < 0.95 || got["errors"].(float64) != 0 {
		t.Errorf("filters in turn: %v", got)
	}
	sh.fails(exitUsage, []string{"give one of them"}, append(args, "--filters", turns, "--filter", "id > 1")...)
	write("\n \n")
	sh.fails(exitUsage, []string{"has no filter"}, append(args, "--filters", turns)...)
	write("id > 1\nid >\n")
	sh.fails(exitError, nil, append(args, "--filters", turns)...)
	contains(t, sh.ok(args...), "QPS", "SERVER_CPU_S/1K")
	sh.fails(exitError, nil, "bench", "serve", "--collection", "nope", "--queries", queryFile, "--duration", "10ms")
	sh.fails(exitUsage, []string{"--recall chooses --ef"}, append(args, "--recall", "0.9", "--ef", "5")...)
	sh.fails(exitUsage, []string{"--recall chooses --ef or --nprobe"}, append(args, "--recall", "0.9", "--nprobe", "5")...)
	sh.fails(exitUsage, []string{"--nprobe: want 0"}, append(args, "--nprobe=-5")...)
	sh.fails(exitUsage, []string{"there are 12 query vectors"}, append(args, "--nq", "13")...)
}

// TestBenchServeReadsListsAsItsIndexHasThem: nprobe is what is chosen for
// lists, not ef.
func TestBenchServeReadsListsAsItsIndexHasThem(t *testing.T) {
	sh, _ := served(t)
	baseFile, base := cloud(t, 1, 3000, 16)
	queryFile, queries := cloud(t, 2, 12, 16)
	truth := ivecs(t, index.L2, base, queries, 10)
	for name, c := range map[string]struct {
		index string
		lists bool
	}{"lists": {"vector:SCANN:L2", true}, "graph": {"vector:HNSW_SQ:L2", false}} {
		sh.ok("collection", "create", name, "--from", baseFile, "--index", c.index)
		sh.ok("insert", name, baseFile)
		sh.ok("flush", name, "--wait")
		sh.ok("release", name)
		sh.ok("load", name)
		args := []string{"bench", "serve", "--collection", name, "--queries", queryFile, "--duration", "1ms", "--concurrency", "1", "--consistency", "strong", "--truth", truth}
		got := sh.doc(append(args, "--recall", "0.9")...)
		if n, ef := got["nprobe"].(float64), got["ef"].(float64); (n > 0) != c.lists || (ef > 0) == c.lists || got["recall"].(float64) < 0.9 {
			t.Errorf("%s: %v", name, got)
		}
		if !c.lists {
			continue
		}
		one, all := sh.doc(append(args, "--nprobe", "1")...), sh.doc(append(args, "--nprobe", "1000")...)
		if few, most := one["recall"].(float64), all["recall"].(float64); few >= most || most < 0.95 {
			t.Errorf("one list finds %v, all %v", few, most)
		}
	}
}

func TestTruthFilesOfAllKinds(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	npyFile := func(descr, shape string, data ...byte) []byte {
		head := "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + shape + "), }"
		head += strings.Repeat(" ", 117-len(head)) + "\n"
		return append(append([]byte("\x93NUMPY\x01\x00\x76\x00"), head...), data...)
	}
	four := bytes.Repeat([]byte{7, 0, 0, 0}, 6)
	eight := bytes.Repeat([]byte{7, 0, 0, 0, 0, 0, 0, 0}, 6)
	for name, b := range map[string][]byte{
		"a.npy": npyFile("<i4", "2, 3", four...), "b.npy": npyFile("<i8", "2, 3", eight...),
		"c.ivecs": append(append(append([]byte{3, 0, 0, 0}, four[:12]...), 3, 0, 0, 0), four[:12]...),
	} {
		got, err := readTruth(write(name, b))
		if err != nil || got.k != 3 || len(got.rows) != 6 || got.of(1, 2)[1] != 7 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"floats.npy": npyFile("<f4", "2, 3", four...), "short.npy": npyFile("<i4", "2, 3", four[:20]...), "huge.npy": npyFile("<i4", "1000000000, 1000000", four...),
		"empty.ivecs": {}, "cut.ivecs": {3, 0, 0, 0, 1}, "mixed.ivecs": {1, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0},
		"negative.ivecs": {255, 255, 255, 255}, "text.txt": []byte("1 2 3"), "none.npy": {},
	} {
		if got, err := readTruth(write(name, b)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func TestQuantiles(t *testing.T) {
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	if e := efforts(); e[0] != 1 || e[1] != 2 || e[len(e)-1] < 10_000 {
		t.Errorf("efforts %v", e)
	}
	if e := serveEfforts(10); e[0] != 10 || e[1] != 12 {
		t.Errorf("ef %v", e)
	}
	if e := serveEfforts(1); e[0] != 1 || e[1] != 2 || e[2] != 3 || e[len(e)-1] > 4096 {
		t.Errorf("nprobe %v", e)
	}
}
