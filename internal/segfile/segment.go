package segfile

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unsafe"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go/bloom"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/npy"
)

// Options say how Open maps files. The zero value maps lazily: pages are read
// when touched. All are wishes, which the system may not grant.
type Options struct {
	Populate  bool // read everything while opening (Linux)
	WillNeed  bool // start to read everything in the background
	HugePages bool // map with huge pages where the file system has them (Linux)
	Scattered bool // of vectors few rows will be read, here and there: map them in small pages, whatever HugePages says
	Paged     bool // of vectors and indexes more will be read, here and there, than memory holds: read pages one by one and nothing ahead, whatever the others say (Unix)
	Apart     bool // leave the files of FieldFiles alone, which need not be there: see Segment.OpenField
}

// Segment is an open segment. Its methods are safe for concurrent use, but see
// Close. See the package comment for faults in mapped memory.
type Segment struct {
	dir     string
	m       *Manifest
	keys    FieldStats
	vectors map[int64][]byte
	arrays  map[string][]byte // by name of the file, without the header
	indexes map[int64]indexImage
	bloom   bloom.SplitBlockFilter

	mu struct {
		sync.Mutex
		maps [][]byte // to unmap; nil once closed
	}
}

type indexImage struct {
	meta IndexMeta
	data []byte
}

// ReadManifest reads and checks the manifest of the segment in dir; class
// NotFound if there is none.
func ReadManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errclass.Wrap(err, errclass.NotFound, "there is no segment in %s", dir)
	}
	if err != nil {
		return nil, ioError(err, "open manifest")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, MaxManifestBytes+1))
	if err != nil {
		return nil, ioError(err, "read "+path)
	}
	m, err := ParseManifest(b)
	return m, errors.Wrapf(err, "read %s", path)
}

// Open reads the manifest of the segment in dir, checks that all files are
// there in the right size and with the right headers, and maps vectors and
// indexes. It does not verify checksums of data. The caller closes the segment.
func Open(dir string, o Options) (*Segment, error) {
	if err := littleEndian(); err != nil {
		return nil, err
	}
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	s := &Segment{dir: dir, m: m, keys: m.KeyStats(), vectors: map[int64][]byte{}, arrays: map[string][]byte{}, indexes: map[int64]indexImage{}}
	for i := range m.Files {
		if _, apart := m.Files[i].apart(); apart && o.Apart {
			continue
		}
		if err := s.openFile(&m.Files[i], o); err != nil {
			return nil, errors.CombineErrors(errors.Wrapf(err, "open segment %d in %s", m.SegmentID, dir), s.Close())
		}
	}
	return s, nil
}

// openData opens a file of the segment and checks its size.
func openData(dir string, f *File) (*os.File, error) {
	in, err := os.Open(filepath.Join(dir, f.Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errclass.Wrap(err, errclass.Corrupt, "file %s is missing", f.Name)
	}
	if err != nil {
		return nil, ioError(err, "open file")
	}
	st, err := in.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != f.Size) {
		err = errclass.New(errclass.Corrupt, "file %s has %d bytes, the manifest says %d", f.Name, st.Size(), f.Size)
	}
	if err != nil {
		return nil, errors.CombineErrors(err, in.Close())
	}
	return in, nil
}

func (s *Segment) openFile(f *File, o Options) error {
	in, err := openData(s.dir, f)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	switch f.Kind {
	case KindVector:
		field, _ := s.m.Schema.FieldByID(f.Vector.FieldID)
		descr, shape := vectorShape(field, f.Vector.Rows)
		err = checkHeader(in, npy.Header{Descr: descr, Shape: shape, Offset: f.Vector.Offset})
	case KindArray:
		descr, _ := f.Array.Part.descr()
		err = checkHeader(in, npy.Header{Descr: descr, Shape: []int64{f.Array.Length}, Offset: f.Array.Offset})
	case KindBloom:
		head := make([]byte, min(bloomHeader, f.Size))
		if _, err = in.ReadAt(head, 0); err == nil {
			err = errclass.Mark(checkBloom(head, f.Size, s.m.Rows), errclass.Corrupt)
		}
	case KindIndex:
	case KindRows, KindDeletes:
		return nil
	}
	if err != nil {
		return errors.Wrapf(err, "file %s", f.Name)
	}
	b, err := mapFile(in, f.Size, o.of(f.Kind))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.mu.maps = append(s.mu.maps, b)
	s.mu.Unlock()
	switch f.Kind {
	case KindVector:
		s.vectors[f.Vector.FieldID] = b[vectorOffset:]
	case KindArray:
		s.arrays[f.Name] = b[arrayOffset:]
	case KindBloom:
		s.bloom = bloom.MakeSplitBlockFilter(b[bloomHeader:])
	case KindIndex:
		s.indexes[f.Index.FieldID] = indexImage{*f.Index, b}
	case KindRows, KindDeletes:
	}
	return nil
}

// of is what o says of files of a kind.
func (o Options) of(kind Kind) Options {
	o.Scattered = o.Scattered && kind == KindVector
	o.Paged = o.Paged && (kind == KindVector || kind == KindIndex)
	o.HugePages = o.HugePages && !o.Scattered && !o.Paged
	o.Populate = o.Populate && !o.Paged
	o.WillNeed = o.WillNeed && !o.Paged
	return o
}

// checkHeader compares the header of a .npy with what the manifest says. It reads
// the file, not the mapping, which may fault.
func checkHeader(in io.ReaderAt, want npy.Header) error {
	b := make([]byte, want.Offset)
	if _, err := in.ReadAt(b, 0); err != nil {
		return ioError(err, "read header")
	}
	h, err := npy.Parse(b)
	if err != nil {
		return err
	}
	if h.Descr != want.Descr || h.Fortran || h.Offset != want.Offset || !slices.Equal(h.Shape, want.Shape) {
		return errclass.New(errclass.Corrupt, "header says %s%v from byte %d, the manifest %s%v from byte %d",
			h.Descr, h.Shape, h.Offset, want.Descr, want.Shape, want.Offset)
	}
	return nil
}

