package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/lifecycle"
)

type serveCmd struct {
	configFlags
}

// Help is the long form of the help.
func (s *serveCmd) Help() string {
	return `Runs a node. It is alive at once, ready when it has recovered, and stops within
shutdown.drain and shutdown.total of the first SIGTERM or SIGINT; a second one
cuts the stop short. Exit codes: 0 stopped, 1 failed, 2 wrong configuration, 3 a
part did not stop in time.

Example:

  querynode serve --data-dir /var/lib/querynode
  querynode serve --config node.yaml --set queue.kind=pulsar --set log.level=debug`
}

// Run runs the node until a signal, or until a part dies.
func (s *serveCmd) Run(a *app) error {
	cfg, _, err := s.load(a)
	if err != nil {
		return err
	}
	log, level := newLogger(&cfg.Log, a.stderr)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(cfg.Memory.GoLimit))
	}
	log.Info("starting", "version", a.version, "pid", os.Getpid(), "data_dir", cfg.Node.DataDir)
	return a.serveThen(cfg, startOptions{version: a.version, log: log, level: level}, a.untilSignal)
}

// serveThen starts a node and gives it to then, which stops it. A signal during
// the start ends the start.
func (a *app) serveThen(cfg *config.Config, o startOptions, then func(*running) error) error {
	for _, w := range cfg.Warnings() {
		o.log.Warn(w)
	}
	starting, abort := context.WithCancel(context.Background())
	defer abort()
	group := lifecycle.NewGroup(context.Background(), nil)
	result := make(chan started, 1)
	if err := group.Go("start", func(context.Context) error {
		var s started
		s.err = lifecycle.Call("start", func() (err error) { s.node, err = start(starting, cfg, o); return err })
		result <- s
		return nil
	}); err != nil {
		return err
	}
	select {
	case s := <-result:
		if s.err != nil {
			return s.err
		}
		return then(s.node)
	case sig := <-a.signals:
		told := time.Now()
		o.log.Info("told to stop while starting", "signal", sig.String())
		abort()
		return a.aborted(cfg, result, told, o)
	}
}

// started is how a start ended.
type started struct {
	node *running
	err  error
}

// echo is how long after the first signal another one is the same request once
// more: timeout(1), terminals and some supervisors signal a process and then its
// group.
const echo = time.Second

// again waits for a signal that means to cut: one that comes echo or more after
// told. It is false when ctx ends before. A zero told is the time of the next one.
func (a *app) again(ctx context.Context, told time.Time) bool {
	for {
		select {
		case <-a.signals:
			if told.IsZero() {
				told = time.Now()
			}
			if time.Since(told) >= echo {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// aborted waits for a start that was told to give up.
func (a *app) aborted(cfg *config.Config, result <-chan started, told time.Time, o startOptions) error {
	watch, stop := context.WithCancel(context.Background())
	defer stop()
	group, cut := lifecycle.NewGroup(watch, nil), make(chan struct{})
	if err := group.Go("second signal", func(ctx context.Context) error {
		if a.again(ctx, told) {
			close(cut)
		}
		return nil
	}); err != nil {
		return err
	}
	// Twice: the step that runs, and then the stop of what has been started.
	late := time.NewTimer(2 * cfg.Shutdown.Total)
	defer late.Stop()
	select {
	case s := <-result:
		if s.node != nil {
			stop()
			return a.stop(s.node, told, nil)
		}
		var stuck *codeError
		if errors.As(s.err, &stuck) {
			return s.err
		}
		o.log.Info("stopped", "state", "start given up", "because", s.err.Error(), "goroutines", left())
		return nil
	case <-late.C:
		return &codeError{exitStuck, errors.Newf("the start did not give up within %s; goroutines:\n%s", 2*cfg.Shutdown.Total, goroutines())}
	case <-cut:
		return &codeError{exitStuck, errors.Newf("cut by a second signal while giving up the start; goroutines:\n%s", goroutines())}
	}
}

// maxStacks bounds a list of goroutines for people.
const maxStacks = 64 << 10

func goroutines() string {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return err.Error()
	}
	b.Truncate(min(b.Len(), maxStacks))
	return b.String()
}

// untilSignal shows where the node is and waits for its end.
func (a *app) untilSignal(r *running) error {
	if isTerminal(a.stdout) {
		fmt.Fprintf(a.stdout, "querynode %s\n  API    %s\n  admin  http://%s  (/metrics /readyz /statusz /debug/pprof/)\n  data   %s\nStop with Ctrl-C.\n",
			a.version, r.grpcLis.Addr(), r.adminLis.Addr(), r.cfg.Node.DataDir)
	}
	select {
	case sig := <-a.signals:
		told := time.Now()
		r.log.Info("stopping", "signal", sig.String(), "state", r.machine.State().String())
		return a.stop(r, told, nil)
	case err := <-r.failed:
		return a.stop(r, time.Time{}, err)
	}
}

// stop stops the node; told is when a signal asked for it, zero if none did; why
// is nil or what made it necessary, and is returned.
func (a *app) stop(r *running, told time.Time, why error) error {
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	watch := lifecycle.NewGroup(ctx, nil)
	if err := watch.Go("second signal", func(ctx context.Context) error {
		if a.again(ctx, told) {
			r.log.Warn("second signal: cutting what has not stopped")
			cut()
		}
		return nil
	}); err != nil {
		return errors.Join(why, err)
	}
	drain := r.cfg.Shutdown.Drain
	if why != nil {
		drain = 0 // the node does not answer any more anyway
	}
	rep := r.stop(ctx, drain)
	if len(rep.Stuck()) > 0 {
		return &codeError{exitStuck, errors.Join(why, errors.Newf("these did not stop in time: %q\n%s", rep.Stuck(), rep))}
	}
	switch err := rep.Err(); {
	case err == nil:
	case why == nil && onlyFullDisk(rep):
		r.log.Warn("stopped; what the next start would have been quicker with could not be written, nothing is lost", "took", rep.Took, "goroutines", left(), "error", err)
		return nil
	default:
		return errors.Join(why, err)
	}
	r.log.Info("stopped", "took", rep.Took, "goroutines", left())
	return why
}

// left counts the goroutines when all parts are closed: main, the signals, and
// those of libraries that end a moment after they were told to, for which it waits.
func left() int {
	const few = 8
	look, enough := time.NewTicker(time.Millisecond), time.NewTimer(500*time.Millisecond)
	defer look.Stop()
	defer enough.Stop()
	for runtime.NumGoroutine() > few {
		select {
		case <-look.C:
		case <-enough.C:
			return runtime.NumGoroutine()
		}
	}
	return runtime.NumGoroutine()
}

// onlyFullDisk reports whether all parts have closed and all that failed did so
// because no space was left. What was acknowledged is stored before that: a close
// writes only notes for the next start.
func onlyFullDisk(rep *lifecycle.Report) bool {
	failed := false
	for _, p := range rep.Parts {
		if p.Err != nil && !errors.Is(p.Err, syscall.ENOSPC) || p.Stuck || p.Skipped {
			return false
		}
		failed = failed || p.Err != nil
	}
	return failed
}
