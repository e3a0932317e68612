//go:build darwin || freebsd

package segfile

// Neither wish exists here.
const (
	mapPopulate  = 0
	madvHugePage = -1
)
