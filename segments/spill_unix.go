//go:build unix

package segments

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/querynode/querynode/internal/errclass"
)

// mapSpill maps the first size bytes of f, to be written to until sealSpill.
func mapSpill(f *os.File, size int) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	raw, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return raw, errclass.Wrap(err, errclass.Exhausted, "map %d bytes of scalars", size)
}

// sealSpill makes the mapped file read-only.
func sealSpill(raw []byte) error {
	if raw == nil {
		return nil
	}
	return errclass.Wrap(unix.Mprotect(raw, unix.PROT_READ), errclass.Internal, "protect %d bytes of scalars", len(raw))
}

func unmapSpill(raw []byte) error {
	if raw == nil {
		return nil
	}
	return errclass.Wrap(unix.Munmap(raw), errclass.Internal, "unmap scalars")
}
