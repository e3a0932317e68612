//go:build !unix

package segments

import "unsafe"

// arena is plain heap memory where there is no mmap.
type arena struct{ floats []float32 }

func newArena(floats int) (*arena, error) { return &arena{floats: make([]float32, floats)}, nil }

// bytes is the same memory, by bytes.
func (a *arena) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(a.floats))), 4*len(a.floats))
}

func (a *arena) close() error {
	a.floats = nil
	return nil
}
