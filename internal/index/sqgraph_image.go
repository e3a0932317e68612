package index

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// The image of an sqGraph, little endian: a header of 128 bytes, then the
// sections, each padded with zeros to a multiple of 64 bytes. It is the memory
// that is searched, in a file as on the fly.
//
//	0   magic "QNHNSQ\r\n"
//	8   u32 version
//	12  u32 bytes of the header
//	16  u32 dimension
//	20  u32 metric
//	24  u32 M
//	28  u32 most links on level 0
//	32  u32 EfConstruction
//	36  u32 level of the start plus 1, 0 if there are no rows
//	40  u32 row of the start
//	44  u32 flags: 1 there are twins, 2 vectors are turned, 4 walks begin in lists, too, 8 twins tell whether they are equal,
//	    16 it is HNSW, ranked by the vectors, 32 walks begin in lists only
//	48  u64 rows
//	56  u64 blocks of the upper levels
//	64  u64 seed
//	72  u64 bytes of the whole image
//	80  u32 codes of a record
//	84  u32 bytes of a record
//	88  u32 bytes of the reason why this kind was chosen
//	92  u32 codes of 8 bits; the others have 4
//	96  u32 bits of a value of the fine codes, 0 if there are none; 0 in version 1
//	100 u32 number of lists of near rows, 0 if there are none; 0 before version 3
//	104 u32 values of a vector that lists are told apart by
//	108 u16 how walks end where ef is twice what is wanted, see ending; 0: after ef rows; 0 before version 4
//	110 u16 where it is 16 times that
//	112 f32 what distances are compared with, mostly; finite, not negative
//	116 u32 numbers in the table of shares, 0 if there is none; 0 before version 4
//	120 u32 1 if first lines of records tell which rows are worth more, see glance; else 0, as where nobody has looked
//	124 u32 CRC-32C of the bytes before
//
//	coder       dim f32 mean, then a f32 for each code: turned mean, low, step; if turned
//	            two f32 more, the directions' low and step
//	directions  a record of dim codes for each code; only if turned
//	reason      UTF-8
//	records     rows * bytes of a record
//	level 0     rows * most links, u32 row plus 1, 0 ends a list
//	offsets     rows + 1, u32 number of the row's first block
//	upper       blocks * M, u32 as on level 0
//	norms       rows, f32 inverse norm; Cosine only
//	twins       rows, u32 next row with the same code plus 1, and 1<<31 if it is equal (flag 8); only if there are any
//	fine        rows, see fine: high bytes, low bytes, f32 step, f32 bias; only if there are any
//	centres     of lists, only if there are any: f32 low and step for each value, for each centre f32 bias and for each
//	            list and one more u32 its first link, codes in panels (see byteCodes)
//	lists       rows, u32 row plus 1
//	shares      five u32 each (rows wanted, effort, lists, found, half), three in version 4 (lists are the last), only if there are any; see share
const (
	sqMagic = "QNHNSQ\r\n"
	// Version 1 had no fine codes, version 2 no lists, version 3 no ending and no shares, version 4 not what is found.
	// Version 6 is version 5 of what that did not have, see newer. Version 7 may be ranked by the vectors,
	// walks of version 8 begin in lists only.
	sqVersion = 8
	maxReason = 4096
)

const (
	sqTwins    = 1
	sqTurned   = 2
	sqSeeded   = 4
	sqEquals   = 8
	sqExact    = 16
	sqNearOnly = 32
)

// sqHeader is what the first bytes of an image say.
type sqHeader struct {
	version                uint32
	dim, metric, m, m0, ef uint32
	startLevel, startRow   uint32
	flags, head, stride    uint32
	reason, wide, fine     uint32
	lists, listDims        uint32
	shares, glanced        uint32
	rows, blocks, seed     uint64
	ending                 ending
}

// sections are the lengths in bytes of what follows the header.
func (hd *sqHeader) sections() [13]uint64 {
	coder := 4 * (uint64(hd.dim) + 3*uint64(hd.head))
	directions := uint64(0)
	if hd.flags&sqTurned != 0 {
		coder += 4 * 2 * uint64(hd.head)
		directions = uint64(hd.head) * uint64(vec.SQ8Stride(int(hd.dim)))
	}
	s := [13]uint64{
		coder, directions, uint64(hd.reason), hd.rows * uint64(hd.stride), hd.rows * uint64(hd.m0) * 4,
		(hd.rows + 1) * 4, hd.blocks * uint64(hd.m) * 4,
	}
	if Metric(hd.metric) == Cosine {
		s[7] = hd.rows * 4
	}
	if hd.flags&sqTwins != 0 {
		s[8] = hd.rows * 4
	}
	s[9] = hd.rows * uint64(fineStride(int(hd.dim), int(hd.fine)))
	s[10], s[11] = listSections(hd.rows, uint64(hd.lists), uint64(hd.listDims))
	s[12] = 4 * uint64(hd.shares)
	return s
}

