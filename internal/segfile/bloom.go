package segfile

import (
	"encoding/binary"
	"unsafe"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go/bloom"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// The file keys.bloom is Parquet's split-block Bloom filter (Putze, Sanders,
// Singler: Cache-, Hash- and Space-Efficient Bloom Filters; apache/parquet-format
// BloomFilter.md) of the XXH64 hashes of the primary keys: the 8 little-endian
// bytes of an int64, the bytes of a text. Before it stands a header:
//
//	0  8  magic "QNBLOOM1"
//	8  8  number of blocks, little-endian
//	16 8  number of keys
//	24 40 zero
const (
	bloomMagic  = "QNBLOOM1"
	bloomHeader = 64
	bloomBits   = 10 // per key: about 1 % false positives
)

func hashInt(v int64) uint64 { return bloom.XXH64{}.Sum64Uint64(uint64(v)) }

func hashText(s string) uint64 {
	return bloom.XXH64{}.Sum64(unsafe.Slice(unsafe.StringData(s), len(s)))
}

func hashKeys(dst []uint64, c *schema.Column) []uint64 {
	for _, v := range c.Int {
		dst = append(dst, hashInt(v))
	}
	for _, v := range c.Str {
		dst = append(dst, hashText(v))
	}
	return dst
}

// encodeBloom returns the bytes of keys.bloom.
func encodeBloom(hashes []uint64) []byte {
	f := make(bloom.SplitBlockFilter, bloom.NumSplitBlocksOf(int64(len(hashes)), bloomBits))
	f.InsertBulk(hashes)
	out := make([]byte, bloomHeader, bloomHeader+len(f)*bloom.BlockSize)
	copy(out, bloomMagic)
	binary.LittleEndian.PutUint64(out[8:], uint64(len(f)))
	binary.LittleEndian.PutUint64(out[16:], uint64(len(hashes)))
	return append(out, f.Bytes()...)
}

// checkBloom checks the header of a filter of size bytes for that many keys.
func checkBloom(header []byte, size, keys int64) error {
	if len(header) < bloomHeader || string(header[:8]) != bloomMagic {
		return errors.Newf("want the magic %q at byte 0", bloomMagic)
	}
	n, k := binary.LittleEndian.Uint64(header[8:]), binary.LittleEndian.Uint64(header[16:])
	if n < 1 || n > uint64(size) || int64(n)*bloom.BlockSize+bloomHeader != size || k != uint64(keys) {
		return errors.Newf("%d blocks for %d keys in %d bytes", n, k, size)
	}
	return nil
}

// MayHaveInt reports whether the segment may hold a row of the Int64 primary
// key; false is certain. It reads mapped memory.
func (s *Segment) MayHaveInt(key int64) bool {
	if r := s.keys.Int; r != nil && (key < r.Min || key > r.Max) {
		return false
	}
	return s.bloom.Check(hashInt(key))
}

// MayHaveText is MayHaveInt for a VarChar primary key.
func (s *Segment) MayHaveText(key string) bool {
	if r := s.keys.Text; r != nil && (key < r.Min || key > r.Max) {
		return false
	}
	return s.bloom.Check(hashText(key))
}

// MayHave appends the numbers of those rows of a column of primary keys that
// the segment may hold. It reads mapped memory.
func (s *Segment) MayHave(keys *schema.Column, dst []int) ([]int, error) {
	if keys.Type != s.m.Schema.Primary().Type {
		return dst, errclass.New(errclass.Invalid, "keys of type %s, the primary key is %s", keys.Type, s.m.Schema.Primary().Type)
	}
	for i, v := range keys.Int {
		if s.MayHaveInt(v) {
			dst = append(dst, i)
		}
	}
	for i, v := range keys.Str {
		if s.MayHaveText(v) {
			dst = append(dst, i)
		}
	}
	return dst, nil
}
