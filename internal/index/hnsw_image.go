package index

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// The image of an HNSW index, little endian: a header of 128 bytes, then the
// sections, each padded with zeros to a multiple of 64 bytes.
//
//	0   magic "QNHNSW\r\n"
//	8   u32 version
//	12  u32 bytes of the header
//	16  u32 dimension
//	20  u32 metric
//	24  u32 M
//	28  u32 most links on level 0
//	32  u32 EfConstruction
//	36  u32 level of the start plus 1, 0 if there are no rows
//	40  u32 row of the start
//	44  u32 1 if there are twins, else 0
//	48  u64 rows
//	56  u64 blocks of the upper levels
//	64  u64 seed
//	72  u64 bytes of the whole image
//	80  u32 1 if chains of twins are in the order of their rows, but for the first of each; else 0
//	124 u32 CRC-32C of the bytes before
//
//	level 0     rows * most links, u32 row plus 1, 0 ends a list
//	offsets     rows + 1, u32 number of the row's first block
//	upper       blocks * M, u32 as on level 0
//	norms       rows, f32 inverse norm; Cosine only
//	twins       rows, u32 next row with the same values plus 1; only if there are any
const (
	imageMagic   = "QNHNSW\r\n"
	imageVersion = 1
	headerBytes  = 128
	sectionAlign = 64
)

// header is what the first bytes of an image say.
type header struct {
	dim, metric, m, m0, ef uint32
	startLevel, startRow   uint32
	twins, sorted          uint32
	rows, blocks, seed     uint64
}

// sections are the lengths in bytes of what follows the header.
func (hd *header) sections() [5]uint64 {
	s := [5]uint64{hd.rows * uint64(hd.m0) * 4, (hd.rows + 1) * 4, hd.blocks * uint64(hd.m) * 4}
	if Metric(hd.metric) == Cosine {
		s[3] = hd.rows * 4
	}
	s[4] = hd.rows * 4 * uint64(hd.twins)
	return s
}

func (hd *header) size() uint64 {
	n := uint64(headerBytes)
	for _, s := range hd.sections() {
		n += aligned(s)
	}
	return n
}

func aligned(n uint64) uint64 { return (n + sectionAlign - 1) &^ (sectionAlign - 1) }

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (hd *header) encode() []byte {
	b := make([]byte, headerBytes)
	le := binary.LittleEndian
	copy(b, imageMagic)
	for i, x := range []uint32{imageVersion, headerBytes, hd.dim, hd.metric, hd.m, hd.m0, hd.ef, hd.startLevel, hd.startRow, hd.twins} {
		le.PutUint32(b[8+4*i:], x)
	}
	for i, x := range []uint64{hd.rows, hd.blocks, hd.seed, hd.size()} {
		le.PutUint64(b[48+8*i:], x)
	}
	le.PutUint32(b[80:], hd.sorted)
	le.PutUint32(b[124:], castagnoli(b[:124]))
	return b
}

// decodeHeader reads a header and checks that the image holds what it promises.
func decodeHeader(b []byte) (*header, error) {
	corrupt := func(format string, args ...any) (*header, error) {
		return nil, errors.Wrap(errclass.New(errclass.Corrupt, format, args...), "HNSW image")
	}
	if len(b) < headerBytes || string(b[:8]) != imageMagic {
		return corrupt("%d bytes that do not start with the magic of an HNSW image", len(b))
	}
	le := binary.LittleEndian
	if v := le.Uint32(b[8:]); v != imageVersion {
		return nil, errclass.New(errclass.Unimplemented, "HNSW image has version %d: this build reads version %d", v, imageVersion)
	}
	if got, want := le.Uint32(b[124:]), castagnoli(b[:124]); got != want {
		return corrupt("header has checksum %08x, not %08x", want, got)
	}
	hd := &header{
		dim: le.Uint32(b[16:]), metric: le.Uint32(b[20:]), m: le.Uint32(b[24:]), m0: le.Uint32(b[28:]),
		ef: le.Uint32(b[32:]), startLevel: le.Uint32(b[36:]), startRow: le.Uint32(b[40:]),
		twins: le.Uint32(b[44:]), sorted: le.Uint32(b[80:]),
		rows: le.Uint64(b[48:]), blocks: le.Uint64(b[56:]), seed: le.Uint64(b[64:]),
	}
	switch {
	case le.Uint32(b[12:]) != headerBytes:
		return corrupt("header of %d bytes", le.Uint32(b[12:]))
	case hd.dim < 1 || hd.dim > maxDim, hd.metric > math.MaxUint8, !Metric(hd.metric).Valid(),
		hd.m < 2 || hd.m > maxM, hd.m0 < hd.m || hd.m0 > 2*maxM,
		hd.rows > maxRows, hd.twins > 1, hd.blocks > hd.rows*maxLevel:
		return corrupt("dimension %d, metric %d, M %d, %d links, %d rows, %d blocks are out of range",
			hd.dim, hd.metric, hd.m, hd.m0, hd.rows, hd.blocks)
	case hd.startLevel > maxLevel+1, hd.startLevel > 0 && uint64(hd.startRow) >= hd.rows, hd.startLevel == 0 && hd.rows > 0:
		return corrupt("start at row %d of %d, level %d", hd.startRow, hd.rows, int(hd.startLevel)-1)
	case le.Uint64(b[72:]) != hd.size() || uint64(len(b)) < hd.size():
		return corrupt("%d bytes, header says %d, its counts make %d", len(b), le.Uint64(b[72:]), hd.size())
	}
	return hd, nil
}