func (hd *sqHeader) size() uint64 {
	n := uint64(headerBytes)
	for _, s := range hd.sections() {
		n += aligned(s)
	}
	return n
}

// newer says whether builds that read version 5 at most cannot open the image: they turned up to
// 1,536 dimensions, and had codes of rows of 4,096 bytes at most.
func (hd *sqHeader) newer() bool {
	return hd.flags&sqTurned != 0 && hd.dim > longTurn || tooLong(int(hd.dim))
}

// tooLong says whether codes of all dimensions take more than 4,096 bytes, with which rows had none.
func tooLong(dim int) bool { return vec.SQ8Stride(dim) > 64*vec.SQ8Line }

func (hd *sqHeader) encode(b []byte) {
	le := binary.LittleEndian
	version := uint32(5) // the least that knows what there is; see noteSeeds
	switch {
	case hd.flags&sqExact != 0:
		version = 7
	case hd.newer():
		version = 6
	}
	copy(b, sqMagic)
	for i, x := range []uint32{version, headerBytes, hd.dim, hd.metric, hd.m, hd.m0, hd.ef, hd.startLevel, hd.startRow, hd.flags} {
		le.PutUint32(b[8+4*i:], x)
	}
	for i, x := range []uint64{hd.rows, hd.blocks, hd.seed, hd.size()} {
		le.PutUint64(b[48+8*i:], x)
	}
	for i, x := range []uint32{hd.head, hd.stride, hd.reason, hd.wide, hd.fine, hd.lists, hd.listDims} {
		le.PutUint32(b[80+4*i:], x)
	}
	hd.ending.put(b)
	le.PutUint32(b[116:], hd.shares)
	le.PutUint32(b[120:], hd.glanced)
	le.PutUint32(b[124:], castagnoli(b[:124]))
}

// decodeSQHeader reads a header and checks that the image holds what it promises.
func decodeSQHeader(b []byte) (*sqHeader, error) {
	corrupt := func(format string, args ...any) (*sqHeader, error) {
		return nil, errors.Wrap(errclass.New(errclass.Corrupt, format, args...), "HNSW_SQ image")
	}
	if len(b) < headerBytes || string(b[:8]) != sqMagic {
		return corrupt("%d bytes that do not start with its magic", len(b))
	}
	le := binary.LittleEndian
	version := le.Uint32(b[8:])
	if version < 1 || version > sqVersion {
		return nil, errclass.New(errclass.Unimplemented, "HNSW_SQ image has version %d: this build reads 1 to %d", version, sqVersion)
	}
	if got, want := le.Uint32(b[124:]), crc32.Checksum(b[:124], crc32.MakeTable(crc32.Castagnoli)); got != want {
		return corrupt("header has checksum %08x, not %08x", want, got)
	}
	hd := &sqHeader{
		version: version,
		dim:     le.Uint32(b[16:]), metric: le.Uint32(b[20:]), m: le.Uint32(b[24:]), m0: le.Uint32(b[28:]),
		ef: le.Uint32(b[32:]), startLevel: le.Uint32(b[36:]), startRow: le.Uint32(b[40:]), flags: le.Uint32(b[44:]),
		rows: le.Uint64(b[48:]), blocks: le.Uint64(b[56:]), seed: le.Uint64(b[64:]),
		head: le.Uint32(b[80:]), stride: le.Uint32(b[84:]), reason: le.Uint32(b[88:]), wide: le.Uint32(b[92:]),
		fine: le.Uint32(b[96:]), lists: le.Uint32(b[100:]), listDims: le.Uint32(b[104:]),
	}
	if version >= 4 {
		hd.ending = endingOf(b)
		hd.shares, hd.glanced = le.Uint32(b[116:]), le.Uint32(b[120:])
	}
	switch {
	case le.Uint32(b[12:]) != headerBytes:
		return corrupt("header of %d bytes", le.Uint32(b[12:]))
	case hd.dim < 1 || hd.dim > maxDim, hd.metric > math.MaxUint8, !Metric(hd.metric).Valid(),
		hd.m < 2 || hd.m > maxM, hd.m0 < hd.m || hd.m0 > 2*maxM, hd.rows > maxRows, hd.blocks > hd.rows*maxLevel:
		return corrupt("dimension %d, metric %d, M %d, %d links, %d rows, %d blocks are out of range",
			hd.dim, hd.metric, hd.m, hd.m0, hd.rows, hd.blocks)
	case hd.flags&^(sqTwins|sqTurned|sqSeeded|sqEquals|sqExact|sqNearOnly) != 0, hd.flags&sqNearOnly != 0 && (hd.flags&sqSeeded == 0 || version < 8), hd.flags&sqExact != 0 && (hd.fine != 0 || version < 7), hd.flags&sqSeeded != 0 && (hd.lists == 0 || version < 4), hd.flags&sqTurned != 0 && hd.dim > mostTurn, hd.head < 1 || hd.head > hd.dim, hd.flags&sqTurned == 0 && hd.head != hd.dim,
		hd.stride == 0 || hd.stride%vec.SQ8Line != 0 || hd.stride > vec.SQ8MaxStride, hd.wide > hd.head, !hd.codesFit(), hd.reason > maxReason:
		return corrupt("flags %d, %d codes, %d of 8 bits, in %d bytes, reason of %d are out of range", hd.flags, hd.head, hd.wide, hd.stride, hd.reason)
	case hd.fine != 0 && (version < 2 || int(hd.fine) != fineBits(int(hd.dim))):
		return corrupt("fine codes of %d bits", hd.fine)
	case hd.lists != 0 && (version < 3 || uint64(hd.lists) > hd.rows || hd.listDims < 1 || hd.listDims > hd.head), hd.lists == 0 && hd.listDims != 0:
		return corrupt("%d lists by %d values", hd.lists, hd.listDims)
	case !hd.ending.valid():
		return corrupt("walks that end by %v", hd.ending.typical)
	case hd.shares > maxShares*hd.sharePoint() || hd.shares%hd.sharePoint() != 0, hd.shares != 0 && hd.lists == 0:
		return corrupt("a table of %d shares of %d lists", hd.shares, hd.lists)
	case hd.startLevel > maxLevel+1, hd.startLevel > 0 && uint64(hd.startRow) >= hd.rows, hd.startLevel == 0 && hd.rows > 0:
		return corrupt("start at row %d of %d, level %d", hd.startRow, hd.rows, int(hd.startLevel)-1)
	case le.Uint64(b[72:]) != hd.size() || uint64(len(b)) < hd.size():
		return corrupt("%d bytes, header says %d, its counts make %d", len(b), le.Uint64(b[72:]), hd.size())
	}
	return hd, nil
}

