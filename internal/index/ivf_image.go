package index

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// The image of an inverted file, little endian: a header of 128 bytes, then the
// sections, each padded with zeros to a multiple of 64 bytes.
//
//	0   magic "QNIVF1\r\n"
//	8   u32 version
//	12  u32 bytes of the header
//	16  u32 dimension
//	20  u32 metric
//	24  u32 kind: 1 IVF_FLAT, 2 IVF_SQ8, 3 SCANN
//	28  u32 lists
//	32  u32 lists that a search reads by default
//	36  u32 bits of a value of the fine codes, 0 if there are none, as in version 1
//	40  u64 rows
//	48  u64 blocks of 32 positions
//	56  u64 bytes of the whole image
//	64  u32 directions of which codes and centres have a value each, 0 if they have one of
//	    each dimension, as up to version 3. It then stands for the dimension in the sections up to fine
//	68  8 u32 lists to read for shares of the nearest rows, see efforts; 0 if they are not known, as up to version 4
//	100 u32 hundredths of standard deviations of doubt, see weighDoubt; 0 if not known, as up to version 5
//	104 u32 1 if each value is a part of its own in product quantisation of rows; 0 if two are, as up to version 7
//	124 u32 CRC-32C of the bytes before
//
//	centres     lists * dimension, f32
//	            their codes: lowest values and steps, dimension f32 each; panels (see
//	            package vec); biases, f32
//	            from version 3 on, if there are codes and 512 lists or more: points, as
//	            below; short codes, blocks for fast-scan; their biases, f32; those of the
//	            centres, lists f32
//	first       lists + 1, u32 number of the list's first block
//	ids         blocks * 32, u32 row, or all ones where a list has none
//	norms       rows, f32 inverse norm; Cosine only
//	bytes       as the codes of the centres; not IVF_FLAT, nor below 16 dimensions
//	points      32 f32 for each part of one or two dimensions, of product quantisation; of these, SCANN only
//	            its codes, blocks for fast-scan (see package vec); biases, f32, L2 only
//	fine        dimension f32 mean; rows, see fine; only if there are any
//	directions  dimension f32 mean; lowest value and step of each, f32; records as those of rows
//	            in graphs of codes; only if there are any
const (
	ivfMagic = "QNIVF1\r\n"
	// Version 1 had no fine codes, version 2 no short codes of centres, version 3 no directions, version 4 no efforts, version 5 no doubt,
	// version 6 no fine codes or directions where tooLong, version 7 no parts of one value.
	ivfVersion = 8
)

var ivfKinds = [...]Kind{1: KindIVFFlat, 2: KindIVFSQ8, 3: KindScaNN}

// ivfHeader is what the first bytes of an image say.
type ivfHeader struct {
	dim, metric, kind, lists, effort, fine uint32
	rows, blocks                           uint64
	version, head, doubt, alone            uint32
	efforts                                efforts
}

// Sections of an image.
const (
	ivfCentres = iota
	ivfCentreLo
	ivfCentreStep
	ivfCentrePanels
	ivfCentreBias
	ivfCentrePoints
	ivfCentreBlocks
	ivfCentreShortBias
	ivfCentreExact
	ivfFirst
	ivfIDs
	ivfNorms
	ivfLo
	ivfStep
	ivfPanels
	ivfBias
	ivfPoints
	ivfBlocks
	ivfPQBias
	ivfMean
	ivfFine
	ivfTurnMean
	ivfTurnLow
	ivfTurnStep
	ivfTurnCodes
	ivfSections
)

