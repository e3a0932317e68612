package segments

import (
	"io/fs"
	"runtime/debug"
	"syscall"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// diskError wraps an error of the local file system with its class.
func diskError(err error, format string, args ...any) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errclass.Wrap(err, errclass.Exhausted, format+": the disk is full, free some space", args...)
	case errors.Is(err, fs.ErrPermission):
		return errclass.Wrap(err, errclass.Denied, format, args...)
	}
	return errors.Wrapf(err, format, args...)
}

// guard runs fn so that a panic, and a fault in a mapped file that has shrunk
// underneath, become an error.
func guard(name string, fn func() error) error {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return lifecycle.Call(name, fn)
}
