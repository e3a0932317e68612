package segments

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// fieldFiles are the vectors and the index of one field of a sealed segment: on the
// local disk and mapped, or only in object storage.
//
//	          claim, warm-up            files are there
//	Absent ────────────────▶ Fetching ──────────────────▶ Local
//	   ▲                        │ error                     │ room is needed, and
//	   │                        ▼                           ▼ nobody has a claim
//	   └──────────────────── (Absent) ◀──────────────── Leaving
//
// Whoever reads the vectors or the index has a claim, from before it looks at them
// until it is done with them.
type fieldFiles struct {
	disk    *localDisk
	what    string // for errors and lists
	bytes   int64
	timeout time.Duration                                           // of a fetch
	run     func(name string, fn func(context.Context) error) error // starts a goroutine
	fetch   func(ctx context.Context, progress func(int64)) error   // copies the files to the local disk and verifies them
	open    func(touch bool) error                                  // maps them; their pages are read if touch
	shut    func() error                                            // unmaps and removes what is there of them
	failed  func(err error)                                         // hears of a shut that failed
	mu      struct {
		sync.Mutex
		local   bool
		claims  int
		used    int64 // when it was claimed last, in nanoseconds since 1970
		flight  *fieldFlight
		leaving chan struct{} // closed once they have left; nil = they are not
		closed  bool
	}
}

// fieldFlight is a fetch under way.
type fieldFlight struct {
	done   chan struct{}
	err    error // once done is closed
	wake   []chan<- struct{}
	cancel context.CancelFunc
}

// here claims files that are on the local disk; false if they are not. Nil is of a
// segment whose files are nowhere else.
func (f *fieldFiles) here(now int64) bool {
	if f == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mu.local {
		return false
	}
	f.mu.claims++
	f.mu.used = now
	return true
}

// claim claims the files and has them fetched if they are not there: they are once
// the flight is done, unless it has an error. joined says that the flight had begun before,
// so that its error may be one of then. The claim is to be dropped in any case.
// A value is sent to wake then, if there is room.
func (f *fieldFiles) claim(now int64, wake chan<- struct{}) (flight *fieldFlight, joined bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed {
		return nil, false, errclass.New(errclass.Retryable, "%s has been released", f.what)
	}
	f.mu.used = now
	if f.mu.local {
		f.mu.claims++
		return nil, false, nil
	}
	joined = f.mu.flight != nil
	if !joined {
		flight := &fieldFlight{done: make(chan struct{})}
		leaving := f.mu.leaving
		var ctx context.Context
		ctx, flight.cancel = context.WithTimeout(context.Background(), f.timeout)
		err := f.run("fetch "+f.what, func(closing context.Context) error {
			defer flight.cancel()
			defer context.AfterFunc(closing, flight.cancel)()
			f.fly(ctx, flight, leaving)
			return nil
		})
		if err != nil {
			flight.cancel()
			return nil, false, err
		}
		f.mu.flight = flight
	}
	f.mu.claims++
	if wake != nil {
		f.mu.flight.wake = append(f.mu.flight.wake, wake)
	}
	return f.mu.flight, joined, nil
}

// drop gives a claim back.
func (f *fieldFiles) drop() {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.mu.claims--
	idle := f.mu.claims == 0
	f.mu.Unlock()
	if idle && f.disk.waitedFor.Load() {
		f.disk.wake()
	}
}

// fly runs one fetch and tells everyone who waits for it, whatever happens.
func (f *fieldFiles) fly(ctx context.Context, flight *fieldFlight, leaving <-chan struct{}) {
	err := errors.Newf("fetch of %s ended without a result", f.what)
	defer func() {
		f.mu.Lock()
		flight.err, f.mu.flight = err, nil
		f.mu.local = err == nil
		wake := flight.wake
		f.mu.Unlock()
		if err == nil {
			f.disk.enter(f)
		} else {
			f.disk.failed.Add(1)
		}
		close(flight.done)
		for _, w := range wake {
			select {
			case w <- struct{}{}:
			default:
			}
		}
	}()
	if leaving != nil {
		<-leaving // it is being unmapped, which does not take long
	}
	err = guard("fetch "+f.what, func() error { return f.bring(ctx) })
	if err != nil && errclass.Of(err) != errclass.Corrupt && errclass.Of(err) != errclass.Panicked {
		// What is not there any more belongs to a segment that others have replaced.
		err = errclass.Mark(err, errclass.Retryable)
	}
	err = errors.Wrapf(err, "fetch %s from object storage", f.what)
}

