package segfile

import (
	"hash/crc32"
	"io"
	"testing"

	"pgregory.net/rapid"
)

func TestWholeChecksumFollowsFromTheBlocks(t *testing.T) {
	data := append(append(image(), image()...), 1, 2, 3)
	for _, n := range []int{0, 1, BlockSize - 1, BlockSize, BlockSize + 1, 2 * BlockSize, len(data)} {
		var b blocks
		for rest := data[:n]; len(rest) > 0; {
			k := min(len(rest), 333_333)
			_, _ = b.Write(rest[:k])
			rest = rest[k:]
		}
		all, whole := b.sums()
		if want := crc32.Checksum(data[:n], castagnoli); uint32(whole) != want || len(all) != (n+BlockSize-1)/BlockSize {
			t.Errorf("%d bytes: %s of %d blocks, want %08x", n, whole, len(all), want)
		}
	}
}

func TestChecksumsOfPartsCombine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := rapid.SliceOf(rapid.Byte()).Draw(rt, "a"), rapid.SliceOf(rapid.Byte()).Draw(rt, "b")
		got := crcMul(crcShift(int64(len(b))), crc32.Checksum(a, castagnoli)) ^ crc32.Checksum(b, castagnoli)
		if want := crc32.Checksum(append(a, b...), castagnoli); got != want {
			rt.Fatalf("%08x, want %08x", got, want)
		}
	})
}

func TestCheckedReaderGivesTheBytesOfTheFile(t *testing.T) {
	data := append(append(image(), image()...), 9)
	var b blocks
	_, _ = b.Write(data)
	f := File{Name: "x", Size: int64(len(data))}
	f.Blocks, f.CRC = b.sums()
	r := &checkedReader{in: readerAt(data), file: &f}
	rapid.Check(t, func(rt *rapid.T) {
		off := rapid.IntRange(0, len(data)+10).Draw(rt, "off")
		p := make([]byte, rapid.IntRange(0, 2*BlockSize).Draw(rt, "n"))
		n, err := r.ReadAt(p, int64(off))
		want := max(0, min(len(p), len(data)-off))
		if n != want || (err == io.EOF) != (n < len(p)) || err != nil && err != io.EOF {
			rt.Fatalf("%d, %v; want %d", n, err, want)
		}
		if n > 0 && string(p[:n]) != string(data[off:off+n]) {
			rt.Fatal("other bytes")
		}
	})
}

type readerAt []byte

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, r[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
