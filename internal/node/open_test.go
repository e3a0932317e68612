package node

import (
	"os"
	"path/filepath"
	"testing"
)

// A node of which a part cannot be opened leaves nothing behind: no goroutine, which the
// leak check would find, and no folder.
func TestANodeThatCannotBeOpenedStopsWhatItBegan(t *testing.T) {
	whole := newWorld(t).open(nil)
	o := whole.o
	o.Dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(o.Dir, "compact"), nil, 0o600)) // where a folder is to be
	n, err := Open(o)
	if n != nil || err == nil {
		t.Fatalf("it was opened: %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "flush")); !os.IsNotExist(err) {
		t.Errorf("the flusher was not closed: its folder is there (%v)", err)
	}
}
