//go:build !unix

package segments

// arena is plain heap memory where there is no mmap.
type arena struct{ floats []float32 }

func newArena(floats int) (*arena, error) { return &arena{floats: make([]float32, floats)}, nil }

func (a *arena) close() error {
	a.floats = nil
	return nil
}
