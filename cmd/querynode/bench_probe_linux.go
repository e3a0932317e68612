package main

import "golang.org/x/sys/unix"

// probeRegion takes memory from the system, in huge pages or in none.
func probeRegion(n int, huge bool) ([]byte, func() error, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, err
	}
	advice := unix.MADV_NOHUGEPAGE
	if huge {
		advice = unix.MADV_HUGEPAGE
	}
	_ = unix.Madvise(b, advice) // a kernel without huge pages refuses
	return b, func() error { return unix.Munmap(b) }, nil
}
