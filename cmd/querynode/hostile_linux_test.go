package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// memoryCgroup makes a cgroup with so much memory, of either version; "" if this
// machine does not let us.
func memoryCgroup(t *testing.T, bytes int64) string {
	t.Helper()
	name := fmt.Sprintf("querynode-test-%d", os.Getpid())
	for _, v := range [][2]string{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		if _, err := os.Stat(filepath.Join(v[0], "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(v[0], name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // its processes have ended by then
		if os.WriteFile(filepath.Join(dir, v[1]), []byte(strconv.FormatInt(bytes, 10)), 0o644) == nil {
			return dir
		}
	}
	return ""
}

// hostile is a node that is short of memory, and clients that do not care.
type hostile struct {
	t       *testing.T
	p       *process
	addr    string
	group   string // its cgroup; "" = none
	query   qnpb.QueryServiceClient
	write   qnpb.WriteServiceClient
	control qnpb.ControlServiceClient
	catalog qnpb.CatalogServiceClient
	rows    int64

	mu    sync.Mutex
	codes map[string]map[codes.Code]int
}

const hostileDim = 256

func hostileVector(id int64) []float32 {
	r := rand.New(rand.NewPCG(uint64(id), 3))
	v := make([]float32, hostileDim)
	for i := range v {
		v[i] = float32(r.IntN(17) - 8)
	}
	return v
}

func hostileVectors(ids ...int64) *qnpb.FloatVectors {
	out := &qnpb.FloatVectors{Dim: hostileDim}
	for _, id := range ids {
		out.Values = append(out.Values, hostileVector(id)...)
	}
	return out
}

func idsFrom(from, n int64) (ids []int64) {
	for i := range n {
		ids = append(ids, from+i)
	}
	return ids
}

// startHostile starts a node in a cgroup of its own, if there may be one, and opens a
// collection on it. limit 0 = what the node makes of its cgroup.
func startHostile(t *testing.T, cgroup, limit int64) *hostile {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, dir: dir, stderr: &buffer{grew: make(chan struct{}, 1)}, done: make(chan struct{})}
	args := []string{binary, "serve", "--data-dir", dir, "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--set", "growing.build_workers=1"}
	group := memoryCgroup(t, cgroup)
	if limit == 0 && group == "" {
		limit = cgroup / 4 * 3
	}
	if limit > 0 {
		args = append(args, "--set", fmt.Sprintf("memory.limit=%d", limit))
	}
	if group == "" {
		t.Logf("no cgroup with %d bytes here: the node is told", cgroup)
		args = append(args, "--set", fmt.Sprintf("memory.go_limit=%d", cgroup/10*9))
	} else {
		args = append([]string{"/bin/sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group}, args...)
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = []string{"HOME=" + dir}
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	p.waitFor(`"serving"`)
	info, err := readNodeInfo(dir)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(info.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	h := &hostile{t: t, p: p, addr: info.GRPCAddr, group: group, query: qnpb.NewQueryServiceClient(conn), write: qnpb.NewWriteServiceClient(conn),
		control: qnpb.NewControlServiceClient(conn), catalog: qnpb.NewCatalogServiceClient(conn), codes: map[string]map[codes.Code]int{}}
	_, err = h.catalog.CreateCollection(h.within(), &qnpb.CreateCollectionRequest{Name: "items", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "note", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 1000},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: hostileDim},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hostile) within() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *hostile) insert(ids []int64) error {
	var notes []string
	for _, id := range ids {
		notes = append(notes, fmt.Sprintf("note %d: %s", id, strings.Repeat("x", 80)))
	}
	_, err := h.write.Append(h.within(), &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: int64(len(ids)), Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
			{Field: "note", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: notes}}},
			{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: hostileVectors(ids...)}},
		}}}})
	return err
}

func (h *hostile) delete(id int64) error {
	_, err := h.write.Append(h.within(), &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{
		Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: []int64{id}}}}}}})
	return err
}

// fill inserts rows, each batch until it is taken.
func (h *hostile) fill(rows int64) {
	h.t.Helper()
	defer func() { h.rows = rows }()
	for h.rows < rows {
		switch err := h.insert(idsFrom(h.rows, 500)); status.Code(err) {
		case codes.OK:
			h.rows += 500
		case codes.ResourceExhausted:
			time.Sleep(50 * time.Millisecond) // segments are being stored
		default:
			h.t.Fatalf("insert: %v\n%s", err, h.p.stderr)
		}
	}
}

