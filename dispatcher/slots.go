package dispatcher

import "sync"

// slots is the cap on consumers over all pchannels. It never blocks: an actor
// that gets none is woken when one is given back, and tries again.
type slots struct {
	mu struct {
		sync.Mutex
		free    int
		waiters map[*actor]struct{}
	}
}

func (s *slots) init(n int) {
	s.mu.free = n
	s.mu.waiters = map[*actor]struct{}{}
}

func (s *slots) acquire(a *actor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.free == 0 {
		s.mu.waiters[a] = struct{}{}
		return false
	}
	s.mu.free--
	return true
}

// release wakes all who wait: one of them may have ended meanwhile.
func (s *slots) release() {
	s.mu.Lock()
	s.mu.free++
	woken := s.mu.waiters
	s.mu.waiters = map[*actor]struct{}{}
	s.mu.Unlock()
	for a := range woken {
		select {
		case a.wake <- struct{}{}:
		default: // it has a wake-up waiting already
		}
	}
}

// leave takes back that a waits.
func (s *slots) leave(a *actor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.waiters, a)
}

// wanted reports whether an actor waits for a slot.
func (s *slots) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.waiters) > 0
}

func (s *slots) freeNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.free
}
