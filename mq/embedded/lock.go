package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// lockDir takes dir for this process until unlock. The kernel lets go of the
// lock when the process dies, so a stale file never stands in the way.
func lockDir(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, ioError(err, "lock %s", dir)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errclass.New(errclass.Conflict, "folder %s is in use by process %s",
				dir, strings.TrimSpace(string(holder[:n])))
		}
		return nil, ioError(err, "lock %s", path)
	}
	// Who holds it is for people to read; a full disk must not keep the queue shut.
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return f.Close, nil
}
