package flush

import (
	"slices"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
)

// TestASuccessorDoesNotStoreAgainWhatWasCompacted: this node follows a channel while
// another owns its log. That one stores a segment, moves the checkpoint and compacts the
// segment into another; then the log is this node's, before it has looked at the catalog.
func TestASuccessorDoesNotStoreAgainWhatWasCompacted(t *testing.T) {
	r := newRoad(t, 1, Options{Interval: time.Hour, CheckpointInterval: time.Hour})
	ch := r.channels[0]
	id := r.sealed(ch)
	at := ch.Applied()
	segment := catalog.Segment{CollectionID: ch.Collection().Info().ID, PartitionID: 1, VChannel: ch.Name(), Rows: 1, MinTimestamp: 2, MaxTimestamp: at.Timestamp}
	stored, compacted := segment, segment
	stored.ID, stored.Path = id, "elsewhere/stored"
	compacted.ID, compacted.Path, compacted.FoldedTimestamp = id+500, "elsewhere/compacted", at.Timestamp
	r.commit(ch, catalog.FlushCommit{AddSegments: []catalog.Segment{stored}, Checkpoint: positionText(at), CheckpointTimestamp: at.Timestamp})
	r.commit(ch, catalog.FlushCommit{AddSegments: []catalog.Segment{compacted}, RemoveSegments: []int64{id}, Replace: true})
	r.f.Kick()
	must(t, r.f.Wait(t.Context(), ch, ch.Tsafe(), id))
	if listed := r.listed(ch); !slices.Equal(listed, []int64{id + 500}) {
		t.Fatalf("segments %v, want %d alone: it has the rows of %d", listed, id+500, id)
	}
	if !ch.IsFlushed(id) {
		t.Error("it would be tried again")
	}
}

// TestASuccessorStoresWhatTheCheckpointHasNotPassed: the owner before it has read up to
// right before the first row, which is further than what this node had read by then.
func TestASuccessorStoresWhatTheCheckpointHasNotPassed(t *testing.T) {
	r := newRoad(t, 1, Options{Interval: time.Hour, CheckpointInterval: time.Hour})
	ch := r.channels[0]
	before := r.logged(ch) // this node does not know that it has read it
	id := r.sealed(ch)
	r.commit(ch, catalog.FlushCommit{Checkpoint: positionText(before), CheckpointTimestamp: before.Timestamp})
	growing, release := ch.Growing()
	start := growing[0].Start()
	release()
	if start.Timestamp >= before.Timestamp {
		t.Fatalf("begins at %d, want before %d", start.Timestamp, before.Timestamp)
	}
	if old := ch.Superseded(nil, before.Timestamp); len(old) > 0 {
		t.Errorf("superseded by nothing: %+v", old)
	}
	r.f.Kick()
	r.stored(ch, id)
}

func (r *road) commit(ch Channel, c catalog.FlushCommit) {
	r.t.Helper()
	_, err := r.f.o.Catalog.CommitFlush(r.t.Context(), ch.Name(), c)
	must(r.t, err)
}

func (r *road) listed(ch Channel) (ids []int64) {
	r.t.Helper()
	c, err := r.f.o.Catalog.Channel(r.t.Context(), ch.Name())
	must(r.t, err)
	for _, s := range c.Segments {
		ids = append(ids, s.ID)
	}
	return ids
}
