package segments

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// TestRowsAfterTheEndOfTheirSegmentAreNotPassedOver without a word: those that are replayed of a segment that is stored are in it, and
// others would be nowhere.
func TestRowsAfterTheEndOfTheirSegmentAreNotPassedOver(t *testing.T) {
	r := newRig(t, rigOptions{})
	var err error
	r.coll.Unwatch("v")
	if r.ch, err = r.coll.Watch("v", Position{Timestamp: r.now}, map[int64]uint64{1: r.now + 10, 2: Latest}); err != nil {
		t.Fatal(err)
	}
	rows := func(segment int64, at uint64) error {
		return r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 1, Batch: r.batch([]int64{int64(at)}, 1)}, Position{Timestamp: at})
	}
	for _, at := range []uint64{r.now + 1, r.now + 10} {
		if err := rows(1, at); err != nil {
			t.Errorf("rows that are replayed at %d: %v", at, err)
		}
	}
	if err := rows(1, r.now+11); !errclass.Is(err, errclass.Conflict) {
		t.Errorf("rows after the newest that is stored: %v", err)
	}
	if err := rows(2, r.now+12); err != nil {
		t.Errorf("rows of a segment of which it is not known: %v", err)
	}

	// Of a segment that is stored while it is watched.
	if err := rows(3, r.now+13); err != nil {
		t.Fatal(err)
	}
	r.ch.ApplySeal([]int64{3}, Position{Timestamp: r.now + 14})
	r.ch.MarkFlushed(3)
	r.ch.Forget(3)
	if err := rows(3, r.now+15); !errclass.Is(err, errclass.Conflict) {
		t.Errorf("rows after the seal: %v", err)
	}
}
