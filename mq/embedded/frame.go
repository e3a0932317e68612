package embedded

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/querynode/querynode/mq"
)

// frameHeaderBytes is the size of a frame without key and payload; doc.go has the layout.
const frameHeaderBytes = 40

const marker = "\xe7QN\x1a"

// frame is a decoded frame; key and payload point into the decoder's buffer.
type frame struct {
	header
	key     []byte
	payload []byte
}

type header struct {
	bodySum    uint32
	payloadLen int
	keyLen     int
	left       uint32 // frames of the same batch that follow
	seq        uint64
	timestamp  uint64
}

func (h header) size() int64 { return frameHeaderBytes + int64(h.keyLen) + int64(h.payloadLen) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// headerSum is the checksum of salt and a frame's header.
func headerSum(salt uint64, b []byte) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, b[8:frameHeaderBytes])
}

// parseHeader decodes the header of a frame; false when it is none of a segment
// with this salt. Lengths are bounded.
func parseHeader(b []byte, salt uint64) (header, bool) {
	if len(b) < frameHeaderBytes || string(b[:4]) != marker ||
		binary.LittleEndian.Uint32(b[4:]) != headerSum(salt, b) {
		return header{}, false
	}
	payload := binary.LittleEndian.Uint32(b[12:])
	h := header{
		bodySum:    binary.LittleEndian.Uint32(b[8:]),
		payloadLen: int(payload),
		keyLen:     int(binary.LittleEndian.Uint16(b[16:])),
		left:       binary.LittleEndian.Uint32(b[20:]),
		seq:        binary.LittleEndian.Uint64(b[24:]),
		timestamp:  binary.LittleEndian.Uint64(b[32:]),
	}
	return h, payload <= maxPayloadHard && h.keyLen <= mq.MaxKeyBytes
}

// encodeBatch appends the frames of msgs to buf. Sequence numbers and header
// checksums are still missing: number adds them.
func encodeBatch(buf []byte, msgs []mq.Message) []byte {
	for i, m := range msgs {
		at := len(buf)
		buf = append(buf, marker...)
		buf = binary.LittleEndian.AppendUint32(buf, 0)
		buf = binary.LittleEndian.AppendUint32(buf, 0)
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(m.Payload)))
		buf = binary.LittleEndian.AppendUint16(buf, uint16(len(m.Key)))
		buf = binary.LittleEndian.AppendUint16(buf, 0)
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(msgs)-1-i))
		buf = binary.LittleEndian.AppendUint64(buf, 0)
		buf = binary.LittleEndian.AppendUint64(buf, m.Timestamp)
		buf = append(buf, m.Key...)
		buf = append(buf, m.Payload...)
		binary.LittleEndian.PutUint32(buf[at+8:], crc32.Checksum(buf[at+frameHeaderBytes:], castagnoli))
	}
	return buf
}

// number gives the frames in buf the numbers from seq on and calls each with
// offset, number and timestamp. buf is what encodeBatch wrote.
func number(buf []byte, salt, seq uint64, each func(off int, seq, timestamp uint64)) {
	for off := 0; off < len(buf); seq++ {
		b := buf[off:]
		binary.LittleEndian.PutUint64(b[24:], seq)
		binary.LittleEndian.PutUint32(b[4:], headerSum(salt, b))
		each(off, seq, binary.LittleEndian.Uint64(b[32:]))
		off += frameHeaderBytes + int(binary.LittleEndian.Uint16(b[16:])) + int(binary.LittleEndian.Uint32(b[12:]))
	}
}

func encodeSeq(n uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return string(b[:])
}

func position(seq, timestamp uint64) mq.Position {
	return mq.Position{ID: encodeSeq(seq), Timestamp: timestamp}
}
