//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// rig is a node, one run after the other on the same data, and its clients. Its
// methods are called by one goroutine; the clients only ask for the connection.
type rig struct {
	o      Options
	r      *rand.Rand
	report *Report
	load   *workload
	work   string // everything of this program
	data   string // the data folder of the node
	binary string
	args   []string
	env    []string
	disk   error   // why the disk cannot be full; nil = it can
	wire   *wire   // between the node and its object storage; nil with file
	broker *broker // nil with the embedded queue
	undo   []func() error

	side       sync.WaitGroup // calls that faults make beside the workload
	node       *process
	runs       int
	boring     []string // logs of runs that were fine
	calms      int64
	generation int
	startTook  time.Duration // the last start, to draw moments within it

	shared struct {
		sync.Mutex
		client *client
		fresh  chan struct{} // closed when a client is there
	}
}

// keepLogs is how many logs of runs that were fine are kept.
const keepLogs = 60

// Run does it all. The error says why it could not be done; what was found wrong
// with the node is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	g := &rig{o: o, r: rand.New(rand.NewPCG(o.Seed, 1)), report: newReport(o), work: o.Dir}
	g.report.Violations = []Violation{}
	g.shared.fresh = make(chan struct{})
	g.load = &workload{report: g.report, current: g.client, fresh: g.freshClient, exact: o.Seed%2 == 1}
	err := g.all(ctx)
	if g.node != nil && !g.node.ended() {
		g.node.signal(syscall.SIGCONT)
		g.node.kill()
	}
	g.report.finish()
	if kept := err != nil || o.Keep || len(g.report.Violations) > 0; kept {
		g.report.Dir = g.work
		if _, serr := os.Stat(g.data); g.disk == nil && serr == nil { // a tmpfs goes with its mount
			if cerr := os.CopyFS(filepath.Join(g.work, "data-kept"), os.DirFS(g.data)); cerr != nil {
				g.report.say("cannot keep the data folder: %v", cerr)
			}
		}
	}
	for i := len(g.undo) - 1; i >= 0; i-- {
		if uerr := g.undo[i](); uerr != nil {
			g.report.say("%v", uerr)
		}
	}
	if g.report.Dir == "" && g.work != "" {
		err = errors.Join(err, os.RemoveAll(g.work))
	}
	return g.report, err
}

func (g *rig) all(ctx context.Context) error {
	if err := g.prepare(ctx); err != nil {
		return err
	}
	if err := g.start(ctx); err != nil {
		return err
	}
	before, err := g.measure(ctx)
	if err != nil {
		return err
	}
	if err := g.newGeneration(ctx); err != nil {
		return err
	}
	g.calm()
	loading, stop := context.WithCancel(ctx)
	wait := g.load.start(loading, g.o.Seed)
	defer g.side.Wait()
	defer wait()
	defer stop()
	if err := g.faults(ctx); err != nil {
		return err
	}
	end, cancel := context.WithTimeout(ctx, endgameLimit)
	defer cancel()
	g.report.say("no more faults; comparing everything")
	if err := g.verify(end, "the last scan"); err != nil {
		return err
	}
	g.load.calm.Store(0)
	stop()
	wait()
	return g.endgame(end, before)
}

// prepare makes the folders, the disk, the storage and the program.
func (g *rig) prepare(ctx context.Context) (err error) {
	if g.work == "" {
		if g.work, err = os.MkdirTemp("", "querynode-chaos-"); err != nil {
			return errors.Wrap(err, "make a folder to work in")
		}
	}
	disk := filepath.Join(g.work, "disk")
	for _, d := range []string{disk, filepath.Join(g.work, "logs")} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return errors.Wrap(err, "make a folder to work in")
		}
	}
	unmount, err := mountDisk(disk)
	if g.disk = err; err == nil {
		g.undo = append(g.undo, unmount)
	}
	g.data = filepath.Join(disk, "data")
	if g.binary = g.o.Binary; g.binary == "" {
		g.binary = filepath.Join(g.work, "querynode")
		g.report.say("building ./cmd/querynode")
		build := exec.CommandContext(ctx, "go", "build", "-o", g.binary, "github.com/querynode/querynode/cmd/querynode")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return errors.Wrapf(err, "build querynode: %s", out)
		}
	}
	// Small and quick, so that everything happens often.
	for _, kv := range []string{
		"node.name=chaos", "node.refresh_interval=1s", "growing.seal_rows=2000", "growing.seal_age=8s", "growing.checkpoint_interval=500ms",
		"growing.reserve_rows=20000", "wal.timetick_interval=50ms", "queue.segment_bytes=1MiB", "memory.limit=1GiB", "search.queue_len=4096",
		"storage.call_timeout=5s", "node.call_timeout=5s", "wal.append_timeout=3s", "growing.upload_timeout=5s",
	} {
		g.args = append(g.args, "--set", kv)
	}
	if g.o.Queue == "pulsar" {
		if err := g.prepareBroker(ctx); err != nil {
			return err
		}
	}
	if g.o.Storage == "s3" {
		return g.prepareS3()
	}
	return nil
}

