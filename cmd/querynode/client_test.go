package main

import (
	"bytes"
	le "encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// shell runs client commands against one node.
type shell struct {
	t       *testing.T
	environ []string
}

// served starts a node and returns a shell that finds it.
func served(t *testing.T) (*shell, *running) {
	t.Helper()
	r := startNode(t, testConfig(t))
	waitServing(t, r)
	return &shell{t: t, environ: []string{"QUERYNODE_ADDR=" + r.grpcLis.Addr().String()}}, r
}

// ok runs a command that must succeed and returns what it prints.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	code, out, errs := command(s.t, s.environ, args...)
	if code != exitOK {
		s.t.Fatalf("querynode %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	if strings.Contains(out+errs, "\x1b") {
		s.t.Errorf("querynode %s: escape sequences although nobody sits there:\n%q", strings.Join(args, " "), out+errs)
	}
	return out
}

// fails runs a command that must fail with a code and say all of want.
func (s *shell) fails(code int, want []string, args ...string) {
	s.t.Helper()
	got, _, errs := command(s.t, s.environ, args...)
	if got != code {
		s.t.Errorf("querynode %s: exit code %d, want %d", strings.Join(args, " "), got, code)
	}
	for _, w := range want {
		if !strings.Contains(errs, w) {
			s.t.Errorf("querynode %s: no %q in:\n%s", strings.Join(args, " "), w, errs)
		}
	}
}

// doc runs a command with --json and decodes the one document it prints.
func (s *shell) doc(args ...string) map[string]any {
	s.t.Helper()
	out := s.ok(append(args, "--json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return v
}

// fvecs writes n vectors of four values: row i is (i, i%7, i%3, 1).
func fvecs(t *testing.T, n int) string {
	t.Helper()
	var raw []byte
	for i := range n {
		raw = le.LittleEndian.AppendUint32(raw, 4)
		for _, v := range []float32{float32(i), float32(i % 7), float32(i % 3), 1} {
			raw = le.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
	}
	path := filepath.Join(t.TempDir(), "rows.fvecs")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

func TestTheLifeOfACollectionAtTheShell(t *testing.T) {
	sh, r := served(t)
	rows := fvecs(t, 300)

	contains(t, sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)", "--index", "v:HNSW:L2:M=8"), "created points", "FloatVector(4)", "HNSW L2 M=8")
	contains(t, sh.ok("insert", "points", rows, "--batch", "64"), "300 rows written to points")
	empty := filepath.Join(t.TempDir(), "empty.jsonl")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, sh.ok("insert", "points", empty), "nothing was written to points: there are no rows")
	sh.fails(exitError, []string{"got 0", "--field id:int64:pk"}, "collection", "create", "keyless", "--field", "v:vector(2)")
	sh.fails(exitError, []string{"at least one vector field", "vector(128)"}, "collection", "create", "flat", "--field", "id:int64:pk")
	if out := sh.ok("query", "points", "--count", "--consistency", "strong"); out != "300\n" {
		t.Errorf("count is %q", out)
	}
	// Once more, and nothing is there twice.
	sh.ok("insert", "points", rows, "--upsert")
	if n := sh.doc("query", "points", "--count", "--consistency", "strong")["count"]; n != 300.0 {
		t.Errorf("count is %v", n)
	}

	pages := 0
	for args := []string{"query", "points", "--limit", "128", "--pages", "1", "--json"}; ; pages++ {
		lines := strings.Split(strings.TrimSpace(sh.ok(args...)), "\n")
		var last struct {
			Token string `json:"next_token"`
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
			t.Fatal(err)
		}
		if last.Token == "" {
			break
		}
		args = []string{"query", "points", "--limit", "128", "--token", last.Token, "--json"}
	}
	if pages != 2 {
		t.Errorf("%d pages of 128 of 300 rows have one behind them", pages)
	}

	contains(t, sh.ok("search", "points", "--vector", "7, 0, 1, 1", "-k", "2"), "1  7   0.0000")
	contains(t, sh.ok("search", "points", "--id", "7", "--filter", "id != 7", "-k", "1", "--output-fields", "*"), "SCORE")
	lines := strings.Split(strings.TrimSpace(sh.ok("search", "points", "--vectors", rows, "-k", "1", "--json")), "\n")
	if len(lines) != 300 {
		t.Errorf("%d answers to 300 vectors", len(lines))
	}
	for i, line := range lines {
		var a struct {
			Query string
			Hits  []struct{ ID int64 }
		}
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		if a.Query != strconv.Itoa(i) || len(a.Hits) != 1 || a.Hits[0].ID != int64(i) {
			t.Fatalf("answer %d: %s", i, line)
		}
	}

	contains(t, sh.ok("query", "points", "--filter", "id in [3, 5]"), "3\n", "5\n")
	contains(t, sh.ok("delete", "points", "--filter", "id >= 200"), "deleted 100 keys")
	contains(t, sh.ok("delete", "points", "--ids", "1,2"), "deleted 2 keys")
	contains(t, sh.ok("delete", "points", "--filter", "id == 200"), "nothing to delete")
	contains(t, sh.ok("flush", "points", "--wait"), "sealed 1 segment of points, 1 stored")
	if out := sh.ok("query", "points", "--count", "--consistency", "strong"); out != "198\n" {
		t.Errorf("after the deletes count is %q", out)
	}

	sh.ok("release", "points")
	sh.fails(exitError, []string{"not loaded", "next: load it"}, "search", "points", "--vector", "1 2 3 4")
	contains(t, sh.ok("load", "points"), "loaded 1 segment of points, ")

	contains(t, sh.ok("status"), "is serving", "points", "loaded", "tailing", "consumers")
	st := sh.doc("status")
	if st["state"] != "serving" || len(st["segments"].([]any)) != 1 || len(st["channels"].([]any)) != 1 {
		t.Errorf("status: %v", st)
	}
	contains(t, sh.ok("consumers"), "reading", "0 leaked")
	contains(t, sh.ok("collection", "list"), "points")
	contains(t, sh.ok("collection", "describe", "points"), "primary key", "_default", "HNSW L2")

	// The node is found by its folder, too.
	sh.environ = nil
	contains(t, sh.ok("status", "--data-dir", r.cfg.Node.DataDir), "is serving")
	sh.fails(exitUsage, []string{"--yes"}, "collection", "drop", "points", "--data-dir", r.cfg.Node.DataDir)
	sh.ok("collection", "drop", "points", "--yes", "--data-dir", r.cfg.Node.DataDir)
}

func TestErrorsSayWhatIsWrongAndWhatToDo(t *testing.T) {
	sh, r := served(t)
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)", "--index", "v:HNSW:L2")
	rows := fvecs(t, 3)
	for _, c := range []struct {
		code int
		want []string
		args []string
	}{
		{exitError, []string{`unknown field "agee"`, "    id > 1 and agee < 3\n", "\n               ^\n", "next:"}, []string{"query", "points", "--filter", "id > 1 and agee < 3"}},
		{exitError, []string{`"nope"`, "collection list"}, []string{"search", "nope", "--vector", "1"}},
		{exitError, []string{`"my_partition"`, "querynode collection list"}, []string{"search", "my_partition", "--vector", "1"}},
		{exitError, []string{"2 values", "vectors of 4"}, []string{"search", "points", "--vector", "1 2"}},
		{exitError, []string{"no row with the key 9"}, []string{"search", "points", "--id", "9"}},
		{exitError, []string{`"x" is not a key`, "whole numbers"}, []string{"delete", "points", "--ids", "x"}},
		{exitError, []string{"points", "choose another name"}, []string{"collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)"}},
		{exitError, []string{"no node answers at 127.0.0.1:1", "connection refused", "querynode serve"}, []string{"status", "--addr", "127.0.0.1:1"}},
		{exitError, []string{"node.json", "--addr"}, []string{"status", "--data-dir", t.TempDir()}},
		{exitError, []string{"has not answered in time", "--timeout"}, []string{"status", "--timeout", "1ns"}},
		{exitError, []string{"no vector field", "v"}, []string{"search", "points", "--field", "w", "--vector", "1"}},
		{exitUsage, []string{"want HOST:PORT", "localhost:19530"}, []string{"status", "--addr", "localhost"}},
		{exitUsage, []string{"want HOST:PORT", "9091"}, []string{"health", "--addr", "localhost"}},
		{exitError, []string{"does not speak HTTP", "admin port"}, []string{"health", "--addr", r.grpcLis.Addr().String()}},
		{exitError, []string{"nobody listens at 127.0.0.1:1", "--data-dir"}, []string{"health", "--addr", "127.0.0.1:1"}},
		{exitError, []string{`"nope"`, "collection describe"}, []string{"query", "points", "--output-fields", "nope"}},
		{exitError, []string{"segment 7", "querynode status"}, []string{"load", "points", "--segment", "7"}},
		{exitError, []string{`no partition "p1"`, "querynode partition create"}, []string{"insert", "points", rows, "--partition", "p1"}},
		{exitError, []string{`no partition "p1"`, "querynode partition list"}, []string{"partition", "drop", "points", "p1", "--yes"}},
		{exitError, []string{"no index", "querynode index describe"}, []string{"index", "drop", "points", "nope"}},
		{exitError, []string{"drop it first", "querynode index drop"}, []string{"index", "create", "points", "v:FLAT:L2"}},
		{exitUsage, []string{"--yes"}, []string{"partition", "drop", "points", "p1"}},
		{exitUsage, []string{"--property, --remove or --rename"}, []string{"collection", "alter", "points"}},
		{exitUsage, []string{"--format"}, []string{"insert", "points", "-"}},
		{exitUsage, []string{"want a finite number"}, []string{"search", "points", "--vector", "1 2 x 4"}},
		{exitUsage, []string{"--vector, --vectors, --text or --id"}, []string{"search", "points"}},
		{exitUsage, []string{"--ids or --filter"}, []string{"delete", "points"}},
		{exitUsage, []string{"--consistency session"}, []string{"query", "points", "--guarantee", "7"}},
		{exitUsage, []string{"--field, --schema or --from"}, []string{"collection", "create", "x"}},
	} {
		sh.fails(c.code, c.want, c.args...)
	}
}

func TestPartitionsAliasesIndexesAndProperties(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)")
	contains(t, sh.ok("partition", "create", "points", "even"), "created partition even of points")
	sh.ok("insert", "points", fvecs(t, 10), "--partition", "even")
	contains(t, sh.ok("partition", "list", "points"), "_default", "even")
	if out := sh.ok("query", "points", "--partition", "even", "--count", "--consistency", "strong"); out != "10\n" {
		t.Errorf("the partition has %q rows, want 10", out)
	}

	contains(t, sh.ok("alias", "create", "dots", "points"), "dots is points")
	contains(t, sh.ok("alias", "list"), "dots", "points")
	if a := sh.doc("alias", "list", "points"); a["dots"] != "points" {
		t.Errorf("aliases: %v", a)
	}
	sh.ok("collection", "create", "others", "--field", "id:int64:pk", "--field", "v:vector(4)")
	sh.ok("alias", "alter", "dots", "others")
	if a := sh.doc("alias", "list", "others"); a["dots"] != "others" {
		t.Errorf("after alias alter: %v", a)
	}
	sh.ok("alias", "drop", "dots")
	contains(t, sh.ok("alias", "list"), "no aliases")

	contains(t, sh.ok("index", "create", "points", "v:HNSW:L2:M=8", "--name", "graph"), "graph", "HNSW L2 M=8")
	contains(t, sh.ok("index", "describe", "points"), "graph", "HNSW L2 M=8")
	sh.ok("index", "drop", "points", "graph")
	if out := sh.ok("index", "describe", "points"); strings.Contains(out, "graph") {
		t.Errorf("the index that was dropped is there:\n%s", out)
	}

	contains(t, sh.ok("collection", "alter", "points", "--property", "collection.retention.seconds=60", "--property", "owner=me"), "owner = me")
	c := sh.doc("collection", "alter", "points", "--remove", "owner", "--rename", "spots")
	if p := c["properties"].(map[string]any); p["collection.retention.seconds"] != "60" || p["owner"] != nil || c["name"] != "spots" {
		t.Errorf("after collection alter: %v", c)
	}

	sh.ok("partition", "drop", "spots", "even", "--yes")
	if out := sh.ok("query", "spots", "--count", "--consistency", "strong"); out != "0\n" {
		t.Errorf("rows of a partition that was dropped are there: %q", out)
	}
	if state := sh.doc("dump"); len(state) == 0 {
		t.Error("the state of the node is empty")
	}
}

// A node that is not its own coordinator is told what to do.
func TestLogsAndChannelsArePlacedAtTheShell(t *testing.T) {
	r := startNode(t, testConfig(t, "node.standalone=false", "queue.pchannels=1"))
	waitServing(t, r)
	sh := &shell{t: t, environ: []string{"QUERYNODE_ADDR=" + r.grpcLis.Addr().String()}}
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)")
	contains(t, sh.ok("channel", "assign", "querynode-dml-0"), "owns the log of querynode-dml-0 with term 1")
	contains(t, sh.ok("channel", "watch", "points"), "watched of points: querynode-dml-0_")
	sh.ok("insert", "points", fvecs(t, 3))
	if out := sh.ok("query", "points", "--count", "--consistency", "strong"); out != "3\n" {
		t.Errorf("count is %q", out)
	}
	if got := sh.doc("channel", "unwatch", "points")["vchannels"]; len(got.([]any)) != 1 {
		t.Errorf("unwatched %v", got)
	}
	contains(t, sh.ok("channel", "unwatch", "points"), "no channels of points were watched")
	contains(t, sh.ok("channel", "remove", "querynode-dml-0"), "does not own the log of querynode-dml-0")
	sh.fails(exitError, nil, "insert", "points", fvecs(t, 3), "--timeout", "10s")
}

func TestAnInterruptedInsertTellsWhatIsSafe(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)")
	path := fvecs(t, 100)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(raw[60*20+4:], []byte{0, 0, 0xc0, 0x7f}) // NaN in row 60
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	sh.fails(exitError, []string{"row 60", "50 rows written before, and safe", "--upsert"}, "insert", "points", path, "--batch", "50")
	if out := sh.ok("query", "points", "--count", "--consistency", "strong"); out != "50\n" {
		t.Errorf("count is %q", out)
	}
}

