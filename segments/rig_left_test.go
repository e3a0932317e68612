package segments

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// wantNothingLeft fails the test if a closed set still holds anything that it had to give back: room on the local disk, what the ledger
// knows of builds that are to come and of files that are read, open files, or readers of objects.
func (r *rig) wantNothingLeft() {
	r.t.Helper()
	l := r.set.Ledger()
	if n := len(l.mu.ahead); n != 0 || l.mu.most != 0 || l.mu.build != 0 {
		r.t.Errorf("after Close the ledger expects builds of %d segments, the largest of %d bytes, and has %d bytes of one under way", n, l.mu.most, l.mu.build)
	}
	if n := l.read.Load(); n != 0 {
		r.t.Errorf("after Close %d bytes of files count as read by searches", n)
	}
	if d := r.set.disk; d.mu.used != 0 || d.mu.fields != 0 || d.mu.making != 0 {
		r.t.Errorf("after Close %d bytes of the local disk are taken, with %d fields, and %d for what is being made", d.mu.used, d.mu.fields, d.mu.making)
	}
	if files := openIn(r.dir); len(files) > 0 {
		r.t.Errorf("after Close these files are open: %v", files)
	}
	// Of what ends at once: a reader that nobody closed never does.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	must(r.t, r.bucket.Close(ctx))
}

// openIn lists the files in a folder that this process has open, where the system tells (Linux).
func openIn(dir string) (files []string) {
	open, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range open {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, dir) {
			files = append(files, to)
		}
	}
	return files
}
