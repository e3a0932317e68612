//go:build linux || darwin || freebsd

package segfile

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

// A file cut under its mapping kills the process, unless the reader asked for a panic.
func TestFaultInMappedMemoryIsARecoverablePanic(t *testing.T) {
	meta := testMeta()
	dir := filepath.Join(t.TempDir(), "42")
	write(t, dir, meta, batch(&meta.Schema, 0, 2000))
	s := open(t, dir)
	v := s.Vectors(101)
	if v[0] != 0 {
		t.Fatal("wrong vector")
	}
	if err := os.Truncate(filepath.Join(dir, "vector_101.npy"), 0); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r == nil {
			t.Fatal("no panic")
		}
	}()
	sum := float32(0)
	for _, x := range v {
		sum += x
	}
	t.Fatalf("read %v from nowhere", sum)
}
