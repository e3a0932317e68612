//go:build unix

package objstore

import (
	"context"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// tryFlock takes an exclusive lock on f if nobody else holds it. The kernel
// frees it when f is closed or the process dies, however it dies.
func tryFlock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		default:
			return false, os.NewSyscallError("flock", err)
		}
	}
}

// waitFlock takes the lock, or gives up when ctx ends. It polls, because a
// blocking flock could not be interrupted while a stopped process holds the lock.
func waitFlock(ctx context.Context, f *os.File) error {
	wait := 100 * time.Microsecond
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		ok, err := tryFlock(f)
		if ok || err != nil {
			return err
		}
		timer.Reset(wait/2 + rand.N(wait))
		select {
		case <-timer.C:
			wait = min(2*wait, 20*time.Millisecond)
		case <-ctx.Done():
			return errclass.Wrap(ended(ctx, ctx.Err()), errclass.Retryable, "wait for the lock %s that another process holds", f.Name())
		}
	}
}

// unlinked reports whether f has lost its name.
func unlinked(f *os.File) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0, nil
}

// inode is the number of the file in its file system, 0 if unknown.
func inode(st os.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(sys.Ino)
	}
	return 0
}

// fileClass maps what the operating system says to a class.
func fileClass(err error) errclass.Class {
	is := func(codes ...syscall.Errno) bool {
		for _, c := range codes {
			if errors.Is(err, c) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errclass.NotFound
	case is(syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EFBIG):
		return errclass.Exhausted
	case is(syscall.EACCES, syscall.EPERM, syscall.EROFS):
		return errclass.Denied
	case is(syscall.EEXIST, syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.ENOTEMPTY):
		return errclass.Invalid
	case is(syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EAGAIN, syscall.ENOLCK):
		return errclass.Retryable
	}
	return errclass.Of(err)
}
