package segments

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// Kind says what memory is used for; it is the label of the ledger's metric.
type Kind string

// The kinds of memory that grow with data.
const (
	KindSealed   Kind = "sealed"   // heap of sealed segments: scalars, keys, delete bitmaps
	KindMapped   Kind = "mapped"   // files mapped by sealed segments
	KindGrowing  Kind = "growing"  // rows and lists of growing segments
	KindDeletes  Kind = "deletes"  // delete buffers of channels
	KindDownload Kind = "download" // loads under way
	KindScratch  Kind = "scratch"  // searches that run
	KindPages    Kind = "pages"    // rows kept for further pages of searches

	KindCompaction Kind = "compaction" // segments that are being rewritten
	KindBuild      Kind = "build"      // indexes that are being built

	KindCalls Kind = "calls" // requests that are read and answers that are sent
)

// Kinds lists them all.
func Kinds() []Kind {
	return []Kind{KindSealed, KindMapped, KindGrowing, KindDeletes, KindDownload, KindScratch, KindPages, KindCompaction, KindBuild, KindCalls}
}

// Ledger accounts all memory that grows with data against one limit. Mapped
// files are shown but not counted against it: the kernel may drop their pages.
// It is safe for concurrent use. Create it with NewLedger.
type Ledger struct {
	limit atomic.Int64  // tests change it
	short chan struct{} // capacity 1: something was refused, or nearly
	moved chan struct{} // capacity 1: much was taken since the process was observed
	read  atomic.Int64  // bytes of mapped files that searches read all over: see readable
	mu    struct {
		sync.Mutex
		used   map[Kind]*int64
		total  int64          // of all kinds but KindMapped
		refuse int64          // reservations refused
		wanted int64          // bytes of calls or rows that were refused last,
		until  time.Time      // and how long they count as wanted
		beyond map[Kind]int64 // what small reads, or calls, have beyond the limit

		process int64 // memory of the process as last observed; 0 = never
		ceiling int64 // what it may be
		since   int64 // taken after that, less what was given back
		taken   int64 // taken after that
		starved bool  // something had room under the limit and was refused for what the process has

		coming  int64              // what rows will take that have been let into a log and not been read from it
		ahead   map[*toBuild]int64 // what building the indexes of growing segments will take
		most    int64              // the most of these: they are built one after the other
		build   int64              // taken for such a build that is under way
		leaving int                // growing segments that are sealed and being stored here: they go then
		left    time.Time          // when one of them last ceased to be
	}
}

// NewLedger returns a ledger over limit bytes; 0 = no limit.
func NewLedger(limit int64) *Ledger {
	l := &Ledger{short: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	l.limit.Store(limit)
	l.mu.used, l.mu.beyond, l.mu.ahead = map[Kind]*int64{}, map[Kind]int64{}, map[*toBuild]int64{}
	return l
}

// Limit is the limit in bytes; 0 = none.
func (l *Ledger) Limit() int64 { return l.limit.Load() }

// ShareOf is most, or 1/part of the limit if that is less, but a MiB at least, in bytes.
func (l *Ledger) ShareOf(most, part int64) int64 {
	const least = 1 << 20
	if limit := l.Limit(); limit > 0 {
		return min(most, max(limit/part, least))
	}
	return most
}

// Observe reconciles the ledger with what is really in use: the memory of the
// process that the kernel cannot take back, and a ceiling for it, in bytes.
// Reservations that would go through the ceiling are refused whatever the limit
// says, and so is what was taken since.
func (l *Ledger) Observe(process, ceiling int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.process, l.mu.ceiling, l.mu.since, l.mu.taken = process, ceiling, 0, 0
}

// Observed returns what Observe was told last.
func (l *Ledger) Observed() (process, ceiling int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.process, l.mu.ceiling
}

// Starved reports whether, since it was asked last, something was refused for which
// there was room under the limit: what the process has besides is garbage, or is not in
// the ledger.
func (l *Ledger) Starved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	starved := l.mu.starved
	l.mu.starved = false
	return starved
}

