// Package npy reads and writes the header of numpy's .npy files, of versions
// 1.0 to 3.0, for two-dimensional arrays of numbers. It touches no files: the
// caller reads and maps the data behind the header.
//
// Format: numpy/lib/format.py, "NPY format" (NEP 1).
package npy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
)

const (
	magic = "\x93NUMPY"

	// MaxHeader bounds the header of a file, magic included, in bytes. numpy's
	// own reader stops at 10,000 unless told otherwise.
	MaxHeader = 64 << 10
)

// Header describes the array in a file.
type Header struct {
	Descr   string // type of an element, as "<f4": byte order, kind, size in bytes
	Fortran bool   // column-major
	Shape   []int64
	Offset  int64 // of the first element from the start of the file; ignored by Encode
}

// Encode returns a version 1.0 header, padded with spaces so that the data that
// follows starts at offset.
func Encode(h Header, offset int) ([]byte, error) {
	dims := make([]string, len(h.Shape))
	for i, d := range h.Shape {
		dims[i] = strconv.FormatInt(d, 10)
	}
	shape := strings.Join(dims, ", ")
	if len(dims) == 1 {
		shape += ","
	}
	fortran := "False"
	if h.Fortran {
		fortran = "True"
	}
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", h.Descr, fortran, shape)
	text := offset - len(magic) - 4
	if text < len(dict)+1 || text > 0xffff {
		return nil, errclass.New(errclass.Invalid, "npy: a header of %d bytes cannot end at offset %d", len(dict), offset)
	}
	out := make([]byte, 0, offset)
	out = append(out, magic...)
	out = append(out, 1, 0)
	out = binary.LittleEndian.AppendUint16(out, uint16(text))
	out = append(out, dict...)
	out = append(out, bytes.Repeat([]byte{' '}, offset-1-len(out))...)
	return append(out, '\n'), nil
}

// Parse reads the header at the start of b, which holds the first bytes of a
// file: MaxHeader of them, or all if the file is shorter. Errors are of class
// Corrupt and say what stands at which byte; Shape is not checked against any
// file size, but each of its numbers is >= 0.
func Parse(b []byte) (Header, error) {
	start, end, err := frame(b)
	if err != nil {
		return Header{}, err
	}
	p := &parser{in: b[:end], pos: start}
	h, err := p.dict()
	if err != nil {
		return Header{}, err
	}
	h.Offset = int64(end)
	return h, nil
}

// frame returns where the text of the header starts and where the data starts.
func frame(b []byte) (start, end int, err error) {
	if len(b) < len(magic)+4 || string(b[:len(magic)]) != magic {
		return 0, 0, errclass.New(errclass.Corrupt, "npy: not a .npy file: want the magic %q at byte 0", magic)
	}
	var n uint64
	switch major := b[6]; major {
	case 1:
		n, start = uint64(binary.LittleEndian.Uint16(b[8:])), 10
	case 2, 3:
		if len(b) < 12 {
			return 0, 0, errclass.New(errclass.Corrupt, "npy: the header ends at byte %d", len(b))
		}
		n, start = uint64(binary.LittleEndian.Uint32(b[8:])), 12
	default:
		return 0, 0, errclass.New(errclass.Corrupt, "npy: version %d.%d at byte 6: want 1.0, 2.0 or 3.0", major, b[7])
	}
	if n > MaxHeader-uint64(start) {
		return 0, 0, errclass.New(errclass.Corrupt, "npy: header of %d bytes at byte 8: want at most %d", n, MaxHeader-start)
	}
	end = start + int(n)
	if end > len(b) {
		return 0, 0, errclass.New(errclass.Corrupt, "npy: header of %d bytes at byte 8, but the file has %d", n, len(b))
	}
	return start, end, nil
}

// maxDims bounds the shape; numpy's own limit is 64.
const maxDims = 64

// parser reads the Python dict literal of a header.
type parser struct {
	in  []byte
	pos int
}

func (p *parser) bad(want string) error {
	got := "the end of the header"
	if p.pos < len(p.in) {
		got = strconv.Quote(string(p.in[p.pos:min(p.pos+16, len(p.in))]))
	}
	return errclass.New(errclass.Corrupt, "npy: header byte %d: want %s, got %s", p.pos, want, got)
}

func (p *parser) space() {
	for p.pos < len(p.in) && strings.IndexByte(" \t\r\n", p.in[p.pos]) >= 0 {
		p.pos++
	}
}

// take skips white space, then c if it is next.
func (p *parser) take(c byte) bool {
	p.space()
	if p.pos < len(p.in) && p.in[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *parser) dict() (Header, error) {
	var h Header
	seen := map[string]bool{}
	if !p.take('{') {
		return h, p.bad("{")
	}
	for !p.take('}') {
		key, err := p.str("a key in quotes, or }")
		if err != nil {
			return h, err
		}
		if seen[key] {
			return h, p.bad("each key once, not a second " + strconv.Quote(key))
		}
		seen[key] = true
		if !p.take(':') {
			return h, p.bad(":")
		}
		if err := p.value(key, &h); err != nil {
			return h, err
		}
		if !p.take(',') {
			if !p.take('}') {
				return h, p.bad(", or }")
			}
			break
		}
	}
	if p.space(); p.pos != len(p.in) {
		return h, p.bad("nothing behind the }")
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return h, errclass.New(errclass.Corrupt, "npy: the header lacks %q", key)
		}
	}
	return h, nil
}

func (p *parser) value(key string, h *Header) (err error) {
	switch key {
	case "descr":
		h.Descr, err = p.str("the type of an element in quotes (structured arrays are not supported)")
	case "fortran_order":
		h.Fortran, err = p.boolean()
	case "shape":
		h.Shape, err = p.tuple()
	default:
		err = p.bad("no key but descr, fortran_order and shape")
	}
	return err
}

func (p *parser) str(want string) (string, error) {
	p.space()
	if p.pos >= len(p.in) || p.in[p.pos] != '\'' && p.in[p.pos] != '"' {
		return "", p.bad(want)
	}
	rest := p.in[p.pos+1:]
	n := bytes.IndexByte(rest, p.in[p.pos])
	if n < 0 || n > 64 || bytes.IndexByte(rest[:n], '\\') >= 0 {
		return "", p.bad("a short plain text in quotes")
	}
	p.pos += n + 2
	return string(rest[:n]), nil
}

func (p *parser) boolean() (bool, error) {
	p.space()
	rest := p.in[p.pos:]
	switch {
	case bytes.HasPrefix(rest, []byte("True")):
		p.pos += 4
		return true, nil
	case bytes.HasPrefix(rest, []byte("False")):
		p.pos += 5
		return false, nil
	}
	return false, p.bad("True or False")
}

func (p *parser) tuple() ([]int64, error) {
	if !p.take('(') {
		return nil, p.bad("( of the shape")
	}
	shape := []int64{}
	for !p.take(')') {
		if len(shape) == maxDims {
			return nil, p.bad("at most " + strconv.Itoa(maxDims) + " dimensions")
		}
		p.space()
		end := p.pos
		for end < len(p.in) && p.in[end] >= '0' && p.in[end] <= '9' {
			end++
		}
		n, err := strconv.ParseInt(string(p.in[p.pos:end]), 10, 64)
		if err != nil {
			return nil, p.bad("a number >= 0 that fits 64 bits")
		}
		p.pos = end
		shape = append(shape, n)
		if !p.take(',') {
			if !p.take(')') {
				return nil, p.bad(", or )")
			}
			break
		}
	}
	return shape, nil
}
