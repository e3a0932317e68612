package dataset

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/npy"
)

// file is what a source reads: *os.File, or bytes in tests.
type file interface {
	io.ReaderAt
	io.Closer
}

// element says how numbers stand in a file.
type element struct {
	size   int
	append func(dst []float32, raw []byte) []float32
}

var (
	float16 = element{2, func(dst []float32, raw []byte) []float32 {
		for ; len(raw) >= 2; raw = raw[2:] {
			dst = append(dst, fromHalf(binary.LittleEndian.Uint16(raw)))
		}
		return dst
	}}
	float32s = element{4, func(dst []float32, raw []byte) []float32 {
		for ; len(raw) >= 4; raw = raw[4:] {
			dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
		}
		return dst
	}}
	float64s = element{8, func(dst []float32, raw []byte) []float32 {
		for ; len(raw) >= 8; raw = raw[8:] {
			dst = append(dst, float32(math.Float64frombits(binary.LittleEndian.Uint64(raw))))
		}
		return dst
	}}
	uint8s = element{1, func(dst []float32, raw []byte) []float32 {
		for _, b := range raw {
			dst = append(dst, float32(b))
		}
		return dst
	}}
	int8s = element{1, func(dst []float32, raw []byte) []float32 {
		for _, b := range raw {
			dst = append(dst, float32(int8(b)))
		}
		return dst
	}}
)

// fromHalf widens an IEEE 754 binary16.
func fromHalf(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero and subnormals: frac * 2^-24
		v := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f: // infinity, NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// vectorFile is a file of nothing but vectors.
type vectorFile struct {
	f      file
	in     *bufio.Reader
	name   string
	n      int64
	dim    int
	elem   element
	prefix bool  // an int32 with the dimension stands before each vector
	offset int64 // of the first row
	buf    []byte
}

func (v *vectorFile) stream(size int64) *vectorFile {
	v.in = bufio.NewReaderSize(io.NewSectionReader(v.f, v.offset, size-v.offset), 256<<10)
	v.buf = make([]byte, v.rowBytes())
	return v
}

func (v *vectorFile) rowBytes() int64 {
	n := int64(v.dim * v.elem.size)
	if v.prefix {
		n += 4
	}
	return n
}

func (v *vectorFile) fields() []schema.Field {
	return []schema.Field{{Name: v.name, Type: schema.FloatVector, Dim: v.dim}}
}

func (v *vectorFile) rows() int64        { return v.n }
func (v *vectorFile) skipped() []Skipped { return nil }
func (v *vectorFile) close() error       { return v.f.Close() }

func (v *vectorFile) read(cols []*schema.Column, row int64, n int) error {
	for i := range n {
		at := v.offset + (row+int64(i))*v.rowBytes()
		if _, err := io.ReadFull(v.in, v.buf); err != nil {
			return errclass.Wrap(err, errclass.Invalid, "row %d at byte %d: want %d bytes", row+int64(i), at, len(v.buf))
		}
		raw := v.buf
		if v.prefix {
			if d := int32(binary.LittleEndian.Uint32(raw)); int(d) != v.dim {
				return errclass.New(errclass.Invalid, "row %d at byte %d: vector of dimension %d, want %d as in row 0", row+int64(i), at, d, v.dim)
			}
			raw = raw[4:]
		}
		cols[0].Float = v.elem.append(cols[0].Float, raw)
	}
	return nil
}

// openNpy reads the header of a .npy file.
func openNpy(f file, size int64, name string) (source, error) {
	head := make([]byte, min(size, npy.MaxHeader))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	h, err := npy.Parse(head)
	if err != nil {
		return nil, errclass.Mark(err, errclass.Invalid)
	}
	elem, ok := map[string]element{"<f2": float16, "<f4": float32s, "<f8": float64s, "|u1": uint8s, "|i1": int8s}[h.Descr]
	switch {
	case !ok:
		return nil, errclass.New(errclass.Invalid, "elements of type %q, want '<f4' (float32), '<f2', '<f8', '|u1' or '|i1'; in numpy: a.astype('<f4')", h.Descr)
	case h.Fortran:
		return nil, errclass.New(errclass.Invalid, "the array is column-major, want row-major; in numpy: numpy.ascontiguousarray(a)")
	case len(h.Shape) != 2:
		return nil, errclass.New(errclass.Invalid, "array of shape %v, want two dimensions: (rows, dim)", h.Shape)
	}
	rows, dim := h.Shape[0], h.Shape[1]
	if err := checkShape(rows, dim); err != nil {
		return nil, err
	}
	v := &vectorFile{f: f, name: name, n: rows, dim: int(dim), elem: elem, offset: h.Offset}
	if data := size - h.Offset; rows > data/v.rowBytes() || rows*v.rowBytes() != data {
		return nil, errclass.New(errclass.Invalid, "shape (%d, %d) of %q takes %d bytes from byte %d on, the file has %d there", rows, dim, h.Descr, rows*v.rowBytes(), h.Offset, data)
	}
	return v.stream(size), nil
}

// maxRows keeps products with the size of a row within 64 bits.
const maxRows = 1 << 40

func checkShape(rows, dim int64) error {
	if dim < 1 || dim > schema.MaxVectorDim {
		return errclass.New(errclass.Invalid, "vectors of dimension %d, want 1 to %d", dim, schema.MaxVectorDim)
	}
	if rows < 1 || rows > maxRows {
		return errclass.New(errclass.Invalid, "%d vectors, want 1 to %d", rows, int64(maxRows))
	}
	return nil
}

// openVecs reads the first dimension of a file of the TEXMEX corpora
// (http://corpus-texmex.irisa.fr/), .fvecs or .bvecs.
func openVecs(f file, size int64, name string, asBytes bool) (source, error) {
	var head [4]byte
	if _, err := f.ReadAt(head[:], 0); errors.Is(err, io.EOF) {
		return nil, errclass.New(errclass.Invalid, "the file has %d bytes, want at least the dimension (4 bytes) of a vector", size)
	} else if err != nil {
		return nil, err
	}
	dim := int64(int32(binary.LittleEndian.Uint32(head[:])))
	if err := checkShape(1, dim); err != nil {
		return nil, errors.Wrap(err, "row 0 at byte 0")
	}
	v := &vectorFile{f: f, name: name, dim: int(dim), elem: float32s, prefix: true}
	if asBytes {
		v.elem = uint8s
	}
	v.n = size / v.rowBytes()
	if rest := size % v.rowBytes(); rest != 0 {
		return nil, errclass.New(errclass.Invalid, "row %d at byte %d: want the %d bytes of a vector of dimension %d, the file ends after %d",
			v.n, v.n*v.rowBytes(), v.rowBytes(), dim, rest)
	}
	if err := checkShape(v.n, dim); err != nil {
		return nil, err
	}
	return v.stream(size), nil
}