// ceilingAt is the share of the ceiling, in percent, below which the process is never short:
// garbage that has not been collected yet comes and goes below it.
const ceilingAt = 90

// Above reports whether more than so many percent of the limit are in use, or will be
// once rows that are in logs have been read and the indexes of growing segments are built, or of the ceiling by the process.
func (l *Ledger) Above(percent int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.aboveLocked(percent)
}

func (l *Ledger) aboveLocked(percent int64) bool {
	return l.limit.Load() > 0 && l.mu.total+l.aheadLocked() > l.limit.Load()/100*percent ||
		l.mu.ceiling > 0 && l.mu.process+l.mu.since+l.mu.coming > l.mu.ceiling/100*max(percent, ceilingAt)
}

// comes says that rows are on their way through a log which will take n bytes, or that they have come, or will not: -n.
func (l *Ledger) comes(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.coming += n
}

// leaves says that so many more growing segments are sealed and will be stored by this node.
func (l *Ledger) leaves(n int) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.leaving += n; n < 0 {
		l.mu.left = time.Now()
	}
}

// Leaving is how many growing segments are sealed and have yet to be stored by this node: their memory is given back soon after.
func (l *Ledger) Leaving() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.leaving
}

// lastLeft is when a segment ceased to be one of Leaving; zero = none has.
func (l *Ledger) lastLeft() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.left
}

// expect says that building the index of a growing segment will take n bytes; 0 = no more. Rows take what they need to be stored with them:
// where vectors are short a build takes several times what the rows do, and it cannot be refused.
func (l *Ledger) expect(g *toBuild, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.mu.ahead[g]
	if n > 0 {
		l.mu.ahead[g] = n
	} else {
		delete(l.mu.ahead, g)
	}
	switch {
	case n >= l.mu.most:
		l.mu.most = n
	case before == l.mu.most:
		l.mu.most = 0
		for _, n := range l.mu.ahead {
			l.mu.most = max(l.mu.most, n)
		}
	}
}

// roomToBuild takes memory for building the index of a growing segment, up to a part of the limit beyond it: the next one takes its place, and so
// what it takes is not ahead any more.
func (l *Ledger) roomToBuild(n int64) (*Reservation, error) {
	r := &Reservation{ledger: l, kind: KindBuild, ahead: true}
	if err := r.grow(n, 0, 0, l.limit.Load()/overdraft); err != nil {
		return nil, err
	}
	return r, nil
}

// Ahead is what rows will take that are on their way through a log, and the next build of the index of a growing segment besides what is taken for
// one already. What compactions have for theirs is no part of that: they run beside it.
func (l *Ledger) Ahead() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.aheadLocked()
}

func (l *Ledger) aheadLocked() int64 { return l.mu.coming + max(0, l.mu.most-l.mu.build) }

// Short is Above with what was refused a moment ago: a request of a client that comes
// again must find room in the end, however large a part of the limit it is.
func (l *Ledger) Short(percent int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit := l.limit.Load(); limit > 0 && l.mu.wanted > 0 && time.Now().Before(l.mu.until) && l.mu.total > limit-l.mu.wanted {
		return true
	}
	return l.aboveLocked(percent)
}

// wantFor is how long what was refused counts as wanted.
const wantFor = 5 * time.Second

// wantLocked notes that there was no room for a call or rows. What is more than half
// of the limit never will have any.
func (l *Ledger) wantLocked(kind Kind, n int64) {
	if kind == KindCalls || kind == KindGrowing {
		if n <= l.limit.Load()/2 {
			l.mu.wanted, l.mu.until = n, time.Now().Add(wantFor)
		}
	}
}

// runsShort wakes who makes room.
func (l *Ledger) runsShort() {
	select {
	case l.short <- struct{}{}:
	default:
	}
}

