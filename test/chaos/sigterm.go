//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// What hangs while a node is told to stop.
const (
	hangsNothing = "nothing"
	hangsStorage = "object storage"
	hangsBroker  = "broker"
)

// Moments at which a node is told to stop.
const (
	atStart    = "start"
	atRecovery = "recovery"
	atAppend   = "append"
)

// termDeadline is what a node may take from SIGTERM to its end with the default
// configuration: shutdown.drain and shutdown.total.
const termDeadline = 10200 * time.Millisecond

// lane is one node after the other on the same data.
type lane struct {
	name, hangs  string
	binary, dir  string
	args, env    []string
	wire         *wire // what hangs; nil = nothing, or something that always does
	deaf         bool  // the broker never says a word
	r            *rand.Rand
	report       *TermReport
	trials       *atomic.Int64 // how many are left, of all lanes of this kind
	filling      int64
	runs         int
	announceTook time.Duration
	recoveryTook time.Duration
	acked, tried atomic.Int64 // rows
	next         atomic.Int64 // key
}

// Terminate starts nodes, tells each to stop at a random moment, and looks how it
// ends. A third of them has an object storage that hangs, another third a broker
// that is silent.
func Terminate(ctx context.Context, o Options) (*TermReport, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	report := newTermReport(o)
	work := o.Dir
	if work == "" {
		var err error
		if work, err = os.MkdirTemp("", "querynode-sigterm-"); err != nil {
			return nil, errors.Wrap(err, "make a folder to work in")
		}
	}
	t := &terms{o: o, work: work, report: report}
	err := errors.Wrap(os.MkdirAll(work, 0o750), "make a folder to work in")
	if err == nil {
		err = t.all(ctx)
	}
	for i := len(t.undo) - 1; i >= 0; i-- {
		if uerr := t.undo[i](); uerr != nil {
			report.say("%v", uerr)
		}
	}
	report.finish()
	if err != nil || o.Keep || len(report.Violations) > 0 {
		report.Dir = work
	} else {
		err = os.RemoveAll(work)
	}
	return report, err
}

type terms struct {
	o      Options
	work   string
	binary string
	report *TermReport
	broker *broker // nil = one that is deaf
	undo   []func() error
}

