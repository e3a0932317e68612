package segfile

import "golang.org/x/sys/unix"

const (
	mapPopulate    = unix.MAP_POPULATE
	madvHugePage   = unix.MADV_HUGEPAGE
	madvNoHugePage = unix.MADV_NOHUGEPAGE
)
