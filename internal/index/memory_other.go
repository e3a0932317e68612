//go:build !linux && !darwin && !freebsd

package index

func newRegion(n int) (region, error) { return heapRegion(n), nil }

func unmapMemory([]byte) error { return nil }
