package segments

import (
	"maps"
	"sync"

	"github.com/querynode/querynode/internal/errclass"
)

// Kind says what memory is used for; it is the label of the ledger's metric.
type Kind string

// The kinds of memory that grow with data.
const (
	KindSealed   Kind = "sealed"   // heap of sealed segments: scalars, keys, delete bitmaps
	KindMapped   Kind = "mapped"   // files mapped by sealed segments
	KindGrowing  Kind = "growing"  // rows and graphs of growing segments
	KindDeletes  Kind = "deletes"  // delete buffers of channels
	KindDownload Kind = "download" // loads under way
	KindScratch  Kind = "scratch"  // searches that run

	KindCompaction Kind = "compaction" // segments that are being rewritten
)

// Ledger accounts all memory that grows with data against one limit. Mapped
// files are shown but not counted against it: the kernel may drop their pages.
// It is safe for concurrent use. Create it with NewLedger.
type Ledger struct {
	limit int64
	mu    struct {
		sync.Mutex
		used   map[Kind]int64
		total  int64 // of all kinds but KindMapped
		refuse int64 // reservations refused
	}
}

// NewLedger returns a ledger over limit bytes; 0 = no limit.
func NewLedger(limit int64) *Ledger {
	l := &Ledger{limit: limit}
	l.mu.used = map[Kind]int64{}
	return l
}

// Limit is the limit in bytes; 0 = none.
func (l *Ledger) Limit() int64 { return l.limit }

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

func (l *Ledger) addLocked(kind Kind, n int64) {
	l.mu.used[kind] += n
	if kind != KindMapped {
		l.mu.total += n
	}
}

// Used returns the bytes in use by kind.
func (l *Ledger) Used() map[Kind]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.mu.used)
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
	bytes  int64 // guarded by ledger.mu
}

// Grow takes n more bytes under the limit, or refuses and changes nothing.
func (r *Reservation) Grow(n int64) error { return r.growBeyond(n, 0) }

// growBeyond is Grow that asks the limit only once the reservation holds more
// than free bytes.
func (r *Reservation) growBeyond(n, free int64) error {
	l := r.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	// Subtracted, not added: n may come from a file and be near the largest number.
	if r.kind != KindMapped && l.limit > 0 && n > l.limit-l.mu.total && n > free-r.bytes {
		l.mu.refuse++
		return errclass.New(errclass.Exhausted,
			"no memory for %d bytes of %s: %d of %d bytes are in use; release segments, delete rows, or give the node more memory",
			n, r.kind, l.mu.total, l.limit)
	}
	l.addLocked(r.kind, n)
	r.bytes += n
	return nil
}

// Commit sets the reservation to what is really used.
func (r *Reservation) Commit(n int64) {
	if r == nil || r.ledger == nil {
		return
	}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	r.ledger.addLocked(r.kind, n-r.bytes)
	r.bytes = n
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