// sections are the lengths in bytes of what follows the header.
func (h *ivfHeader) sections() (s [ivfSections]uint64) {
	dim, lists, positions := uint64(h.width()), uint64(h.lists), h.blocks*vec.PanelRows
	panel := uint64(vec.PanelQuads(int(dim))) * 4 * vec.PanelRows
	s[ivfCentres] = lists * dim * 4
	s[ivfCentreLo], s[ivfCentreStep] = dim*4, dim*4
	s[ivfCentrePanels] = uint64(numPanels(int(h.lists))) * panel
	s[ivfCentreBias] = uint64(numPanels(int(h.lists))) * vec.PanelRows * 4
	if h.version >= 3 && hasShort(ivfKinds[h.kind], int(h.dim), int(h.lists)) {
		points, block := productBytes(int(dim), pqDims)
		s[ivfCentrePoints] = points
		s[ivfCentreBlocks] = uint64(numPanels(int(h.lists))) * block
		s[ivfCentreShortBias] = uint64(numPanels(int(h.lists))) * vec.FastScanBlock * 4
		s[ivfCentreExact] = lists * 4
	}
	s[ivfFirst] = (lists + 1) * 4
	s[ivfIDs] = positions * 4
	if Metric(h.metric) == Cosine {
		s[ivfNorms] = h.rows * 4
	}
	if kind := ivfKinds[h.kind]; hasCodes(kind, int(h.dim)) && h.rows > 0 {
		s[ivfLo], s[ivfStep] = dim*4, dim*4
		s[ivfPanels] = h.blocks * panel
		s[ivfBias] = positions * 4
		if kind == KindScaNN {
			points, block := productBytes(int(dim), h.each())
			s[ivfPoints] = points
			s[ivfBlocks] = h.blocks * block
			if Metric(h.metric) == L2 {
				s[ivfPQBias] = positions * 4
			}
		}
	}
	if h.fine != 0 {
		s[ivfMean] = uint64(h.dim) * 4
		s[ivfFine] = h.rows * uint64(fineStride(int(h.dim), int(h.fine)))
	}
	if head := uint64(h.head); head != 0 {
		s[ivfTurnMean], s[ivfTurnLow], s[ivfTurnStep] = uint64(h.dim)*4, head*4, head*4
		s[ivfTurnCodes] = head * uint64(vec.SQ8Stride(int(h.dim)))
	}
	return s
}

// productBytes are the lengths of the points of product quantisation, and of a block of codes.
func productBytes(dim, each int) (points, block uint64) {
	parts := numParts(dim, each)
	return uint64(parts) * pqDims * pqCodes * 4, uint64(vec.FastScanQuads(parts)) * vec.FastScanQuad
}

// each is how many values a part of the codes of rows has.
func (h *ivfHeader) each() int {
	if h.alone != 0 {
		return 1
	}
	return pqDims
}

// width is the number of values that codes and centres are of.
func (h *ivfHeader) width() uint32 {
	if h.head != 0 {
		return h.head
	}
	return h.dim
}

func (h *ivfHeader) size() uint64 {
	n := uint64(headerBytes)
	for _, s := range h.sections() {
		n += aligned(s)
	}
	return n
}

func (h *ivfHeader) encode() []byte {
	b := make([]byte, headerBytes)
	le := binary.LittleEndian
	copy(b, ivfMagic)
	for i, x := range []uint32{h.version, headerBytes, h.dim, h.metric, h.kind, h.lists, h.effort, h.fine} {
		le.PutUint32(b[8+4*i:], x)
	}
	for i, x := range []uint64{h.rows, h.blocks, h.size()} {
		le.PutUint64(b[40+8*i:], x)
	}
	le.PutUint32(b[64:], h.head)
	for i, x := range h.efforts {
		le.PutUint32(b[68+4*i:], x)
	}
	le.PutUint32(b[100:], h.doubt)
	le.PutUint32(b[104:], h.alone)
	le.PutUint32(b[124:], castagnoli(b[:124]))
	return b
}