// Reserve takes n bytes, or refuses with an error of class Exhausted that has
// the numbers. What was reserved is given back by Release.
func (l *Ledger) Reserve(kind Kind, n int64) (*Reservation, error) {
	r := &Reservation{ledger: l, kind: kind}
	if err := r.Grow(n); err != nil {
		return nil, err
	}
	return r, nil
}

// Force takes n bytes even past the limit: for deletes, which must always pass.
func (l *Ledger) Force(kind Kind, n int64) *Reservation {
	r := &Reservation{ledger: l, kind: kind}
	r.Commit(n)
	return r
}

// muchTaken is the part of the ceiling, 1/muchTaken, after which the process is to be
// looked at again.
const muchTaken = 32

// Moved gets a value when so much has been taken that what Observe was told last may
// be far from what is, since what has been given back may be garbage that is still
// there; and when the ledger is Starved.
func (l *Ledger) Moved() <-chan struct{} { return l.moved }

// addLocked adds n bytes to what a reservation has.
func (l *Ledger) addLocked(r *Reservation, n int64) {
	if r.used == nil {
		r.used = l.usedLocked(r.kind)
	}
	*r.used += n
	if r.ahead {
		l.mu.build += n
	}
	if r.kind == KindMapped {
		return
	}
	l.mu.total += n
	l.mu.since += n
	l.mu.taken += max(n, 0)
	if l.mu.ceiling > 0 && l.mu.taken > l.mu.ceiling/muchTaken {
		l.lookAgain()
	}
}

// lookAgain has the process looked at.
func (l *Ledger) lookAgain() {
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// usedLocked returns where the bytes of a kind are counted.
func (l *Ledger) usedLocked(kind Kind) *int64 {
	n, ok := l.mu.used[kind]
	if !ok {
		n = new(int64)
		l.mu.used[kind] = n
	}
	return n
}

// Used returns the bytes in use by kind.
func (l *Ledger) Used() map[Kind]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[Kind]int64, len(l.mu.used))
	for kind, n := range l.mu.used {
		out[kind] = *n
	}
	return out
}

// Total returns the bytes that count against the limit.
func (l *Ledger) Total() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.total
}

// Refused returns how many reservations were refused.
func (l *Ledger) Refused() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.refuse
}

// Reservation is memory taken from a Ledger. The zero Reservation and nil hold nothing.
type Reservation struct {
	ledger *Ledger
	kind   Kind
	used   *int64 // of the kind; guarded by ledger.mu, nil until something was taken
	bytes  int64  // guarded by ledger.mu
	beyond int64  // of them beyond the limit; guarded by ledger.mu
	ahead  bool   // they were ahead: see Ledger.roomToBuild
}

// Grow takes n more bytes under the limit, or refuses and changes nothing.
func (r *Reservation) Grow(n int64) error { return r.grow(n, 0, 0, 0) }

// growBeyond is Grow that goes beyond the limit while the reservation holds no more
// than free bytes, and all that have gone beyond it no more than beyondLimit.
func (r *Reservation) growBeyond(n, free int64) error { return r.grow(n, free, beyondLimit, 0) }

// GrowBeyond is Grow that goes beyond the limit while all of the same kind have
// gone no more than most bytes beyond it.
func (r *Reservation) GrowBeyond(n, most int64) error { return r.grow(n, math.MaxInt64, most, 0) }

// beyondLimit is what all small reads together may take beyond the limit.
const beyondLimit = 16 << 20

// overdraft is the part of the limit, 1/overdraft, that rows may go beyond it which
// are in the log already, since the seal that makes room is in the log behind them, and so may building an index, to store them.
const overdraft = 4

// growForLog is Grow for rows from the log; beyond: whatever the limit, as long as the process may have it.
func (r *Reservation) growForLog(n int64, beyond bool) error {
	if beyond {
		return r.grow(n, 0, 0, math.MaxInt64/2)
	}
	return r.grow(n, 0, 0, r.ledger.limit.Load()/overdraft)
}

