package flatparquet

import (
	"encoding/binary"

	"github.com/cockroachdb/errors"
)

// Types of the thrift compact protocol, in which Parquet's footer and page
// headers are written.
const (
	thriftStop   = 0
	thriftFalse  = 2
	thriftI8     = 3
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
	thriftUUID   = 13
)

const (
	// maxThriftDepth bounds nesting; Parquet's own structures need 7.
	maxThriftDepth = 16
	// maxThriftStructs bounds a list of structures. The decoder allocates up to
	// a kilobyte for each before it reads the first.
	maxThriftStructs = 1 << 16
)

var errShort = errors.New("ends inside a value")

// skim walks the structure at the start of b without decoding it and returns
// its length in bytes. It allocates nothing. After it returned nil a thrift
// decoder cannot recurse deeply on these bytes, nor allocate more than about a
// kilobyte for each of them.
func skim(b []byte) (int, error) {
	s := skimmer{in: b}
	err := s.structure(0)
	return s.pos, err
}

type skimmer struct {
	in  []byte
	pos int
}

func (s *skimmer) left() int { return len(s.in) - s.pos }

func (s *skimmer) byte() (byte, error) {
	if s.left() == 0 {
		return 0, errShort
	}
	s.pos++
	return s.in[s.pos-1], nil
}

func (s *skimmer) varint() (uint64, error) {
	v, n := binary.Uvarint(s.in[s.pos:])
	switch {
	case n == 0:
		return 0, errShort
	case n < 0:
		return 0, errors.Newf("byte %d: number longer than 64 bits", s.pos)
	}
	s.pos += n
	return v, nil
}

func (s *skimmer) skip(n uint64) error {
	if n > uint64(s.left()) {
		return errShort
	}
	s.pos += int(n)
	return nil
}

func (s *skimmer) structure(depth int) error {
	if depth >= maxThriftDepth {
		return errors.Newf("byte %d: nested deeper than %d", s.pos, maxThriftDepth)
	}
	for {
		h, err := s.byte()
		if err != nil || h == thriftStop {
			return err
		}
		if h>>4 == 0 { // the field's id follows
			if _, err := s.varint(); err != nil {
				return err
			}
		}
		// A boolean field has no bytes: its type is its value.
		if t := h & 0xf; t > thriftFalse {
			if err := s.value(t, depth); err != nil {
				return err
			}
		}
	}
}

func (s *skimmer) value(t byte, depth int) error {
	switch {
	case t >= 1 && t <= thriftI8: // booleans have a byte only inside lists
		return s.skip(1)
	case t > thriftI8 && t <= thriftI64:
		_, err := s.varint()
		return err
	case t == thriftDouble:
		return s.skip(8)
	case t == thriftUUID:
		return s.skip(16)
	case t == thriftBinary:
		n, err := s.varint()
		if err != nil {
			return err
		}
		return s.skip(n)
	case t == thriftList || t == thriftSet:
		return s.list(depth)
	case t == thriftMap:
		return s.dict(depth)
	case t == thriftStruct:
		return s.structure(depth + 1)
	}
	return errors.Newf("byte %d: unknown type %d", s.pos, t)
}

func (s *skimmer) list(depth int) error {
	h, err := s.byte()
	if err != nil {
		return err
	}
	n, t := uint64(h>>4), h&0xf
	if n == 15 {
		if n, err = s.varint(); err != nil {
			return err
		}
	}
	return s.items(n, depth, t)
}

func (s *skimmer) dict(depth int) error {
	n, err := s.varint()
	if err != nil || n == 0 {
		return err
	}
	types, err := s.byte()
	if err != nil {
		return err
	}
	return s.items(n, depth, types>>4, types&0xf)
}

// items walks n times one value of each type. Every value takes at least a
// byte, so a count above the bytes left is a lie.
func (s *skimmer) items(n uint64, depth int, types ...byte) error {
	if depth+1 >= maxThriftDepth {
		return errors.Newf("byte %d: nested deeper than %d", s.pos, maxThriftDepth)
	}
	if n > uint64(s.left()) {
		return errors.Newf("byte %d: list of %d values in %d bytes", s.pos, n, s.left())
	}
	for _, t := range types {
		if t >= thriftList && n > maxThriftStructs {
			return errors.Newf("byte %d: list of %d structures, want at most %d", s.pos, n, maxThriftStructs)
		}
	}
	for range n {
		for _, t := range types {
			if err := s.value(t, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
