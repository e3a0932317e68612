//go:build linux || darwin || freebsd

package index

import (
	"golang.org/x/sys/unix"

	"github.com/querynode/querynode/internal/errclass"
)

// newRegion returns n bytes. Pages come when they are written. Errors have class
// Exhausted.
func newRegion(n int) (region, error) {
	b, err := unix.Mmap(-1, 0, max(n, 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return region{}, errclass.Wrap(err, errclass.Exhausted, "map %d bytes for an index", n)
	}
	wantHugePages(b)
	return region{bytes: b[:n], mapped: true}, nil
}

func unmapMemory(b []byte) error {
	return errclass.Wrap(unix.Munmap(b[:max(len(b), 1)]), errclass.Internal, "unmap an index")
}