// spawn starts a run of the node and does not wait for anything.
func (g *rig) spawn() (*process, error) {
	g.runs++
	g.load.run.Store(int64(g.runs))
	p, err := spawn(g.binary, g.data, filepath.Join(g.work, "logs", fmt.Sprintf("node-%04d.log", g.runs)), g.runs, g.args, g.env)
	g.node = p
	return p, err
}

// start starts a run and waits until it is ready. A node that is not is a
// violation, and so is one that ends; it is started again then.
func (g *rig) start(ctx context.Context) error {
	for try := 0; ; try++ {
		p, err := g.spawn()
		if err != nil {
			return err
		}
		if g.becomesReady(ctx, p) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !p.ended() {
			p.signal(syscall.SIGQUIT)
			p.wait(5 * time.Second)
			g.report.violate(Violation{Kind: NotReady, What: fmt.Sprintf("run %d is not ready after %s, see %s\n%s", p.run, startLimit, p.log, p.tail(5))})
			p.kill()
			p.asked = true
			g.buried(p)
		} else {
			g.buried(p)
		}
		if try >= 2 {
			return errors.Newf("the node did not become ready in %d runs, the last: %s", try+1, p.tail(3))
		}
	}
}

// becomesReady waits for it, and lets the clients go at the node as soon as it
// says where it listens.
func (g *rig) becomesReady(ctx context.Context, p *process) bool {
	late := time.NewTimer(startLimit)
	defer late.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	known := false
	for {
		select {
		case <-look.C:
		case <-p.done:
			return false
		case <-late.C:
			return false
		case <-ctx.Done():
			return false
		}
		if !known && p.announced() {
			known = true
			if err := g.connect(p); err != nil {
				g.report.say("%v", err)
				return false
			}
		}
		if known && p.ready() {
			g.startTook = time.Since(p.started)
			g.report.Recovery.add(g.startTook)
			return true
		}
	}
}

func (g *rig) connect(p *process) error {
	c, err := dial(p)
	if err != nil {
		return err
	}
	g.shared.Lock()
	defer g.shared.Unlock()
	g.shared.client = c
	close(g.shared.fresh)
	g.shared.fresh = make(chan struct{})
	return nil
}

// disconnect takes the connection away from the clients. Call it only when the
// process is gone: calls that still run then end.
func (g *rig) disconnect() {
	g.shared.Lock()
	c := g.shared.client
	g.shared.client = nil
	g.shared.Unlock()
	if c != nil {
		_ = c.conn.Close()
	}
}

func (g *rig) client() *client {
	g.shared.Lock()
	defer g.shared.Unlock()
	return g.shared.client
}

func (g *rig) freshClient() <-chan struct{} {
	g.shared.Lock()
	defer g.shared.Unlock()
	return g.shared.fresh
}

// calm says that nothing is done to the node from now on, trouble that something is.
func (g *rig) calm() {
	g.calms++
	g.load.calm.Store(g.calms)
}

func (g *rig) trouble() { g.load.calm.Store(0) }

// buried looks at what a run that has ended leaves: panics, and whether its end
// was our doing.
func (g *rig) buried(p *process) {
	g.disconnect()
	panics, logged := p.trouble()
	for _, what := range panics {
		g.report.violate(Violation{Kind: Panicked, What: fmt.Sprintf("run %d: %s (see %s)", p.run, what, p.log)})
	}
	g.report.mu.Lock()
	for msg, n := range logged {
		g.report.LogErrors[msg] += n
	}
	g.report.mu.Unlock()
	if !p.asked {
		g.report.violate(Violation{Kind: Died, What: fmt.Sprintf("run %d ended with %v, see %s\n%s", p.run, p.cmd.ProcessState, p.log, p.tail(5))})
	}
	if len(panics) == 0 && p.asked && !g.o.Keep {
		if g.boring = append(g.boring, p.log); len(g.boring) > keepLogs {
			_ = os.Remove(g.boring[0])
			g.boring = g.boring[1:]
		}
	}
}

