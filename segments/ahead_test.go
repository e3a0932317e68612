package segments

import (
	"math"
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// TestWhoBeginsToBuildKnowsWhatGrewBefore: a node that becomes the owner of a channel, which grew while another was, or none.
func TestWhoBeginsToBuildKnowsWhatGrewBefore(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	l := r.set.Ledger()
	r.insert(1, seq(0, 50)...)
	if n := l.Ahead(); n != 0 {
		t.Errorf("%d bytes ahead on a node that does not build", n)
	}
	for _, workers := range []int{1, 2, 0} {
		want := BuildBytes(r.coll.Info(), 50, workers)
		if workers == 0 {
			want = 0
		}
		r.ch.ToBuild(workers)
		if got := l.Ahead(); got != want {
			t.Errorf("with %d workers %d bytes are ahead, want %d", workers, got, want)
		}
	}
	r.insert(1, seq(50, 60)...)
	r.insert(2, seq(60, 70)...)
	if n := l.Ahead(); n != 0 {
		t.Errorf("%d bytes ahead once it does not build any more", n)
	}
}

// TestWhatIsLetGoOfIsNotAhead: nobody builds the index of a segment that is gone, whoever was to.
func TestWhatIsLetGoOfIsNotAhead(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	r.ch.ToBuild(1)
	r.insert(1, seq(0, 50)...)
	r.put(2, seq(50, 90), 0, false, 8)
	r.coll.DropPartition(7)
	want := BuildBytes(r.coll.Info(), 40, 1)
	eventually(t, "what is ahead is the smaller once the partition of the larger is dropped", func() bool { return r.set.Ledger().Ahead() == want })
	r.set.Remove(1)
	eventually(t, "nothing is ahead once the collection is gone", func() bool { return r.set.Ledger().Ahead() == 0 })
}

// TestWithoutACeilingThereIsRoomToReadEverything, and with one what the process has leaves none for files.
func TestWithoutACeilingThereIsRoomToReadEverything(t *testing.T) {
	l := NewLedger(0)
	if all, room := l.readable(5); all != 5 || room != math.MaxInt64 {
		t.Errorf("%d bytes are read and there is room for %d", all, room)
	}
	l.Observe(60, 100)
	if all, room := l.readable(-2); all != 3 || room != 40 {
		t.Errorf("%d bytes are read and there is room for %d, want 3 and 40", all, room)
	}
}
