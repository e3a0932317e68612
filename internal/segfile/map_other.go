//go:build !linux && !darwin && !freebsd

package segfile

import (
	"io"
	"os"

	"github.com/cockroachdb/errors"
)

const canMap = false

// mapFile reads the file into memory: this system's mappings are not supported.
func mapFile(f *os.File, size int64, _ Options) ([]byte, error) {
	b := make([]byte, size) // bounded by the size of the file, which the caller has compared
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err != nil {
		return nil, errors.Wrapf(err, "read %d bytes of %s", size, f.Name())
	}
	return b, nil
}

func unmapFile([]byte) error { return nil }

// syncDir does nothing: directories cannot be synced here.
func syncDir(string) error { return nil }
