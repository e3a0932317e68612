package mq

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cockroachdb/errors"
)

// Position says where in a pchannel: right at one message. The zero Position
// is before every message.
//
// Positions of one pchannel are totally ordered by ID, compared as bytes: a
// backend encodes its message ids big-endian so that this holds, also across
// roll-over of whatever files or ledgers it has underneath.
type Position struct {
	// ID is opaque to all but the backend. Empty = before the first message.
	ID string
	// Timestamp is the message's hybrid timestamp; 0 when not known.
	Timestamp uint64
}

// IsZero reports whether p is the position before every message.
func (p Position) IsZero() bool { return p.ID == "" }

// Compare returns -1, 0 or +1 as p is before, at or after o in the same pchannel.
func (p Position) Compare(o Position) int { return strings.Compare(p.ID, o.ID) }

// Before reports whether p is before o in the same pchannel.
func (p Position) Before(o Position) bool { return p.ID < o.ID }

// String prints the id in hex and the timestamp, for logs.
func (p Position) String() string { return fmt.Sprintf("%x@%d", p.ID, p.Timestamp) }

// MarshalText encodes p as "<hex id>@<timestamp>".
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText decodes what MarshalText wrote.
func (p *Position) UnmarshalText(b []byte) error {
	id, ts, ok := strings.Cut(string(b), "@")
	if !ok {
		return errors.Newf("position %q: want <hex id>@<timestamp>", b)
	}
	raw, err := hex.DecodeString(id)
	if err != nil {
		return errors.Wrapf(err, "position %q", b)
	}
	var t uint64
	if _, err := fmt.Sscanf(ts, "%d", &t); err != nil {
		return errors.Wrapf(err, "position %q: timestamp", b)
	}
	*p = Position{ID: string(raw), Timestamp: t}
	return nil
}
