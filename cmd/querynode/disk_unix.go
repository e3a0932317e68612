//go:build unix

package main

import (
	"github.com/cockroachdb/errors"
	"golang.org/x/sys/unix"
)

// freeDisk is what is free for this process on the file system of a folder, in bytes.
func freeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, errors.Wrapf(err, "statfs %s", dir)
	}
	return max(int64(st.Bavail)*int64(st.Bsize), 0), nil // some count what is kept for root as less than nothing
}

// sameVolume reports whether two folders, of which one may yet have to be made, are on one
// file system; true if nobody knows.
func sameVolume(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(existing(a), &x) != nil || unix.Stat(existing(b), &y) != nil || x.Dev == y.Dev
}
