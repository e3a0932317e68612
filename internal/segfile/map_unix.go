//go:build linux || darwin || freebsd

package segfile

import (
	"os"

	"github.com/cockroachdb/errors"
	"golang.org/x/sys/unix"
)

const canMap = true

// mapFile maps the first size bytes of the file for reading.
func mapFile(f *os.File, size int64, o Options) ([]byte, error) {
	flags := unix.MAP_SHARED
	if o.Populate {
		flags |= mapPopulate
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, flags)
	if err != nil {
		return nil, errors.Wrapf(err, "map %d bytes of %s", size, f.Name())
	}
	advise(b, o)
	return b, nil
}

// advise passes the wishes on. The kernel may refuse them (huge pages need a
// file system that has them): a wish not granted is slower, not wrong.
func advise(b []byte, o Options) {
	if (o.Scattered || o.Paged) && madvNoHugePage >= 0 {
		_ = unix.Madvise(b, madvNoHugePage)
	}
	if o.Paged {
		_ = unix.Madvise(b, unix.MADV_RANDOM)
	}
	if o.HugePages && madvHugePage >= 0 {
		_ = unix.Madvise(b, madvHugePage)
	}
	if o.WillNeed {
		_ = unix.Madvise(b, unix.MADV_WILLNEED)
	}
}

func unmapFile(b []byte) error { return errors.Wrap(unix.Munmap(b), "unmap") }

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return errors.Wrap(err, "open directory to sync it")
	}
	err = d.Sync()
	return errors.Wrapf(errors.CombineErrors(err, d.Close()), "sync directory %s", dir)
}
