package embedded

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// Queue is the file-backed mq.Queue. Create it with Open; whoever opened it
// closes it. One process at a time may have a folder open.
type Queue struct {
	o        Options
	identity string
	stats    counters
	group    *lifecycle.Group // opens topics, and runs one writer each
	unlock   func() error

	mu struct {
		sync.Mutex
		closed  bool
		topics  map[string]*topicSlot
		handles map[handle]string // open producers and readers
		failed  error             // of topics that could not be closed well
	}
}

var (
	_ mq.Queue   = (*Queue)(nil)
	_ mq.Limited = (*Queue)(nil)
	_ mq.Private = (*Queue)(nil)
	_ mq.Syncer  = (*Queue)(nil)
)

// MaxPayloadBytes is Options.MaxPayloadBytes.
func (q *Queue) MaxPayloadBytes() int { return q.o.MaxPayloadBytes }

// topicSlot is a topic that is open or being opened.
type topicSlot struct {
	ready chan struct{} // closed when topic or err is set
	topic *topic
	err   error
}

type handle interface {
	Close(ctx context.Context) error
}

// counters behind Stats.
type counters struct {
	messages, bytes, groups, syncs, failedWrites, tornTails, damages, corruptReads, tempsRemoved, trimmed, unsyncedEnds atomic.Uint64
}

// Stats counts since Open.
type Stats struct {
	Topics, Producers, Readers int // open now

	Messages     uint64 // appended and acknowledged
	Bytes        uint64 // their size on disk
	Groups       uint64 // writes that carried them
	Syncs        uint64 // syncs of segment data
	FailedWrites uint64 // writes or syncs that failed
	TornTails    uint64 // writes cut short by a crash, removed at open
	Damages      uint64 // damaged places found at open
	CorruptReads uint64 // *mq.CorruptError given to readers
	TempsRemoved uint64 // temporary files removed at open
	TrimmedFiles uint64 // files removed by Trim
	// UnsyncedEnds counts topics of which acknowledged messages may be gone: the machine
	// went down while there were some that had not been synced (SyncInterval, SyncNone).
	UnsyncedEnds uint64
}

// Open opens the queue in o.Dir and creates the folder if there is none. Errors:
// Invalid for options, Conflict when another process has the folder, Denied,
// Exhausted, Retryable from the file system. Topics are opened on first use, so
// that a damaged one does not keep the others shut.
func Open(o Options) (*Queue, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := o.fs.mkdir(o.Dir); err != nil {
		return nil, ioError(err, "open queue: create %s", o.Dir)
	}
	unlock, err := lockDir(o.Dir)
	if err != nil {
		return nil, errors.Wrap(err, "open queue")
	}
	q := &Queue{o: o, unlock: unlock}
	q.mu.topics = map[string]*topicSlot{}
	q.mu.handles = map[handle]string{}
	if err := cleanRoot(&q.o, &q.stats); err != nil {
		return nil, errors.CombineErrors(errors.Wrap(err, "open queue"), unlock())
	}
	if q.identity, err = loadIdentity(&q.o); err != nil {
		return nil, errors.CombineErrors(errors.Wrap(err, "open queue"), unlock())
	}
	q.group = lifecycle.NewGroup(context.Background(), func(name string, err error) {
		if err != nil {
			q.o.Logger.Error("queue goroutine ended", "name", name, "err", err)
		}
	})
	return q, nil
}

// topic returns the open topic, opening it if need be.
func (q *Queue) topic(ctx context.Context, name string) (*topic, error) {
	switch {
	case name == "":
		return nil, errclass.New(errclass.Invalid, "the topic has no name")
	case len(name) > maxTopicNameBytes:
		return nil, errclass.New(errclass.Invalid, "the name of the topic has %d bytes, at most %d are allowed", len(name), maxTopicNameBytes)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	q.mu.Lock()
	if q.mu.closed {
		q.mu.Unlock()
		return nil, mq.ErrClosed
	}
	slot := q.mu.topics[name]
	if slot == nil {
		slot = &topicSlot{ready: make(chan struct{})}
		// The file work is done by the group: the first caller may give up
		// without taking the topic from the others.
		if err := q.group.Go("log "+name, func(ctx context.Context) error { return q.host(ctx, name, slot) }); err != nil {
			q.mu.Unlock()
			return nil, errors.Wrap(mq.ErrClosed, err.Error())
		}
		q.mu.topics[name] = slot
	}
	q.mu.Unlock()
	select {
	case <-slot.ready:
		return slot.topic, slot.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// host opens a topic and is its writer until ctx ends. If it cannot, or dies of
// a panic, the next use of the topic tries again from the files.
func (q *Queue) host(ctx context.Context, name string, slot *topicSlot) error {
	ready := false
	defer func() {
		if ctx.Err() == nil {
			q.mu.Lock()
			delete(q.mu.topics, name)
			q.mu.Unlock()
		}
		if !ready {
			if slot.err == nil {
				slot.err = errclass.New(errclass.Internal, "open topic %s: panic", name)
			}
			close(slot.ready)
		}
	}()
	t, err := openTopic(&q.o, &q.stats, name)
	if err != nil {
		slot.err = err
		return err
	}
	slot.topic, ready = t, true
	close(slot.ready)
	err = t.run(ctx)
	if err != nil && ctx.Err() != nil {
		q.mu.Lock()
		q.mu.failed = errors.CombineErrors(q.mu.failed, err)
		q.mu.Unlock()
	}
	return err
}

func (q *Queue) adopt(h handle, what string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return errors.Wrapf(mq.ErrClosed, "open %s", what)
	}
	q.mu.handles[h] = what
	return nil
}

func (q *Queue) forget(h handle) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.handles, h)
}

