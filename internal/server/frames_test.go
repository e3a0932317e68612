package server

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func head(length int, kind, flags byte, stream uint32) []byte {
	return []byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}
}

// TestFramesAreFoundHoweverTheBytesAreCut: in one piece, byte by byte and by lot.
func TestFramesAreFoundHoweverTheBytesAreCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := []byte(preface)
	var want []frame
	for range 200 {
		f := frame{length: rng.IntN(40) * rng.IntN(500), kind: byte(rng.IntN(10)), flags: byte(rng.IntN(256)), stream: rng.Uint32() >> 1}
		want = append(want, f)
		all = append(all, head(f.length, f.kind, f.flags, f.stream|1<<31)...) // the first bit is reserved
		all = append(all, bytes.Repeat([]byte{0}, f.length)...)
	}
	for _, cut := range []func() int{func() int { return len(all) }, func() int { return 1 }, func() int { return 1 + rng.IntN(3000) }} {
		f := frames{skip: len(preface)}
		var got []frame
		for rest := all; len(rest) > 0; {
			n := min(cut(), len(rest))
			f.each(rest[:n], func(x frame) { got = append(got, x) })
			rest = rest[n:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
	}
}

// FuzzConnectionBytes: whatever comes in and goes out, what is held is what the open
// streams hold, and nothing once the connection is closed.
func FuzzConnectionBytes(f *testing.F) {
	f.Add(append([]byte(preface), head(0, frameHeaders, 0, 1)...), head(0, frameHeaders, flagEndStream, 1))
	data := append([]byte(preface), head(0, frameHeaders, 0, 1)...)
	data = append(append(data, head(3, frameData, 0, 1)...), 1, 2, 3)
	f.Add(slices.Clone(data), head(4, frameReset, 0, 1))
	f.Add(append(data, head(4, frameReset, 0, 1)...), []byte{})
	f.Add(append([]byte(preface), head(1<<24-1, frameData, 0, 1<<31-1)...), []byte{0})
	f.Fuzz(func(t *testing.T, in, out []byte) {
		g := newGuard(unlimited())
		c, err := g.accept(&sink{in: in})
		must(t, err)
		for buf := make([]byte, 17); ; {
			n, err := c.Read(buf)
			if n == 0 && err != nil {
				break
			}
		}
		_, _ = c.Write(out)
		held := int64(0)
		partial := int64(0)
		for _, s := range c.mu.streams {
			held += s.held
			if !s.whole {
				partial++
			}
		}
		if c.partial.Load() != partial {
			t.Fatalf("%d streams are not here in full, %d are counted", partial, c.partial.Load())
		}
		if c.incoming.Load() != held || c.need.Load() != held+connectionCost || c.reserved.Load() < c.need.Load() || g.ledger.Total() != c.reserved.Load() {
			t.Fatalf("streams hold %d; incoming %d, need %d, reserved %d, ledger %d", held, c.incoming.Load(), c.need.Load(), c.reserved.Load(), g.ledger.Total())
		}
		must(t, c.Close())
		must(t, c.Close())
		if c.need.Load() != 0 || g.ledger.Total() != 0 {
			t.Fatalf("left: %d, %d", c.need.Load(), g.ledger.Total())
		}
	})
}
