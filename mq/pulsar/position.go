package pulsar

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// entryID names one entry of a topic: Pulsar's ledger and the entry's number in
// it. Ledger ids of a topic only grow. The client's message ids have two more
// parts, of a batch and of a partition, that are not used here.
type entryID struct{ ledger, entry int64 }

// none is before every entry.
func none() entryID { return entryID{-1, -1} }

func (a entryID) isNone() bool { return a.ledger < 0 }

func (a entryID) compare(b entryID) int {
	return cmp.Or(cmp.Compare(a.ledger, b.ledger), cmp.Compare(a.entry, b.entry))
}

// follows says that nothing can be between b and a: entries of a ledger are
// numbered without holes. It is false when a begins a ledger.
func (a entryID) follows(b entryID) bool { return a.ledger == b.ledger && a.entry == b.entry+1 }

func (a entryID) String() string { return fmt.Sprintf("%d:%d", a.ledger, a.entry) }

// point names one message: its entry, and its number there.
type point struct {
	entryID
	slot uint32
}

func noPoint() point { return point{entryID: none()} }

func (p point) compare(o point) int {
	return cmp.Or(p.entryID.compare(o.entryID), cmp.Compare(p.slot, o.slot))
}

const pointBytes = 8 + 8 + 4

// appendTo encodes p big-endian, so that ids compare as bytes. Only none has
// negative parts and it never becomes a Position.
func (p point) appendTo(b []byte) []byte {
	b = p.entryID.appendTo(b)
	return binary.BigEndian.AppendUint32(b, p.slot)
}

func (a entryID) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(a.ledger))
	return binary.BigEndian.AppendUint64(b, uint64(a.entry))
}

func (p point) position(timestamp uint64) mq.Position {
	return mq.Position{ID: string(p.appendTo(make([]byte, 0, pointBytes))), Timestamp: timestamp}
}

// decodePoint is for untrusted positions that are not zero.
func decodePoint(pos mq.Position) (point, error) {
	if len(pos.ID) != pointBytes {
		return point{}, errclass.New(errclass.Invalid, "position %s is not one of this queue: %d bytes, want %d", pos, len(pos.ID), pointBytes)
	}
	p := readPoint([]byte(pos.ID))
	if p.ledger < 0 || p.entry < 0 {
		return point{}, errclass.New(errclass.Invalid, "position %s is not one of this queue: no such ledger or entry", pos)
	}
	return p, nil
}

func readPoint(b []byte) point {
	return point{entryID: readEntryID(b), slot: binary.BigEndian.Uint32(b[16:])}
}

func readEntryID(b []byte) entryID {
	return entryID{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}
}
