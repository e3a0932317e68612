package flatparquet

import (
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// codec compresses pages as parquet.Zstd does, with an encoder that goes with its Writer: those of parquet.Zstd
// have 16 MiB each, for they look back 8 MiB, and stay in a pool. A page is rarely longer than window.
type codec struct {
	encoder *zstd.Encoder
}

// window is how far back the encoder looks; it has twice that.
const window = 512 << 10

func newCodec() (*codec, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window),
		zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
	return &codec{e}, err
}

// String is the name of the codec.
func (*codec) String() string { return parquet.Zstd.String() }

// CompressionCodec is its number in a file.
func (*codec) CompressionCodec() format.CompressionCodec { return format.Zstd }

// Encode compresses a page.
func (c *codec) Encode(dst, src []byte) ([]byte, error) {
	return c.encoder.EncodeAll(src, dst[:0]), nil
}

// Decode is not called by a Writer.
func (*codec) Decode(dst, src []byte) ([]byte, error) { return parquet.Zstd.Decode(dst, src) }
