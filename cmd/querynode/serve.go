package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/lifecycle"
)

type serveCmd struct {
	configFlags
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

// started is how a start ended.
type started struct {
	node *running
	err  error
}

// aborted waits for a start that was told to give up.
func (a *app) aborted(cfg *config.Config, result <-chan started, o startOptions) error {
	// Twice: the step that runs, and then the stop of what has been started.
	late := time.NewTimer(2 * cfg.Shutdown.Total)
	defer late.Stop()
	select {
	case s := <-result:
		if s.node != nil {
			return a.stop(s.node, nil)
		}
		var stuck *codeError
		if errors.As(s.err, &stuck) {
			return s.err
		}
		o.log.Info("stopped", "state", "start given up", "because", s.err.Error())
		return nil
	case <-late.C:
		return &codeError{exitStuck, errors.Newf("the start did not give up within %s; goroutines:\n%s", 2*cfg.Shutdown.Total, goroutines())}
	case <-a.signals:
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
		r.log.Info("stopping", "signal", sig.String(), "state", r.machine.State().String())
		return a.stop(r, nil)
	case err := <-r.failed:
		return a.stop(r, err)
	}
}

// stop stops the node; why is nil or what made it necessary, and is returned.
func (a *app) stop(r *running, why error) error {
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	watch := lifecycle.NewGroup(ctx, nil)
	if err := watch.Go("second signal", func(ctx context.Context) error {
		select {
		case <-a.signals:
			r.log.Warn("second signal: cutting what has not stopped")
			cut()
		case <-ctx.Done():
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
	if err := rep.Err(); err != nil {
		return errors.Join(why, err)
	}
	r.log.Info("stopped", "took", rep.Took)
	return why
}
