//go:build darwin || freebsd

package segfile

// None of these wishes exists here.
const (
	mapPopulate    = 0
	madvHugePage   = -1
	madvNoHugePage = -1
)
