package flush

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// entryAt is a message of the vchannel "v"; its position is its timestamp.
func entryAt(t *testing.T, ts uint64, typ wal.Type, body proto.Message) mq.Message {
	t.Helper()
	var raw []byte
	if body != nil {
		var err error
		raw, err = proto.Marshal(body)
		must(t, err)
	}
	e := wal.Entry{Type: typ, VChannel: "v", Body: raw, Timestamp: ts}
	if typ == wal.TimeTick {
		e.VChannel = ""
	}
	m, err := wal.Encode(e)
	must(t, err)
	return m
}

// A survey looks for what nobody has stored. Segment 1 is in the catalog, partition 9 is gone.
func TestASurveyFindsWhatIsNotStored(t *testing.T) {
	rows := func(ts uint64, typ wal.Type, segment, partition int64) mq.Message {
		return entryAt(t, ts, typ, &qnpb.WalRows{CollectionId: 5, PartitionId: partition, SegmentId: segment, Rows: 1,
			Fields: []*qnpb.FieldData{{FieldId: 100}}, SchemaVersion: 1})
	}
	seal := func(ts uint64, ids ...int64) mq.Message {
		return entryAt(t, ts, wal.Seal, &qnpb.WalSeal{CollectionId: 5, SegmentIds: ids})
	}
	tick := func(ts uint64) mq.Message { return entryAt(t, ts, wal.TimeTick, nil) }
	deletes := func(ts uint64) mq.Message { return entryAt(t, ts, wal.Delete, &qnpb.WalDelete{CollectionId: 5}) }
	damaged := mq.Message{Timestamp: 20, Key: "v", Payload: []byte("what is that")}
	for name, c := range map[string]struct {
		log   []mq.Message
		first uint64
		ids   []int64
		left  int // messages that it needs not have been given

		strange bool // nobody knows whether nothing is to be stored
	}{
		"nothing":                 {log: []mq.Message{tick(10), tick(100)}},
		"up to the end":           {log: []mq.Message{tick(10), tick(110), rows(120, wal.Insert, 2, 3)}, left: 1},
		"stored rows":             {log: []mq.Message{rows(50, wal.Insert, 1, 3), seal(60, 1), tick(100)}},
		"dropped rows":            {log: []mq.Message{rows(50, wal.Insert, 2, 9), tick(100)}},
		"what cannot be read":     {log: []mq.Message{rows(50, wal.Insert, 2, 9), damaged, tick(100)}, strange: true},
		"what nobody knows":       {log: []mq.Message{entryAt(t, 50, wal.Fence+1, nil), tick(100)}, strange: true},
		"rows of the last moment": {log: []mq.Message{tick(90), rows(100, wal.Insert, 2, 3)}, first: 100},
		"rows that are new":       {log: []mq.Message{rows(50, wal.Insert, 2, 3), rows(60, wal.Insert, 2, 3), tick(100)}, first: 50},
		"rows that are old":       {log: []mq.Message{rows(30, wal.Insert, 2, 3), rows(60, wal.Insert, 2, 3)}, first: 30, left: 1},
		"rows of the second kind": {log: []mq.Message{rows(50, wal.Upsert, 1, 3), tick(100)}, first: 50},
		"deletes":                 {log: []mq.Message{deletes(50), tick(100)}, first: 50},
		"a seal":                  {log: []mq.Message{rows(50, wal.Insert, 2, 3), seal(60, 1, 2), tick(100)}, first: 50, ids: []int64{2}, left: 1},
		"a seal of dropped rows":  {log: []mq.Message{rows(45, wal.Insert, 2, 9), rows(50, wal.Insert, 3, 3), rows(51, wal.Upsert, 4, 9), seal(60, 2, 4), tick(100)}, first: 50},
		"a seal of both":          {log: []mq.Message{rows(45, wal.Insert, 2, 9), rows(50, wal.Insert, 3, 3), seal(60, 2, 3), tick(100)}, first: 50, ids: []int64{3}, left: 1},
		"a seal of nothing":       {log: []mq.Message{seal(60, 2), tick(100)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSurvey(100, 40, func(segment, partition int64) bool { return segment == 1 || partition == 9 })
			need := len(c.log) - c.left
			for i := range c.log {
				select {
				case <-s.Done():
					if i < need {
						t.Errorf("it is done after %d of %d messages", i, need)
					}
				default:
					if i >= need {
						t.Errorf("it is not done after %d messages", i)
					}
				}
				must(t, s.Apply(t.Context(), c.log[i:i+1]))
			}
			select {
			case <-s.Done():
			default:
				t.Error("it is not done at the end")
			}
			if first, ids := s.Found(); first != c.first || !slices.Equal(ids, c.ids) {
				t.Errorf("found %d and segments %v, want %d and %v", first, ids, c.first, c.ids)
			}
			if want := c.first == 0 && !c.strange; s.Nothing() != want {
				t.Errorf("there is nothing: %t, want %t", s.Nothing(), want)
			}
		})
	}
}
