package pulsar

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// kind says what an entry is.
type kind uint8

const (
	data  kind = 1 // messages
	claim kind = 2 // the writer takes the topic
	trim  kind = 3 // all before target may go
)

// entry is what one Pulsar message holds; doc.go draws it. base is the true
// state of the topic right after entry prev, so that whoever meets any entry
// can find the state at it by reading from prev on.
type entry struct {
	kind  kind
	term  uint64 // of the writer; 0 for trim
	nonce uint64 // of the writer: one for each OpenProducer
	prev  entryID
	base  state

	target        point  // of a trim
	count         uint32 // messages in body
	lastTimestamp uint64 // of the last of them
	body          []byte // frames
	bodySum       uint32 // as stored; decode leaves the check to messages
}

const (
	magic       = "QNPE"
	version     = 1
	headerBytes = 4 + 4 + 4 + 4 + 8 + 8 + 16 + stateBytes + pointBytes + 4 + 8
	frameBytes  = 8 + 2 + 4 // timestamp, key length, payload length
)

var (
	// errForeign: not an entry of this package, or one with its first bytes gone.
	errForeign = errors.New("pulsar: no entry of this queue")
	// errDamaged: an entry of this package that cannot be read.
	errDamaged = errors.New("pulsar: damaged entry")
)

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// encode returns the payload of the Pulsar message.
func (e *entry) encode() []byte {
	b := make([]byte, 0, headerBytes+len(e.body))
	b = append(b, magic...)
	b = append(b, version, byte(e.kind), 0, 0)
	b = append(b, 0, 0, 0, 0) // checksum of what follows in the header
	b = binary.BigEndian.AppendUint32(b, castagnoli(e.body))
	b = binary.BigEndian.AppendUint64(b, e.term)
	b = binary.BigEndian.AppendUint64(b, e.nonce)
	b = e.prev.appendTo(b)
	b = e.base.appendTo(b)
	b = e.target.appendTo(b)
	b = binary.BigEndian.AppendUint32(b, e.count)
	b = binary.BigEndian.AppendUint64(b, e.lastTimestamp)
	binary.BigEndian.PutUint32(b[8:], headerSum(b))
	return append(b, e.body...)
}

// headerSum covers the header but the checksum itself.
func headerSum(b []byte) uint32 {
	return crc32.Update(castagnoli(b[:8]), crc32.MakeTable(crc32.Castagnoli), b[12:headerBytes])
}

// decode reads the header of a payload; body aliases it. The error is
// errForeign or errDamaged.
func decode(b []byte) (*entry, error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, errors.Wrapf(errForeign, "%d bytes", len(b))
	}
	if len(b) < headerBytes {
		return nil, errors.Wrapf(errDamaged, "%d bytes, the header alone has %d", len(b), headerBytes)
	}
	if got, want := headerSum(b), binary.BigEndian.Uint32(b[8:]); got != want {
		return nil, errors.Wrapf(errDamaged, "header checksum %08x, want %08x", got, want)
	}
	if b[4] != version {
		return nil, errors.Wrapf(errDamaged, "version %d, this build reads %d", b[4], version)
	}
	e := &entry{
		kind: kind(b[5]), bodySum: binary.BigEndian.Uint32(b[12:]),
		term: binary.BigEndian.Uint64(b[16:]), nonce: binary.BigEndian.Uint64(b[24:]),
		prev: readEntryID(b[32:]), base: readState(b[48:]),
	}
	if e.kind < data || e.kind > trim {
		return nil, errors.Wrapf(errDamaged, "kind %d", e.kind)
	}
	rest := b[48+stateBytes:]
	e.target = readPoint(rest)
	e.count = binary.BigEndian.Uint32(rest[pointBytes:])
	e.lastTimestamp = binary.BigEndian.Uint64(rest[pointBytes+4:])
	e.body = b[headerBytes:]
	if e.kind == data && e.count == 0 {
		return nil, errors.Wrap(errDamaged, "no messages")
	}
	return e, nil
}

// appendFrame encodes one message behind b.
func appendFrame(b []byte, m *mq.Message) []byte {
	b = binary.BigEndian.AppendUint64(b, m.Timestamp)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Key)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Payload)))
	b = append(b, m.Key...)
	return append(b, m.Payload...)
}

// frameSize is what appendFrame adds.
func frameSize(m *mq.Message) int { return frameBytes + len(m.Key) + len(m.Payload) }

// messages decodes the messages of e, which is at id. They own their payloads.
func (e *entry) messages(id entryID) ([]mq.Message, error) {
	if got := castagnoli(e.body); got != e.bodySum {
		return nil, errors.Wrapf(errDamaged, "body checksum %08x, want %08x", got, e.bodySum)
	}
	if int64(e.count)*frameBytes > int64(len(e.body)) {
		return nil, errors.Wrapf(errDamaged, "%d messages in %d bytes", e.count, len(e.body))
	}
	out := make([]mq.Message, e.count)
	key, b := "", e.body
	for i := range out {
		if len(b) < frameBytes {
			return nil, errors.Wrapf(errDamaged, "message %d: %d bytes left", i, len(b))
		}
		ts, keyLen, size := binary.BigEndian.Uint64(b), int(binary.BigEndian.Uint16(b[8:])), int64(binary.BigEndian.Uint32(b[10:]))
		b = b[frameBytes:]
		if int64(keyLen)+size > int64(len(b)) {
			return nil, errors.Wrapf(errDamaged, "message %d: key %d and payload %d bytes, %d left", i, keyLen, size, len(b))
		}
		if string(b[:keyLen]) != key { // neighbours often have the same
			key = string(b[:keyLen])
		}
		out[i] = mq.Message{
			Position: point{id, uint32(i)}.position(ts), Timestamp: ts, Key: key,
			Payload: bytes.Clone(b[keyLen : int64(keyLen)+size]),
		}
		b = b[int64(keyLen)+size:]
	}
	if len(b) != 0 {
		return nil, errors.Wrapf(errDamaged, "%d bytes after the last message", len(b))
	}
	return out, nil
}
