package lifecycle

import (
	"context"
	"sync"
)

// Gate lets calls in until it is shut, and tells when the last of them has left. The zero
// Gate is open. It must not be copied after its first use.
type Gate struct {
	mu struct {
		sync.Mutex
		shut    error
		refused error
		inside  int
		empty   chan struct{} // closed when inside is 0 again; nil until the first call
	}
}

// Enter lets a call in, which must Leave once, or returns what it was shut or else refused with.
func (g *Gate) Enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.shut != nil {
		return g.mu.shut
	}
	if g.mu.refused != nil {
		return g.mu.refused
	}
	if g.mu.inside == 0 {
		g.mu.empty = make(chan struct{})
	}
	g.mu.inside++
	return nil
}

// Leave ends a call that Enter let in.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.inside--; g.mu.inside == 0 {
		close(g.mu.empty)
	}
}

// Refuse has Enter return err from now on. The first err stays; Shut's comes before it.
func (g *Gate) Refuse(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.refused == nil {
		g.mu.refused = err
	}
}

// Refused is what calls are refused with; nil = nothing. That the gate is shut is no matter.
func (g *Gate) Refused() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.refused
}

// Shut has Enter return err from now on. The first err stays. Who is inside is not hindered.
func (g *Gate) Shut(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.shut == nil {
		g.mu.shut = err
	}
}

// Wait returns nil once nobody is inside, or the error of ctx if that ends before. It may
// be called any number of times; before Shut, others may have entered when it returns.
func (g *Gate) Wait(ctx context.Context) error {
	g.mu.Lock()
	inside, empty := g.mu.inside, g.mu.empty
	g.mu.Unlock()
	if inside == 0 {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-empty: // both at once: what was waited for has come
		return nil
	default:
		return ctx.Err()
	}
}
