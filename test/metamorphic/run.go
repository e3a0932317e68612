package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/lifecycle"
)

// Options say what is to be done.
type Options struct {
	Seed   uint64
	Ops    int           // requests; 0 = 100,000
	Worlds int           // nodes beside each other, which share the operations; 0 = 3
	Lanes  int           // collections beside each other on each; 0 = 4
	Crowds int           // one in so many collections has thousands of rows; 0 = 25
	Dir    string        // for the queue's files; "" = a temporary folder
	Shrink time.Duration // how long a failing script is cut down; 0 = not at all
	Script string        // where it is written; "" = metamorphic-<seed>.script
	Slow   time.Duration // how long a call of the storage or the queue takes at most; 0 = not longer than it does
	Log    *slog.Logger  // of the node; nil = nowhere but to the end of a script that fails
	Note   io.Writer     // progress; nil = discard

	lie   bool // tests: the model is wrong
	brief bool // shrinking: whether there is a difference matters, not whether it lasts
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	if o.Ops == 0 {
		o.Ops = 100_000
	}
	if o.Worlds == 0 {
		o.Worlds = 3
	}
	if o.Lanes == 0 {
		o.Lanes = 4
	}
	if o.Crowds == 0 {
		o.Crowds = 25
	}
	if o.Script == "" {
		o.Script = fmt.Sprintf("metamorphic-%d.script", o.Seed)
	}
	if o.Note == nil {
		o.Note = io.Discard
	}
}

// Report is what came of a run.
type Report struct {
	Seed      uint64         `json:"seed"`
	Ops       int            `json:"ops"`
	Seconds   float64        `json:"seconds"`
	OpsPerSec float64        `json:"ops_per_second"`
	Kinds     map[string]int `json:"kinds"`
	// Spent is the time that the operations of a kind took, in all lanes.
	Spent       map[string]time.Duration `json:"spent_nanos"`
	Recall      float64                  `json:"hnsw_recall"`
	RecallHits  int64                    `json:"hnsw_hits_wanted"`
	RecallFound int64                    `json:"hnsw_hits_found"`
	Crowd       recalls                  `json:"crowd"` // of the hits above, those in collections with a crowd, by index
	Compacted   compacted                `json:"compacted"`
	Difference  string                   `json:"difference,omitempty"`
	Script      string                   `json:"script,omitempty"`
	ScriptLines int                      `json:"script_lines,omitempty"`
	Log         string                   `json:"log,omitempty"` // what the node that differs has logged, its end
	Reproduced  bool                     `json:"reproduced,omitempty"`
}

// minRecall is what searches by graph must find, over a run with enough of them.
const (
	minRecall     = 0.95
	minInCrowds   = 0.97 // of each kind of index: with the effort they choose they find more
	recallEnough  = 500
	opsPerSection = 150 // of a lane, between two barriers
)

// world is a node and its lanes.
type world struct {
	rig    *rig
	log    *tail
	lanes  []*lane
	script []op // what was run before the section that runs now
	kinds  map[string]int
	lie    bool
	brief  bool
}

func newWorld(ctx context.Context, o *Options, dir string) (*world, error) {
	log := &tail{}
	g, err := newRig(dir, log.logger(o.Log), slowness(o.Slow))
	if err != nil {
		return nil, err
	}
	return &world{rig: g, log: log, kinds: map[string]int{}, lie: o.lie, brief: o.brief}, g.start(ctx)
}

func (w *world) lane(number int) *lane {
	for len(w.lanes) < number {
		w.lanes = append(w.lanes, &lane{number: len(w.lanes) + 1, rig: w.rig, tally: map[string]int{}, spent: map[string]time.Duration{}, crowd: recalls{}, lie: w.lie, brief: w.brief})
	}
	return w.lanes[number-1]
}

// section runs a part of every lane beside each other and returns the first
// difference. step returns false when its lane is at its end.
func (w *world) section(ctx context.Context, step func(ctx context.Context, l *lane) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, len(w.lanes))
	group := lifecycle.NewGroup(ctx, func(_ string, err error) { ends <- err })
	started := 0
	var first error
	for _, l := range w.lanes {
		if first = group.Go(fmt.Sprintf("lane %d", l.number), func(ctx context.Context) error { return step(ctx, l) }); first != nil {
			break
		}
		started++
	}
	for range started {
		if err := <-ends; err != nil && first == nil {
			first = err
			cancel() // the others' requests end: they are not to be blamed
		}
	}
	var all []op
	for _, l := range w.lanes {
		all = append(all, l.done...)
		l.done = nil
	}
	w.script = append(w.script, all...)
	return errors.CombineErrors(first, group.Close(context.WithoutCancel(ctx)))
}

