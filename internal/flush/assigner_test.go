package flush

import (
	"context"
	"slices"
	"testing"
	"time"
)

// ids hands out 1, 2, 3, ...
func ids() func(context.Context) (int64, error) {
	var n int64
	return func(context.Context) (int64, error) { n++; return n, nil }
}

func assign(t *testing.T, a *Assigner, rows int) (int64, func()) {
	t.Helper()
	id, done, err := a.Assign(t.Context(), Log{VChannel: "v"}, a.mu.terms["v"].term, 1, rows, 0)
	if err != nil {
		t.Fatal(err)
	}
	return id, done
}

func TestASegmentTakesRowsUntilItIsFull(t *testing.T) {
	a := newAssigner(ids(), func(rows int, _ int64) bool { return rows >= 10 })
	for i, want := range []int64{1, 1, 2} {
		id, done := assign(t, a, 5)
		done()
		if id != want {
			t.Fatalf("batch %d went to segment %d, want %d", i, id, want)
		}
	}
	if got := a.Close("v", time.Time{}); len(got) != 2 {
		t.Fatalf("to be sealed: %v, want the full one and the open one", got)
	}
}

// TestASealWaitsForAppends: no row may follow the seal of its segment.
func TestASealWaitsForAppends(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	id, done := assign(t, a, 1)
	a.Close("v", time.Time{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Idle(ctx, id); err == nil {
		t.Fatal("idle while an append is under way")
	}
	if next, _ := assign(t, a, 1); next == id {
		t.Fatal("a closed segment was given out")
	}
	done()
	if err := a.Idle(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// TestASealedSegmentIsNotAdopted: between the seal's append and its application
// the growing copy looks open. Taking it on again would lose what is written to it.
func TestASealedSegmentIsNotAdopted(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	id, done := assign(t, a, 1)
	done()
	a.Close("v", time.Time{})
	a.Sealed("v", 1, id)
	if !a.Adopt("v", 1, id, 1, 0) {
		t.Fatal("the caller would seal it twice")
	}
	if next, _ := assign(t, a, 1); next == id {
		t.Fatalf("segment %d is sealed and was given out", id)
	}
}

func TestAnEarlierRunsSegmentIsContinuedOrSealed(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	if !a.Adopt("v", 1, 100, 7, 0) {
		t.Fatal("not adopted though the partition has no open segment")
	}
	if id, _ := assign(t, a, 1); id != 100 {
		t.Fatalf("rows went to segment %d, want the adopted 100", id)
	}
	if a.Adopt("v", 1, 101, 7, 0) {
		t.Fatal("a second one for the same partition must be sealed by the caller")
	}
}

// Rows that nobody has in memory are bounded over all partitions: the largest go first.
func TestTheLargestAreSealedUntilTheOthersAreFew(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	v := Log{VChannel: "v"}
	for partition, bytes := range []int64{100, 500, 200, 300} {
		_, done, err := a.Assign(t.Context(), v, 1, int64(partition+1), 1, bytes)
		if err != nil {
			t.Fatal(err)
		}
		done()
	}
	if got := a.Overdue("v", time.Time{}.Add(1), 1100); len(got) != 0 {
		t.Fatalf("to be sealed: %v", got)
	}
	if got := a.Overdue("v", time.Time{}.Add(1), 400); !slices.Equal(got, []int64{2, 4}) {
		t.Fatalf("to be sealed: %v, want those of 500 and 300 bytes", got)
	}
	if got := a.Overdue("v", time.Now().Add(time.Hour), 400); !slices.Equal(got, []int64{1, 2, 3, 4}) {
		t.Fatalf("to be sealed: %v, want all, which are old", got)
	}
}
