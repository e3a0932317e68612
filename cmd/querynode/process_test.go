package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/querynode/querynode/internal/lifecycle"
)

// stopLimit is what a stop may take with the default configuration.
const stopLimit = 5 * time.Second

// process is a node in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	stderr *buffer
	done   chan struct{} // closed when it has ended
}

// buffer is a bytes.Buffer for two goroutines that tells when it grows.
type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	grew chan struct{} // capacity 1
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.grew <- struct{}{}:
	default:
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// spawn starts a node on free ports.
func spawn(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, stderr: &buffer{grew: make(chan struct{}, 1)}, done: make(chan struct{})}
	p.cmd = exec.Command(binary, append([]string{"serve", "--data-dir", dir, "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = []string{"HOME=" + dir, "QUERYNODE_STORAGE_ACCESS_KEY=key", "QUERYNODE_STORAGE_SECRET_KEY=secret"} // not asked for unless the storage is S3
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// waitFor waits until the node has logged what.
func (p *process) waitFor(what string) {
	p.t.Helper()
	late := time.After(3 * time.Minute)
	for !strings.Contains(p.stderr.String(), what) {
		select {
		case <-p.stderr.grew:
		case <-p.done:
			if !strings.Contains(p.stderr.String(), what) {
				p.t.Fatalf("the node ended and never said %q:\n%s", what, p.stderr)
			}
		case <-late:
			p.t.Fatalf("the node does not say %q:\n%s", what, p.stderr)
		}
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end of the process and returns its exit code; -1 = killed by a signal.
func (p *process) exit(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		p.t.Fatalf("the node did not end within %s:\n%s", within, p.stderr)
		return 0
	}
}

// nothingLeft wants a data folder that no node uses and that has no leftovers.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, runPrefix+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, nodeInfoFile)); err == nil {
		t.Error("node.json is still there")
	}
	d, err := openDataDir(dir)
	if err != nil {
		t.Errorf("the lock is still held: %v", err)
		return
	}
	if err := d.close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestASignalAtAnyMomentOfTheStartEndsItCleanly(t *testing.T) {
	moments := 6
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		moments = 50
	}
	// How long a start takes here and now.
	dir := t.TempDir()
	began := time.Now()
	p := spawn(t, dir)
	p.waitFor(`"serving"`)
	took := time.Since(began)
	p.signal(syscall.SIGTERM)
	if code := p.exit(stopLimit); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr)
	}
	nothingLeft(t, dir)

	for i := range moments {
		// Every other one on a folder that has been used before.
		if i%2 == 0 {
			dir = filepath.Join(t.TempDir(), "data")
		}
		p := spawn(t, dir)
		after := rand.N(took * 5 / 4)
		time.Sleep(after)
		p.signal([]os.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2])
		code := p.exit(stopLimit)
		if code == -1 && p.stderr.String() == "" {
			continue // the signal came before main, where nothing has been started yet
		}
		if code != 0 {
			t.Errorf("signal after %s of %s: exit code %d:\n%s", after, took, code, p.stderr)
		}
		nothingLeft(t, dir)
	}
}

func TestAServingNodeStopsUnderItsClients(t *testing.T) {
	dir := t.TempDir()
	p := spawn(t, dir)
	p.waitFor(`"serving"`)
	info, err := readNodeInfo(dir)
	if err != nil || info.PID != p.cmd.Process.Pid {
		t.Fatalf("node.json: %+v, %v", info, err)
	}
	conn, err := grpc.NewClient(info.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A stream that its client would keep open for ever.
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatal(r, err)
	}
	p.signal(syscall.SIGTERM)
	if r, err := watch.Recv(); err != nil || r.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a watcher is told first: %v, %v", r, err)
	}
	if code := p.exit(stopLimit); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
	nothingLeft(t, dir)
}

func TestASecondNodeOnTheSameFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := spawn(t, dir)
	first.waitFor(`"serving"`)
	second := spawn(t, dir)
	if code := second.exit(stopLimit); code != exitError || !strings.Contains(second.stderr.String(), "is in use by process "+strconv.Itoa(first.cmd.Process.Pid)) {
		t.Errorf("exit code %d:\n%s", code, second.stderr)
	}
	info, err := readNodeInfo(dir)
	if err != nil || info.PID != first.cmd.Process.Pid {
		t.Errorf("the second took the first one's place: %+v, %v", info, err)
	}
	if code, out, stderr := command(t, nil, "health", "--data-dir", dir); code != 0 || out != "ready\n" {
		t.Errorf("the first is %q, %s", out, stderr)
	}
	first.signal(syscall.SIGTERM)
	if code := first.exit(stopLimit); code != 0 {
		t.Errorf("exit code %d:\n%s", code, first.stderr)
	}
	if code, _, stderr := command(t, nil, "health", "--addr", info.AdminAddr); code != exitError || !strings.Contains(stderr, "no answer") {
		t.Errorf("health of a node that is gone: %d %s", code, stderr)
	}
}

