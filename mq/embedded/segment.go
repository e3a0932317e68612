package embedded

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

const (
	segmentMagic       = "QNMQSEG\n"
	segmentVersion     = 1
	headerCopyBytes    = 64
	segmentHeaderBytes = 2 * headerCopyBytes
	segmentSuffix      = ".seg"
	tmpSuffix          = ".tmp"
)

// segmentHeader is the fixed start of a file; doc.go has the layout.
type segmentHeader struct {
	base, salt    uint64
	prevBase      uint64 // 0 = none
	prevLength    int64
	maxTimestamp  uint64 // highest before base
	lastTimestamp uint64 // of message base-1
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, headerCopyBytes, segmentHeaderBytes)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], segmentVersion)
	for i, v := range []uint64{h.base, h.salt, h.prevBase, uint64(h.prevLength), h.maxTimestamp, h.lastTimestamp} {
		binary.LittleEndian.PutUint64(b[16+8*i:], v)
	}
	binary.LittleEndian.PutUint32(b[12:], checksum(b[16:]))
	return append(b, b...)
}

func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	err := errclass.New(errclass.Corrupt, "no valid segment header")
	for at := 0; at+headerCopyBytes <= len(b) && at < segmentHeaderBytes; at += headerCopyBytes {
		c := b[at : at+headerCopyBytes]
		if string(c[:8]) != segmentMagic || binary.LittleEndian.Uint32(c[12:]) != checksum(c[16:]) {
			continue
		}
		if v := binary.LittleEndian.Uint32(c[8:]); v != segmentVersion {
			err = errclass.New(errclass.Unimplemented, "segment version %d, this build reads %d", v, segmentVersion)
			continue
		}
		u := func(i int) uint64 { return binary.LittleEndian.Uint64(c[16+8*i:]) }
		h := segmentHeader{base: u(0), salt: u(1), prevBase: u(2), prevLength: int64(u(3)), maxTimestamp: u(4), lastTimestamp: u(5)}
		if h.prevLength < 0 {
			continue
		}
		return h, nil
	}
	return segmentHeader{}, err
}

// segment is one file. All but index is set before others can see it, except
// that length of the newest segment is -1 until it is full: topic.end counts.
type segment struct {
	segmentHeader
	path   string
	length int64
	bad    error // no header: nothing in it can be read
	index  atomic.Pointer[[]indexEntry]
}

// indexEntry is one point of the sparse index of a segment.
type indexEntry struct {
	off          int64
	seq          uint64
	maxTimestamp uint64 // highest of all messages before seq
}

func segmentPath(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", base, segmentSuffix))
}

func parseSegmentName(name string) (base uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 10, 64)
	return base, err == nil && base > 0
}

// createSegment makes the file and lets it appear under its name in one step.
func createSegment(s *fileSystem, dir string, h segmentHeader) (*segment, file, error) {
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, nil, errors.Wrap(err, "salt")
	}
	h.salt = binary.LittleEndian.Uint64(salt[:])
	path := segmentPath(dir, h.base)
	f, err := s.open(path+tmpSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, nil, err
	}
	_, err = f.WriteAt(h.encode(), 0)
	if err == nil {
		err = f.Sync(false)
	}
	left := path + tmpSuffix
	if err == nil {
		if err = s.rename(path+tmpSuffix, path); err == nil {
			left = path
			err = s.syncDir(dir)
		}
	}
	if err != nil {
		_ = f.Close()
		_ = s.remove(left) // what stays is empty; the next attempt or open replaces it
		return nil, nil, err
	}
	return &segment{segmentHeader: h, path: path, length: -1}, f, nil
}

// openSegment reads the header of the file of messages from base on. A file
// without a valid header comes back with bad set.
func openSegment(s *fileSystem, dir string, base uint64) (*segment, error) {
	seg := &segment{segmentHeader: segmentHeader{base: base}, path: segmentPath(dir, base)}
	size, err := s.size(seg.path)
	if err != nil {
		return nil, err
	}
	seg.length = size
	f, err := s.open(seg.path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, segmentHeaderBytes)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	h, err := decodeSegmentHeader(b[:n])
	if err == nil && h.base != base {
		err = errclass.New(errclass.Corrupt, "the header says it begins with message %d", h.base)
	}
	if err != nil {
		seg.bad = errors.Wrapf(err, "%s", seg.path)
		return seg, nil
	}
	seg.segmentHeader = h
	return seg, nil
}

// addIndex adds a point if the last one is far enough away.
func addIndex(index []indexEntry, off int64, seq, maxTimestamp uint64) []indexEntry {
	if n := len(index); n > 0 && off-index[n-1].off < indexEveryBytes {
		return index
	}
	return append(index, indexEntry{off: off, seq: seq, maxTimestamp: maxTimestamp})
}

// points returns the index of a segment, building it by one pass if nobody has yet.
func (seg *segment) points(src io.ReaderAt, length int64, window int) ([]indexEntry, error) {
	if p := seg.index.Load(); p != nil {
		return *p, nil
	}
	r, err := seg.scan(src, length, window, mark{})
	if err != nil {
		return nil, err
	}
	seg.index.Store(&r.index)
	return r.index, nil
}

// before returns the last point for which less says that the target is not before it.
func before(index []indexEntry, base indexEntry, less func(indexEntry) bool) indexEntry {
	i := sort.Search(len(index), func(i int) bool { return !less(index[i]) })
	if i == 0 {
		return base
	}
	return index[i-1]
}

// listTopic returns the bases of the segment files in dir, ascending, and the
// temporary files that a crash left.
func listTopic(s *fileSystem, dir string) (bases []uint64, tmps []string, err error) {
	names, err := s.list(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			tmps = append(tmps, filepath.Join(dir, name))
		} else if base, ok := parseSegmentName(name); ok {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, tmps, nil
}
