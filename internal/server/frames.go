package server

import "encoding/binary"

// The parts of HTTP/2 that are needed to know whose bytes are coming in, and when
// a stream has ended. RFC 9113, sections 4.1 and 6.
const (
	frameHead = 9

	frameData    = 0x0
	frameHeaders = 0x1
	frameReset   = 0x3

	flagEndStream = 0x1
)

// preface is what a client sends before its first frame.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame is the head of a frame.
type frame struct {
	length int
	kind   byte
	flags  byte
	stream uint32
}

// frames finds the heads of frames in a connection's bytes, however they are cut.
// It keeps no more than one head.
type frames struct {
	skip int // bytes that are not a head
	have int // bytes of head
	head [frameHead]byte
}

// each calls do for each head in b, in order.
func (f *frames) each(b []byte, do func(frame)) {
	for len(b) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(b))
			f.skip -= n
			b = b[n:]
			continue
		}
		n := copy(f.head[f.have:], b)
		b = b[n:]
		if f.have += n; f.have < frameHead {
			return
		}
		f.have = 0
		h := frame{
			length: int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2]), kind: f.head[3], flags: f.head[4],
			stream: binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1),
		}
		f.skip = h.length
		do(h)
	}
}