// bring waits for a turn, takes room and fetches.
func (f *fieldFiles) bring(ctx context.Context) error {
	// A turn comes first: while object storage hangs, few others have to leave.
	select {
	case f.disk.slots <- struct{}{}:
		defer func() { <-f.disk.slots }()
	case <-ctx.Done():
		return errors.Wrap(ctx.Err(), "wait for a turn")
	}
	if err := f.disk.take(ctx, f.bytes); err != nil {
		return err
	}
	if err := f.copy(ctx, false, func(int64) {}); err != nil {
		return err
	}
	f.disk.fetches.Add(1)
	f.disk.fetchedBytes.Add(f.bytes)
	return nil
}

// copy fetches and maps the files, for which room has been taken. After an error
// nothing is left of them.
func (f *fieldFiles) copy(ctx context.Context, touch bool, progress func(int64)) (err error) {
	ok := false
	defer func() {
		// Deferred, because a damaged file may fault while it is opened.
		if !ok {
			err = errors.CombineErrors(err, f.shut())
			f.disk.give(f.bytes, roomForField)
		}
	}()
	if err := f.fetch(ctx, progress); err != nil {
		return err
	}
	if err := f.open(touch); err != nil {
		return err
	}
	ok = true
	return nil
}

// settle fetches the files of a segment that nobody else has yet, if the disk has
// room that is free.
func (f *fieldFiles) settle(ctx context.Context, touch bool, progress func(int64)) error {
	if !f.disk.takeFree(f.bytes, roomForField) {
		return nil
	}
	if err := f.copy(ctx, touch, progress); err != nil {
		return err
	}
	f.mu.Lock()
	f.mu.local, f.mu.used = true, time.Now().UnixNano()
	f.mu.Unlock()
	f.disk.enter(f)
	return nil
}

// settleLater is settle in the background; should it fail, a read will try again.
func (f *fieldFiles) settleLater() {
	f.disk.mu.Lock()
	limit, used := f.disk.limit.Load(), f.disk.mu.used+f.disk.sharedLocked()
	f.disk.mu.Unlock()
	if limit > 0 && f.bytes > limit-used {
		return
	}
	if _, _, err := f.claim(time.Now().UnixNano(), nil); err == nil {
		f.drop() // it goes on without
	}
}

// idle says when the files were used last, and whether they may be evicted.
func (f *fieldFiles) idle() (used int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.used, f.idleLocked()
}

func (f *fieldFiles) idleLocked() bool { return f.mu.local && f.mu.claims == 0 && !f.mu.closed }

// mayLeave reports whether the files will ever be evicted: they are there, and not closed.
func (f *fieldFiles) mayLeave() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.local && !f.mu.closed
}

// isLocal reports whether the files are on the local disk.
func (f *fieldFiles) isLocal() bool {
	if f == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.local
}

// beginLeaving marks files that nobody uses as leaving.
func (f *fieldFiles) beginLeaving() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.idleLocked() {
		return false
	}
	f.mu.local, f.mu.leaving = false, make(chan struct{})
	return true
}

// leave evicts files that beginLeaving has marked.
func (f *fieldFiles) leave() {
	if err := guard("evict "+f.what, f.shut); err != nil {
		f.failed(err)
	}
	f.disk.evictions.Add(1)
	f.disk.evictedBytes.Add(f.bytes)
	f.disk.give(f.bytes, roomForField)
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.mu.leaving)
	f.mu.leaving = nil
}

// close ends a fetch that is under way and gives the files' room back. No claim is left.
func (f *fieldFiles) close() error {
	f.mu.Lock()
	f.mu.closed = true
	flight, leaving := f.mu.flight, f.mu.leaving
	f.mu.Unlock()
	if flight != nil {
		flight.cancel()
		<-flight.done
	}
	if leaving != nil {
		<-leaving
	}
	f.disk.remove(f)
	f.mu.Lock()
	local := f.mu.local
	f.mu.local = false
	f.mu.Unlock()
	if !local {
		return nil
	}
	defer f.disk.give(f.bytes, roomForField)
	return f.shut()
}
