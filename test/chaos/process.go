//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// process is one run of the node.
type process struct {
	run     int
	cmd     *exec.Cmd
	dir     string
	log     string // file of its standard error
	started time.Time
	done    chan struct{} // closed when it has ended and was reaped
	info    nodeInfo      // once it has announced itself
	asked   bool          // its end was our doing
	// mayCatch: what it has caught is our doing too; what has killed it is not.
	mayCatch bool
	found    []string // what killed runs had left when it was started
}

// nodeInfo is what we need of node.json.
type nodeInfo struct {
	PID       int    `json:"pid"`
	GRPCAddr  string `json:"grpc_addr"`
	AdminAddr string `json:"admin_addr"`
}

// spawn starts a node. Its standard error goes to a file, so that nothing of
// what it says at its end is lost.
func spawn(binary, dir, log string, run int, args, env []string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, errors.Wrap(err, "create the log of a node")
	}
	defer f.Close() // the child has its own
	p := &process{run: run, dir: dir, log: log, started: time.Now(), done: make(chan struct{})}
	p.cmd = exec.Command(binary, append([]string{"serve", "--data-dir", dir, "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = append([]string{"HOME=" + dir, "PATH=/nowhere", "GOTRACEBACK=all"}, env...)
	p.cmd.Stderr = f
	setParentDeath(p.cmd)
	p.found, _ = filepath.Glob(filepath.Join(dir, "run-*"))
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Wrapf(err, "start %s", binary)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	return p, nil
}

// signal sends a signal to this process only. One that has ended does not mind.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits for the end, at most so long, and reports whether it came.
func (p *process) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return p.ended()
	}
}

// kill ends it at once and waits until the kernel says that it is gone.
func (p *process) kill() {
	p.asked = true
	p.signal(syscall.SIGKILL)
	<-p.done
}

// code is the exit code; -1 = ended by a signal.
func (p *process) code() int { return p.cmd.ProcessState.ExitCode() }

// announced reads node.json; false until it is that of this process.
func (p *process) announced() bool {
	raw, err := os.ReadFile(filepath.Join(p.dir, "node.json"))
	var info nodeInfo
	if err != nil || json.Unmarshal(raw, &info) != nil || info.PID != p.cmd.Process.Pid {
		return false
	}
	p.info = info
	return true
}

func (p *process) ready() bool {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + p.info.AdminAddr + "/readyz")
	if err != nil {
		return false
	}
	_ = r.Body.Close()
	return r.StatusCode == http.StatusOK
}

func (p *process) said() []byte {
	raw, _ := os.ReadFile(p.log)
	return raw
}

// tail is the end of what it said, for people.
func (p *process) tail(lines int) string {
	all := bytes.Split(bytes.TrimSpace(p.said()), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// trouble returns panics that killed it or that it has caught, and the messages
// it logged as errors.
func (p *process) trouble() (panics []string, errs map[string]int) {
	errs = map[string]int{}
	s := bufio.NewScanner(bytes.NewReader(p.said()))
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		line := s.Text()
		var entry struct{ Level, Msg string }
		switch {
		case strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "), strings.HasPrefix(line, "unexpected fault address"), line == "WARNING: DATA RACE":
			panics = append(panics, line)
		case strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "ERROR":
			errs[entry.Msg]++
			if strings.Contains(line, "panic") && !p.mayCatch {
				panics = append(panics, "caught: "+line[:min(len(line), 600)])
			}
		}
	}
	return panics, errs
}

// client is a connection to one run of the node.
type client struct {
	run     int
	conn    *grpc.ClientConn
	query   qnpb.QueryServiceClient
	write   qnpb.WriteServiceClient
	control qnpb.ControlServiceClient
	catalog qnpb.CatalogServiceClient
	admin   qnpb.AdminServiceClient
}

func dial(p *process) (*client, error) {
	conn, err := grpc.NewClient(p.info.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, errors.Wrapf(err, "connect to %s", p.info.GRPCAddr)
	}
	return &client{run: p.run, conn: conn, query: qnpb.NewQueryServiceClient(conn), write: qnpb.NewWriteServiceClient(conn),
		control: qnpb.NewControlServiceClient(conn), catalog: qnpb.NewCatalogServiceClient(conn), admin: qnpb.NewAdminServiceClient(conn)}, nil
}