// sharePoint is how many numbers a share has.
func (hd *sqHeader) sharePoint() uint32 {
	if hd.version < 5 {
		return sharePoint4
	}
	return sharePoint
}

// codesFit reports whether a record has room for its codes.
func (hd *sqHeader) codesFit() bool {
	room := int(hd.stride) - vec.SQ8Bias
	if hd.wide == hd.head {
		return int(hd.head) <= room
	}
	return int(hd.wide) <= room && int(hd.head) <= vec.SQMixedCodes(int(hd.stride), int(hd.wide))
}

// view returns a graph over an image with that header.
func (hd *sqHeader) view(image []byte, k vec.Kernels, base []float32) *sqGraph {
	var part [13][]byte
	at := uint64(headerBytes)
	for i, n := range hd.sections() {
		part[i] = image[at : at+n]
		at += aligned(n)
	}
	floats := as[float32](part[0])
	cut := func(n uint32) []float32 {
		f := floats[:n:n]
		floats = floats[n:]
		return f
	}
	c := &coder{kern: k, metric: Metric(hd.metric), dim: int(hd.dim), head: int(hd.head), wide: int(hd.wide), stride: int(hd.stride)}
	c.mean, c.meanHead, c.low, c.step = cut(hd.dim), cut(hd.head), cut(hd.head), cut(hd.head)
	if hd.flags&sqTurned != 0 {
		c.basis = viewBasis(c.dim, part[1], cut(hd.head), cut(hd.head))
	}
	g := &sqGraph{
		space: space{kern: k, metric: c.metric, dim: c.dim, base: base},
		code:  c, m: int(hd.m), m0: int(hd.m0), ef: int(hd.ef), seed: hd.seed, rows: int(hd.rows),
		records: part[3], links0: as[uint32](part[4]), upperOff: as[uint32](part[5]), upper: as[uint32](part[6]),
		exact: hd.flags&sqExact != 0, glanced: hd.glanced == 1, ending: hd.ending, seeded: hd.flags&sqSeeded != 0, nearOnly: hd.flags&sqNearOnly != 0, start: hd.startRow, top: int(hd.startLevel) - 1, bytes: int64(hd.size()), why: string(part[2]),
	}
	if g.metric == Cosine {
		g.inv = as[float32](part[7])
	}
	if hd.flags&sqTwins != 0 {
		g.twins = as[uint32](part[8])
	}
	g.fine = newFine(&g.space, c.mean, int(hd.fine), part[9])
	if g.lists = viewLists(int(hd.lists), int(hd.listDims), part[10], part[11]); g.lists != nil {
		g.filters = newFilterCache[knownFilter](knownKept)
	}
	g.shares = sharesOf(part[12], hd.version)
	return g
}