// barrier does what is done to the node as a whole.
func (w *world) barrier(ctx context.Context, o op) error {
	w.script = append(w.script, o)
	w.kinds[o.Do]++
	err := w.rig.complete("")
	if err != nil {
		return o.differs("%v", err)
	}
	switch o.Do {
	case opMeet:
		return nil
	case opRestart:
		err = w.rig.stop()
	case opCrash:
		err = w.rig.crash()
	}
	if err == nil {
		err = w.rig.start(ctx)
	}
	if err != nil {
		return o.differs("%v", err)
	}
	for _, l := range w.lanes {
		if l.model != nil {
			l.model.loaded = true // a standalone node serves all from its start
		}
	}
	return nil
}

// Run does random operations until there is a difference or they are done.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.EnsureDefaults()
	dir, err := workDir(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	began := time.Now()
	ends, err := runWorlds(ctx, &o, dir, began)
	if err != nil {
		return nil, err
	}
	rep := &Report{Seed: o.Seed, Kinds: map[string]int{}, Spent: map[string]time.Duration{}, Recall: 1, Crowd: recalls{}}
	var first *ended
	for i := range ends {
		rep.add(ends[i].rep)
		if ends[i].err != nil && first == nil {
			first = &ends[i]
		}
	}
	rep.Seconds = time.Since(began).Seconds()
	rep.OpsPerSec = float64(rep.Ops) / rep.Seconds
	switch {
	case ctx.Err() != nil:
		return rep, errors.Wrap(ctx.Err(), "interrupted")
	case first == nil && rep.RecallHits >= recallEnough && rep.Recall < minRecall:
		rep.Difference = fmt.Sprintf("searches by graph found %.4f of %d, want %.2f", rep.Recall, rep.RecallHits, minRecall)
		return rep, nil
	case first == nil:
		if kind := rep.Crowd.worst(); kind != "" && rep.Crowd[kind].share() < least(kind) {
			rep.Difference = fmt.Sprintf("searches in crowds by %s found %.4f of %d, want %.2f", kind, rep.Crowd[kind].share(), rep.Crowd[kind].Wanted, least(kind))
		}
		return rep, nil
	}
	return rep, first.tell(ctx, &o, dir, rep)
}

// ended is what came of a world.
type ended struct {
	rep    *Report
	script []op
	log    *tail
	err    error // nil in worlds that were stopped because of another
}

// tell puts what a world ended with into the report, and saves its script and its log. Each is saved whatever
// becomes of the other.
func (e *ended) tell(ctx context.Context, o *Options, dir string, rep *Report) error {
	var d *difference
	if !errors.As(e.err, &d) {
		return rep.failed(e.err, e.log, o.Script+logSuffix)
	}
	rep.Difference = d.Error()
	fmt.Fprintf(o.Note, "difference: %v\n", d)
	err := errors.CombineErrors(rep.saveScript(o.Script, e.script), rep.saveLog(e.log, o.Script+logSuffix))
	if o.Shrink > 0 {
		var small []op
		small, rep.Reproduced = shrink(ctx, o, dir, e.script, d)
		err = errors.CombineErrors(err, rep.saveScript(o.Script, small))
	}
	return err
}

// What is appended to the name of the script for that of the log: a replay leaves the log of the run that found
// the difference.
const (
	logSuffix       = ".log"
	replayLogSuffix = ".replay.log"
)

func (r *Report) saveScript(name string, script []op) error {
	r.Script, r.ScriptLines = name, len(script)
	return save(name, script)
}

// saveLog saves what a node has logged; nil = there was none.
func (r *Report) saveLog(log *tail, name string) error {
	if log == nil {
		return nil
	}
	if err := log.save(name); err != nil {
		return err
	}
	r.Log = name
	return nil
}

// failed is the error that a world ended with, which is no difference, and says where the log is.
func (r *Report) failed(err error, log *tail, name string) error {
	if failed := r.saveLog(log, name); failed != nil || r.Log == "" {
		return errors.CombineErrors(err, failed)
	}
	return errors.Wrapf(err, "what the node has logged is in %s", r.Log)
}

// runWorlds runs worlds beside each other, until one shows a difference.
func runWorlds(ctx context.Context, o *Options, dir string, began time.Time) ([]ended, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make([]ended, o.Worlds)
	var done atomic.Int64
	progress := func(n int) {
		if all := done.Add(int64(n)); all/20_000 > (all-int64(n))/20_000 {
			took := time.Since(began)
			fmt.Fprintf(o.Note, "%d operations in %v, %.0f a second\n", all, took.Round(time.Second), float64(all)/took.Seconds())
		}
	}
	over := make(chan struct{}, o.Worlds)
	group := lifecycle.NewGroup(ctx, func(string, error) { over <- struct{}{} })
	for i := range ends {
		err := group.Go(fmt.Sprintf("world %d", i), func(ctx context.Context) error {
			own := *o
			own.Ops = (o.Ops + o.Worlds - 1) / o.Worlds
			e := runWorld(ctx, &own, filepath.Join(dir, fmt.Sprintf("world-%d", i)), uint64(i), progress)
			if e.err != nil && ctx.Err() != nil {
				e.err = nil // the end of another
			}
			if ends[i] = e; e.err != nil {
				cancel()
			}
			return nil
		})
		if err != nil {
			return nil, errors.CombineErrors(err, group.Close(context.WithoutCancel(ctx)))
		}
	}
	for range ends {
		<-over
	}
	return ends, group.Close(context.WithoutCancel(ctx))
}