func (t *terms) all(ctx context.Context) error {
	if t.binary = t.o.Binary; t.binary == "" {
		t.binary = filepath.Join(t.work, "querynode")
		t.report.say("building ./cmd/querynode")
		build := exec.CommandContext(ctx, "go", "build", "-o", t.binary, "github.com/querynode/querynode/cmd/querynode")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return errors.Wrapf(err, "build querynode: %s", out)
		}
	}
	lanes, err := t.lanes(ctx)
	if err != nil {
		return err
	}
	failed := make(chan error, len(lanes))
	var wg sync.WaitGroup
	for _, l := range lanes {
		wg.Go(func() {
			if err := l.run(ctx); err != nil {
				failed <- errors.Wrap(err, l.name)
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		return err
	}
	return t.nothingHeld(ctx)
}

// brokerLanes is how many nodes with a silent broker there are at a time: they
// spend their time waiting.
const brokerLanes = 3

func (t *terms) lanes(ctx context.Context) ([]*lane, error) {
	n := int64(t.o.Terms)
	healthy, storage, silent := new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)
	storage.Store(n / 3)
	silent.Store(n / 3)
	healthy.Store(n - 2*(n/3))
	var all []*lane
	add := func(name, hangs string, trials *atomic.Int64) *lane {
		l := &lane{name: name, hangs: hangs, binary: t.binary, dir: filepath.Join(t.work, name), report: t.report, trials: trials, filling: min(fillAppends, 30*n),
			r: rand.New(rand.NewPCG(t.o.Seed, uint64(len(all)))), announceTook: time.Second, recoveryTook: time.Second}
		// Sealed rarely, so that there is something to recover.
		l.args = []string{"--set", "node.name=" + name, "--set", "growing.seal_age=1h", "--set", "growing.checkpoint_interval=1h", "--set", "memory.limit=1GiB"}
		all = append(all, l)
		return l
	}
	add("plain", hangsNothing, healthy)
	if err := t.addStorage(add("storage", hangsStorage, storage)); err != nil {
		return nil, err
	}
	if t.o.Queue != "pulsar" {
		l := add("broker", hangsBroker, silent)
		l.deaf = true
		return all, t.addDeaf(l)
	}
	t.broker = &broker{topics: "sigterm-", dir: filepath.Join(t.work, "pulsar")}
	var wires []*wire
	for i := range brokerLanes {
		l := add(fmt.Sprintf("broker%d", i), hangsBroker, silent)
		var err error
		if l.wire, err = newWire(""); err != nil {
			return nil, err
		}
		t.undo = append(t.undo, l.wire.close)
		wires = append(wires, l.wire)
		l.args = append(l.args, "--set", "queue.kind=pulsar", "--set", "pulsar.url=pulsar://"+l.wire.addr(), "--set", fmt.Sprintf("queue.pchannel_prefix=sigterm-%d-", i))
	}
	t.undo = append(t.undo, func() error { return t.broker.stop("-9") })
	t.report.say("starting Pulsar")
	return all, t.broker.first(ctx, "", wires...)
}

func (t *terms) addStorage(l *lane) error {
	backend := s3mem.New()
	if err := backend.CreateBucket("sigterm"); err != nil {
		return errors.Wrap(err, "make the bucket")
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.undo = append(t.undo, func() error { srv.CloseClientConnections(); srv.Close(); return nil })
	w, err := newWire(srv.Listener.Addr().String())
	if err != nil {
		return err
	}
	t.undo = append(t.undo, w.close)
	l.wire = w
	l.args = append(l.args, "--set", "storage.url=s3://sigterm/x?endpoint="+w.addr()+"&insecure=true&path_style=true")
	l.env = append(l.env, "QUERYNODE_STORAGE_ACCESS_KEY=sigterm", "QUERYNODE_STORAGE_SECRET_KEY=sigterm-secret")
	return nil
}

// addDeaf gives the lane a broker whose kernel takes connections, and nobody else.
func (t *terms) addDeaf(l *lane) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Wrap(err, "listen")
	}
	t.undo = append(t.undo, lis.Close)
	l.args = append(l.args, "--set", "queue.kind=pulsar", "--set", "pulsar.url=pulsar://"+lis.Addr().String())
	return nil
}

// nothingHeld wants that nobody has anything at the broker any more.
func (t *terms) nothingHeld(ctx context.Context) error {
	if t.broker == nil {
		return nil
	}
	h, what, err := t.broker.settled(ctx)
	if err != nil {
		return err
	}
	if h != (held{topics: h.topics}) {
		t.report.violate("at the end clients hold %+v at the broker: %s", h, strings.Join(what, ", "))
	}
	t.report.AtBroker = h.producers + h.consumers + h.subscriptions + h.cursors
	return nil
}

const (
	termCollection = "sigterm"
	fillAppends    = 3000 // before the first stop, each of a few rows; fewer when there are few stops
)

// run does the lane's trials.
func (l *lane) run(ctx context.Context) error {
	if !l.deaf {
		if err := l.fill(ctx); err != nil {
			return errors.Wrap(err, "fill the log")
		}
	}
	for l.trials.Add(-1) >= 0 {
		for {
			done, err := l.trial(ctx)
			if err != nil {
				return err
			}
			if done {
				break
			}
		}
	}
	if l.deaf {
		return nil
	}
	return l.check(ctx)
}

func (l *lane) spawn() (*process, error) {
	l.runs++
	log := filepath.Join(filepath.Dir(l.dir), fmt.Sprintf("%s-%04d.log", l.name, l.runs))
	return spawn(l.binary, l.dir, log, l.runs, l.args, l.env)
}

// until waits for cond, or for the end of the process.
func until(ctx context.Context, p *process, limit time.Duration, cond func() bool) bool {
	end := time.Now().Add(limit)
	for !cond() {
		if p.ended() || ctx.Err() != nil || time.Now().After(end) {
			return false
		}
		rest(ctx, 5*time.Millisecond)
	}
	return true
}

