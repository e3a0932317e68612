package flatparquet

import (
	"encoding/binary"

	"github.com/cockroachdb/errors"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

const (
	headerProbe = 4 << 10 // a page header is a few dozen bytes, unless it carries statistics
	maxHeader   = 1 << 20
	maxWindow   = 8 << 20  // zstd window that any page may ask for
	minBlock    = 16 << 10 // a zstd block has at most 128 KiB; writers may cut smaller ones
)

// checkPages walks the headers of the pages of a column chunk, so that no size
// in them reaches an allocation unchecked, and adds up what they unpack to.
func (f *File) checkPages(m *format.ColumnMetaData, rows int64, unpacked *int64) error {
	pos := chunkStart(m)
	end := pos + m.TotalCompressedSize
	for pos < end {
		h, n, err := f.pageHeader(pos, end)
		if err != nil {
			return errors.Wrapf(err, "page header at byte %d", pos)
		}
		if err := f.checkPage(h, m, pos+n, end, rows); err != nil {
			return errors.Wrapf(err, "page at byte %d", pos)
		}
		if *unpacked += int64(h.UncompressedPageSize); *unpacked > f.limits.Total {
			return errors.Newf("page at byte %d: the column unpacks to more than %d bytes", pos, f.limits.Total)
		}
		pos += n + int64(h.CompressedPageSize)
	}
	return nil
}

func (f *File) pageHeader(pos, end int64) (*format.PageHeader, int64, error) {
	for size := int64(headerProbe); ; size *= 16 {
		b := make([]byte, min(size, end-pos))
		if err := readFull(f.in, b, pos); err != nil {
			return nil, 0, err
		}
		n, err := skim(b)
		if errors.Is(err, errShort) && int64(len(b)) < end-pos && size < maxHeader {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		h := new(format.PageHeader)
		return h, int64(n), thrift.Unmarshal(new(thrift.CompactProtocol), b[:n], h)
	}
}

func (f *File) checkPage(h *format.PageHeader, m *format.ColumnMetaData, data, end, rows int64) error {
	packed, unpacked := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	switch {
	case packed < 0 || packed > end-data:
		return errors.Newf("%d bytes, but its column has %d left", packed, end-data)
	case packed > f.limits.Page || unpacked < 0 || unpacked > f.limits.Page:
		return errors.Newf("%d bytes unpacked, want at most %d", unpacked, f.limits.Page)
	}
	values, levels, codec := int64(0), int64(0), m.Codec
	switch {
	case h.DataPageHeaderV2.Valid:
		v2 := &h.DataPageHeaderV2.V
		values = int64(v2.NumValues)
		rep, def := int64(v2.RepetitionLevelsByteLength), int64(v2.DefinitionLevelsByteLength)
		levels = rep + def
		if v2.IsCompressed.Valid && !v2.IsCompressed.V {
			codec = format.Uncompressed
		}
		if rep < 0 || def < 0 || levels > packed {
			return errors.Newf("levels of %d and %d bytes in a page of %d", rep, def, packed)
		}
	case h.DataPageHeader.Valid:
		values = int64(h.DataPageHeader.V.NumValues)
	case h.DictionaryPageHeader.Valid:
		values = int64(h.DictionaryPageHeader.V.NumValues)
	}
	// A page of lists may have more values than rows, but they take room.
	if values < 0 || values > max(rows, m.NumValues) || values > f.limits.Page {
		return errors.Newf("%d values in a column of %d", values, m.NumValues)
	}
	switch {
	case packed == levels:
	case codec == format.Zstd:
		return f.checkZstd(data+levels, packed-levels, unpacked)
	case codec == format.Snappy:
		return f.checkSnappy(data+levels, packed-levels, unpacked)
	}
	return nil
}

// checkSnappy compares the size that stands first in the data, by which the
// decoder allocates, with that of the page.
func (f *File) checkSnappy(pos, size, unpacked int64) error {
	b := make([]byte, min(size, binary.MaxVarintLen64))
	if err := readFull(f.in, b, pos); err != nil {
		return err
	}
	if n, k := binary.Uvarint(b); k <= 0 || n > uint64(unpacked) {
		return errors.Newf("snappy data of %d bytes in a page of %d", n, unpacked)
	}
	return nil
}

// checkZstd walks the blocks of compressed data without unpacking them. The
// decoder trusts the data over the page header: without this, a few bytes could
// unpack to gigabytes. If strict, they unpack to at most 8*unpacked + 256 KiB.
func (f *File) checkZstd(pos, size, unpacked int64) error {
	end := pos + size
	b := make([]byte, min(size, zstd.HeaderMaxSize))
	if err := readFull(f.in, b, pos); err != nil {
		return err
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return errors.Wrap(err, "zstd frame")
	}
	if h.Skippable || h.DictionaryID != 0 || h.FrameContentSize > uint64(unpacked) || h.WindowSize > uint64(max(2*unpacked, maxWindow)) {
		return errors.Newf("zstd frame of %d bytes (window %d) in a page of %d", h.FrameContentSize, h.WindowSize, unpacked)
	}
	if !f.limits.Strict { // others may cut blocks as they like
		return nil
	}
	pos += int64(h.HeaderSize)
	for left, last := 2+unpacked/minBlock, false; !last; left-- {
		if left == 0 {
			return errors.Newf("too many zstd blocks for a page of %d bytes", unpacked)
		}
		var head [4]byte
		if err := readFull(f.in, head[:3], pos); err != nil {
			return err
		}
		v := binary.LittleEndian.Uint32(head[:])
		last = v&1 != 0
		n := int64(v >> 3)
		if v>>1&3 == 1 { // one byte, repeated
			n = 1
		}
		if pos += 3 + n; pos > end {
			return errors.New("zstd block ends outside of its page")
		}
	}
	if h.HasCheckSum {
		pos += 4
	}
	if pos != end {
		return errors.Newf("zstd frame ends %d bytes before its page", end-pos)
	}
	return nil
}
