package flush

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Survey reads the log of a vchannel that is not watched, from its checkpoint on, and
// finds out whether it has what nobody has stored. It keeps no rows. It is the sink of a
// subscription, and done as soon as it knows.
type Survey struct {
	upTo   uint64 // it reads until here
	old    uint64 // what is older than this is found without looking further
	stored func(segment, partition int64) bool
	done   chan struct{}

	mu struct {
		sync.Mutex
		first   uint64
		ids     []int64
		nobodys map[int64]bool // segments whose rows are nobody's concern
		strange bool           // something cannot be read, or is of a newer build
		over    bool
	}
}

// NewSurvey reads up to the timestamp upTo. Once it has met something that is older than old
// and not stored, or segments that are sealed and not stored, it does not look for more.
// stored says of which segments the rows are nobody's concern: those that the catalog
// has, and those of partitions that are gone.
func NewSurvey(upTo, old uint64, stored func(segment, partition int64) bool) *Survey {
	s := &Survey{upTo: upTo, old: old, stored: stored, done: make(chan struct{})}
	s.mu.nobodys = map[int64]bool{}
	return s
}

// Done is closed once the survey knows.
func (s *Survey) Done() <-chan struct{} { return s.done }

// Found returns the timestamp of the first change that is not stored, 0 = there is none,
// and segments that are sealed and not stored; there may be more of them.
func (s *Survey) Found() (first uint64, sealed []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.first, s.mu.ids
}

// Nothing reports that a survey that is done has read all there is, and that all of it is stored.
func (s *Survey) Nothing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.over && s.mu.first == 0 && !s.mu.strange
}

// Apply implements the sink of a subscription. It returns no error: what cannot be decoded
// is set aside by whoever watches the channel.
func (s *Survey) Apply(_ context.Context, msgs []mq.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range msgs {
		if s.mu.over {
			return nil
		}
		m := &msgs[i]
		if m.Timestamp <= s.upTo && m.Key != "" {
			s.look(m)
		}
		if m.Timestamp >= s.upTo || len(s.mu.ids) > 0 || s.mu.first != 0 && s.mu.first < s.old {
			s.mu.over = true
			close(s.done)
		}
	}
	return nil
}

func (s *Survey) look(m *mq.Message) {
	e, err := wal.Decode(*m)
	if err != nil || !e.Type.Known() {
		s.mu.strange = true
		return
	}
	found := false
	switch e.Type {
	case wal.Insert, wal.Upsert:
		segment, partition := rowsOf(e.Body)
		found = !s.stored(segment, partition)
		if !found {
			s.mu.nobodys[segment] = true // also when it is sealed, which does not say of which partition
		}
		found = found || e.Type == wal.Upsert // deletes after the checkpoint are in no file
	case wal.Delete:
		found = true
	case wal.Seal:
		var body qnpb.WalSeal
		if s.mu.first == 0 || proto.Unmarshal(e.Body, &body) != nil {
			return
		}
		s.mu.ids = slices.DeleteFunc(body.GetSegmentIds(), func(id int64) bool { return s.mu.nobodys[id] || s.stored(id, 0) })
	}
	if found && s.mu.first == 0 {
		s.mu.first = m.Timestamp
	}
}

// rowsOf returns the segment and partition of a WalRows, without decoding the rows.
func rowsOf(body []byte) (segment, partition int64) {
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return segment, partition
		}
		body = body[n:]
		if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
			return segment, partition
		}
		if typ == protowire.VarintType {
			switch v, _ := protowire.ConsumeVarint(body); num {
			case 2:
				partition = int64(v)
			case 3:
				segment = int64(v)
			}
		}
		body = body[n:]
	}
	return segment, partition
}
