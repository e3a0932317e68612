package segfile

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// BlockSize is the number of bytes one checksum covers. The last block of a
// file may be shorter.
const BlockSize = 1 << 20

// castagnoli is the table of CRC-32C. It is never written.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC is a CRC-32C (RFC 3720). In JSON it is eight hexadecimal digits.
type CRC uint32

// String is the checksum in eight hexadecimal digits.
func (c CRC) String() string { return fmt.Sprintf("%08x", uint32(c)) }

// MarshalText writes eight hexadecimal digits.
func (c CRC) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads eight hexadecimal digits.
func (c *CRC) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 32)
	if err != nil || len(b) != 8 {
		return errors.Newf("checksum %q: want eight hexadecimal digits", b)
	}
	*c = CRC(v)
	return nil
}

// BlockCRCs are the checksums of the blocks of a file. In JSON they are one
// text: base64 of little-endian 32-bit numbers.
type BlockCRCs []CRC

// MarshalText writes base64.
func (l BlockCRCs) MarshalText() ([]byte, error) {
	raw := make([]byte, 0, 4*len(l))
	for _, c := range l {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(c))
	}
	return base64.StdEncoding.AppendEncode(nil, raw), nil
}

// UnmarshalText reads base64.
func (l *BlockCRCs) UnmarshalText(b []byte) error {
	raw, err := base64.StdEncoding.Strict().AppendDecode(nil, b)
	if err != nil || len(raw)%4 != 0 {
		return errors.New("block checksums: want base64 of 4 bytes per block")
	}
	*l = make(BlockCRCs, len(raw)/4)
	for i := range *l {
		(*l)[i] = CRC(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}

// blocks sums what is written to it, block by block.
type blocks struct {
	done BlockCRCs
	cur  uint32
	size int64
}

// Write never fails.
func (b *blocks) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), BlockSize-int(b.size%BlockSize))
		b.cur = crc32.Update(b.cur, castagnoli, p[:k])
		b.size += int64(k)
		p = p[k:]
		if b.size%BlockSize == 0 {
			b.done, b.cur = append(b.done, CRC(b.cur)), 0
		}
	}
	return n, nil
}

// sums returns the checksums of all blocks and that of the whole.
func (b *blocks) sums() (BlockCRCs, CRC) {
	all := b.done
	if b.size%BlockSize != 0 {
		all = append(all, CRC(b.cur))
	}
	return all, wholeCRC(all, b.size)
}

// wholeCRC combines the checksums of the blocks of a file into that of the file.
func wholeCRC(all BlockCRCs, size int64) CRC {
	full := crcShift(BlockSize)
	whole := uint32(0)
	for i, c := range all {
		shift := full
		if n := size - int64(i)*BlockSize; n < BlockSize {
			shift = crcShift(n)
		}
		whole = crcMul(shift, whole) ^ uint32(c)
	}
	return CRC(whole)
}

// crcMul multiplies two polynomials modulo that of CRC-32C, bits reflected.
// With a = x^(8n), it is what n bytes of zeros do to the checksum b; adding the
// checksum of n other bytes gives that of both parts (zlib, crc32_combine).
func crcMul(a, b uint32) uint32 {
	p := uint32(0)
	for m := uint32(1) << 31; a != 0; m >>= 1 {
		if a&m != 0 {
			p ^= b
			a &^= m
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return p
}

// crcShift is x^(8n) for crcMul.
func crcShift(n int64) uint32 {
	p := uint32(1) << 31      // x^0
	square := uint32(1) << 23 // x^8
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			p = crcMul(square, p)
		}
		square = crcMul(square, square)
	}
	return p
}

// Checker compares bytes with the checksums of a file as they stream through
// it, so that a download is verified without reading it again. Write the file
// from its first byte on, then Close.
type Checker struct {
	file *File
	sums blocks
}

// Checker returns a checker for the file of that name.
func (m *Manifest) Checker(name string) (*Checker, error) {
	f := m.file(name)
	if f == nil {
		return nil, errclass.New(errclass.NotFound, "segment %d has no file %q", m.SegmentID, name)
	}
	return &Checker{file: f}, nil
}

// Write sums p. It fails with class Corrupt at the first block that differs and
// at the first byte too many.
func (c *Checker) Write(p []byte) (int, error) {
	if c.sums.size+int64(len(p)) > c.file.Size {
		return 0, errclass.New(errclass.Corrupt, "file %s is longer than the %d bytes of the manifest", c.file.Name, c.file.Size)
	}
	for n := 0; n < len(p); {
		before := len(c.sums.done)
		k := min(len(p)-n, BlockSize-int(c.sums.size%BlockSize))
		_, _ = c.sums.Write(p[n : n+k])
		n += k
		if len(c.sums.done) > before {
			if err := c.file.check(before, c.sums.done[before]); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// Close checks the last block and the length.
func (c *Checker) Close() error {
	if c.sums.size != c.file.Size {
		return errclass.New(errclass.Corrupt, "file %s has %d bytes, the manifest says %d", c.file.Name, c.sums.size, c.file.Size)
	}
	all, whole := c.sums.sums()
	if n := len(all); n > len(c.sums.done) {
		if err := c.file.check(n-1, all[n-1]); err != nil {
			return err
		}
	}
	if whole != c.file.CRC {
		return errclass.New(errclass.Corrupt, "file %s: the checksums of the manifest contradict each other", c.file.Name)
	}
	return nil
}

// check compares the checksum of block i with the manifest.
func (f *File) check(i int, got CRC) error {
	if got == f.Blocks[i] {
		return nil
	}
	from := int64(i) * BlockSize
	return errclass.New(errclass.Corrupt, "file %s, block %d (bytes %d to %d): crc32c is %s, want %s",
		f.Name, i, from, min(from+BlockSize, f.Size), got, f.Blocks[i])
}

// checkedReader reads a file at random places and checks each block before it
// hands out a byte of it. It keeps the last two blocks. Not safe for concurrent use.
type checkedReader struct {
	in   io.ReaderAt
	file *File
	slot [2]struct {
		block int // 1-based; 0 = empty
		data  []byte
	}
	next int // slot to overwrite
}

// ReadAt implements io.ReaderAt; errors are of class Corrupt where bytes are not what was written.
func (r *checkedReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errclass.New(errclass.Corrupt, "file %s: read at byte %d", r.file.Name, off)
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= r.file.Size {
			return n, io.EOF
		}
		data, err := r.load(int(at / BlockSize))
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[at%BlockSize:])
	}
	return n, nil
}

func (r *checkedReader) load(i int) ([]byte, error) {
	for _, s := range r.slot {
		if s.block == i+1 {
			return s.data, nil
		}
	}
	s := &r.slot[r.next]
	r.next = 1 - r.next
	s.block = 0
	from := int64(i) * BlockSize
	size := min(BlockSize, r.file.Size-from)
	if int64(cap(s.data)) < size {
		s.data = make([]byte, size)
	}
	s.data = s.data[:size]
	if n, err := r.in.ReadAt(s.data, from); n < len(s.data) {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, errclass.New(errclass.Corrupt, "file %s ends at byte %d, the manifest says %d", r.file.Name, from+int64(n), r.file.Size)
		}
		return nil, errors.Wrapf(err, "read block %d of %s", i, r.file.Name)
	}
	if err := r.file.check(i, CRC(crc32.Checksum(s.data, castagnoli))); err != nil {
		return nil, err
	}
	s.block = i + 1
	return s.data, nil
}