// decodeIVF reads a header and checks that the image holds what it promises.
func decodeIVF(b []byte) (*ivfHeader, error) {
	corrupt := func(format string, args ...any) (*ivfHeader, error) {
		return nil, errors.Wrap(errclass.New(errclass.Corrupt, format, args...), "IVF image")
	}
	if len(b) < headerBytes || string(b[:8]) != ivfMagic {
		return corrupt("%d bytes that do not start with the magic of an IVF image", len(b))
	}
	le := binary.LittleEndian
	version := le.Uint32(b[8:])
	if version < 1 || version > ivfVersion {
		return nil, errclass.New(errclass.Unimplemented, "IVF image has version %d: this build reads 1 to %d", version, ivfVersion)
	}
	if got, want := le.Uint32(b[124:]), castagnoli(b[:124]); got != want {
		return corrupt("header has checksum %08x, not %08x", want, got)
	}
	h := &ivfHeader{
		dim: le.Uint32(b[16:]), metric: le.Uint32(b[20:]), kind: le.Uint32(b[24:]), lists: le.Uint32(b[28:]),
		effort: le.Uint32(b[32:]), fine: le.Uint32(b[36:]), rows: le.Uint64(b[40:]), blocks: le.Uint64(b[48:]),
		version: version,
	}
	if version >= 4 {
		h.head = le.Uint32(b[64:])
	}
	if version >= 5 {
		for i := range h.efforts {
			h.efforts[i] = le.Uint32(b[68+4*i:])
		}
	}
	if version >= 6 {
		h.doubt = le.Uint32(b[100:])
	}
	if version >= 8 {
		h.alone = le.Uint32(b[104:])
	}
	switch {
	case le.Uint32(b[12:]) != headerBytes:
		return corrupt("header of %d bytes", le.Uint32(b[12:]))
	case h.dim < 1 || h.dim > maxDim, h.metric > 255 || !Metric(h.metric).Valid(), h.kind < 1 || int(h.kind) >= len(ivfKinds),
		h.lists < 1 || h.lists > maxLists, h.effort < 1 || h.effort > h.lists,
		h.rows > maxRows, h.blocks > maxRows/vec.PanelRows+maxLists, h.blocks*vec.PanelRows < h.rows:
		return corrupt("dimension %d, metric %d, kind %d, %d lists, %d rows, %d blocks are out of range",
			h.dim, h.metric, h.kind, h.lists, h.rows, h.blocks)
	case h.head != 0 && (h.head < codedDims || h.head > mostHead || h.head > h.dim || vec.SQ8Stride(int(h.dim)) > vec.SQ8MaxStride || !hasCodes(ivfKinds[h.kind], int(h.dim))):
		return corrupt("%d directions of %d dimensions", h.head, h.dim)
	case !h.efforts.valid(int(h.lists)):
		return corrupt("lists to read of %d: %v", h.lists, h.efforts)
	case h.doubt != 0 && (h.doubt < 100*weighDoubt || h.doubt > 100*mostDoubt):
		return corrupt("doubt of %d hundredths", h.doubt)
	case h.alone > 1 || h.alone == 1 && ivfKinds[h.kind] != KindScaNN:
		return corrupt("parts of one value: %d, in an image of kind %d", h.alone, h.kind)
	case h.fine != 0 && (version < 2 || int(h.fine) != fineBits(int(h.dim))):
		return corrupt("fine codes of %d bits", h.fine)
	case le.Uint64(b[56:]) != h.size() || uint64(len(b)) < h.size():
		return corrupt("%d bytes, header says %d, its counts make %d", len(b), le.Uint64(b[56:]), h.size())
	}
	return h, nil
}

// WriteTo writes the image, which openIVF searches in place. The vectors are not
// part of it.
func (x *ivf) WriteTo(w io.Writer) (int64, error) {
	h := ivfHeader{
		dim: uint32(x.dim), metric: uint32(x.metric), lists: uint32(x.lists.n), effort: uint32(x.effort),
		rows: uint64(x.n), blocks: uint64(x.numBlocks()), fine: uint32(x.fine.bits),
		version: 6, efforts: x.efforts, doubt: uint32(math.Round(100 * x.doubt)),
	}
	switch {
	case x.lists.short == nil && hasShort(x.kind, x.dim, x.lists.n):
		h.version = 2
	case tooLong(x.dim) && (x.fine.bits != 0 || x.turn != nil):
		h.version = 7
	}
	if x.pq != nil && x.pq.each < pqDims {
		h.version, h.alone = ivfVersion, 1
	}
	if x.turn != nil {
		h.head = uint32(x.turn.head)
	}
	for i, k := range ivfKinds {
		if k == x.kind {
			h.kind = uint32(i)
		}
	}
	out := &imageWriter{w: bufio.NewWriterSize(w, 1<<16)}
	bytes := func(b []byte) {
		out.write(b)
		out.pad()
	}
	codes := func(c *byteCodes) {
		out.floats(c.lo)
		out.floats(c.step)
		bytes(c.panels)
		out.floats(c.bias)
	}
	out.write(h.encode())
	out.floats(x.lists.vectors)
	codes(x.lists.codes)
	if c := x.lists.short; c != nil {
		out.floats(c.pq.points)
		bytes(c.blocks)
		out.floats(c.bias)
		out.floats(c.exact)
	}
	out.words(x.first)
	out.words(x.ids)
	out.floats(x.inv)
	if x.bytes != nil {
		codes(x.bytes)
	}
	if x.pq != nil {
		out.floats(x.pq.points)
		bytes(x.blocks)
		if x.metric == L2 {
			out.floats(x.pqBias)
		}
	}
	out.floats(x.fine.mean)
	bytes(x.fine.bytes)
	if t := x.turn; t != nil {
		out.floats(t.mean)
		out.floats(t.basis.low)
		out.floats(t.basis.step)
		bytes(t.basis.codes)
	}
	if out.err == nil {
		out.err = out.w.Flush()
	}
	return out.n, errors.Wrap(out.err, "write IVF image")
}