// WriteTo writes the image of the index, which OpenHNSW searches in place. The
// rows are [0, Len()) and no Insert runs: otherwise the error has class
// Conflict and nothing is written. The vectors are not part of the image.
func (h *HNSW) WriteTo(w io.Writer) (int64, error) {
	n := h.Len()
	if h.running.Load() != 0 {
		return 0, errclass.New(errclass.Conflict, "write HNSW image: rows are being inserted")
	}
	if n > 0 && h.ready != nil {
		for w := range (n + 63) / 64 {
			if mask := wordMask(n, w); atomic.LoadUint64(&h.ready[w])&mask != mask {
				return 0, errclass.New(errclass.Conflict, "write HNSW image: %d rows were inserted, but not rows 0 to %d", n, n-1)
			}
		}
	}
	blocks := h.upperOff[n]
	hd := header{
		dim: uint32(h.dim), metric: uint32(h.metric), m: uint32(h.m), m0: uint32(h.m0), ef: uint32(h.ef),
		rows: uint64(n), blocks: uint64(blocks), seed: h.seed,
	}
	if h.twins != nil && slices.ContainsFunc(h.twins[:n], func(next uint32) bool { return next != 0 }) {
		hd.twins = 1
	}
	if h.sorted {
		hd.sorted = 1
	}
	if row, level, ok := h.start(); ok {
		hd.startRow, hd.startLevel = row, uint32(level+1)
	}
	out := &imageWriter{w: bufio.NewWriterSize(w, 1<<16)}
	out.write(hd.encode())
	out.words(h.links0[:n*h.m0])
	out.words(h.upperOff[:n+1])
	out.words(h.upper[:int(blocks)*h.m])
	if h.metric == Cosine {
		out.floats(h.inv[:n])
	}
	if hd.twins > 0 {
		out.words(h.twins[:n])
	}
	if out.err == nil {
		out.err = out.w.Flush()
	}
	return out.n, errors.Wrap(out.err, "write HNSW image")
}

// imageWriter writes sections until the first error.
type imageWriter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (o *imageWriter) write(b []byte) {
	if o.err == nil {
		var n int
		n, o.err = o.w.Write(b)
		o.n += int64(n)
	}
}

func (o *imageWriter) pad() {
	var zeros [sectionAlign]byte
	o.write(zeros[:aligned(uint64(o.n))-uint64(o.n)])
}

func (o *imageWriter) words(s []uint32) {
	var b [4096]byte
	for len(s) > 0 && o.err == nil {
		n := min(len(s), len(b)/4)
		for i, x := range s[:n] {
			binary.LittleEndian.PutUint32(b[4*i:], x)
		}
		o.write(b[:4*n])
		s = s[n:]
	}
	o.pad()
}

func (o *imageWriter) floats(s []float32) {
	bits := make([]uint32, len(s))
	for i, x := range s {
		bits[i] = math.Float32bits(x)
	}
	o.words(bits)
}

// OpenHNSW returns an index that searches an image in place. It reads the
// header only; the image must start at an address that is a multiple of 4, and
// it and base, which has the vectors of all rows, must stay as they are while
// the index is in use. Insert is refused.
//
// An image that is not what WriteTo wrote can give wrong rows, but every link
// is checked when it is followed: it cannot make a search panic, read out of
// bounds or go on for ever. Errors: Corrupt; Unimplemented for a version (or a
// machine) that this build does not read; Invalid if base has too few values.
func OpenHNSW(image []byte, base []float32) (*HNSW, error) {
	hd, err := decodeHeader(image)
	if err != nil {
		return nil, err
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errclass.New(errclass.Unimplemented, "HNSW image: needs a little-endian machine")
	}
	if uintptr(unsafe.Pointer(&image[0]))%4 != 0 {
		return nil, errclass.New(errclass.Invalid, "HNSW image: starts at an address that is not a multiple of 4")
	}
	if uint64(len(base))/uint64(hd.dim) < hd.rows {
		return nil, errclass.New(errclass.Invalid, "HNSW image of %d rows of dimension %d: base has %d values", hd.rows, hd.dim, len(base))
	}
	h := &HNSW{
		space:    space{kern: vec.Detect(), metric: Metric(hd.metric), dim: int(hd.dim), base: base},
		m:        int(hd.m),
		m0:       int(hd.m0),
		ef:       int(hd.ef),
		seed:     hd.seed,
		capacity: int(hd.rows),
		sorted:   hd.sorted == 1,
	}
	sections := hd.sections()
	part := func(i int) unsafe.Pointer {
		at := uint64(headerBytes)
		for _, n := range sections[:i] {
			at += aligned(n)
		}
		return unsafe.Pointer(unsafe.SliceData(image[at:]))
	}
	h.links0 = unsafe.Slice((*uint32)(part(0)), hd.rows*uint64(hd.m0))
	h.upperOff = unsafe.Slice((*uint32)(part(1)), hd.rows+1)
	h.upper = unsafe.Slice((*uint32)(part(2)), hd.blocks*uint64(hd.m))
	if h.metric == Cosine {
		h.inv = unsafe.Slice((*float32)(part(3)), hd.rows)
	}
	if hd.twins > 0 {
		h.twins = unsafe.Slice((*uint32)(part(4)), hd.rows)
	}
	h.rows.Store(int64(hd.rows))
	if hd.startLevel > 0 {
		h.entry.Store(uint64(hd.startLevel)<<32 | uint64(hd.startRow))
	}
	return h, nil
}
