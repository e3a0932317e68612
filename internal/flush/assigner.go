package flush

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// Log is the log that the rows of a vchannel are written to.
type Log struct {
	PChannel     string
	VChannel     string
	CollectionID int64
}

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
		terms   map[string]entered // by vchannel: what is below is of this term
		open    map[key]*open
		closing map[int64]*open // full or asked to be sealed; until sealed in the log
		sealed  map[int64]seal  // sealed in the log; until that has been applied, or flushed
	}
}

// entered is the log of a vchannel in one term.
type entered struct {
	log  Log
	term uint64
}

// seal is where the seal of a segment is.
type seal struct {
	vchannel string
	at       uint64
}

// newAssigner returns an assigner that takes ids from next and regards a segment
// as full when full says so.
func newAssigner(next func(ctx context.Context) (int64, error), full func(rows int, bytes int64) bool) *Assigner {
	a := &Assigner{ids: next, full: full, now: time.Now}
	a.mu.terms = map[string]entered{}
	a.mu.open = map[key]*open{}
	a.mu.closing = map[int64]*open{}
	a.mu.sealed = map[int64]seal{}
	return a
}

// Enter says that a log is owned for a term. What was given out in an earlier one
// is forgotten: another owner may have sealed it meanwhile, and rows that come
// after a seal are lost. It reports false if the term is over.
func (a *Assigner) Enter(log Log, term uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.enterLocked(log, term)
}

func (a *Assigner) enterLocked(log Log, term uint64) bool {
	e, ok := a.mu.terms[log.VChannel]
	if ok && term > e.term {
		a.forgetLocked(log.VChannel)
	}
	if !ok || term > e.term {
		a.mu.terms[log.VChannel] = entered{log: log, term: term}
	}
	return term >= e.term
}

// Assign enters the term and returns the segment for rows of the partition that are to be
// appended to the log. done is called once the append has returned, whatever its outcome.
func (a *Assigner) Assign(ctx context.Context, log Log, term uint64, partition int64, rows int, bytes int64) (id int64, done func(), err error) {
	o, err := a.take(log, term, partition, rows, bytes, 0)
	if o == nil && err == nil {
		// Outside the lock: the id may have to come from the catalog.
		fresh, err := a.ids(ctx)
		if err != nil {
			return 0, nil, errclass.Wrap(err, errclass.Retryable, "allocate a segment id")
		}
		o, err = a.take(log, term, partition, rows, bytes, fresh)
		if err != nil {
			return 0, nil, err
		}
	}
	if err != nil {
		return 0, nil, err
	}
	return o.id, sync.OnceFunc(func() { a.done(o) }), nil
}

// take gives out the open segment of the partition, or opens one with id fresh; nil if
// there is none and fresh is 0.
func (a *Assigner) take(log Log, term uint64, partition int64, rows int, bytes int64, fresh int64) (*open, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.enterLocked(log, term) {
		return nil, errclass.New(errclass.Fenced, "term %d of the log of %s is over", term, log.VChannel)
	}
	k := key{log.VChannel, partition}
	o := a.mu.open[k]
	if o == nil {
		if fresh == 0 {
			return nil, nil
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
	return o, nil
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

// Overdue makes segments of the vchannel take no more rows whose rows nobody here may
// have in memory: those created before old, and the largest until the others have no
// more than most bytes together. It returns them with the full ones, to be sealed.
func (a *Assigner) Overdue(vchannel string, old time.Time, most int64) []int64 {
	a.mu.Lock()
	var left []*open
	var bytes int64
	for _, o := range a.mu.open {
		if o.key.vchannel == vchannel && !o.created.Before(old) {
			left = append(left, o)
			bytes += o.bytes
		}
	}
	slices.SortFunc(left, func(a, b *open) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, o := range left {
		if bytes <= most {
			break
		}
		bytes -= o.bytes
		a.closeLocked(o)
	}
	a.mu.Unlock()
	return a.Close(vchannel, old)
}

// Logs lists the logs but those of some vchannels in which segments are open, or closed
// and not sealed. Of the others nothing is left to know.
func (a *Assigner) Logs(but map[string]bool) (list []Log) {
	a.mu.Lock()
	defer a.mu.Unlock()
	busy := map[string]bool{}
	for k := range a.mu.open {
		busy[k.vchannel] = true
	}
	for _, o := range a.mu.closing {
		busy[o.key.vchannel] = true
	}
	for vchannel, e := range a.mu.terms {
		switch {
		case but[vchannel]:
		case busy[vchannel]:
			list = append(list, e.log)
		default:
			a.forgetLocked(vchannel)
			delete(a.mu.terms, vchannel)
		}
	}
	slices.SortFunc(list, func(a, b Log) int { return cmp.Compare(a.VChannel, b.VChannel) })
	return list
}

// Knows reports whether a log of the vchannel was entered and not forgotten since.
func (a *Assigner) Knows(vchannel string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.mu.terms[vchannel]
	return ok
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

// Sealed says that the seal of segments is in the log at a timestamp. They are
// remembered until Flushed or Applied: their growing copies do not know of the seal
// before it is applied, and must not be adopted meanwhile.
func (a *Assigner) Sealed(vchannel string, at uint64, ids ...int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		delete(a.mu.closing, id)
		a.mu.sealed[id] = seal{vchannel, at}
	}
}

// Applied says that the vchannel has applied its log up to a timestamp: what was sealed
// until then has a growing copy that knows, or none because it has no rows.
func (a *Assigner) Applied(vchannel string, upTo uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, s := range a.mu.sealed {
		if s.vchannel == vchannel && s.at <= upTo {
			delete(a.mu.sealed, id)
		}
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
	for id, s := range a.mu.sealed {
		if s.vchannel == vchannel {
			delete(a.mu.sealed, id)
		}
	}
}
