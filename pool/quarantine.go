package pool

import (
	"cmp"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"
)

// Quarantine counts panics by key and says when a key has had too many, so
// that a poisoned segment is taken out of use instead of panicking for ever.
// Its memory grows with the keys that panicked: Forget a key when it is gone.
type Quarantine[K cmp.Ordered] struct {
	limit int
	mu    struct {
		sync.Mutex
		panics map[K]int
	}
}

// NewQuarantine returns a Quarantine that holds a key from its limit-th panic
// on. A limit below 1 means 1.
func NewQuarantine[K cmp.Ordered](limit int) *Quarantine[K] {
	q := &Quarantine[K]{limit: max(limit, 1)}
	q.mu.panics = map[K]int{}
	return q
}

// Observe counts err against key if it is a panic. It returns true once, when
// this panic is the one that puts the key into quarantine.
func (q *Quarantine[K]) Observe(key K, err error) bool {
	var pe *PanicError
	if !errors.As(err, &pe) {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.panics[key]++
	return q.mu.panics[key] == q.limit
}

// Holds reports whether key is in quarantine.
func (q *Quarantine[K]) Holds(key K) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.panics[key] >= q.limit
}

// Forget clears a key's count.
func (q *Quarantine[K]) Forget(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.panics, key)
}

// Held returns the keys in quarantine, sorted.
func (q *Quarantine[K]) Held() []K {
	q.mu.Lock()
	defer q.mu.Unlock()
	var held []K
	for k, n := range q.mu.panics {
		if n >= q.limit {
			held = append(held, k)
		}
	}
	slices.Sort(held)
	return held
}
