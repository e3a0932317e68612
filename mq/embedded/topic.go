package embedded

import (
	"context"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// topic is one pchannel. All that changes files is done by its one goroutine,
// run; the others leave requests and read what it publishes.
type topic struct {
	name  string
	dir   string
	o     *Options
	stats *counters
	log   *slog.Logger

	// Of run only.
	meta     meta
	file     file     // newest segment, open for writing; nil: the next append begins a new one
	active   *segment // that segment
	end      int64    // its length, written and (by policy) durable
	saved    int64    // so much of it is durable for sure
	next     uint64   // number of the next message
	maxTS    uint64
	lastTS   uint64
	index    []indexEntry
	first    mq.Position // oldest readable message; zero when there is none
	doubt    error       // why the tail of the file is unknown; nil: it is known
	unsaved  bool        // written but not synced (policies interval and none)
	lastSync time.Time
	out      []byte     // what is about to be written
	hand     []*request // taken and perhaps not answered yet

	firstSeq atomic.Uint64 // of the oldest segment; behind it is trimmed

	mu struct {
		sync.Mutex
		pending      []*request
		pendingBytes int
		stopped      error // run has ended: why
		owner        *producer
		view         view
		changed      chan struct{} // closed when view changes; nil when nobody waits
	}
	wake chan struct{} // 1 place: there is a request
}

// view is what readers may see. Its slices are never changed, only extended.
type view struct {
	segs   []*segment
	end    int64 // length of the newest segment
	next   uint64
	index  []indexEntry // of the newest segment
	bounds mq.Bounds
}

// request is an append (buf) or a command (fn) for run.
type request struct {
	p     *producer
	buf   []byte // encoded batch
	count int
	fn    func() error
	done  chan outcome // 1 place

	// Guarded by topic.mu.
	taken     bool
	withdrawn bool
}

type outcome struct {
	first uint64 // number of the first message
	err   error
}

// submit hands r to run.
func (t *topic) submit(r *request) error {
	t.mu.Lock()
	switch {
	case t.mu.stopped != nil:
		defer t.mu.Unlock()
		return t.mu.stopped
	case r.fn == nil && len(t.mu.pending) > 0 && t.mu.pendingBytes+len(r.buf) > t.o.MaxPendingBytes:
		defer t.mu.Unlock()
		return errclass.New(errclass.Exhausted, "topic %s: %d bytes wait to be written", t.name, t.mu.pendingBytes)
	}
	t.mu.pending = append(t.mu.pending, r)
	t.mu.pendingBytes += len(r.buf)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

// withdraw takes r back; false when run has it already.
func (t *topic) withdraw(r *request) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.taken {
		return false
	}
	r.withdrawn = true
	return true
}

// do runs fn in run and waits for it. After an error of ctx, fn may still be at work.
func (t *topic) do(ctx context.Context, fn func() error) error {
	r := &request{fn: fn, done: make(chan outcome, 1)}
	if err := t.submit(r); err != nil {
		return err
	}
	select {
	case res := <-r.done:
		return res.err
	case <-ctx.Done():
		t.withdraw(r)
		return ctx.Err()
	}
}

// take returns the next requests: commands one by one, appends up to a group.
func (t *topic) take() []*request {
	t.mu.Lock()
	defer t.mu.Unlock()
	var got []*request
	n, size := 0, 0
	for _, r := range t.mu.pending {
		if r.fn != nil && len(got) > 0 || size > 0 && size+len(r.buf) > maxGroupBytes {
			break
		}
		n++
		t.mu.pendingBytes -= len(r.buf)
		if r.withdrawn {
			continue
		}
		r.taken = true
		size += len(r.buf)
		got = append(got, r)
		if r.fn != nil {
			break
		}
	}
	if rest := t.mu.pending[n:]; len(rest) > 0 {
		t.mu.pending = slices.Delete(t.mu.pending, 0, n)
	} else {
		clear(t.mu.pending)
		t.mu.pending = t.mu.pending[:0]
	}
	return got
}

// run is the topic's goroutine. It ends with ctx, and then answers what waits.
func (t *topic) run(ctx context.Context) (err error) {
	defer func() {
		// Also on the way of a panic: nobody may be left waiting.
		why := errors.Wrapf(mq.ErrClosed, "topic %s", t.name)
		if ctx.Err() == nil {
			why = errclass.New(errclass.Internal, "topic %s: its writer has died", t.name)
		}
		t.stop(why)
		for _, r := range t.hand {
			select {
			case r.done <- outcome{err: errors.Wrapf(mq.ErrUnknownOutcome, "%v", why)}:
			default: // it has its answer
			}
		}
		t.closeFile()
	}()
	timer := time.NewTimer(t.o.SyncInterval)
	defer timer.Stop()
	for {
		for reqs := t.take(); len(reqs) > 0; reqs = t.take() {
			t.hand = reqs
			if reqs[0].fn != nil {
				reqs[0].done <- outcome{err: reqs[0].fn()}
				continue
			}
			t.commit(reqs)
		}
		t.hand = nil
		var tick <-chan time.Time
		if t.unsaved && t.o.Sync == SyncInterval && t.doubt == nil {
			timer.Reset(t.o.SyncInterval - time.Since(t.lastSync))
			tick = timer.C
		}
		select {
		case <-t.wake:
		case <-tick:
			t.syncLate()
		case <-ctx.Done():
			return t.finish()
		}
	}
}

// stop makes every request, waiting or to come, fail with why.
func (t *topic) stop(why error) {
	t.mu.Lock()
	t.mu.stopped = why
	pending := t.mu.pending
	t.mu.pending = nil
	t.wakeLocked()
	t.mu.Unlock()
	for _, r := range pending {
		r.done <- outcome{err: why}
	}
}

// finish leaves the files as the next open likes them best.
func (t *topic) finish() error {
	t.stop(errors.Wrapf(mq.ErrClosed, "topic %s", t.name))
	var errs error
	if t.doubt != nil {
		errs = t.repair()
	}
	if t.unsaved && errs == nil {
		errs = t.sync()
	}
	// Also without a file, after a repair or before the first message: all there is is durable.
	m := t.mark()
	if errs == nil && (m != t.meta.Durable || t.meta.Unsynced != "") {
		t.meta.Unsynced = ""
		errs = t.saveMeta(t.meta.Term)
	}
	if t.file != nil {
		errs = errors.CombineErrors(errs, t.file.Close())
		t.file = nil
	}
	return errors.Wrapf(errs, "close topic %s", t.name)
}

// mark is the durable mark for what is on disk now.
func (t *topic) mark() mark {
	if t.active == nil || t.unsaved || t.doubt != nil {
		return t.meta.Durable
	}
	return mark{Base: t.active.base, Length: t.end, Next: t.next, MaxTimestamp: t.maxTS, LastTimestamp: t.lastTS}
}

func (t *topic) saveMeta(term uint64) error {
	t.meta.Edition++ // also if it fails: a half-written one must not look equal
	m := t.meta
	m.Term, m.Durable = term, t.mark()
	if err := m.write(t.o.fs, t.dir); err != nil {
		t.stats.failedWrites.Add(1)
		return err
	}
	t.meta = m
	return nil
}

// publish shows readers what run has done.
func (t *topic) publish(segs []*segment) {
	v := view{segs: segs, end: t.end, next: t.next, index: t.index}
	if !t.first.IsZero() {
		v.bounds = mq.Bounds{First: t.first, Last: position(t.next-1, t.lastTS)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if segs == nil {
		v.segs = t.mu.view.segs
	}
	if len(v.segs) > 0 {
		t.firstSeq.Store(v.segs[0].base)
	}
	t.mu.view = v
	t.wakeLocked()
}

func (t *topic) wakeLocked() {
	if t.mu.changed != nil {
		close(t.mu.changed)
		t.mu.changed = nil
	}
}

// look returns the view and a channel that is closed when there is another.
func (t *topic) look() (view, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.changed == nil {
		t.mu.changed = make(chan struct{})
		if t.mu.stopped != nil {
			close(t.mu.changed)
		}
	}
	return t.mu.view, t.mu.changed
}

func (t *topic) segments() []*segment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.view.segs
}

// holding returns the index of the segment that has message seq, or -1.
func (v view) holding(seq uint64) int {
	return sort.Search(len(v.segs), func(i int) bool { return v.segs[i].base > seq }) - 1
}
