package node

import (
	"testing"

	"github.com/querynode/querynode/internal/catalog"
)

// TestOnlyTheOwnChannelOfABrokenSegmentSaysThatItIsGone: a channel lists none of those of others.
func TestOnlyTheOwnChannelOfABrokenSegmentSaysThatItIsGone(t *testing.T) {
	r := newWorld(t).open(nil).ready()
	r.create()
	r.insert(1)
	coll, err := r.Collection(within(t), things)
	must(t, err)
	s := r.servingOf(coll.ID)
	r.Node.mu.Lock()
	s.broken = []Broken{{SegmentID: 11, VChannel: "one"}, {SegmentID: 12, VChannel: "one"}, {SegmentID: 13, VChannel: "two"}}
	r.Node.mu.Unlock()
	r.prune(s, &catalog.Channel{VChannel: "one", Segments: []catalog.Segment{{ID: 12}}})
	var left []int64
	for _, b := range r.Broken(coll.ID) {
		left = append(left, b.SegmentID)
	}
	if len(left) != 2 || left[0] != 12 || left[1] != 13 {
		t.Errorf("broken are %v, want 12, which is listed, and 13, which is of another channel", left)
	}
	r.Node.mu.Lock()
	s.broken = nil
	r.Node.mu.Unlock()
}
