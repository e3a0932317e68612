package catalog

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// A topic was lost, another took its place. What was stored stays, an owner of before has no
// say, and checkpoints in the new topic are at or behind the moment up to which all is stored.
func TestAChannelBeginsAnew(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		col := create(t, c, "movies")
		v := col.VChannels[0].Name
		_, err := c.CommitFlush(t.Context(), v, FlushCommit{Term: 3, AddSegments: []Segment{segment(col, 0, 50)}, Checkpoint: "p5", CheckpointTimestamp: 5})
		must(t, err)
		for range 2 { // an answer may be lost
			must(t, c.BeginAnew(t.Context(), v, 4))
		}
		ch, err := open(t, b).Channel(t.Context(), v)
		must(t, err)
		if ch.Checkpoint != "" || ch.CheckpointTimestamp != 5 || ch.Term != 4 || len(ch.Segments) != 1 || ch.Version != 3 {
			t.Errorf("got %+v", ch)
		}
		_, err = c.CommitFlush(t.Context(), v, FlushCommit{Term: 3, Checkpoint: "p6", CheckpointTimestamp: 6})
		if !errclass.Is(err, errclass.Fenced) {
			t.Errorf("the owner of before: %v", err)
		}
		if err := c.BeginAnew(t.Context(), v, 3); !errclass.Is(err, errclass.Fenced) {
			t.Errorf("an earlier term: %v", err)
		}
		ch, err = c.CommitFlush(t.Context(), v, FlushCommit{Term: 5, Checkpoint: "a1", CheckpointTimestamp: 7})
		must(t, err)
		if ch.Checkpoint != "a1" || ch.CheckpointTimestamp != 7 {
			t.Errorf("got %+v", ch)
		}
		if err := c.BeginAnew(t.Context(), "dml-0_999v0", 9); !errclass.Is(err, errclass.NotFound) {
			t.Errorf("no such channel: %v", err)
		}
	})
}
