package segments

import (
	"context"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// fetchShare is the part of a read's time, in tenths, that it waits for files: the
// rest is for an answer without them, or for telling what was missing.
const fetchShare = 9

// ahead is how many fields one read has fetched at a time.
const ahead = 8

// files are those of a field; nil = they are nowhere but in memory or on the local disk.
func (h *holder) files(fieldID int64) *fieldFiles {
	s, ok := h.segment.(*Sealed)
	if !ok {
		return nil
	}
	if v := s.stored(fieldID); v != nil {
		return v.files
	}
	return nil
}

// hold claims the files of a field in all targets, if they are all on the local disk.
func (x *reader) hold(fieldID int64) bool {
	for i := range x.targets {
		if x.targets[i].files(fieldID).here(x.opened) {
			continue
		}
		for k := range i {
			x.targets[k].files(fieldID).drop()
		}
		return false
	}
	x.held = append(x.held, fieldID)
	return true
}

// unhold drops all claims.
func (x *reader) unhold() {
	for _, id := range x.held {
		for i := range x.targets {
			x.targets[i].files(id).drop()
		}
	}
	x.held = x.held[:0]
	x.drop()
}

func (x *reader) drop() {
	for _, f := range x.claims {
		f.drop()
	}
	x.claims = x.claims[:0]
}

// waves runs do over the targets not in skip (by target; nil = none is) while the
// files of a vector field are on the local disk: at once over all, as nearly always;
// else over those whose files are there, then over others as they have been fetched.
// do gets the targets to skip. Those whose files cannot be had in time fail.
func (x *reader) waves(ctx context.Context, fieldID int64, skip []bool, do func(skip []bool) error) error {
	if x.hold(fieldID) {
		err := do(skip)
		if !x.left {
			x.unhold()
		}
		return err
	}
	w := &waves{reader: x, fieldID: fieldID, wake: make(chan struct{}, 1)}
	defer w.abandon()
	for i := range x.targets {
		if !x.targets[i].dead && (skip == nil || !skip[i]) {
			w.todo = append(w.todo, i)
		}
	}
	limit, cancel := fetchTime(ctx)
	defer cancel()
	for {
		some, err := w.next(limit)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			return x.partial()
		}
		out := slices.Repeat([]bool{true}, len(x.targets))
		for _, i := range some {
			out[i] = false
		}
		if err := do(out); err != nil {
			return err // the claims stay with tasks that still run
		}
		x.drop()
	}
}

// fetchTime bounds how long a read waits for files.
func fetchTime(ctx context.Context) (context.Context, context.CancelFunc) {
	at, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(at)*fetchShare/10)
}

// waves are the targets of a read in the order in which their files are at hand.
type waves struct {
	*reader
	fieldID int64
	todo    []int         // nothing has been done about them
	again   map[int]bool  // are fetched once more: what they joined had begun before, and failed
	flying  []flyingField // claimed, and being fetched
	wake    chan struct{}
}

type flyingField struct {
	target int
	files  *fieldFiles
	flight *fieldFlight
	joined bool // it had begun before
}

// next waits for targets whose files are at hand, and claims them; none = there are no more.
func (w *waves) next(ctx context.Context) (some []int, err error) {
	for {
		w.todo = slices.DeleteFunc(w.todo, func(i int) bool {
			f := w.targets[i].files(w.fieldID)
			ok := f.here(w.opened)
			if ok {
				some = append(some, i)
				if f != nil {
					w.claims = append(w.claims, f)
				}
			}
			return ok
		})
		some = append(some, w.landed()...)
		w.launch()
		if err := w.partial(); err != nil || len(some) > 0 || len(w.flying)+len(w.todo) == 0 {
			return some, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			w.late(ctx.Err())
			return nil, w.partial()
		}
	}
}

// landed returns the targets whose files have been fetched meanwhile.
func (w *waves) landed() (some []int) {
	w.flying = slices.DeleteFunc(w.flying, func(f flyingField) bool {
		select {
		case <-f.flight.done:
		default:
			return false
		}
		if err := f.flight.err; err != nil {
			f.files.drop()
			if f.joined && !w.again[f.target] && errclass.Is(err, errclass.Retryable) {
				if w.again == nil {
					w.again = map[int]bool{}
				}
				w.again[f.target] = true
				w.todo = append(w.todo, f.target)
				return true
			}
			w.kill(f.target, err)
			return true
		}
		w.claims = append(w.claims, f.files)
		some = append(some, f.target)
		return true
	})
	return some
}

// launch has the files of the next targets fetched.
func (w *waves) launch() {
	for len(w.flying) < ahead && len(w.todo) > 0 {
		i := w.todo[0]
		w.todo = w.todo[1:]
		f := w.targets[i].files(w.fieldID)
		flight, joined, err := f.claim(w.opened, w.wake)
		switch {
		case err != nil:
			w.kill(i, err)
		case flight == nil: // they have just come
			f.drop()
			w.todo = append(w.todo, i)
			select {
			case w.wake <- struct{}{}:
			default:
			}
			return
		default:
			w.flying = append(w.flying, flyingField{i, f, flight, joined})
		}
	}
}

// late fails the targets whose files have not come in time.
func (w *waves) late(err error) {
	for _, f := range w.flying {
		w.kill(f.target, errclass.Wrap(err, errclass.Retryable, "%s is being fetched from object storage, which goes on: try again", f.files.what))
		f.files.drop()
	}
	for _, i := range w.todo {
		w.kill(i, errclass.Wrap(err, errclass.Retryable, "%s is to be fetched from object storage: try again", w.targets[i].files(w.fieldID).what))
	}
	w.flying, w.todo = nil, nil
}

// abandon drops the claims on what is still being fetched.
func (w *waves) abandon() {
	for _, f := range w.flying {
		f.files.drop()
	}
	if !w.left {
		w.drop()
	}
}

// eachTargetWith is eachTarget for tasks that look at the vectors of a field.
func (x *reader) eachTargetWith(ctx context.Context, fieldID int64, fn func(ctx context.Context, i int, t *target) error) error {
	return x.waves(ctx, fieldID, nil, func(skip []bool) error {
		return x.eachOf(ctx, skip, fn)
	})
}
