package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/errors"
)

// shrink cuts a script down while it still shows a difference, for as long as it
// may. What happens in the background is not part of a script, so a script that
// shows it once in a few runs counts. It reports whether any did.
func shrink(ctx context.Context, o *Options, dir string, script []op, d *difference) ([]op, bool) {
	// Whether it can be shown again does not depend on how fast the machine is.
	own := *o
	own.brief = true
	s := &shrinker{ctx: ctx, o: &own, dir: dir, patient: true}
	// The collection that differs, without what was dropped before it.
	small := ofLane(script, d.Op.Lane)
	if !s.fails(small, 5) {
		if !s.fails(script, 3) {
			return script, false
		}
		small = script
	}
	ctx, cancel := context.WithTimeout(ctx, o.Shrink)
	defer cancel()
	s.ctx, s.patient = ctx, false
	for size := len(small) / 2; size >= 1 && ctx.Err() == nil; {
		cut := false
		for from := 0; from < len(small) && ctx.Err() == nil; {
			to := min(from+size, len(small))
			if without := slices.Delete(slices.Clone(small), from, to); s.fails(without, 2) {
				small, cut = without, true
				continue
			}
			from = to
		}
		fmt.Fprintf(o.Note, "shrinking: %d operations\n", len(small))
		if !cut || size > len(small) {
			size /= 2
		}
	}
	return small, true
}

// ofLane is what of a script a lane's last collection has seen; lane 0 = all.
func ofLane(script []op, lane int) []op {
	if lane == 0 {
		return script
	}
	last := 0
	for i, x := range script {
		if x.Lane == lane && x.Do == opCreate {
			last = i
		}
	}
	return slices.DeleteFunc(slices.Clone(script[last:]), func(x op) bool { return x.Lane != 0 && x.Lane != lane })
}

type shrinker struct {
	ctx  context.Context
	o    *Options
	dir  string
	runs int
	// patient: a script is run as often as is asked for, however long that takes.
	patient bool
}

// fails reports whether one of some runs of the script shows a difference.
func (s *shrinker) fails(script []op, runs int) bool {
	for range runs {
		s.runs++
		dir := filepath.Join(s.dir, fmt.Sprintf("shrink-%d", s.runs))
		began := time.Now()
		_, err := replay(s.ctx, s.o, dir, script)
		_ = os.RemoveAll(dir)
		var d *difference
		if s.ctx.Err() == nil && errors.As(err, &d) {
			return true
		}
		if s.ctx.Err() != nil || !s.patient && time.Since(began) > s.o.Shrink/4 {
			return false
		}
	}
	return false
}
