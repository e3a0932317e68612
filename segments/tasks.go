package segments

import (
	"context"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/pool"
)

const (
	// taskWork is how many values of vectors a task should at least read: a worker
	// takes about a tenth of a millisecond for them, many times what the pool takes
	// for a task.
	taskWork = 1 << 20
	// walkRows is about how many rows a walk through a graph looks at.
	walkRows = 2000
)

// searchSegments splits the search into tasks and waits for them.
func (s *searching) searchSegments(ctx context.Context) error {
	stage := s.stage()
	err := s.waves(ctx, s.req.FieldID, s.skip, func(skip []bool) error {
		s.addParts(skip)
		s.addTasks()
		if err := s.run(ctx, s.merger.tasks, s.failedTask); err != nil {
			return err
		}
		s.failedParts()
		return s.partial()
	})
	stage.end(&s.stats.Wall)
	return err
}

// failedParts takes the targets of parts that failed out of the answer.
func (s *searching) failedParts() {
	for i := s.merger.first; i < len(s.merger.parts); i++ {
		if p := &s.merger.parts[i]; p.err != nil {
			s.kill(int(p.target), p.err)
		}
	}
}

// addParts splits the search. A target has one part, unless there are more
// workers than targets: then a batch of vectors is split into pieces, and the
// rows of a scan for a single vector if workers are idle. Those of skip (nil = none
// are) have none; nor have those that failed.
func (s *searching) addParts(skip []bool) {
	m, per := s.merger, s.queriesPerTask()
	m.first = len(m.parts)
	s.asked = s.query()
	dim := s.req.dim()
	idle := -1 // not known yet
	for _, i := range s.order() {
		t := &s.targets[i]
		if skip != nil && skip[i] || t.dead {
			continue
		}
		rows := int64(t.visible(t.ts))
		scans := t.scans(&s.asked)
		if !scans {
			rows = min(rows, walkRows)
		}
		perQuery := rows * dim
		if scans && s.req.NQ == 1 && perQuery >= 2*taskWork && len(s.targets) < workers() {
			if idle < 0 {
				idle = s.idle()
			}
			if pieces := min(int64(idle/len(s.targets)), perQuery/taskWork); pieces > 1 {
				s.addRanges(int32(i), int(rows), int(pieces), perQuery/pieces)
				continue
			}
		}
		if per < s.req.NQ {
			s.share()
		}
		for from := 0; from < s.req.NQ; from += per {
			to := min(from+per, s.req.NQ)
			m.addPart(int32(i), from, to).work = int64(to-from) * perQuery
		}
	}
}

// order lists the targets in the order in which they are searched: growing ones
// last, since they look for nothing but what is nearer than what the others have.
func (s *searching) order() []int {
	m := s.merger
	m.order = m.order[:0]
	for _, growing := range []bool{false, true} {
		for i := range s.targets {
			if s.targets[i].growing == growing {
				m.order = append(m.order, i)
			}
		}
	}
	return m.order
}

// addRanges splits the rows of a target.
func (s *searching) addRanges(target int32, rows, pieces int, work int64) {
	s.share()
	per := (rows/pieces + scanBlock) / scanBlock * scanBlock
	for first := 0; first < rows; first += per {
		p := s.merger.addPart(target, 0, 1)
		p.first, p.last, p.work = first, min(first+per, rows), work
	}
}

// share lets the parts of a target share its filter's result.
func (s *searching) share() {
	if s.shared == nil {
		s.shared = make([]sharedRows, len(s.targets))
	}
}

// idle is the number of workers that have nothing to do.
func (s *searching) idle() int {
	st := s.coll.set.o.Pool.Stats()
	return max(0, min(st.Workers, workers())-st.Running-st.Queued)
}

// queriesPerTask splits a batch of vectors so that all workers have something to
// do even when there are fewer segments than workers.
func (s *searching) queriesPerTask() int {
	if len(s.targets) == 0 {
		return max(s.req.NQ, 1)
	}
	pieces := max(1, min(workers()/len(s.targets), s.req.NQ))
	return max(1, (s.req.NQ+pieces-1)/pieces)
}

// addTasks makes a task of each part that has none, and one of several small parts.
func (s *searching) addTasks() {
	m := s.merger
	m.tasks, m.ends = m.tasks[:0], m.ends[:0]
	for from := m.first; from < len(m.parts); {
		to, cost := from, int64(0)
		for work := int64(0); to < len(m.parts) && (to == from || work+m.parts[to].work <= taskWork); to++ {
			work += m.parts[to].work
			cost += s.cost(&m.parts[to])
		}
		parts := m.parts[from:to]
		name := s.targets[parts[0].target].task
		if len(parts) > 1 {
			name += " and " + strconv.Itoa(len(parts)-1) + " more"
		}
		m.tasks = append(m.tasks, pool.Task{Name: name, Cost: cost, Run: func(ctx context.Context) error { return s.searchParts(ctx, parts) }})
		m.ends = append(m.ends, to)
		from = to
	}
}

// searchParts searches parts one after the other. One that fails, or panics,
// costs only itself; past the deadline the others are not begun.
func (s *searching) searchParts(ctx context.Context, parts []part) error {
	if len(parts) == 1 {
		return s.searchPart(ctx, &parts[0])
	}
	for i := range parts {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "search")
		}
		p := &parts[i]
		p.err = guard(s.targets[p.target].task, func() error { return s.searchPart(ctx, p) })
	}
	return errors.Wrap(ctx.Err(), "search")
}

// failedTask takes the targets of a task that failed out of the answer.
func (s *searching) failedTask(task int, err error) {
	m, from := s.merger, s.merger.first
	if task > 0 {
		from = m.ends[task-1]
	}
	for _, p := range m.parts[from:m.ends[task]] {
		s.kill(int(p.target), err)
	}
}