// help returns what --help prints. The parser ends the process then; here it
// ends a goroutine.
func help(args ...string) string {
	var out bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(&app{stdout: &out, stderr: &out}, append(args, "--help"), func(int) { runtime.Goexit() })
	}()
	<-done
	return out.String()
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, args := range []string{"quickstart", "status", "consumers", "load", "release", "insert", "delete", "flush", "search", "query",
		"collection create", "collection list", "collection describe", "collection drop", "collection alter", "partition create", "partition list", "partition drop",
		"alias create", "alias alter", "alias list", "alias drop", "index create", "index describe", "index drop", "log-level", "dump",
		"channel assign", "channel remove", "channel watch", "channel unwatch", "segment build", "segment inspect", "segment verify", "bench index", "bench serve"} {
		out := help(strings.Fields(args)...)
		if !strings.Contains(out, "Example:") || !strings.Contains(out, "querynode "+args) {
			t.Errorf("querynode %s --help shows no example", args)
		}
	}
}

func TestANodeWithTLS(t *testing.T) {
	certFile, keyFile := writeCertificate(t, t.TempDir(), 1, 0)
	r := startNode(t, testConfig(t, "grpc.tls_cert="+certFile, "grpc.tls_key="+keyFile))
	waitServing(t, r)
	sh := &shell{t: t, environ: []string{"QUERYNODE_ADDR=" + r.grpcLis.Addr().String()}}
	contains(t, sh.ok("status", "--tls-ca", certFile), "is serving")
	sh.fails(exitError, []string{"--tls-ca"}, "status", "--tls", "--timeout", "5s") // nobody trusts it
	sh.fails(exitError, []string{"--tls"}, "status", "--timeout", "5s")
	// The folder says that the node speaks TLS; only whom to trust is left to say.
	sh.fails(exitError, []string{"trust the certificate", "--tls-ca"}, "status", "--data-dir", r.cfg.Node.DataDir, "--timeout", "5s")
	contains(t, sh.ok("status", "--data-dir", r.cfg.Node.DataDir, "--tls-ca", certFile), "is serving")
}
