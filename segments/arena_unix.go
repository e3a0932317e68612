//go:build unix

package segments

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/querynode/querynode/internal/errclass"
)

// arena is anonymous memory outside the Go heap. Reserving it is free: pages
// come when they are written, so a growing segment can reserve room for all the
// rows it may ever take and never has to move them.
type arena struct {
	floats []float32
	raw    []byte
}

func newArena(floats int) (*arena, error) {
	raw, err := unix.Mmap(-1, 0, max(floats*4, 4096), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|mapNoReserve)
	if err != nil {
		return nil, errclass.Wrap(err, errclass.Exhausted, "map %d bytes for vectors", floats*4)
	}
	return &arena{raw: raw, floats: unsafe.Slice((*float32)(unsafe.Pointer(&raw[0])), floats)}, nil
}

// bytes is the same memory, by bytes.
func (a *arena) bytes() []byte { return a.raw[:4*len(a.floats)] }

// close unmaps the memory; touching it afterwards faults.
func (a *arena) close() error {
	if a.raw == nil {
		return nil
	}
	err := unix.Munmap(a.raw)
	a.raw, a.floats = nil, nil
	return errclass.Wrap(err, errclass.Internal, "unmap vectors")
}
