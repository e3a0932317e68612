//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/segfile/npy"
)

// figures are what "querynode bench serve --json" prints.
type figures struct {
	QPS       float64 `json:"qps"`
	P50       float64 `json:"p50_ms"`
	P95       float64 `json:"p95_ms"`
	P99       float64 `json:"p99_ms"`
	Recall    float64 `json:"recall"`
	CPU       float64 `json:"server_cpu_s_per_1k"`
	ClientCPU float64 `json:"client_cpu_s_per_1k"`
	EF        int     `json:"ef"`
	Nprobe    int     `json:"nprobe"`
	Calls     int64   `json:"calls"`
	Errors    int64   `json:"errors"`
	Growing   int     `json:"growing_segments"`
	Sealed    int     `json:"sealed_segments"`
}

// effort is how the figures' searches are asked for again.
func (f *figures) effort() []string {
	if f.Nprobe > 0 {
		return []string{"--nprobe", strconv.Itoa(f.Nprobe)}
	}
	return []string{"--ef", strconv.Itoa(f.EF)}
}

// rig is the processes of a measurement.
type rig struct {
	o        *options
	dir      string
	binary   string
	node     *exec.Cmd
	nodeAddr string
	admin    string
	floor    *exec.Cmd
	floorAt  string
	truth    string
}

const collection = "bench"

// open builds, loads and starts everything. The caller closes the rig also if it fails.
func open(ctx context.Context, o *options) (_ *rig, err error) {
	r := &rig{o: o, dir: o.dir, binary: o.binary}
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "querynode-bench-serve-"); err != nil {
			return r, errors.Wrap(err, "folder to work in")
		}
	}
	if r.binary == "" {
		r.binary = filepath.Join(r.dir, "querynode")
		fmt.Fprintln(o.progress, "building ./cmd/querynode")
		build := exec.CommandContext(ctx, "go", "build", "-o", r.binary, "./cmd/querynode")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return r, errors.Wrapf(err, "build: %s", out)
		}
	}
	if o.base == "" {
		if err := r.makeData(); err != nil {
			return r, err
		}
	}
	if err := r.startFloor(); err != nil {
		return r, err
	}
	if err := r.startNode(ctx); err != nil {
		return r, err
	}
	return r, r.load(ctx)
}

func (r *rig) startFloor() error {
	self, err := os.Executable()
	if err != nil {
		return errors.Wrap(err, "find this program")
	}
	r.floor = exec.Command(self, floorArg)
	r.floor.Stderr = r.o.progress
	out, err := r.floor.StdoutPipe()
	if err != nil {
		return errors.Wrap(err, "floor")
	}
	if err := r.floor.Start(); err != nil {
		return errors.Wrap(err, "start the floor")
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	r.floorAt = strings.TrimSpace(line)
	return errors.Wrap(err, "the floor did not say where it listens")
}

func (r *rig) startNode(ctx context.Context) error {
	data := filepath.Join(r.dir, "data")
	args := []string{"serve", "--data-dir", data, "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-level", "warn"}
	r.node = exec.Command(r.binary, append(args, r.o.nodeArgs...)...)
	log, err := os.Create(filepath.Join(r.dir, "node.log"))
	if err != nil {
		return errors.Wrap(err, "log of the node")
	}
	defer func() { _ = log.Close() }()
	r.node.Stdout, r.node.Stderr = log, log
	if err := r.node.Start(); err != nil {
		return errors.Wrap(err, "start the node")
	}
	for deadline := time.Now().Add(time.Minute); ; {
		raw, err := os.ReadFile(filepath.Join(data, "node.json"))
		var info struct {
			GRPC  string `json:"grpc_addr"`
			Admin string `json:"admin_addr"`
		}
		if err == nil && json.Unmarshal(raw, &info) == nil && info.GRPC != "" {
			r.nodeAddr, r.admin = info.GRPC, info.Admin
			if _, err := r.run(ctx, "health", "--addr", info.Admin); err == nil {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return errors.Newf("the node is not ready after a minute: see %s", log.Name())
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errors.Wrap(ctx.Err(), "wait")
	}
}

// run runs a command of querynode and returns what it printed.
func (r *rig) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, r.binary, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), errors.Wrapf(err, "querynode %s: %s%s", strings.Join(args, " "), said.String(), out.String())
	}
	return out.Bytes(), nil
}

