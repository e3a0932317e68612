package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/lifecycle"
)

type quickstartCmd struct {
	Exit bool `help:"Stop when everything is done instead of serving on."`
	outputFlags
	configFlags
}

// Help is shown by --help.
func (quickstartCmd) Help() string {
	return `From nothing to answers: starts a node with the embedded queue and object storage in ./querynode-data, writes the
20,000 most frequent English words with their GloVe vectors through the write-ahead log, seals them into a segment
with an HNSW index, loads it, and shows which words are near to others, how exact the answers are, and how fast.
Then it serves until Ctrl-C; with --exit it ends, with exit code 1 if it was stopped before. A second run finds the data of the first; a run that was killed is taken up where it was.

Example:
  querynode quickstart
  querynode quickstart --data-dir /tmp/words --grpc-listen 127.0.0.1:0 --exit --json | jq .recall_at_10`
}

// figures is what the quick start has done and measured.
type figures struct {
	Addr       string  `json:"addr"`
	AdminAddr  string  `json:"admin_addr"`
	DataDir    string  `json:"data_dir"`
	Collection string  `json:"collection"`
	Rows       int64   `json:"rows"`     // in the collection
	Written    int64   `json:"written"`  // by this run
	Reused     bool    `json:"reused"`   // nothing had to be written
	Segments   []int64 `json:"segments"` // loaded
	Queries    int     `json:"queries"`
	Recall     float64 `json:"recall_at_10"`
	P50        float64 `json:"search_p50_ms"`
	P99        float64 `json:"search_p99_ms"`
	Seconds    struct {
		Start, Write, Flush, Load, Total float64
	} `json:"seconds"`
	Neighbours map[string][]neighbour `json:"neighbours"`
}

// quickstart is one run.
type quickstart struct {
	*quickstartCmd
	app   *app
	cfg   *config.Config
	out   *console.Console
	node  *running
	c     *client
	words *words
	fig   figures
	began time.Time
	told  time.Time // when a signal asked for the end; zero if none did
	done  bool      // all steps are
	ack   *os.File  // takes the acknowledged ids, for tests; may be nil
}

// Run runs the quick start until it is done, and then the node until a signal.
func (cmd *quickstartCmd) Run(a *app) (err error) {
	q := &quickstart{quickstartCmd: cmd, app: a, out: cmd.console(a), began: time.Now()}
	if q.cfg, err = cmd.config(a, q.out); err != nil {
		return err
	}
	logFile, err := q.openLog()
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, logFile.Close()) }()
	if path := a.getenv("QUERYNODE_TEST_ACK_FILE"); path != "" {
		if q.ack, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
			return errors.Wrap(err, "QUERYNODE_TEST_ACK_FILE")
		}
		defer func() { err = errors.CombineErrors(err, q.ack.Close()) }()
	}
	if a.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(q.cfg.Memory.GoLimit))
	}
	log, level := newLogger(&config.Log{Level: q.cfg.Log.Level, Format: "text"}, logFile)
	log.Info("quickstart", "version", a.version, "pid", os.Getpid())
	q.out.Printf("%s  words in a vector database, in this process", q.out.Paint(console.Strong, "querynode quickstart"))
	q.out.Printf("%s\n", q.out.Paint(console.Faint, fmt.Sprintf("data in %s, log in %s", short(q.cfg.Node.DataDir), short(logFile.Name()))))
	err = a.serveThen(q.cfg, startOptions{version: a.version, log: log, level: level}, q.run)
	if err == nil && q.Exit && !q.done {
		// Who waits for the figures must not take their absence for success. Without --exit
		// a signal is how it ends.
		err = &problem{text: "stopped before it was done", next: "run it again: it goes on where it was"}
	}
	if err != nil {
		log.Error("quickstart failed", "error", err)
	}
	return err
}

// config is that of serve, with ports that are free.
func (cmd *quickstartCmd) config(a *app, out *console.Console) (*config.Config, error) {
	cfg, from, err := cmd.load(a)
	if err != nil {
		return nil, err
	}
	if cfg.GRPC.TLSCert != "" {
		return nil, usage(errors.New("the quick start speaks plain text: leave grpc.tls_cert out"))
	}
	if !cfg.Node.Standalone {
		return nil, usage(errors.New("the quick start needs a node that is its own coordinator: leave node.standalone out"))
	}
	for key, addr := range map[string]*string{"grpc.listen": &cfg.GRPC.Listen, "admin.listen": &cfg.Admin.Listen} {
		// Who named an address wants that one; an image publishes its own.
		if !from[key].Set && !from[key].Weak && taken(*addr) {
			out.Notef("%s is taken, so another port is used instead (%s)", *addr, key)
			*addr = "127.0.0.1:0"
		}
	}
	return cfg, nil
}