// OpenProducer implements mq.Queue.
func (q *Queue) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	t, err := q.topic(ctx, topic)
	if err != nil {
		return nil, errors.Wrapf(err, "open producer of %q", topic)
	}
	if o.Name == "" {
		o.Name = "producer"
	}
	p := newProducer(q, t, o)
	if err := q.adopt(p, p.what); err != nil {
		return nil, err
	}
	if err := t.do(ctx, func() error { return t.own(p) }); err != nil {
		p.release() // also if own is still at work: it sees that p is gone
		q.forget(p)
		return nil, errors.Wrapf(err, "open producer of %q", topic)
	}
	return p, nil
}

// OpenReader implements mq.Queue.
func (q *Queue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	t, err := q.topic(ctx, topic)
	if err != nil {
		return nil, errors.Wrapf(err, "open reader of %q", topic)
	}
	r, err := newReader(q, t, o)
	if err != nil {
		return nil, errors.Wrapf(err, "open reader of %q from %s", topic, o.From)
	}
	if err := q.adopt(r, r.what); err != nil {
		return nil, err
	}
	return r, nil
}

// Bounds implements mq.Queue.
func (q *Queue) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	t, err := q.topic(ctx, topic)
	if err != nil {
		return mq.Bounds{}, errors.Wrapf(err, "bounds of %q", topic)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.view.bounds, nil
}

// Trim implements mq.Queue: files that hold only messages before pos are
// removed. A position after the end is refused with mq.ErrAhead.
func (q *Queue) Trim(ctx context.Context, topic string, pos mq.Position) error {
	t, err := q.topic(ctx, topic)
	if err != nil {
		return errors.Wrapf(err, "trim %q", topic)
	}
	if pos.IsZero() {
		return nil
	}
	seq, err := decodeSeq(pos)
	if err != nil {
		return errors.Wrapf(err, "trim %q", topic)
	}
	for {
		more := false
		err := t.do(ctx, func() (err error) { more, err = t.trim(seq); return err })
		if err != nil || !more {
			return errors.Wrapf(err, "trim %q", topic)
		}
	}
}

// Sync implements mq.Syncer. It costs nothing where Options.Sync is SyncAlways.
func (q *Queue) Sync(ctx context.Context, topic string) error {
	t, err := q.topic(ctx, topic)
	if err != nil {
		return errors.Wrapf(err, "sync %q", topic)
	}
	return errors.Wrapf(t.do(ctx, t.syncNow), "sync %q", topic)
}

// Stats returns the counters and what is open.
func (q *Queue) Stats() Stats {
	c := &q.stats
	s := Stats{
		Messages: c.messages.Load(), Bytes: c.bytes.Load(), Groups: c.groups.Load(), Syncs: c.syncs.Load(),
		FailedWrites: c.failedWrites.Load(), TornTails: c.tornTails.Load(), Damages: c.damages.Load(),
		CorruptReads: c.corruptReads.Load(), TempsRemoved: c.tempsRemoved.Load(), TrimmedFiles: c.trimmed.Load(), UnsyncedEnds: c.unsyncedEnds.Load(),
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Topics = len(q.mu.topics)
	for h := range q.mu.handles {
		if _, ok := h.(*producer); ok {
			s.Producers++
		} else {
			s.Readers++
		}
	}
	return s
}

// Handles lists the open producers and readers, sorted, as "producer
// <topic>/<name>" and "reader <topic>/<name>".
func (q *Queue) Handles() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	names := []string{}
	for _, what := range q.mu.handles {
		names = append(names, what)
	}
	slices.Sort(names)
	return names
}

// Close implements mq.Queue. When ctx ends too early, the error names what is
// still open or at work; the folder stays locked then, since a writer may still
// be in it, and Close may be called again.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.mu.closed = true
	handles := make([]handle, 0, len(q.mu.handles))
	for h := range q.mu.handles {
		handles = append(handles, h)
	}
	q.mu.Unlock()
	for _, h := range handles {
		if err := h.Close(ctx); err != nil {
			q.o.Logger.Warn("close queue", "err", err)
		}
	}
	err := q.group.Close(ctx)
	if open := q.Handles(); len(open) > 0 {
		err = errors.CombineErrors(errclass.New(errclass.Closed, "not closed: %q", open), err)
	}
	if err != nil {
		return errors.Wrapf(err, "close queue in %s", q.o.Dir)
	}
	q.mu.Lock()
	unlock, failed := q.unlock, q.mu.failed
	q.unlock = nil
	q.mu.Unlock()
	if unlock != nil {
		failed = errors.CombineErrors(failed, errors.Wrapf(unlock(), "unlock %s", q.o.Dir))
	}
	return errors.Wrapf(failed, "close queue in %s", q.o.Dir)
}