func TestAKilledNodesLeftoversAreRemoved(t *testing.T) {
	dir := t.TempDir()
	p := spawn(t, dir)
	p.waitFor(`"serving"`)
	p.signal(syscall.SIGKILL)
	p.exit(stopLimit)
	left, _ := filepath.Glob(filepath.Join(dir, runPrefix+"*"))
	if len(left) != 1 {
		t.Fatalf("a killed node leaves its folder: %v", left)
	}
	deep := filepath.Join(left[0], "segments", "1", "x")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	p = spawn(t, dir)
	p.waitFor("removed what an earlier run left")
	p.waitFor(`"serving"`)
	if _, err := os.Stat(left[0]); err == nil {
		t.Errorf("%s is still there", left[0])
	}
	p.signal(syscall.SIGINT)
	if code := p.exit(stopLimit); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
	nothingLeft(t, dir)
}

func TestAPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"grpc", "admin"} {
		dir := t.TempDir()
		p := spawn(t, dir, "--"+flag+"-listen", l.Addr().String())
		if code := p.exit(stopLimit); code != exitError || !strings.Contains(p.stderr.String(), flag+".listen "+l.Addr().String()) ||
			!strings.Contains(p.stderr.String(), "address already in use") || !strings.Contains(p.stderr.String(), "another address with --"+flag+"-listen") {
			t.Errorf("%s: exit code %d:\n%s", flag, code, p.stderr)
		}
		nothingLeft(t, dir)
	}
}

func TestAFolderThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := t.TempDir()
	if err := os.Mkdir(filepath.Join(locked, lockFile), 0o700); err != nil { // as good as a folder without permission, for root too
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(file, "data"), locked}
	if os.Getuid() != 0 {
		closed := t.TempDir()
		if err := os.Chmod(closed, 0o500); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, filepath.Join(closed, "data"))
	}
	for _, dir := range dirs {
		p := spawn(t, dir)
		if code := p.exit(stopLimit); code != exitError || !strings.Contains(p.stderr.String(), "data folder "+dir) {
			t.Errorf("%s: exit code %d:\n%s", dir, code, p.stderr)
		}
	}
}

// silentServer takes connections and never answers.
func silentServer(t *testing.T) (addr string, connected <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	came, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		var conns []io.Closer
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range conns {
					_ = c.Close()
				}
				return
			}
			conns = append(conns, c)
			select {
			case came <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l.Addr().String(), came
}

func TestASignalWhileStorageHangs(t *testing.T) {
	addr, connected := silentServer(t)
	dir := t.TempDir()
	p := spawn(t, dir, "--set", fmt.Sprintf("storage.url=s3://bucket/x?endpoint=%s&insecure=true&path_style=true", addr))
	select {
	case <-connected:
	case <-p.done:
		t.Fatalf("ended: %s", p.stderr)
	case <-time.After(3 * time.Minute):
		t.Fatalf("the storage is never asked: %s", p.stderr)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(stopLimit); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
	nothingLeft(t, dir)
}

func TestASecondSignalCuts(t *testing.T) {
	dir := t.TempDir()
	p := spawn(t, dir, "--set", "shutdown.drain=1h", "--set", "shutdown.total=1h")
	p.waitFor(`"serving"`)
	p.signal(syscall.SIGTERM)
	p.waitFor(`"stopping"`)
	p.signal(syscall.SIGTERM) // the first once more
	time.Sleep(echo)
	p.signal(syscall.SIGTERM)
	if code := p.exit(stopLimit); code != exitStuck || !strings.Contains(p.stderr.String(), "SKIPPED") {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
	// Nothing was closed, and the next start does not mind.
	p = spawn(t, dir)
	p.waitFor("removed what an earlier run left")
	p.waitFor(`"serving"`)
	p.signal(syscall.SIGTERM)
	if code := p.exit(stopLimit); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
}

// As timeout(1) does it.
func TestTwoSignalsAtOnceAreOne(t *testing.T) {
	for _, when := range []string{`"starting"`, `"serving"`} {
		dir := t.TempDir()
		p := spawn(t, dir)
		p.waitFor(when)
		p.signal(syscall.SIGTERM)
		p.signal(syscall.SIGINT)
		p.signal(syscall.SIGTERM)
		if code := p.exit(stopLimit); code != 0 {
			t.Errorf("exit code %d:\n%s", code, p.stderr)
		}
		nothingLeft(t, dir)
	}
}

func TestAFullDiskAloneIsNoFailedStop(t *testing.T) {
	full := errors.Wrap(&os.PathError{Op: "write", Path: "clean", Err: syscall.ENOSPC}, "close queue")
	for _, c := range []struct {
		parts []lifecycle.PartReport
		want  bool
	}{
		{[]lifecycle.PartReport{{Name: "a"}, {Name: "b"}}, false}, // nothing has failed
		{[]lifecycle.PartReport{{Name: "a"}, {Name: "b", Err: full}}, true},
		{[]lifecycle.PartReport{{Name: "a", Err: full}, {Name: "b", Err: full}}, true},
		{[]lifecycle.PartReport{{Name: "a", Err: errors.New("broken")}, {Name: "b", Err: full}}, false},
		{[]lifecycle.PartReport{{Name: "a", Stuck: true}, {Name: "b", Err: full}}, false},
		{[]lifecycle.PartReport{{Name: "a", Skipped: true}, {Name: "b", Err: full}}, false},
	} {
		if got := onlyFullDisk(&lifecycle.Report{Parts: c.parts}); got != c.want {
			t.Errorf("%+v: %v", c.parts, got)
		}
	}
}