// taken reports whether somebody listens on the address already.
func taken(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return errors.Is(err, syscall.EADDRINUSE)
	}
	_ = l.Close()
	return false
}

// maxLogBytes is the size at which the log of earlier runs is begun anew.
const maxLogBytes = 8 << 20

// openLog sends the node's log into the data folder: the terminal is for the
// person at it.
func (q *quickstart) openLog() (*os.File, error) {
	dir := q.cfg.Node.DataDir
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, errors.Wrap(err, "create the data folder")
	}
	path := filepath.Join(dir, "quickstart.log")
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if st, err := os.Stat(path); err == nil && st.Size() > maxLogBytes {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o640)
	return f, errors.Wrap(err, "open the log")
}

// run does the job on a started node, then waits for the end. It owns the node
// and stops it.
func (q *quickstart) run(r *running) error {
	q.node = r
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	group := lifecycle.NewGroup(ctx, nil)
	done := make(chan error, 1)
	if err := group.Go("quickstart", func(ctx context.Context) error {
		done <- lifecycle.Call("quickstart", func() error { return q.job(ctx) })
		return nil
	}); err != nil {
		return q.app.stop(r, time.Time{}, err)
	}
	var why error
	finished := false
	for why == nil {
		select {
		case err := <-done:
			done, finished, q.done = nil, true, err == nil
			if err != nil || q.Exit {
				return q.end(errors.Wrap(err, "quickstart"))
			}
		case sig := <-q.app.signals:
			q.told = time.Now()
			r.log.Info("stopping", "signal", sig.String())
			cancel()
			if !finished {
				q.done = <-done == nil // each step ends with its context, and each call has a deadline
			}
			q.out.Notef("\n%s: stopping", sig) // after the bar that was moving
			return q.end(nil)
		case why = <-r.failed:
		}
	}
	cancel()
	if !finished {
		<-done
	}
	return q.end(why)
}

// end stops the node.
func (q *quickstart) end(why error) error {
	if q.c != nil {
		_ = q.c.conn.Close() // else the server waits for it
	}
	begin := time.Now()
	err := q.app.stop(q.node, q.told, why)
	if err == nil {
		q.out.Notef("stopped in %s", console.Took(time.Since(begin)))
	}
	return err
}

// job is what the quick start is about. Each step looks first at what is there,
// so that it can be taken up anywhere.
func (q *quickstart) job(ctx context.Context) (err error) {
	if err := q.waitReady(ctx); err != nil {
		return err
	}
	addr := q.node.grpcLis.Addr().String()
	if q.c, err = dial(config.DialAddress(addr), 0, insecure.NewCredentials(), q.out); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{q.readWords, q.ensureCollection, q.ingest, q.flush, q.load, q.neighbours, q.measure} {
		if err := step(ctx); err != nil {
			return explain(err, q.c.addr, "")
		}
	}
	q.fig.Seconds.Total = time.Since(q.began).Seconds()
	return q.next()
}

// waitReady waits until the node has recovered what an earlier run left.
func (q *quickstart) waitReady(ctx context.Context) error {
	bar := q.out.Bar("start the node", 0, console.Steps)
	defer bar.Fail()
	now, changes, cancel := q.node.machine.Watch()
	defer cancel()
	for !now.Ready() {
		select {
		case c, ok := <-changes:
			if !ok {
				return errors.New("the node stopped while it was starting: see the log")
			}
			now = c.To
		case <-ctx.Done():
			return errors.Wrap(ctx.Err(), "start the node")
		}
	}
	bar.Done()
	q.fig.Addr, q.fig.AdminAddr = q.node.grpcLis.Addr().String(), q.node.adminLis.Addr().String()
	q.fig.DataDir, q.fig.Collection = q.cfg.Node.DataDir, wordsCollection
	q.fig.Seconds.Start = time.Since(q.began).Seconds()
	return nil
}