// openIVF returns an index that searches an image in place; see Open.
func openIVF(image []byte, base []float32) (*ivf, error) {
	h, err := decodeIVF(image)
	if err != nil {
		return nil, err
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errclass.New(errclass.Unimplemented, "IVF image: needs a little-endian machine")
	}
	if uintptr(unsafe.Pointer(&image[0]))%4 != 0 {
		return nil, errclass.New(errclass.Invalid, "IVF image: starts at an address that is not a multiple of 4")
	}
	if uint64(len(base))/uint64(h.dim) < h.rows {
		return nil, errclass.New(errclass.Invalid, "IVF image of %d rows of dimension %d: base has %d values", h.rows, h.dim, len(base))
	}
	var parts [ivfSections][]byte
	at := uint64(headerBytes)
	for i, n := range h.sections() {
		parts[i] = image[at : at+n : at+n]
		at += aligned(n)
	}
	dim, width, quads := int(h.dim), int(h.width()), vec.PanelQuads(int(h.width()))
	codes := func(lo int) *byteCodes {
		return &byteCodes{
			dim: width, quads: quads, lo: asFloats(parts[lo]), step: asFloats(parts[lo+1]),
			panels: parts[lo+2], bias: asFloats(parts[lo+3]),
		}
	}
	x := &ivf{
		space: space{kern: vec.Detect(), metric: Metric(h.metric), dim: dim, base: base, inv: asFloats(parts[ivfNorms])},
		kind:  ivfKinds[h.kind], n: int(h.rows), effort: int(h.effort), efforts: h.efforts, doubt: float64(h.doubt) / 100,
		lists: &centres{dim: width, n: int(h.lists), vectors: asFloats(parts[ivfCentres]), codes: codes(ivfCentreLo)},
		first: asWords(parts[ivfFirst]),
		ids:   asWords(parts[ivfIDs]),
		marks: newFilterCache[marks](marksKept),
	}
	if blocks := parts[ivfCentreBlocks]; len(blocks) > 0 {
		x.lists.short = &shortCentres{
			pq: openProducts(width, pqDims, parts[ivfCentrePoints]), blocks: blocks,
			bias: asFloats(parts[ivfCentreShortBias]), exact: asFloats(parts[ivfCentreExact]),
		}
	}
	last := uint32(0)
	for l, first := range x.first {
		if first < last || uint64(first) > h.blocks {
			return nil, errclass.New(errclass.Corrupt, "IVF image: list %d starts at block %d, the one before at %d of %d", l, first, last, h.blocks)
		}
		last = first
	}
	x.fine = newFine(&x.space, asFloats(parts[ivfMean]), int(h.fine), parts[ivfFine])
	if h.head != 0 {
		x.turn = openTurning(&x.space, int(h.head), parts[ivfTurnMean], parts[ivfTurnLow], parts[ivfTurnStep], parts[ivfTurnCodes])
	}
	if !hasCodes(x.kind, dim) || x.n == 0 {
		return x, nil
	}
	x.bytes = codes(ivfLo)
	if x.kind == KindScaNN {
		x.pq = openProducts(width, h.each(), parts[ivfPoints])
		x.blocks, x.pqBias = parts[ivfBlocks], x.bytes.bias
		if x.metric == L2 {
			x.pqBias = asFloats(parts[ivfPQBias])
		}
	}
	return x, nil
}

func asWords(b []byte) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func asFloats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func openProducts(dim, each int, points []byte) *products {
	return &products{dim: dim, parts: numParts(dim, each), each: each, points: asFloats(points)}
}
