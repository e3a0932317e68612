package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// mounted is a disk of 8 MiB in memory, nil if this process may not mount one.
func mounted(t *testing.T) *smallDisk {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Logf("cannot mount a small disk: %v", err)
		return nil
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	most, rest := filepath.Join(dir, "most"), filepath.Join(dir, "rest")
	return &smallDisk{
		dir:  dir,
		fill: func() { fillUp(t, most, 512<<10) },
		brim: func() { fillUp(t, rest, 0) },
		free: func() { must(t, os.Remove(most)); must(t, os.Remove(rest)) },
	}
}

func mountedReadOnly(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
		return ""
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	return dir
}
