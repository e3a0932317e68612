package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAFlushThatTakesTooLongSaysWhatItWaitsFor: the client's time ends before the node's,
// unless the node is a little ahead.
func TestAFlushThatTakesTooLongSaysWhatItWaitsFor(t *testing.T) {
	sh, r := served(t)
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)")
	sh.ok("insert", "points", fvecs(t, 10))
	dir := strings.TrimPrefix(r.cfg.Storage.URL, "file://")
	if err := os.WriteFile(filepath.Join(dir, "segments"), nil, 0o600); err != nil { // where a folder is to be
		t.Fatal(err)
	}
	sh.fails(exitError, []string{"wait for the flush of segment ", " of channel ", "which goes on (failing for ", "segments", "next: ", "--timeout"},
		"flush", "points", "--wait", "--timeout", "2s")
	if err := os.Remove(filepath.Join(dir, "segments")); err != nil {
		t.Fatal(err)
	}
	sh.ok("flush", "points", "--wait") // which may find that it is stored by now
	if stored, err := filepath.Glob(filepath.Join(dir, "segments", "*")); err != nil || len(stored) == 0 {
		t.Errorf("nothing is stored: %v, %v", stored, err)
	}
}
