package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/lifecycle"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// testConfig is a node on free ports.
func testConfig(t *testing.T, set ...string) *config.Config {
	t.Helper()
	cfg, _, err := config.Load(config.Sources{Set: append([]string{
		"node.data_dir=" + t.TempDir(), "grpc.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "shutdown.drain=0s"}, set...)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// startNode starts a node in this process; the test fails if it does not stop cleanly.
func startNode(t *testing.T, cfg *config.Config) *running {
	t.Helper()
	r, err := start(t.Context(), cfg, startOptions{version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return stopAtEnd(t, r)
}

// stopAtEnd has a node stopped at the end of the test.
func stopAtEnd(t *testing.T, r *running) *running {
	t.Cleanup(func() {
		if rep := r.stop(context.Background(), 0); rep.Err() != nil {
			t.Errorf("stop: %v\n%v", rep.Err(), rep)
		}
		nothingLeft(t, r.cfg.Node.DataDir)
	})
	return r
}

func waitServing(t *testing.T, r *running) {
	t.Helper()
	now, changes, cancel := r.machine.Watch()
	defer cancel()
	for now != lifecycle.Serving {
		select {
		case c := <-changes:
			now = c.To
		case <-time.After(3 * time.Minute):
			t.Fatalf("not serving: %v", r.node.Problem())
		}
	}
}

// get returns what the admin port says.
func get(t *testing.T, r *running, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + r.adminLis.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func dialNode(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestTheAdminPortShowsTheWholeNode(t *testing.T) {
	r := startNode(t, testConfig(t))
	waitServing(t, r)
	conn := dialNode(t, r.grpcLis.Addr().String())
	_, err := qnpb.NewCatalogServiceClient(conn).CreateCollection(t.Context(), &qnpb.CreateCollectionRequest{Name: "items", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2},
		}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = qnpb.NewWriteServiceClient(conn).Append(t.Context(), &qnpb.AppendRequest{Collection: "items",
		Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: 3, Fields: fields(3)}}})
	if err != nil {
		t.Fatal(err)
	}
	code, metrics := get(t, r, "/metrics")
	for code == 200 && !strings.Contains(metrics, `querynode_entity_num{segment_state="growing"} 3`) && t.Context().Err() == nil {
		code, metrics = get(t, r, "/metrics") // the rows come to the segment through the queue
	}
	for _, want := range []string{"querynode_collection_num 1", `querynode_state{state="Serving"} 1`, `querynode_info{name="` + r.cfg.Node.Name + `",version="test"} 1`,
		`querynode_wal_state{channel_name="querynode-dml-0",state="ready"} 1`, "querynode_consume_tt_lag_ms{", `querynode_reservation_bytes{kind="growing"}`,
		"querynode_grpc_calls_total{", "go_goroutines", "process_open_fds", `querynode_subscriptions{state="tailing"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if code, text := get(t, r, "/statusz"); code != 200 || !strings.Contains(text, `"name": "items"`) || !strings.Contains(text, `"state": "Serving"`) {
		t.Errorf("statusz: %d %s", code, text)
	}
	if code, text := get(t, r, "/readyz"); code != 200 || text != "ready\n" {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, text := get(t, r, "/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(text, `"goroutine":"API"`) {
		t.Errorf("the profile does not name our goroutines: %d", code)
	}
	cz := channelzpb.NewChannelzClient(dialNode(t, r.adminLis.Addr().String()))
	servers, err := cz.GetServers(t.Context(), &channelzpb.GetServersRequest{})
	if err != nil || len(servers.GetServer()) < 2 {
		t.Errorf("channelz: %v, %v", servers, err)
	}
}

// fields are n rows.
func fields(n int) []*qnpb.FieldData {
	ids, vectors := &qnpb.Int64Array{}, &qnpb.FloatVectors{Dim: 2}
	for i := range n {
		ids.Values = append(ids.Values, int64(i))
		vectors.Values = append(vectors.Values, float32(i), 1)
	}
	return []*qnpb.FieldData{
		{Field: "id", Values: &qnpb.FieldData_Ints{Ints: ids}},
		{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: vectors}},
	}
}

func TestADrainingNodeAnswersAndAStoppingOneRefuses(t *testing.T) {
	r := startNode(t, testConfig(t))
	waitServing(t, r)
	r.drain()
	conn := dialNode(t, r.grpcLis.Addr().String())
	list := func() error {
		_, err := qnpb.NewCatalogServiceClient(conn).ListCollections(t.Context(), &qnpb.ListCollectionsRequest{})
		return err
	}
	if err := list(); err != nil {
		t.Errorf("a draining node answers: %v", err)
	}
	if resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a draining node says that it is not serving: %v, %v", resp, err)
	}
	if code, text := get(t, r, "/readyz"); code != 503 || !strings.Contains(text, "not ready: Draining") {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, _ := get(t, r, "/healthz"); code != 200 {
		t.Errorf("a draining node must not be restarted: %d", code)
	}
	if err := r.machine.To(lifecycle.Stopping, "test"); err != nil {
		t.Fatal(err)
	}
	if err := list(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stopping node refuses: %v", err)
	}
	code, _, stderr := command(t, nil, "health", "--addr", r.adminLis.Addr().String())
	if code != exitError || !strings.Contains(stderr, "the node is going away") {
		t.Errorf("health: %d %s", code, stderr)
	}
	if code, out, _ := command(t, nil, "health", "--live", "--addr", r.adminLis.Addr().String()); code != 0 || !strings.Contains(out, "alive") {
		t.Errorf("health --live: %d %s", code, out)
	}
}

func TestAStartThatIsGivenUpLeavesNothing(t *testing.T) {
	addr, connected := silentServer(t)
	cfg := testConfig(t, fmt.Sprintf("storage.url=s3://bucket/x?endpoint=%s&insecure=true&path_style=true", addr))
	cfg.Storage.AccessKey, cfg.Storage.SecretKey = "key", "secret"
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := start(ctx, cfg, startOptions{})
		result <- err
	}()
	select {
	case <-connected:
	case err := <-result:
		t.Fatal(err)
	}
	cancel()
	err := <-result
	var coded *codeError
	if !errors.Is(err, context.Canceled) || errors.As(err, &coded) || !strings.Contains(err.Error(), "open object storage") {
		t.Fatal(err)
	}
	nothingLeft(t, cfg.Node.DataDir)

	if _, err := start(ctx, cfg, startOptions{}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "lock the data folder") {
		t.Fatalf("a start with an ended context: %v", err)
	}
	nothingLeft(t, cfg.Node.DataDir)
}

// stubborn adds a part that does not stop before free is closed.
func stubborn(t *testing.T, r *running) (free func()) {
	t.Helper()
	ch := make(chan struct{})
	if err := r.push("stubborn", 1, func(context.Context) error { waitStubbornly(ch); return nil }); err != nil {
		t.Fatal(err)
	}
	return func() { close(ch); r.stack.Close(context.Background()) }
}

func waitStubbornly(ch chan struct{}) { <-ch }

func TestAPartThatDoesNotStopIsNamedAndShown(t *testing.T) {
	cfg := testConfig(t, "shutdown.total=2s")
	r, err := start(t.Context(), cfg, startOptions{})
	if err != nil {
		t.Fatal(err)
	}
	free := stubborn(t, r)
	a := &app{signals: make(chan os.Signal)}
	err = a.stop(r, time.Now(), nil)
	var coded *codeError
	if !errors.As(err, &coded) || coded.code != exitStuck || !strings.Contains(err.Error(), `did not stop in time: ["stubborn"]`) || !strings.Contains(err.Error(), "waitStubbornly") {
		t.Errorf("%v", err)
	}
	free()
	nothingLeft(t, cfg.Node.DataDir) // the others did stop
}

func TestADeadPartStopsTheNode(t *testing.T) {
	r, err := start(t.Context(), testConfig(t), startOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitServing(t, r)
	_ = r.adminLis.Close()
	var out bytes.Buffer
	a := &app{signals: make(chan os.Signal), stdout: &out}
	if err := a.untilSignal(r); err == nil || !strings.Contains(err.Error(), "admin") {
		t.Errorf("the node went on without its admin port: %v", err)
	}
	nothingLeft(t, r.cfg.Node.DataDir)
}

func TestRemovingATreeStopsWithItsContext(t *testing.T) {
	root := filepath.Join(t.TempDir(), "run-1")
	for _, dir := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "a", "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "keep")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeTree(ended, root); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := removeTree(t.Context(), root); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := removeTree(t.Context(), root); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestTheJanitorTakesOnlyWhatOtherRunsLeft(t *testing.T) {
	d, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	old, other := filepath.Join(d.path, runPrefix+"1"), filepath.Join(d.path, "objects")
	for _, dir := range []string{old, other} {
		if err := os.MkdirAll(filepath.Join(dir, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.clean(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	for dir, want := range map[string]bool{old: false, other: true, d.run: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v, want there = %v", dir, err, want)
		}
	}
	if err := d.close(t.Context()); err != nil {
		t.Error(err)
	}
}