// Manifest returns the manifest. It stays valid after Close; do not modify it.
func (s *Segment) Manifest() *Manifest { return s.m }

// Vectors returns the vectors of a field of float32, row after row, or nil if
// there is no such field. The slice aliases the mapping and ends with Close.
func (s *Segment) Vectors(fieldID int64) []float32 {
	if f, _ := s.m.Schema.FieldByID(fieldID); f.Type != schema.FloatVector {
		return nil
	}
	return floats(s.vectors[fieldID])
}

// RawVectors returns the bytes of the vectors of a field that is not sparse, as
// Vectors does.
func (s *Segment) RawVectors(fieldID int64) []byte { return s.vectors[fieldID] }

// Valid returns one byte per row of a vector field, 0 = null; nil if no row is
// null. The slice aliases the mapping and ends with Close.
func (s *Segment) Valid(fieldID int64) []byte { return s.arrays[arrayName(fieldID, PartValid)] }

// Sparse are sparse vectors as compressed rows, as scipy.sparse.csr_array takes
// them. What a file says has not been checked.
type Sparse struct {
	Indptr  []int64   // row i at [Indptr[i], Indptr[i+1])
	Indices []uint32  // dimensions, ascending in each row
	Data    []float32 // values
}

// Sparse returns the vectors of a sparse field; ok is false if there is no such
// field. The slices alias the mapping and end with Close.
func (s *Segment) Sparse(fieldID int64) (v Sparse, ok bool) {
	indptr, ok := s.arrays[arrayName(fieldID, PartIndptr)]
	if !ok {
		return Sparse{}, false
	}
	return sparseOf(indptr, s.arrays[arrayName(fieldID, PartIndices)], s.arrays[arrayName(fieldID, PartData)]), true
}

// Index returns the index of a vector field; ok is false if it has none. The
// image starts on a page, aliases the mapping and ends with Close.
func (s *Segment) Index(fieldID int64) (meta IndexMeta, image []byte, ok bool) {
	x, ok := s.indexes[fieldID]
	return x.meta, x.data, ok
}

// Bytes is the memory the segment takes: mapped from files, which the system
// can take back, and on the heap, which it cannot. What Rows and Deletes
// returned is the caller's and not in it.
func (s *Segment) Bytes() (mapped, heap int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	for _, b := range s.mu.maps {
		n += int64(len(b))
	}
	if !canMap {
		return 0, n
	}
	return n, 0
}

// Close unmaps the files. It is idempotent. Nobody may use slices that Vectors
// or Index returned, nor MayHave, from here on.
func (s *Segment) Close() error {
	s.mu.Lock()
	maps := s.mu.maps
	s.mu.maps = nil
	s.mu.Unlock()
	var err error
	for _, b := range maps {
		err = errors.CombineErrors(err, unmapFile(b))
	}
	return errors.Wrapf(err, "close segment %d", s.m.SegmentID)
}

// Verify reads all files of the segment in dir and compares every block with its
// checksum; class Corrupt names file and block. progress, if not nil, is
// called after each block with bytes.
func (m *Manifest) Verify(ctx context.Context, dir string, progress func(done, total int64)) error {
	total := m.DiskBytes()
	done := int64(0)
	buf := make([]byte, BlockSize)
	for i := range m.Files {
		step := func(n int64) {
			done += n
			if progress != nil {
				progress(done, total)
			}
		}
		if err := verifyFile(ctx, dir, &m.Files[i], buf, step); err != nil {
			return errors.Wrapf(err, "verify segment %d", m.SegmentID)
		}
	}
	return nil
}

func verifyFile(ctx context.Context, dir string, f *File, buf []byte, step func(int64)) error {
	in, err := openData(dir, f)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	c := &Checker{file: f}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(in, buf)
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
		if n > 0 {
			step(int64(n))
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return c.Close()
		}
		if err != nil {
			return ioError(err, "read "+f.Name)
		}
	}
}

// floats views little-endian bytes as numbers. b starts on a page or at an allocation.
func floats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func littleEndian() error {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return errclass.New(errclass.Unimplemented, "segments are little-endian, this host is not")
	}
	return nil
}

// Deletes reads the deletes stored with the segment; nil, nil if there are none.
func (s *Segment) Deletes() (*schema.Column, []uint64, error) {
	f := s.m.file(fileName(KindDeletes, 0))
	if f == nil {
		return nil, nil, nil
	}
	in, err := openData(s.dir, f)
	if err != nil {
		return nil, nil, errors.Wrapf(err, "deletes of segment %d", s.m.SegmentID)
	}
	defer func() { _ = in.Close() }()
	b := make([]byte, f.Size) // at most MaxDeletesBytes, and the size of the file
	if _, err := (&checkedReader{in: in, file: f}).ReadAt(b, 0); err != nil {
		return nil, nil, errors.Wrapf(err, "deletes of segment %d", s.m.SegmentID)
	}
	keys, ts, err := DecodeDeletes(b)
	if err == nil && (int64(len(ts)) != s.m.DeleteRows || keys.Type != s.m.Schema.Primary().Type) {
		err = errclass.New(errclass.Corrupt, "%d deletes of %s keys, the manifest says %d", len(ts), keys.Type, s.m.DeleteRows)
	}
	if err != nil {
		return nil, nil, errors.Wrapf(err, "deletes of segment %d", s.m.SegmentID)
	}
	return keys, ts, nil
}
