//go:build !linux && !darwin && !freebsd

package index

import "unsafe"

func newRegion(n int) (region, error) { return heapRegion(n), nil }

func unmapMemory([]byte) error { return nil }

// heapRegion is a region for systems that have no better.
func heapRegion(n int) region {
	b := make([]byte, n+sectionAlign)
	for uintptr(unsafe.Pointer(&b[0]))%sectionAlign != 0 {
		b = b[1:]
	}
	return region{bytes: b[:n]}
}
