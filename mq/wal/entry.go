package wal

import (
	"encoding/binary"
	"hash/crc32"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Type says what an Entry holds. Numbers are stored: they are never reused.
// A number that this build does not know decodes without an error; Known tells.
type Type uint8

// The types. 0 is never written.
const (
	Insert         Type = 1
	Upsert         Type = 2
	Delete         Type = 3
	Seal           Type = 4 // no more rows for the segments listed in the body
	TimeTick       Type = 5 // nothing at or before its timestamp will come any more
	DropCollection Type = 6
	DropPartition  Type = 7
	Fence          Type = 8 // says nothing: that it is stored proves that its writer was the owner
)

// Known reports whether this build knows t.
func (t Type) Known() bool { return t >= Insert && t <= Fence }

// String returns the name used in logs, "unknown(n)" for an unknown type.
func (t Type) String() string {
	switch t {
	case Insert:
		return "insert"
	case Upsert:
		return "upsert"
	case Delete:
		return "delete"
	case Seal:
		return "seal"
	case TimeTick:
		return "timetick"
	case DropCollection:
		return "drop_collection"
	case DropPartition:
		return "drop_partition"
	case Fence:
		return "fence"
	}
	return "unknown(" + strconv.Itoa(int(t)) + ")"
}

// Entry is one record of the log.
type Entry struct {
	Type Type
	// VChannel is the shard that the entry is for; "" = all on the pchannel.
	// At most mq.MaxKeyBytes.
	VChannel string
	// Body is opaque here. At most MaxBodyBytes, and the queue may allow less.
	Body []byte
	// Timestamp is hybrid, see Compose. The WAL assigns it in Append.
	Timestamp uint64
	// Term is that of the owner who wrote the entry. The WAL sets it in Append.
	Term uint64
	// Position is where the entry is stored; set by Decode.
	Position mq.Position
}

// MaxBodyBytes bounds Entry.Body for every queue.
const MaxBodyBytes = 64 << 20

// LargestBody is how many bytes Entry.Body may have in the queue.
func LargestBody(q mq.Queue) int {
	if l, ok := q.(mq.Limited); ok {
		return min(MaxBodyBytes, l.MaxPayloadBytes()-envelopeBytes)
	}
	return MaxBodyBytes
}

// The envelope, big endian, at the start of each payload:
//
//	0  magic    'W'
//	1  version  1
//	2  type
//	3  flags    0; a flag that is not known makes the message one of a newer version
//	4  term     uint64
//	12 checksum CRC-32C of the key, bytes 0-11 and the body
//	16 body     to the end
//
// Timestamp, vchannel (key) and position travel in the mq.Message itself.
const (
	envelopeMagic   = 'W'
	envelopeVersion = 1
	envelopeBytes   = 16
)

// Encode returns e as a message of the queue. It copies the body. The class of
// an error is Invalid.
func Encode(e Entry) (mq.Message, error) {
	switch {
	case e.Type == 0:
		return mq.Message{}, errclass.New(errclass.Invalid, "encode entry: type is not set")
	case len(e.VChannel) > mq.MaxKeyBytes:
		return mq.Message{}, errors.Wrapf(mq.ErrTooLarge, "encode entry: vchannel has %d bytes, %d are allowed",
			len(e.VChannel), mq.MaxKeyBytes)
	case len(e.Body) > MaxBodyBytes:
		return mq.Message{}, errors.Wrapf(mq.ErrTooLarge, "encode entry: body has %d bytes, %d are allowed",
			len(e.Body), MaxBodyBytes)
	}
	p := make([]byte, envelopeBytes+len(e.Body))
	p[0], p[1], p[2] = envelopeMagic, envelopeVersion, byte(e.Type)
	binary.BigEndian.PutUint64(p[4:], e.Term)
	copy(p[envelopeBytes:], e.Body)
	binary.BigEndian.PutUint32(p[12:], checksum(e.VChannel, p))
	return mq.Message{Timestamp: e.Timestamp, Key: e.VChannel, Payload: p}, nil
}

// Decode returns the entry in m. Its Body shares the memory of m.Payload. The
// class of an error is Corrupt for what no version has ever written and
// Unimplemented for what a newer version has.
func Decode(m mq.Message) (Entry, error) {
	p := m.Payload
	switch {
	case len(p) < 2 || p[0] != envelopeMagic || p[1] == 0:
		return Entry{}, errclass.New(errclass.Corrupt, "decode entry at %s: no envelope in %d bytes", m.Position, len(p))
	case p[1] > envelopeVersion:
		return Entry{}, errclass.New(errclass.Unimplemented, "decode entry at %s: envelope version %d, this build knows up to %d",
			m.Position, p[1], envelopeVersion)
	case len(p) < envelopeBytes || len(p) > envelopeBytes+MaxBodyBytes || len(m.Key) > mq.MaxKeyBytes:
		return Entry{}, errclass.New(errclass.Corrupt, "decode entry at %s: key of %d bytes, payload of %d",
			m.Position, len(m.Key), len(p))
	case binary.BigEndian.Uint32(p[12:]) != checksum(m.Key, p):
		return Entry{}, errclass.New(errclass.Corrupt, "decode entry at %s: checksum does not match", m.Position)
	case p[3] != 0:
		return Entry{}, errclass.New(errclass.Unimplemented, "decode entry at %s: flags %#x are not known", m.Position, p[3])
	case p[2] == 0:
		return Entry{}, errclass.New(errclass.Corrupt, "decode entry at %s: type 0", m.Position)
	}
	e := Entry{
		Type: Type(p[2]), VChannel: m.Key, Timestamp: m.Timestamp,
		Term: binary.BigEndian.Uint64(p[4:]), Position: m.Position,
	}
	if len(p) > envelopeBytes {
		e.Body = p[envelopeBytes:len(p):len(p)]
	}
	return e, nil
}

func checksum(key string, p []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // shared by the library, not built anew
	sum := crc32.Update(0, table, []byte(key))
	sum = crc32.Update(sum, table, p[:12])
	return crc32.Update(sum, table, p[envelopeBytes:])
}
