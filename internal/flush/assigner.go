package flush

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// key is what an open segment belongs to.
type key struct {
	vchannel  string
	partition int64
}

// open is a growing segment that still takes rows.
type open struct {
	id      int64
	key     key
	rows    int
	bytes   int64
	created time.Time

	inflight int           // appends that were given this segment and have not returned
	closing  bool          // takes no more rows
	idle     chan struct{} // closed when closing and inflight is 0
}

// Assigner gives each batch of rows the growing segment it goes to. A segment
// takes no more rows once it is full; it is sealed in the log only after every
// append that was given it has returned, so that no row follows its seal.
type Assigner struct {
	ids  func(ctx context.Context) (int64, error)
	full func(rows int, bytes int64) bool
	now  func() time.Time

	mu struct {
		sync.Mutex
		terms   map[string]uint64 // of the log, by vchannel: what is below is of this term
		open    map[key]*open
		closing map[int64]*open  // full or asked to be sealed; until sealed in the log
		sealed  map[int64]string // sealed in the log, by vchannel; until flushed
	}
}

// NewAssigner returns an assigner that takes ids from next and regards a segment
// as full when full says so.
func NewAssigner(next func(ctx context.Context) (int64, error), full func(rows int, bytes int64) bool) *Assigner {
	a := &Assigner{ids: next, full: full, now: time.Now}
	a.mu.terms = map[string]uint64{}
	a.mu.open = map[key]*open{}
	a.mu.closing = map[int64]*open{}
	a.mu.sealed = map[int64]string{}
	return a
}

// Enter says that the log of the vchannel is owned for a term. What was given out
// in an earlier one is forgotten: another owner may have sealed it meanwhile, and
// rows that come after a seal are lost. It reports false if the term is over.
func (a *Assigner) Enter(vchannel string, term uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if term > a.mu.terms[vchannel] {
		a.forgetLocked(vchannel)
		a.mu.terms[vchannel] = term
	}
	return term == a.mu.terms[vchannel]
}

// Assign returns the segment for rows of the partition on the vchannel. done is
// called once the append has returned, whatever its outcome.
func (a *Assigner) Assign(ctx context.Context, vchannel string, partition int64, rows int, bytes int64) (id int64, done func(), err error) {
	k := key{vchannel, partition}
	if id, done, ok := a.take(k, rows, bytes, 0); ok {
		return id, done, nil
	}
	// Outside the lock: the id may have to come from the catalog.
	fresh, err := a.ids(ctx)
	if err != nil {
		return 0, nil, errclass.Wrap(err, errclass.Retryable, "allocate a segment id")
	}
	id, done, _ = a.take(k, rows, bytes, fresh)
	return id, done, nil
}

// take gives out the open segment of k, or opens one with id fresh if that is not 0.
func (a *Assigner) take(k key, rows int, bytes int64, fresh int64) (int64, func(), bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.mu.open[k]
	if o == nil {
		if fresh == 0 {
			return 0, nil, false
		}
		o = &open{id: fresh, key: k, created: a.now(), idle: make(chan struct{})}
		a.mu.open[k] = o
	}
	o.rows += rows
	o.bytes += bytes
	o.inflight++
	if a.full(o.rows, o.bytes) {
		a.closeLocked(o)
	}
	var once sync.Once
	return o.id, func() { once.Do(func() { a.done(o) }) }, true
}

func (a *Assigner) done(o *open) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o.inflight--
	if o.closing && o.inflight == 0 {
		close(o.idle)
	}
}

func (a *Assigner) closeLocked(o *open) {
	o.closing = true
	delete(a.mu.open, o.key)
	a.mu.closing[o.id] = o
	if o.inflight == 0 {
		close(o.idle)
	}
}

// Close makes the open segments of the vchannel take no more rows; old limits it
// to those created before that time (zero = all). It returns what is to be
// sealed on the vchannel: those, and the full ones.
func (a *Assigner) Close(vchannel string, old time.Time) []int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.mu.open {
		if o.key.vchannel == vchannel && (old.IsZero() || o.created.Before(old)) {
			a.closeLocked(o)
		}
	}
	var ids []int64
	for id, o := range a.mu.closing {
		if o.key.vchannel == vchannel {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Idle waits until no append is under way for the segment, which takes no more rows.
func (a *Assigner) Idle(ctx context.Context, id int64) error {
	a.mu.Lock()
	o := a.mu.closing[id]
	a.mu.Unlock()
	if o == nil {
		return nil
	}
	select {
	case <-o.idle:
		return nil
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for appends to segment %d", id)
	}
}

// Sealed says that the seal of segments is in the log. They are remembered until
// Flushed: their growing copies do not know of the seal before it is applied,
// and must not be adopted meanwhile.
func (a *Assigner) Sealed(vchannel string, ids ...int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		delete(a.mu.closing, id)
		a.mu.sealed[id] = vchannel
	}
}

// Flushed forgets a segment that is in the catalog.
func (a *Assigner) Flushed(id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.mu.sealed, id)
}

// Adopt takes on a growing segment that an earlier run opened; one that is known
// here stays as it is. It reports false if the partition has an open segment
// already: the caller then seals it.
func (a *Assigner) Adopt(vchannel string, partition, id int64, rows int, bytes int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.mu.sealed[id]; ok {
		return true
	}
	if _, ok := a.mu.closing[id]; ok {
		return true
	}
	k := key{vchannel, partition}
	if o := a.mu.open[k]; o != nil {
		return o.id == id
	}
	o := &open{id: id, key: k, rows: rows, bytes: bytes, created: a.now(), idle: make(chan struct{})}
	a.mu.open[k] = o
	if a.full(rows, bytes) {
		a.closeLocked(o)
	}
	return true
}

// CloseOne makes a growing segment take no more rows, also one of an earlier run
// that is not known here: it cannot be adopted between now and its seal. It
// reports false if the segment is sealed in the log already.
func (a *Assigner) CloseOne(vchannel string, partition, id int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.mu.sealed[id]; ok {
		return false
	}
	if _, ok := a.mu.closing[id]; ok {
		return true
	}
	k := key{vchannel, partition}
	o := a.mu.open[k]
	if o == nil || o.id != id {
		o = &open{id: id, key: k, idle: make(chan struct{}), closing: true}
		a.mu.closing[id] = o
		close(o.idle)
		return true
	}
	a.closeLocked(o)
	return true
}

// Forget drops everything about a vchannel whose collection is gone.
func (a *Assigner) Forget(vchannel string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgetLocked(vchannel)
	delete(a.mu.terms, vchannel)
}

func (a *Assigner) forgetLocked(vchannel string) {
	for k := range a.mu.open {
		if k.vchannel == vchannel {
			delete(a.mu.open, k)
		}
	}
	for id, o := range a.mu.closing {
		if o.key.vchannel == vchannel {
			delete(a.mu.closing, id)
		}
	}
	for id, v := range a.mu.sealed {
		if v == vchannel {
			delete(a.mu.sealed, id)
		}
	}
}