// image moves a graph under construction to memory that is its image, with keep
// links on level 0. Records are left for the caller to fill in, for other codes
// if code is not nil.
func (g *sqGraph) image(keep int, code *coder) (*sqBuilt, error) {
	if code == nil {
		code = g.code
	}
	hd := sqHeader{
		version: sqVersion,
		dim:     uint32(g.dim), metric: uint32(g.metric), m: uint32(g.m), m0: uint32(keep), ef: uint32(g.ef),
		startLevel: uint32(g.top + 1), startRow: g.start, head: uint32(code.head), wide: uint32(code.wide), stride: uint32(code.stride),
		reason: uint32(min(len(g.why), maxReason)), rows: uint64(g.rows), blocks: uint64(g.upperOff[g.rows]), seed: g.seed,
	}
	if g.exact {
		hd.flags |= sqExact
	} else {
		hd.fine = uint32(fineBits(g.dim))
	}
	if g.twins != nil {
		hd.flags |= sqTwins | sqEquals
	}
	if g.lists != nil {
		hd.lists, hd.listDims = uint32(g.lists.n), uint32(g.lists.codes.dim)
		hd.shares = sharePoint * uint32(len(measuredShares()))
	}
	if code.basis != nil {
		hd.flags |= sqTurned
	}
	mem, err := newRegion(int(hd.size()))
	if err != nil {
		return nil, err
	}
	hd.encode(mem.bytes)
	to := hd.view(mem.bytes, g.kern, g.base)
	c := to.code
	copy(c.mean, code.mean)
	copy(c.meanHead, code.meanHead)
	copy(c.low, code.low)
	copy(c.step, code.step)
	if c.basis != nil {
		copy(c.basis.codes, code.basis.codes)
		copy(c.basis.low, code.basis.low)
		copy(c.basis.step, code.basis.step)
		c.basis.pick()
	}
	sizes := hd.sections()
	at := headerBytes + int(aligned(sizes[0])+aligned(sizes[1]))
	to.why = string(mem.bytes[at : at+copy(mem.bytes[at:], g.why[:hd.reason])])
	for row := range g.rows {
		copy(to.links0[row*keep:(row+1)*keep], g.links0[row*g.m0:])
	}
	copy(to.upperOff, g.upperOff)
	copy(to.upper, g.upper)
	copy(to.inv, g.inv)
	copy(to.twins, g.twins)
	if g.lists != nil {
		g.lists.copyTo(to.lists)
	}
	return &sqBuilt{g: to, mem: mem}, nil
}

// sqBuilt is a graph in memory of its own.
type sqBuilt struct {
	g   *sqGraph
	mem region
}

// Info describes the graph.
func (b *sqBuilt) Info() Info { return b.g.Info() }

// Searcher searches the graph until Close.
func (b *sqBuilt) Searcher() Searcher { return b.g }

// WriteTo writes the image.
func (b *sqBuilt) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b.mem.bytes)
	return int64(n), errors.Wrap(err, "write HNSW_SQ image")
}

// Close gives the memory back.
func (b *sqBuilt) Close() error { return b.mem.close() }

// openSQ returns a graph that searches an image in place.
func openSQ(image []byte, base []float32) (*sqGraph, error) {
	hd, err := decodeSQHeader(image)
	if err != nil {
		return nil, err
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errclass.New(errclass.Unimplemented, "HNSW_SQ image: needs a little-endian machine")
	}
	if uintptr(unsafe.Pointer(&image[0]))%8 != 0 {
		return nil, errclass.New(errclass.Invalid, "HNSW_SQ image: starts at an address that is not a multiple of 8")
	}
	if detached := base == nil && hd.fine != 0; !detached && uint64(len(base))/uint64(hd.dim) < hd.rows {
		return nil, errclass.New(errclass.Invalid, "HNSW_SQ image of %d rows of dimension %d: base has %d values", hd.rows, hd.dim, len(base))
	}
	g := hd.view(image[:hd.size()], vec.Detect(), base)
	if err := g.lists.check(); err != nil {
		return nil, err
	}
	if err := g.shares.check(g.lists); err != nil {
		return nil, err
	}
	g.usual = g.shares.usual()
	return g, nil
}
