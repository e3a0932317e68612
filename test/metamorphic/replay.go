package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/errors"
)

// Replay runs a script on a new node and returns its first difference.
func Replay(ctx context.Context, o Options, script []op) (*Report, error) {
	o.EnsureDefaults()
	dir, err := workDir(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	began := time.Now()
	w, failed := replay(ctx, &o, filepath.Join(dir, "run"), script)
	if w == nil {
		return nil, failed
	}
	rep := w.report()
	rep.Seed, rep.Seconds = o.Seed, time.Since(began).Seconds()
	rep.OpsPerSec = float64(rep.Ops) / rep.Seconds
	var d *difference
	if failed != nil && !errors.As(failed, &d) {
		return rep, rep.failed(failed, w.log, o.Script+replayLogSuffix)
	}
	if d != nil {
		rep.Difference = d.Error()
		return rep, rep.saveLog(w.log, o.Script+replayLogSuffix)
	}
	return rep, nil
}

// replay runs a script on a new world, which is stopped then; nil if there is none.
func replay(ctx context.Context, o *Options, dir string, script []op) (*world, error) {
	w, err := newWorld(ctx, o, dir)
	if w == nil {
		return nil, err
	}
	for _, x := range script {
		if x.Lane > 0 && x.Lane <= maxLanes {
			w.lane(x.Lane)
		}
	}
	for len(script) > 0 && err == nil {
		n := slices.IndexFunc(script, func(x op) bool { return x.Lane == 0 })
		if n < 0 {
			n = len(script)
		}
		part := script[:n]
		err = w.section(ctx, func(ctx context.Context, l *lane) error {
			for i := range part {
				if part[i].Lane != l.number {
					continue
				}
				if err := l.run(ctx, &part[i]); err != nil {
					return err
				}
			}
			return nil
		})
		script = script[n:]
		if err == nil && len(script) > 0 {
			err = w.barrier(ctx, script[0])
			script = script[1:]
		}
	}
	return w, errors.CombineErrors(err, w.rig.stop())
}

// maxLanes bounds what a script can ask for.
const maxLanes = 64
