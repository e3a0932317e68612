package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/errors"
)

// setParentDeath makes a node end when we do, however we do.
func setParentDeath(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// diskBytes is the size of the disk that can be full.
const diskBytes = "512m"

// mountDisk makes dir a file system of its own, of limited size. The error says
// why it cannot be.
func mountDisk(dir string) (unmount func() error, err error) {
	if os.Getuid() != 0 {
		return nil, errors.New("needs root, to mount a file system of limited size")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "size="+diskBytes); err != nil {
		return nil, errors.Wrap(err, "mount a tmpfs")
	}
	return func() error { return errors.Wrapf(syscall.Unmount(dir, syscall.MNT_DETACH), "unmount %s", dir) }, nil
}

// fillDisk takes all room that is left on dir's file system. free gives it back.
func fillDisk(dir string) (free func() error, err error) {
	path := filepath.Join(dir, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, errors.Wrap(err, "create the ballast")
	}
	defer f.Close()
	free = func() error { return errors.Wrap(os.Remove(path), "remove the ballast") }
	var size int64
	for step := int64(64 << 20); step >= 4096; { // the node writes too meanwhile
		switch err := syscall.Fallocate(int(f.Fd()), 0, size, step); {
		case err == nil:
			size += step
		case errors.Is(err, syscall.ENOSPC):
			step /= 2
		case !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(errors.Wrap(err, "fill the disk"), free())
		}
	}
	return free, nil
}