func runWorld(ctx context.Context, o *Options, dir string, number uint64, progress func(int)) ended {
	w, err := newWorld(ctx, o, dir)
	if w == nil {
		return ended{err: err}
	}
	if err == nil {
		err = w.explore(ctx, o, number, progress)
	}
	err = errors.CombineErrors(err, w.rig.stop())
	return ended{rep: w.report(), script: w.script, log: w.log, err: err}
}

func workDir(dir string) (string, error) {
	if dir != "" {
		dir = filepath.Join(dir, fmt.Sprintf("metamorphic-%d", os.Getpid()))
		return dir, errors.Wrap(os.MkdirAll(dir, 0o755), "create the folder to work in")
	}
	dir, err := os.MkdirTemp("", "metamorphic-")
	return dir, errors.Wrap(err, "create the folder to work in")
}

func save(name string, script []op) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return errors.Wrap(err, "save the script")
	}
	defer func() { err = errors.CombineErrors(err, f.Close()) }()
	return writeScript(f, script)
}

// explore makes up operations and runs them.
func (w *world) explore(ctx context.Context, o *Options, number uint64, progress func(int)) error {
	r := rand.New(rand.NewPCG(o.Seed, number<<32))
	for i := range o.Lanes {
		l := w.lane(i + 1)
		l.r, l.crowds = rand.New(rand.NewPCG(o.Seed, number<<32+uint64(i+1))), o.Crowds
	}
	for done, id := 0, 0; done < o.Ops; {
		n := min(opsPerSection, max(1, (o.Ops-done)/o.Lanes))
		err := w.section(ctx, func(ctx context.Context, l *lane) error {
			for range n {
				next := l.next()
				if err := l.run(ctx, &next); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		done += n * o.Lanes
		progress(n * o.Lanes)
		if len(w.script) > keepScript {
			w.forget()
		}
		id++
		b := op{ID: id, Do: opMeet}
		switch r.IntN(40) {
		case 0:
			b.Do = opRestart
		case 1:
			b.Do = opCrash
		}
		if err := w.barrier(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// keepScript is the number of operations after which those that cannot matter
// any more, of collections that were dropped, are not kept for a replay.
const keepScript = 200_000

func (w *world) forget() {
	begin := map[int]int{}
	for i, o := range w.script {
		if o.Do == opCreate {
			begin[o.Lane] = i
		}
	}
	var kept []op
	for i, o := range w.script {
		if o.Lane == 0 || i >= begin[o.Lane] {
			kept = append(kept, o)
		}
	}
	// Barriers before the first operation that is kept do nothing.
	w.script = kept[max(0, slices.IndexFunc(kept, func(o op) bool { return o.Lane != 0 })):]
}

func (w *world) report() *Report {
	rep := &Report{Kinds: maps.Clone(w.kinds), Spent: map[string]time.Duration{}, Recall: 1, Crowd: recalls{}, Compacted: w.rig.compacted}
	for _, l := range w.lanes {
		for k, n := range l.tally {
			rep.Kinds[k] += n
			rep.Ops += n
			rep.Spent[k] += l.spent[k]
		}
		rep.RecallFound += l.recall.Found
		rep.RecallHits += l.recall.Wanted
		for kind, c := range l.crowd {
			rep.Crowd.of(kind).add(*c)
		}
	}
	return rep
}

// add adds what another world did.
func (r *Report) add(o *Report) {
	if o == nil {
		return
	}
	r.Ops += o.Ops
	for k, n := range o.Kinds {
		r.Kinds[k] += n
		r.Spent[k] += o.Spent[k]
	}
	for kind, c := range o.Crowd {
		r.Crowd.of(kind).add(*c)
	}
	r.RecallFound += o.RecallFound
	if r.RecallHits += o.RecallHits; r.RecallHits > 0 {
		r.Recall = float64(r.RecallFound) / float64(r.RecallHits)
	}
	r.Compacted.Jobs += o.Compacted.Jobs
	r.Compacted.Segments += o.Compacted.Segments
	r.Compacted.RowsDropped += o.Compacted.RowsDropped
	r.Compacted.DeltasFreed += o.Compacted.DeltasFreed
	r.Compacted.Failed += o.Compacted.Failed
}