// serving starts a node and waits until it is ready.
func (l *lane) serving(ctx context.Context) (*process, *client, error) {
	p, err := l.spawn()
	if err != nil {
		return nil, nil, err
	}
	if !until(ctx, p, startLimit, p.announced) {
		p.kill()
		return nil, nil, errors.Newf("run %d does not announce itself: %s", p.run, p.tail(5))
	}
	l.announceTook = time.Since(p.started)
	if !until(ctx, p, startLimit, p.ready) {
		p.kill()
		return nil, nil, errors.Newf("run %d does not become ready: %s", p.run, p.tail(5))
	}
	l.recoveryTook = time.Since(p.started) - l.announceTook
	c, err := dial(p)
	return p, c, err
}

// fill makes a collection, and a log that takes a while to recover.
func (l *lane) fill(ctx context.Context) error {
	p, c, err := l.serving(ctx)
	if err != nil {
		return err
	}
	_, err = c.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{Name: termCollection, Schema: schema(), Shards: 2,
		Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}}})
	if err == nil {
		stop := l.appends(ctx, c, l.filling)
		stop(true)
		if l.acked.Load() != l.tried.Load() {
			err = errors.Newf("%d of %d rows were acknowledged", l.acked.Load(), l.tried.Load())
		}
	}
	_ = c.conn.Close()
	p.kill() // so that nothing is sealed or noted
	return err
}

const appenders = 8

// appends inserts rows until limit appends were made, or an append fails and the
// returned function has been called, which waits for the end.
func (l *lane) appends(ctx context.Context, c *client, limit int64) (stop func(all bool)) {
	var wg sync.WaitGroup
	var made atomic.Int64
	var over atomic.Bool
	for range appenders {
		wg.Go(func() {
			for !over.Load() && made.Add(1) <= limit {
				const rows = 4
				first := l.next.Add(rows) - rows
				ids := []int64{first, first + 1, first + 2, first + 3}
				l.tried.Add(rows)
				call, cancel := within(ctx, callTimeout)
				_, err := c.write.Append(call, &qnpb.AppendRequest{Collection: termCollection,
					Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: rows, Fields: rowsOf(ids, 1)}}})
				cancel()
				if err != nil {
					return
				}
				l.acked.Add(rows)
			}
		})
	}
	return func(all bool) {
		if !all {
			over.Store(true)
		}
		wg.Wait()
	}
}

func (l *lane) upTo(d time.Duration) time.Duration { return time.Duration(l.r.Int64N(int64(d) + 1)) }

// trial starts a node and tells it to stop at a random moment. It is false if the
// signal came before main, where nothing of ours can answer it.
func (l *lane) trial(ctx context.Context) (done bool, err error) {
	goOn := func() {}
	defer func() { goOn() }()
	hang := func() {
		if l.wire != nil {
			goOn = l.wire.hang()
		}
	}
	var p *process
	calm := func() {}
	moment := []string{atStart, atRecovery, atAppend}[l.r.IntN(3)]
	if l.deaf {
		moment = []string{atStart, atRecovery}[l.r.IntN(2)] // it never gets further
	}
	switch moment {
	case atStart:
		p, err = l.starting(ctx, hang)
	case atRecovery:
		p, err = l.recovering(ctx, hang)
	case atAppend:
		p, calm, err = l.appending(ctx, hang)
	}
	if err != nil {
		return false, err
	}
	defer calm()
	if ctx.Err() != nil {
		p.kill()
		return false, ctx.Err()
	}
	return l.term(p, moment), nil
}

// starting returns at some moment of a start. What hangs does so from before it,
// or from some moment of it.
func (l *lane) starting(ctx context.Context, hang func()) (*process, error) {
	before := l.r.IntN(2) == 0
	if before {
		hang()
	}
	p, err := l.spawn()
	if err != nil {
		return nil, err
	}
	rest(ctx, l.upTo(l.announceTook))
	if !before {
		hang()
	}
	rest(ctx, l.upTo(l.announceTook/2))
	return p, nil
}

