//go:build unix

package index

import (
	"runtime/debug"
	"syscall"
	"testing"
	"unsafe"
)

// TestAFaultLeavesNoRowSeen: a page of the links cannot be read.
func TestAFaultLeavesNoRowSeen(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	page := syscall.Getpagesize()
	mem, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(mem) }()
	links := unsafe.Slice((*uint32)(unsafe.Pointer(&mem[page-32])), 16)
	for i := range links {
		links[i] = uint32(1000*i + 7)
	}
	if err := syscall.Mprotect(mem[page:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	g, w := &sqGraph{rows: 4 << 20}, &sqWalk{ids: make([]uint32, 64)}
	h, s := &HNSW{capacity: 4 << 20}, &Scratch{ids: make([]uint32, 64)}
	for name, of := range map[string]struct {
		seen   *visited
		gather func()
	}{"codes": {&w.seen, func() { w.gather(g, links) }}, "vectors": {&s.seen, func() { h.gather(links, s) }}} {
		of.seen.reset(4 << 20)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no fault", name)
				}
			}()
			of.gather()
		}()
		of.seen.reset(4 << 20)
		for i, word := range of.seen.words {
			if word != 0 {
				t.Fatalf("%s: row %d counts as seen in the next search", name, 64*i)
			}
		}
	}
}