// kill ends the node as a power failure does, except for what the system has in
// its caches.
func (g *rig) kill(p *process) {
	p.kill()
	g.buried(p)
}

// term stops the node as an orchestrator does, and checks that it stops well.
func (g *rig) term(p *process) {
	p.asked = true
	asked := time.Now()
	p.signal(syscall.SIGTERM)
	limit := stopLimit
	if g.broker != nil {
		limit = slowStop
	}
	if p.wait(limit) {
		g.report.Stop.add(time.Since(asked))
		g.stopped(p, asked)
		return
	}
	more := ""
	if !p.wait(stuckLimit - limit) {
		p.signal(syscall.SIGQUIT)
		if more = "; its goroutines are in its log"; !p.wait(5 * time.Second) {
			p.kill()
		}
	}
	g.report.violate(Violation{Kind: BadStop, What: fmt.Sprintf("run %d ended %s after SIGTERM (limit %s) with %v, see %s%s", p.run,
		time.Since(asked).Round(time.Millisecond), limit, p.cmd.ProcessState, p.log, more)})
	g.disconnect()
	if more == "" {
		g.buried(p)
	}
}

func (g *rig) stopped(p *process, asked time.Time) {
	early := p.code() == -1 && len(p.said()) == 0 // before main, where nothing has been started
	if p.code() != 0 && !early {
		g.report.violate(Violation{Kind: BadStop, What: fmt.Sprintf("run %d ended with %v, %s after its start and %s after SIGTERM, see %s\n%s", p.run, p.cmd.ProcessState,
			asked.Sub(p.started).Round(time.Millisecond), time.Since(asked).Round(time.Millisecond), p.log, p.tail(5))})
	}
	g.buried(p)
	if p.code() == 0 {
		g.nothingLeft(p)
	}
}

// nothingLeft wants a data folder without leftovers of this run. Those of killed
// runs before it stay if it was stopped before it got to them.
func (g *rig) nothingLeft(p *process) {
	left, _ := filepath.Glob(filepath.Join(g.data, "run-*"))
	left = slices.DeleteFunc(left, func(path string) bool { return slices.Contains(p.found, path) })
	if p.announced() {
		left = append(left, "node.json")
	}
	if len(left) > 0 {
		g.report.violate(Violation{Kind: Leftovers, What: fmt.Sprintf("run %d stopped cleanly and left %s", p.run, strings.Join(left, ", "))})
	}
}

// newGeneration begins with an empty collection; the clients are held off.
func (g *rig) newGeneration(ctx context.Context) error {
	g.load.gate.Lock()
	defer g.load.gate.Unlock()
	if old := g.load.gate.collection; old != "" {
		if err := g.again(ctx, "drop the collection", func(ctx context.Context, c *client) error {
			_, err := c.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: old})
			if isNotFound(err) {
				return nil // the call before this one did it
			}
			return err
		}); err != nil {
			return err
		}
	}
	g.generation++
	g.load.gate.collection = fmt.Sprintf("chaos_%d", g.generation)
	g.load.gate.model = newModel(keys)
	index := "HNSW"
	if g.load.exact {
		index = "FLAT"
	}
	return g.again(ctx, "create a collection", func(ctx context.Context, c *client) error {
		_, err := c.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{Name: g.load.gate.collection, Schema: schema(), Shards: 2,
			Indexes: []*qnpb.IndexSpec{{Field: "v", Type: index, Metric: "L2"}}})
		if isExists(err) {
			return nil
		}
		return err
	})
}

// again makes a call until it works or settleLimit is over.
func (g *rig) again(ctx context.Context, what string, call func(context.Context, *client) error) (err error) {
	limit, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		err = errors.New("no node is there")
		if c := g.client(); c != nil {
			one, cancel := within(limit, 2*callTimeout)
			err = call(one, c)
			cancel()
		}
		if err == nil {
			return nil
		}
		rest(limit, 100*time.Millisecond)
		if limit.Err() != nil {
			return errors.Wrapf(err, "%s: not in %s; the last error", what, settleLimit)
		}
	}
}

// verify holds the clients off and compares every row with the model.
func (g *rig) verify(ctx context.Context, what string) error {
	g.load.gate.Lock()
	defer g.load.gate.Unlock()
	err := g.again(ctx, what, func(ctx context.Context, c *client) error { return g.load.scan(ctx, c, what, "") })
	if err == nil {
		err = g.again(ctx, "count", g.load.count)
	}
	if err != nil && ctx.Err() == nil {
		g.report.violate(Violation{Kind: Refused, What: err.Error()})
		return nil
	}
	return err
}