// drain reads a streamed answer to its end.
func drain(s qnpb.QueryService_QueryClient, err error) error {
	for err == nil {
		_, err = s.Recv()
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// attacks are requests that would take far more memory than there is.
func (h *hostile) attacks() map[string]func(ctx context.Context) error {
	search := func(nq, k int64, change func(*qnpb.SearchRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			r := &qnpb.SearchRequest{Collection: "items", TopK: k, Vectors: hostileVectors(idsFrom(0, nq)...)}
			if change != nil {
				change(r)
			}
			_, err := h.query.Search(ctx, r)
			return err
		}
	}
	query := func(r *qnpb.QueryRequest) func(context.Context) error {
		r.Collection = "items"
		return func(ctx context.Context) error { return drain(h.query.Query(ctx, r)) }
	}
	return map[string]func(context.Context) error{
		"many neighbours of many":  search(500, 16_384, nil),
		"vectors of many":          search(8, 2000, func(r *qnpb.SearchRequest) { r.OutputFields = []string{"v", "note"} }),
		"groups":                   search(8, 300, func(r *qnpb.SearchRequest) { r.GroupByField, r.GroupSize, r.StrictGroupSize = "note", 50, true }),
		"a page":                   search(1, 16_000, func(r *qnpb.SearchRequest) { r.Iterate, r.OutputFields = true, []string{"v"} }),
		"every row":                query(&qnpb.QueryRequest{Filter: "id >= 0", OutputFields: []string{"id", "note", "v"}}),
		"every row in order":       query(&qnpb.QueryRequest{Filter: "id >= 0", OutputFields: []string{"id"}, OrderBy: []*qnpb.OrderBy{{Field: "note", Descending: true}}}),
		"a group for each row":     query(&qnpb.QueryRequest{GroupByFields: []string{"note", "id"}, OutputFields: []string{"note", "id", "count(*)", "max(note)"}}),
		"rows that are not wanted": func(ctx context.Context) error { return h.ignore(ctx) },
		"several at once": func(ctx context.Context) error {
			sub := &qnpb.SubSearch{Field: "v", Vectors: hostileVectors(idsFrom(0, 8)...), TopK: 16_384}
			_, err := h.query.HybridSearch(ctx, &qnpb.HybridSearchRequest{Collection: "items", TopK: 16_384, Searches: []*qnpb.SubSearch{sub, sub, sub},
				OutputFields: []string{"v"}, Ranker: &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{K: 60}}})
			return err
		},
		"a large insert": func(context.Context) error { return h.insert(idsFrom(1_000_000+rand.Int64N(1<<40), 4000)) },
		"loads": func(ctx context.Context) error {
			_, err := h.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "items"})
			return err
		},
	}
}

// ignore asks for every row and reads none for a while.
func (h *hostile) ignore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := h.query.Query(ctx, &qnpb.QueryRequest{Collection: "items", Filter: "id >= 0", OutputFields: []string{"v"}})
	<-ctx.Done()
	return err
}

// note counts an answer; one that does not say what it is about fails the test.
func (h *hostile) note(what string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := status.Code(err)
	if h.codes[what] == nil {
		h.codes[what] = map[codes.Code]int{}
	}
	h.codes[what][c]++
	if !slices.Contains([]codes.Code{codes.OK, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Unavailable}, c) {
		h.t.Errorf("%s: %v", what, err)
	}
}

// anonymous is the memory of the node that the kernel cannot take back.
func (h *hostile) anonymous() int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	return anonymousIn(string(raw))
}

// watchMemory watches the memory of the node until the returned function is called.
func (h *hostile) watchMemory() (highest func() int64) {
	done, most := make(chan struct{}), int64(0)
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			most = max(most, h.anonymous())
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() int64 { close(done); watch.Wait(); return most }
}

// TestNothingGetsItKilled: a node with a dataset of several times its memory, in a
// cgroup that kills what takes more than it has, survives requests that would take
// all there is, many at a time; deletes pass meanwhile, and afterwards it answers
// as if nothing had been.
func TestNothingGetsItKilled(t *testing.T) {
	const cgroup, limit = 192 << 20, 16 << 20
	rows, rounds, clients := int64(16_000), 1, 3
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		rows, rounds, clients = 64_000, 5, 8
	}
	h := startHostile(t, cgroup, limit)
	h.fill(rows)
	highest := h.watchMemory()
	attacks := h.attacks()
	var all sync.WaitGroup
	for what, attack := range attacks {
		for range clients {
			all.Go(func() {
				for range rounds {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					h.note(what, attack(ctx))
					cancel()
				}
			})
		}
	}
	for id := range int64(20) {
		if err := h.delete(id); err != nil {
			t.Errorf("a delete did not pass: %v", err)
		}
	}
	all.Wait()
	most := highest()
	h.alive()
	for what, c := range h.codes {
		t.Logf("%-26s %v", what, c)
	}
	t.Logf("%d rows; %d MiB of anonymous memory at most, of %d", rows, most>>20, cgroup>>20)
	h.checkAfter()
}

// checkAfter wants what was inserted, and nothing that was deleted.
func (h *hostile) checkAfter() {
	h.t.Helper()
	strong := &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}
	for _, id := range []int64{20, h.rows / 2, h.rows - 1} {
		var r *qnpb.SearchResponse
		h.onceThereIsRoom(func() (err error) {
			r, err = h.query.Search(h.within(), &qnpb.SearchRequest{Collection: "items", TopK: 1, Vectors: hostileVectors(id), Freshness: strong, OutputFields: []string{"note"}})
			return err
		})
		if got := r.GetIds().GetInts().GetValues(); len(got) != 1 || got[0] != id || !strings.HasPrefix(r.GetFields()[0].GetStrings().GetValues()[0], fmt.Sprintf("note %d:", id)) {
			h.t.Errorf("the nearest to %d is %v", id, got)
		}
	}
	var last *qnpb.QueryResponse
	h.onceThereIsRoom(func() error {
		s, err := h.query.Query(h.within(), &qnpb.QueryRequest{Collection: "items", Filter: "id < 1000000", OutputFields: []string{"count(*)"}, Freshness: strong})
		if err == nil {
			last, err = s.Recv()
		}
		return err
	})
	if last.GetCount() != h.rows-20 {
		h.t.Errorf("%d rows, want %d", last.GetCount(), h.rows-20)
	}
}

// onceThereIsRoom asks until it is not refused for want of room any more: what the attacks took is given back when they have ended, on a
// busy machine a while after.
func (h *hostile) onceThereIsRoom(ask func() error) {
	h.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if c := status.Code(err); c != codes.ResourceExhausted && c != codes.Unavailable || time.Now().After(deadline) {
			h.t.Fatal(err)
		}
	}
}
