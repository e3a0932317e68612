package embedded

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"
)

// FuzzSegment reads arbitrary bytes as a segment file: no panic, no allocation
// beyond what is there, every byte accounted for, and an end to append at is found
// again by the next recovery.
func FuzzSegment(f *testing.F) {
	h := segmentHeader{base: 7, salt: 99, prevBase: 1, prevLength: 100}
	frames := encodeBatch(encodeBatch(nil, msgs(1, 3)), msgs(4, 6))
	number(frames, h.salt, h.base, func(int, uint64, uint64) {})
	whole := append(h.encode(), frames...)
	flipped := slices.Clone(whole)
	flipped[segmentHeaderBytes+90] ^= 4
	f.Add(whole, int64(0))
	f.Add(flipped, int64(len(flipped)))
	f.Add(whole[:len(whole)-20], int64(200))
	f.Add(append(slices.Clone(whole), make([]byte, 100)...), int64(0))
	f.Add(append(h.encode(), bytes.Repeat([]byte(marker), 40)...), int64(0))
	f.Add([]byte{}, int64(5))
	f.Fuzz(func(t *testing.T, data []byte, durable int64) {
		header, err := decodeSegmentHeader(data)
		if err != nil {
			header = h
			data = append(h.encode(), data...)
		}
		if header.base == 0 || header.base > 1<<60 {
			return
		}
		seg := &segment{segmentHeader: header}
		size := int64(len(data))
		walk(t, seg, data)
		mark := mark{Base: header.base, Length: durable, Next: header.base}
		r, err := seg.scan(bytes.NewReader(data), size, minReadBufferBytes, mark)
		if err != nil {
			t.Fatal(err)
		}
		if r.end > max(size, segmentHeaderBytes) || r.next < header.base || r.end < min(durable, size) {
			t.Fatalf("end %d of %d, next %d", r.end, size, r.next)
		}
		again, err := seg.scan(bytes.NewReader(data[:min(r.end, size)]), r.end, minReadBufferBytes, mark)
		if err != nil || !r.seal && (again.end != r.end || again.next != r.next || again.damages != r.damages) {
			t.Fatalf("first %+v, again %+v, %v", r, again, err)
		}
	})
}

// walk checks that the cursor only goes forward, covers every byte, and ends.
func walk(t *testing.T, seg *segment, data []byte) {
	t.Helper()
	c := cursor{src: bytes.NewReader(data), salt: seg.salt, off: segmentHeaderBytes, limit: int64(len(data)), seq: seg.base, window: minReadBufferBytes}
	for {
		at, seq := c.off, c.seq
		fr, err := c.next()
		var d *damage
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.As(err, &d):
			if d.from != at || d.to != c.off || d.first != seq || c.off == at && c.seq == seq {
				t.Fatalf("at %d: %+v, then at %d", at, d, c.off)
			}
		case err != nil:
			t.Fatal(err)
		case fr.seq != seq || at+fr.size() != c.off:
			t.Fatalf("message %d of %d bytes between %d and %d", fr.seq, fr.size(), at, c.off)
		}
		if cap(c.buf) > len(data)+2*minReadBufferBytes {
			t.Fatalf("%d bytes were allocated for %d", cap(c.buf), len(data))
		}
	}
}

// FuzzMeta reads arbitrary bytes as a meta file.
func FuzzMeta(f *testing.F) {
	b, err := meta{Version: 1, Topic: "a", Term: 3}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:10])
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMeta(data)
		if err == nil && m.Version != metaVersion {
			t.Fatalf("version %d", m.Version)
		}
	})
}