// grow takes n bytes: under the limit and over bytes more; else beyond it, if the
// reservation has no more than free bytes then, and its kind most beyond the limit.
func (r *Reservation) grow(n, free, most, over int64) error {
	l := r.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := r.refusalLocked(n, over); err != nil {
		if n > free-r.bytes || n > most-l.mu.beyond[r.kind] {
			l.mu.refuse++
			l.wantLocked(r.kind, n)
			l.runsShort()
			if r.lacksLocked(n, over) == lacksMemory {
				l.mu.starved = true
				l.lookAgain()
			}
			return err
		}
		r.beyond += n
		l.mu.beyond[r.kind] += n
	}
	r.moveLocked(n)
	return nil
}

// moveLocked adds n bytes to what is held, or takes them off it: what is beyond the
// limit goes first.
func (r *Reservation) moveLocked(n int64) {
	r.ledger.addLocked(r, n)
	r.bytes += n
	if back := min(max(-n, 0), r.beyond); back > 0 {
		r.beyond -= back
		r.ledger.mu.beyond[r.kind] -= back
	}
}

// growSpare is Grow for what is kept only while there is plenty of room: it reports whether no
// more than so many percent of the limit are in use with n more bytes. To be refused is no
// sign that memory is short.
func (r *Reservation) growSpare(n, percent int64) bool {
	l := r.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 {
		if r.lacksLocked(n, 0) != lacksNothing {
			return false
		}
		if limit := l.limit.Load(); limit > 0 && l.mu.total+n > limit/100*percent || l.aboveLocked(percent) {
			return false
		}
	}
	r.moveLocked(n)
	return true
}

// lack is what there is too little of.
type lack uint8

const (
	lacksNothing lack = iota
	lacksRoom         // under the limit
	lacksMemory       // that the process may have
)

func (r *Reservation) lacksLocked(n, over int64) lack {
	l := r.ledger
	// Subtracted, not added: n may come from a file and be near the largest number.
	switch {
	case r.kind == KindMapped || n <= 0:
		return lacksNothing
	case l.limit.Load() > 0 && n > l.limit.Load()+over-l.mu.total-r.yieldsLocked():
		return lacksRoom
	case l.mu.ceiling > 0 && n > l.mu.ceiling-l.mu.process-l.mu.since:
		return lacksMemory
	}
	return lacksNothing
}

// yieldsLocked is what the reservation leaves free besides: a compaction can wait, what is ahead cannot, and it would come on top.
func (r *Reservation) yieldsLocked() int64 {
	if r.kind == KindCompaction || r.kind == KindBuild && !r.ahead {
		return r.ledger.aheadLocked()
	}
	return 0
}

// refusalLocked says why there is no room for n more bytes; nil = there is.
func (r *Reservation) refusalLocked(n, over int64) error {
	l := r.ledger
	switch r.lacksLocked(n, over) {
	case lacksRoom:
		ahead := ""
		if n := r.yieldsLocked(); n > 0 {
			ahead = fmt.Sprintf(", to which rows in the log and storing growing rows will add %d", n)
		}
		return errclass.With(errclass.New(errclass.Exhausted,
			"no memory for %d bytes of %s: %d of %d bytes are in use%s; release segments, delete rows, or give the node more memory",
			n, r.kind, l.mu.total, l.limit.Load(), ahead), errclass.Memory)
	case lacksMemory:
		return errclass.With(errclass.New(errclass.Exhausted,
			"no memory for %d bytes of %s: the process has %d bytes and took %d since, of %d that it may have; release segments, delete rows, or give the node more memory",
			n, r.kind, l.mu.process, l.mu.since, l.mu.ceiling), errclass.Memory)
	}
	return nil
}

// Commit sets the reservation to what is really used.
func (r *Reservation) Commit(n int64) {
	if r == nil || r.ledger == nil {
		return
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.moveLocked(n - r.bytes)
}

// Release gives everything back. Releasing twice is harmless.
func (r *Reservation) Release() { r.Commit(0) }

// size is the number of bytes held.
func (r *Reservation) size() int64 {
	if r == nil || r.ledger == nil {
		return 0
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	return r.bytes
}
