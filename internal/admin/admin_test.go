package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// port is a server under test and what it was given.
type port struct {
	t       *testing.T
	server  *Server
	machine *lifecycle.Machine
	addr    string
	failed  chan error
}

func open(t *testing.T, change func(*Options)) *port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{t: t, machine: lifecycle.NewMachine(), addr: l.Addr().String(), failed: make(chan error, 1)}
	o := Options{Listener: l, Machine: p.machine, Registry: prometheus.NewRegistry(), Name: "n", Version: "v",
		Failed: func(err error) { p.failed <- err }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&o)
	}
	if p.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func (p *port) close() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.server.Close(ctx); err != nil {
		p.t.Error(err)
	}
}

func (p *port) get(path string) (int, string) {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.addr + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAliveReadyAndWhatIsMissingInEveryState(t *testing.T) {
	p := open(t, func(o *Options) { o.Step = func() string { return "open object storage" } })
	for _, c := range []struct {
		state   lifecycle.State
		healthz int
		readyz  int
		says    string
	}{
		{lifecycle.Starting, 200, 503, "not ready: Starting\n- open object storage"},
		{lifecycle.Recovering, 200, 503, "not ready: Recovering"},
		{lifecycle.Serving, 200, 200, "ready"},
		{lifecycle.Draining, 200, 503, "not ready: Draining\n- the node is going away"},
		{lifecycle.Stopping, 200, 503, "not ready: Stopping"},
		{lifecycle.Stopped, 503, 503, "not ready: Stopped"},
	} {
		if c.state != lifecycle.Starting {
			if err := p.machine.To(c.state, "test"); err != nil {
				t.Fatal(err)
			}
		}
		if code, _ := p.get("/healthz"); code != c.healthz {
			t.Errorf("%s: healthz %d, want %d", c.state, code, c.healthz)
		}
		if code, text := p.get("/readyz"); code != c.readyz || !strings.HasPrefix(text, c.says) {
			t.Errorf("%s: readyz %d %q, want %d %q", c.state, code, text, c.readyz, c.says)
		}
		if _, text := p.get("/metrics"); !strings.Contains(text, `querynode_state{state="`+c.state.String()+`"} 1`) {
			t.Errorf("%s: the metric does not say so", c.state)
		}
	}
}

// TestAReadyNodeSaysWhatItDoesWithout: it is to be sent requests, and somebody
// should look after it.
func TestAReadyNodeSaysWhatItDoesWithout(t *testing.T) {
	fine := segments.SegmentStatus{Meta: segments.Meta{ID: 1, VChannel: "v"}, State: "loaded"}
	if got := without([]segments.SegmentStatus{fine}, 0, []node.ChannelStatus{{VChannel: "v"}}); len(got) != 0 {
		t.Errorf("nothing is wrong: %q", got)
	}
	bad := segments.SegmentStatus{Meta: segments.Meta{ID: 7, VChannel: "v"}, State: "quarantined", Error: "panicked three times"}
	got := strings.Join(without([]segments.SegmentStatus{fine, bad}, 2, []node.ChannelStatus{{VChannel: "v", Quarantined: 3}, {VChannel: "w"}}), "\n")
	want := "segment 7 of v is not searched any more: panicked three times\n2 segments cannot be loaded, see querynode status\n3 messages of v could not be applied and were set aside"
	if got != want {
		t.Errorf("got %q", got)
	}
	if got := without(nil, 1, []node.ChannelStatus{{VChannel: "v", Quarantined: 1}}); !slices.Equal(got, []string{"1 segment cannot be loaded, see querynode status", "1 message of v could not be applied and was set aside"}) {
		t.Errorf("of one each: %q", got)
	}
	if one, two := beingLoaded(1), beingLoaded(2); one != "1 segment is being loaded" || two != "2 segments are being loaded" {
		t.Errorf("%q, %q", one, two)
	}
}

func TestWithoutPartsThereIsAStatusAllTheSame(t *testing.T) {
	p := open(t, nil)
	code, text := p.get("/statusz")
	var doc struct {
		Name, Version, State string
		Missing              []string
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || code != 200 || doc.Name != "n" || doc.Version != "v" || doc.State != "Starting" || len(doc.Missing) == 0 {
		t.Errorf("%d %s: %v", code, text, err)
	}
	if code, text := p.get("/metrics"); code != 200 || !strings.Contains(text, `querynode_info{name="n",version="v"} 1`) || !strings.Contains(text, "go_goroutines") {
		t.Errorf("metrics: %d", code)
	}
	if code, text := p.get("/"); code != 200 || !strings.Contains(text, "/readyz") {
		t.Errorf("index: %d %s", code, text)
	}
	for _, path := range []string{"/nope", "/healthz/x"} {
		if code, _ := p.get(path); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
	resp, err := http.Post("http://"+p.addr+"/readyz", "text/plain", strings.NewReader("x"))
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestGRPCOverPlainHTTP2GoesToItsHandler(t *testing.T) {
	p := open(t, func(o *Options) {
		o.GRPC = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "grpc "+r.URL.Path) })
	})
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &only}
	defer transport.CloseIdleConnections()
	call := func(contentType string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+"/grpc.x/Y", bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if got := call("application/grpc+proto"); got != "grpc /grpc.x/Y" {
		t.Errorf("%q", got)
	}
	if got := call("text/plain"); strings.HasPrefix(got, "grpc") {
		t.Errorf("plain HTTP went to gRPC: %q", got)
	}
}

func TestCloseCutsALongProfile(t *testing.T) {
	p := open(t, nil)
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /debug/pprof/trace?seconds=200 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %s", took)
	}
	p.close() // again is harmless
	if _, err := net.Dial("tcp", p.addr); err == nil {
		t.Error("it still listens")
	}
}

func TestAPortThatDiesIsReportedOnce(t *testing.T) {
	p := open(t, nil)
	_ = p.server.o.Listener.Close()
	if err := <-p.failed; err == nil || !strings.Contains(err.Error(), p.addr) {
		t.Error(err)
	}
}

func TestAllThatIsMissingIsListed(t *testing.T) {
	_, err := New(Options{})
	for _, want := range []string{"Listener", "Machine", "Registry"} {
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in: %v", want, err)
		}
	}
}
