package embedded

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/errors"
)

// memFS is a disk in memory that knows what has been synced. hook, called before
// every operation, injects faults; powerOff gives the disk as it may be after.
type memFS struct {
	mu   sync.Mutex
	now  map[string]*inode // by path
	safe map[string]*inode // the folders as last synced
	hook func(op, path string) error
}

// inode is a file. As with a kernel, a sync that fails is the last that is heard of what it was to write: the
// next one, of whoever has the file open then, is good and writes only what was written since.
type inode struct {
	data  []byte
	safe  []byte // content on the disk
	dirty []span // of data, what a sync would write
	lost  []span // of data, what one has failed to write; evict has it read from the disk
}

// span is the bytes [from, to) of a file.
type span struct{ from, to int }

// shortWrite makes a write store its first n bytes and fail with err.
type shortWrite struct {
	n   int
	err error
}

func (s shortWrite) Error() string { return "short write: " + s.err.Error() }
func (s shortWrite) Unwrap() error { return s.err }

func newMemFS() *memFS { return &memFS{now: map[string]*inode{}, safe: map[string]*inode{}} }

func (m *memFS) setHook(h func(op, path string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = h
}

func (m *memFS) before(op, path string) error {
	m.mu.Lock()
	h := m.hook
	m.mu.Unlock()
	if h == nil {
		return nil
	}
	if err := h(op, path); err != nil {
		if short, ok := err.(shortWrite); ok {
			return short
		}
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

func (m *memFS) fileSystem() *fileSystem {
	return &fileSystem{
		open: func(path string, flag int) (file, error) {
			if err := m.before("open", path); err != nil {
				return nil, err
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			n := m.now[path]
			if n == nil && flag&os.O_CREATE == 0 {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			if n == nil {
				n = &inode{}
				m.now[path] = n
			}
			if flag&os.O_TRUNC != 0 {
				n.data, n.dirty, n.lost = nil, nil, nil
			}
			return &memFile{m, n, path}, nil
		},
		size: func(path string) (int64, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if n := m.now[path]; n != nil {
				return int64(len(n.data)), nil
			}
			return 0, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
		},
		list: func(dir string) ([]string, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			var names []string
			for path := range m.now {
				if filepath.Dir(path) == dir {
					names = append(names, filepath.Base(path))
				}
			}
			slices.Sort(names)
			return names, nil
		},
		mkdir:  func(dir string) error { return m.before("mkdir", dir) },
		rename: func(from, to string) error { return m.move("rename", from, to) },
		remove: func(path string) error { return m.move("remove", path, "") },
		syncDir: func(dir string) error {
			if err := m.before("syncdir", dir); err != nil {
				return err
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			for path := range m.safe {
				if filepath.Dir(path) == dir {
					delete(m.safe, path)
				}
			}
			for path, n := range m.now {
				if filepath.Dir(path) == dir {
					m.safe[path] = n
				}
			}
			return nil
		},
	}
}

func (m *memFS) move(op, from, to string) error {
	if err := m.before(op, from); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.now[from]
	if n == nil {
		return &fs.PathError{Op: op, Path: from, Err: fs.ErrNotExist}
	}
	delete(m.now, from)
	if to != "" {
		m.now[to] = n
	}
	return nil
}

type memFile struct {
	m    *memFS
	n    *inode
	path string
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.m.before("read", f.path); err != nil {
		return 0, err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.m.before("write", f.path)
	var short shortWrite
	if errors.As(err, &short) {
		b = b[:min(short.n, len(b))]
	} else if err != nil {
		return 0, err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if end := int(off) + len(b); end > len(f.n.data) {
		f.n.data = append(f.n.data, make([]byte, end-len(f.n.data))...)
	}
	f.n.dirty = append(f.n.dirty, span{int(off), int(off) + len(b)})
	return copy(f.n.data[off:], b), err
}

func (f *memFile) Truncate(size int64) error {
	if err := f.m.before("truncate", f.path); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.data = resized(f.n.data, int(size))
	return nil
}

func (f *memFile) Sync(bool) error {
	err := f.m.before("sync", f.path)
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n := f.n
	if err == nil {
		n.safe = resized(n.safe, len(n.data))
		for _, d := range n.dirty {
			if d.to = min(d.to, len(n.data)); d.from < d.to {
				copy(n.safe[d.from:d.to], n.data[d.from:d.to])
			}
		}
	} else {
		n.lost = append(n.lost, n.dirty...)
	}
	n.dirty = nil
	return err
}

func resized(b []byte, size int) []byte {
	return append(slices.Clone(b[:min(size, len(b))]), make([]byte, max(0, size-len(b)))...)
}

// evict lets the kernel forget pages that it holds for written and that are not.
func (m *memFS) evict() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.now {
		disk := resized(n.safe, len(n.data))
		for _, l := range n.lost {
			if l.to = min(l.to, len(n.data)); l.from < l.to {
				copy(n.data[l.from:l.to], disk[l.from:l.to])
			}
		}
		n.lost = nil
	}
}

func (f *memFile) Close() error { return nil }

// powerOff returns a disk as it may come back: what was synced is there; of the
// rest anything: folder entries old or new, data up to any byte.
func (m *memFS) powerOff(rnd *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	paths := map[string]bool{}
	for p := range m.now {
		paths[p] = true
	}
	for p := range m.safe {
		paths[p] = true
	}
	kept := map[*inode]*inode{}
	for _, p := range slices.Sorted(func(yield func(string) bool) {
		for p := range paths {
			if !yield(p) {
				return
			}
		}
	}) {
		n := m.now[p]
		if n != m.safe[p] && rnd.IntN(2) == 0 {
			n = m.safe[p]
		}
		if n == nil {
			continue
		}
		if kept[n] == nil {
			kept[n] = n.survive(rnd)
		}
		after.now[p], after.safe[p] = kept[n], kept[n]
	}
	return after
}

// survive returns what is left of a file.
func (n *inode) survive(rnd *rand.Rand) *inode {
	data := n.safe
	if grown := len(n.data) - len(n.safe); grown > 0 {
		data = n.data[:len(n.safe)+rnd.IntN(grown+1)]
	} else if rnd.IntN(2) == 0 {
		data = n.data
	}
	return &inode{data: slices.Clone(data), safe: slices.Clone(data)}
}

// killed returns the disk as another process finds it: with all that was written.
func (m *memFS) killed() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	for p, n := range m.now {
		after.now[p] = &inode{data: slices.Clone(n.data), safe: slices.Clone(n.data)}
		after.safe[p] = after.now[p]
	}
	return after
}

// segmentPaths returns the segment files, oldest first.
func (m *memFS) segmentPaths() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for p := range m.now {
		if strings.HasSuffix(p, segmentSuffix) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (m *memFS) data(path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now[path].data
}

// memOptions are small options over disk; the folder exists for the lock only.
func memOptions(t testing.TB, disk *memFS, dir string) Options {
	t.Helper()
	return Options{Dir: dir, SegmentBytes: 4 << 10, ReadBufferBytes: 4 << 10, fs: disk.fileSystem()}
}
