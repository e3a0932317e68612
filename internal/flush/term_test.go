package flush

import (
	"context"
	"testing"
	"time"
)

// TestANewTermBeginsAnew: what another owner may have sealed in between takes no
// rows any more, and a late append of the old term changes nothing.
func TestANewTermBeginsAnew(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	if !a.Enter(Log{VChannel: "v"}, 1) {
		t.Fatal("term 1 is refused")
	}
	first, done := assign(t, a, 1)
	done()
	if !a.Enter(Log{VChannel: "v"}, 1) {
		t.Fatal("term 1 is over in term 1")
	}
	if id, done := assign(t, a, 1); id != first {
		t.Fatalf("the same term went on with segment %d, not %d", id, first)
	} else {
		done()
	}
	if !a.Enter(Log{VChannel: "v"}, 3) || a.Enter(Log{VChannel: "v"}, 2) {
		t.Fatal("a term that is over was entered, or a new one was not")
	}
	if id, _ := assign(t, a, 1); id == first {
		t.Fatalf("segment %d of an earlier term takes rows", id)
	}
	if got := a.Close("v", time.Time{}); len(got) != 1 || got[0] == first {
		t.Fatalf("to be sealed: %v, without %d of an earlier term", got, first)
	}
}

// TestASealIsRememberedWithinItsTerm: entering the term again, as each append and
// each step of the loop does, forgets nothing.
func TestASealIsRememberedWithinItsTerm(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	a.Enter(Log{VChannel: "v"}, 1)
	id, done := assign(t, a, 1)
	done()
	a.Close("v", time.Time{})
	a.Sealed("v", 1, id)
	a.Enter(Log{VChannel: "v"}, 1)
	if a.CloseOne("v", 1, id) || !a.Adopt("v", 1, id, 1, 0) {
		t.Fatal("the seal was forgotten")
	}
	if next, _ := assign(t, a, 1); next == id {
		t.Fatalf("segment %d is sealed and was given out", id)
	}
	a.Forget("v")
	if !a.CloseOne("v", 1, id) {
		t.Fatal("a dropped channel is remembered")
	}
}

// TestASegmentThatIsBeingSealedIsNotAdopted: the loop looks at the growing
// segments while somebody seals those of an earlier run. What it adopted then
// would take rows after its seal.
func TestASegmentThatIsBeingSealedIsNotAdopted(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	if !a.CloseOne("v", 1, 100) {
		t.Fatal("an unknown segment needs no seal")
	}
	if err := a.Idle(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	if !a.Adopt("v", 1, 100, 7, 0) {
		t.Fatal("the loop would seal it a second time")
	}
	if id, _ := assign(t, a, 1); id == 100 {
		t.Fatal("a segment that is being sealed was given out")
	}
	if got := a.Close("v", time.Time{}); len(got) != 2 {
		t.Fatalf("to be sealed: %v, want what was opened since, and 100 in case its seal failed", got)
	}
	a.Sealed("v", 1, 100)
	if a.CloseOne("v", 1, 100) {
		t.Fatal("it is sealed a second time")
	}
}

// TestAnOpenSegmentIsClosedByItself: appends to it are waited for.
func TestAnOpenSegmentIsClosedByItself(t *testing.T) {
	a := newAssigner(ids(), func(int, int64) bool { return false })
	id, done := assign(t, a, 1)
	if !a.CloseOne("v", 1, id) {
		t.Fatal("an open segment needs no seal")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Idle(ctx, id); err == nil {
		t.Fatal("idle while an append is under way")
	}
	done()
	if err := a.Idle(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}
