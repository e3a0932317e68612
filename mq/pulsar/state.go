package pulsar

import (
	"encoding/binary"

	"github.com/querynode/querynode/mq"
)

// state is what a topic is at one place of its log: who owns it, how many
// entries count, where it begins and ends. It is a pure function of all entries
// up to there, so that everyone who reads the log comes to the same one.
type state struct {
	term  uint64
	nonce uint64 // of the owner; 0 before the first
	index uint64 // how many claims and data entries have counted
	trim  point  // the oldest message that may be read; none = all
	last  point  // the newest message; none = there was never one

	lastTimestamp uint64 // of the newest message
}

const stateBytes = 8 + 8 + 8 + pointBytes + pointBytes + 8

// newborn is the state of a topic without entries.
func newborn() state { return state{trim: noPoint(), last: noPoint()} }

func (s *state) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, s.term)
	b = binary.BigEndian.AppendUint64(b, s.nonce)
	b = binary.BigEndian.AppendUint64(b, s.index)
	b = s.trim.appendTo(b)
	b = s.last.appendTo(b)
	return binary.BigEndian.AppendUint64(b, s.lastTimestamp)
}

func readState(b []byte) state {
	return state{
		term: binary.BigEndian.Uint64(b), nonce: binary.BigEndian.Uint64(b[8:]), index: binary.BigEndian.Uint64(b[16:]),
		trim: readPoint(b[24:]), last: readPoint(b[24+pointBytes:]), lastTimestamp: binary.BigEndian.Uint64(b[24+2*pointBytes:]),
	}
}

// lastPosition is that of the newest message, zero if there is none.
func (s *state) lastPosition() mq.Position {
	if s.last.isNone() {
		return mq.Position{}
	}
	return s.last.position(s.lastTimestamp)
}

// verdict says what an entry is to the log.
type verdict uint8

const (
	counts    verdict = iota // it has changed the state
	void                     // by a writer that did not own the topic: as if it were not there
	duplicate                // of an entry before it, sent again by the client
	gap                      // entries before it that counted are missing; the state is as before
)

// fold moves s over the entry e, which is at id. It decides all there is to
// decide: which owner holds, which entry is stored.
//
//   - A claim counts if its term is higher than the owner's, or if it is equal
//     and the claimer knew this owner. The second half makes an equal claim a
//     compare-and-swap: one that was given up by its caller and comes late
//     cannot take the topic from the one that came after it.
//   - Data count if they are the owner's and follow what counted last. A client
//     that sends an entry again after a lost acknowledgement thus stores it once.
//   - A trim counts from anyone.
func (s *state) fold(e *entry, id entryID) verdict {
	if e.base.index > s.index {
		return gap
	}
	switch e.kind {
	case claim:
		if e.nonce == s.nonce {
			return duplicate
		}
		if e.term < s.term || e.term == s.term && e.base.nonce != s.nonce {
			return void
		}
		s.term, s.nonce = e.term, e.nonce
		s.index++
	case data:
		if e.nonce != s.nonce {
			return void
		}
		if e.base.index < s.index {
			return duplicate
		}
		s.index++
		s.last, s.lastTimestamp = point{id, e.count - 1}, e.lastTimestamp
	case trim:
		if e.target.compare(s.trim) <= 0 || e.target.compare(s.last) > 0 {
			return duplicate
		}
		s.trim = e.target
	}
	return counts
}
