package segments

import (
	"sync"

	"github.com/querynode/querynode/internal/index"
)

// learned is the memory of what the index of a field has learnt from searches. It is kept
// while there is plenty of room, and is the first to go when there is not. The zero learned
// belongs to no index.
type learned struct {
	memory *Reservation
	mu     struct {
		sync.Mutex
		of index.Learner // nil: it keeps nothing, or is not open
	}
}

// Take reports whether an index may keep so many bytes more.
func (l *learned) Take(bytes int64) bool { return l.memory.growSpare(bytes, coolTo) }

// begin bounds what x keeps from now on, if it is one that learns.
func (l *learned) begin(x index.Searcher) {
	of, ok := x.(index.Learner)
	if !ok {
		return
	}
	of.LearnWithin(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.of = of
}

// forget has the index drop what it has learnt.
func (l *learned) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.of != nil {
		l.mu.of.Forget()
	}
}

// end gives the memory back; nobody searches the index any more.
func (l *learned) end() {
	l.mu.Lock()
	l.mu.of = nil
	l.mu.Unlock()
	l.memory.Release()
}

// forget has the segment drop what it has learnt from searches.
func (s *Sealed) forget() {
	s.matched.forget()
	for _, v := range s.vectors {
		v.learned.forget()
	}
}
