package index

import "golang.org/x/sys/unix"

// wantHugePages asks for them. The kernel may refuse: that is slower, not wrong.
func wantHugePages(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
