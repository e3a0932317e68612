//go:build unix

package segments

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/querynode/querynode/internal/errclass"
)

// mapSpill maps the first size bytes of f for reading.
func mapSpill(f *os.File, size int) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	raw, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return raw, errclass.Wrap(err, errclass.Exhausted, "map %d bytes of scalars", size)
}

func unmapSpill(raw []byte) error {
	if raw == nil {
		return nil
	}
	return errclass.Wrap(unix.Munmap(raw), errclass.Internal, "unmap scalars")
}