func (l *lane) recovering(ctx context.Context, hang func()) (*process, error) {
	p, err := l.spawn()
	if err != nil {
		return nil, err
	}
	if !until(ctx, p, startLimit, p.announced) {
		p.kill()
		return nil, errors.Newf("run %d does not announce itself: %s", p.run, p.tail(5))
	}
	rest(ctx, l.upTo(l.recoveryTook))
	hang()
	rest(ctx, l.upTo(l.recoveryTook/2))
	return p, nil
}

// appending returns while rows are being inserted; calm waits for who does it.
func (l *lane) appending(ctx context.Context, hang func()) (p *process, calm func(), err error) {
	p, c, err := l.serving(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := l.appends(ctx, c, 1<<40)
	var side sync.WaitGroup
	if l.hangs == hangsStorage && l.r.IntN(4) == 0 {
		side.Go(func() { // uploads that hang
			call, cancel := within(ctx, callTimeout)
			defer cancel()
			_, _ = c.write.Flush(call, &qnpb.FlushRequest{Collection: termCollection, Wait: true})
		})
	}
	rest(ctx, l.upTo(maxMoment))
	hang()
	rest(ctx, l.upTo(maxMoment))
	return p, func() {
		stop(false)
		side.Wait()
		_ = c.conn.Close()
	}, nil
}

// term tells the node to stop and looks at its end.
func (l *lane) term(p *process, moment string) (counts bool) {
	if p.ended() {
		l.report.violate("%s: run %d ended by itself: %v, see %s", l.name, p.run, p.cmd.ProcessState, p.log)
		return true
	}
	asked := time.Now()
	p.signal(syscall.SIGTERM)
	inTime := p.wait(termDeadline)
	took := time.Since(asked)
	if !inTime {
		p.signal(syscall.SIGQUIT) // its goroutines are in its log then
		if !p.wait(5 * time.Second) {
			p.kill()
		}
	}
	said := string(p.said())
	if p.code() == -1 && said == "" {
		l.report.early()
		return false
	}
	e := exit{hangs: l.hangs, moment: moment, took: took, code: p.code(), inTime: inTime, goroutines: leftIn(said)}
	if panics, _ := p.trouble(); len(panics) > 0 {
		l.report.violate("%s: run %d: %s, see %s", l.name, p.run, panics[0], p.log)
	}
	if left, _ := filepath.Glob(filepath.Join(l.dir, "run-*")); e.code == 0 && len(left) > 0 {
		l.report.violate("%s: run %d left %s", l.name, p.run, strings.Join(left, ", "))
	}
	switch {
	case !inTime:
		l.report.violate("%s: run %d, told to stop at %s, has not ended after %s, see %s", l.name, p.run, moment, took.Round(time.Millisecond), p.log)
	case e.code != 0:
		l.report.violate("%s: run %d, told to stop at %s, ended with %v after %s: %s, see %s", l.name, p.run, moment, p.cmd.ProcessState, took.Round(time.Millisecond), p.tail(1), p.log)
	case e.goroutines < 0:
		l.report.violate("%s: run %d ended with exit code 0 and does not say that it has stopped, see %s", l.name, p.run, p.log)
	default:
		_ = os.Remove(p.log)
	}
	l.report.add(e)
	return true
}

// check wants every acknowledged row, once.
func (l *lane) check(ctx context.Context) error {
	p, c, err := l.serving(ctx)
	if err != nil {
		return err
	}
	defer p.kill()
	defer c.conn.Close()
	st, err := c.query.Query(ctx, &qnpb.QueryRequest{Collection: termCollection, OutputFields: []string{"count(*)"}, Freshness: strong})
	if err != nil {
		return errors.Wrap(err, "count")
	}
	var count int64
	for {
		r, err := st.Recv()
		if err != nil {
			break
		}
		count = max(count, r.GetCount())
	}
	if count < l.acked.Load() || count > l.tried.Load() {
		l.report.violate("%s: %d rows are there, %d were acknowledged, %d sent", l.name, count, l.acked.Load(), l.tried.Load())
	}
	l.report.rows(l.acked.Load())
	return nil
}
