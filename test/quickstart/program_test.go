package quickstart

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rows is how many words the quick start writes.
const rows = 20_000

// binary builds the program once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "querynode-quickstart")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "querynode")
	out, err := exec.Command("go", "build", "-o", path, "github.com/querynode/querynode/cmd/querynode").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// times is how often a test of random moments is repeated.
func times(t *testing.T, short, long int) int {
	t.Helper()
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		return long
	}
	if testing.Short() {
		return 1
	}
	return short
}

// random returns a generator whose seed is in the log of a failed test.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("QUERYNODE_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("QUERYNODE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// program is one run of the quick start.
type program struct {
	t        *testing.T
	dir, ack string
	cmd      *exec.Cmd
	stdout   *lockedBuffer
	stderr   *lockedBuffer
	done     chan struct{}
	err      error // of Wait; read it after done
}

// lockedBuffer can be read while the program writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts the quick start on dir, with free ports, in a process group of its own.
func begin(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, dir: dir, ack: dir + ".ack", stdout: &lockedBuffer{}, stderr: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(bin, append([]string{"quickstart", "--data-dir", dir, "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = append(os.Environ(), "QUERYNODE_TEST_ACK_FILE="+p.ack)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	})
	return p
}

// wait returns the exit code, or fails the test.
func (p *program) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		_ = p.cmd.Process.Signal(syscall.SIGABRT) // prints all goroutines
		<-p.done
		p.t.Fatalf("still running after %s\n%s", limit, p.output())
		return 0
	}
}

func (p *program) output() string {
	raw, _ := os.ReadFile(filepath.Join(p.dir, "quickstart.log"))
	if len(raw) > 8<<10 {
		raw = raw[len(raw)-8<<10:]
	}
	return "stdout:\n" + p.stdout.String() + "\nstderr:\n" + p.stderr.String() + "\nlog:\n" + string(raw)
}

// hangs is how long a test waits for what the program does in seconds, on a machine that has much else to do.
const hangs = 3 * time.Minute

// until waits for something that the program does, and fails if it ends first.
func (p *program) until(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(hangs)
	for !ok() {
		select {
		case <-p.done:
			if !ok() {
				p.t.Fatalf("ended before %s: %v\n%s", what, p.err, p.output())
			}
			return
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waited too long for %s\n%s", what, p.output())
		}
	}
}

// acknowledged reads the keys that the program was told are durable; how often
// each was is counted. A line that a kill has cut is left out.
func (p *program) acknowledged() map[int64]int {
	p.t.Helper()
	raw, err := os.ReadFile(p.ack)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	out := map[int64]int{}
	raw = raw[:bytes.LastIndexByte(raw, '\n')+1]
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for word := range strings.FieldsSeq(lines.Text()) {
			id, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			out[id]++
		}
	}
	return out
}

// figures is what --json prints.
type figures struct {
	Addr    string  `json:"addr"`
	Rows    int64   `json:"rows"`
	Written int64   `json:"written"`
	Reused  bool    `json:"reused"`
	Recall  float64 `json:"recall_at_10"`
	P50     float64 `json:"search_p50_ms"`
	P99     float64 `json:"search_p99_ms"`
	Seconds struct{ Total float64 }

	Neighbours map[string][]struct {
		Word  string
		Score float32
	}
}

// figures waits until the program has measured.
func (p *program) figures() (f figures) {
	p.t.Helper()
	p.until("its figures", func() bool { return json.Valid([]byte(p.stdout.String())) })
	if err := json.Unmarshal([]byte(p.stdout.String()), &f); err != nil {
		p.t.Fatalf("%v\n%s", err, p.output())
	}
	return f
}

// finish runs the quick start to its end.
func finish(t *testing.T, dir string) figures {
	t.Helper()
	p := begin(t, dir, "--exit", "--json")
	if code := p.wait(hangs); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.output())
	}
	return p.figures()
}

// nothingLeft fails if the program has left something running or lying about.
func (p *program) nothingLeft() {
	p.t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		p.t.Errorf("a process of its group is still there: %v", err)
	}
	for _, pattern := range []string{"run-*", "node.json"} {
		if left, _ := filepath.Glob(filepath.Join(p.dir, pattern)); len(left) > 0 {
			p.t.Errorf("left behind: %v", left)
		}
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangs)
	t.Cleanup(cancel)
	return ctx
}