// load fills the collection and waits until all of it is in sealed segments.
func (r *rig) load(ctx context.Context) error {
	fmt.Fprintln(r.o.progress, "loading", r.o.base)
	parts := strings.SplitN(r.o.index, ":", 2)
	spec := "vector:" + parts[0] + ":" + strings.ToUpper(r.o.metric)
	if len(parts) == 2 {
		spec += ":" + parts[1]
	}
	for _, args := range [][]string{
		{"collection", "create", collection, "--from", r.o.base, "--index", spec},
		{"insert", collection, r.o.base},
		{"flush", collection},
	} {
		if _, err := r.run(ctx, append(args, "--addr", r.nodeAddr)...); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(20 * time.Minute); ; {
		f, err := r.bench(ctx, r.nodeAddr, "--duration", "1ms", "--limit", "1", "--ef", "100", "--concurrency", "1")
		if err != nil {
			return err
		}
		if f.Growing == 0 && f.Sealed > 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the rows are not in sealed segments after 20 minutes")
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// bench sends searches to a server.
func (r *rig) bench(ctx context.Context, addr string, args ...string) (figures, error) {
	all := append([]string{"bench", "serve", "--addr", addr, "--collection", collection, "--queries", r.o.queries, "--json"}, args...)
	if addr == r.floorAt {
		all = append(all, "--truth", r.truth)
	}
	out, err := r.run(ctx, all...)
	var f figures
	if err != nil {
		return f, err
	}
	return f, errors.Wrap(json.Unmarshal(out, &f), "figures of bench serve")
}

func (r *rig) close() error {
	for _, p := range []*exec.Cmd{r.node, r.floor} {
		if p == nil || p.Process == nil {
			continue
		}
		_ = p.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(30*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		stop.Stop()
	}
	if r.o.dir == "" && r.dir != "" {
		return errors.Wrap(os.RemoveAll(r.dir), "remove the folder")
	}
	return nil
}

// The made-up set: a mixture of Gaussians, each spread over some directions of
// its own, with a little noise in all of them.
const (
	madeRows, madeQueries, madeDim = 100_000, 1_000, 128
	madeClusters, madeSpread       = 200, 20
)

func (r *rig) makeData() error {
	rng := rand.New(rand.NewPCG(20, 240))
	normal := func(n int, scale float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64() * scale)
		}
		return v
	}
	global := normal(madeSpread*madeDim, 1/math.Sqrt(madeDim))
	centres, own := make([][]float32, madeClusters), make([][]float32, madeClusters)
	for i := range centres {
		centres[i] = normal(madeSpread, 0.5)
		own[i] = normal(madeSpread*madeDim, 1/math.Sqrt(madeDim))
	}
	row := func() []float32 {
		c := rng.IntN(madeClusters)
		v := normal(madeDim, math.Sqrt(2.0/madeDim))
		scale := 1.0
		for j := range madeSpread {
			z := float32(rng.NormFloat64()*scale) * 0.6
			at := centres[c][j]
			for d := range madeDim {
				v[d] += (at+z)*global[j*madeDim+d] + z*own[c][j*madeDim+d]
			}
			scale *= 0.9
		}
		return v
	}
	write := func(name string, n int) (string, error) {
		path := filepath.Join(r.dir, name)
		values := make([]float32, 0, n*madeDim)
		for range n {
			values = append(values, row()...)
		}
		return path, writeNpy(path, "<f4", n, madeDim, values)
	}
	var err error
	if r.o.base, err = write("base.npy", madeRows); err != nil {
		return err
	}
	r.o.queries, err = write("queries.npy", madeQueries)
	return err
}

// noTruth makes the file of neighbours that the floor is compared with: it does
// not look for any.
func (r *rig) noTruth() error {
	r.truth = filepath.Join(r.dir, "no-truth.npy")
	return writeNpy(r.truth, "<i4", 100_000, 10, make([]int32, 1_000_000))
}

// writeNpy writes a matrix of 4-byte numbers.
func writeNpy[T int32 | float32](path, descr string, rows, cols int, values []T) error {
	const offset = 128
	head, err := npy.Encode(npy.Header{Descr: descr, Shape: []int64{int64(rows), int64(cols)}}, offset)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Write(head)
	if err := writeValues(&b, values); err != nil {
		return errors.Wrap(err, path)
	}
	return errors.Wrap(os.WriteFile(path, b.Bytes(), 0o600), "write vectors")
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }
