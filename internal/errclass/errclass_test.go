package errclass

import (
	"testing"

	"github.com/cockroachdb/errors"
)

func TestClassSurvivesWrappingAndOutermostMarkCounts(t *testing.T) {
	base := New(Corrupt, "block %d", 7)
	wrapped := errors.Wrap(base, "load segment 42")
	if got := Of(wrapped); got != Corrupt {
		t.Fatalf("Of(wrapped) = %v, want corrupt", got)
	}
	if got := Of(Wrap(wrapped, Retryable, "again")); got != Retryable {
		t.Fatalf("outermost mark: got %v, want retryable", got)
	}
	if !errors.Is(wrapped, base) {
		t.Fatal("the mark hides the error it marks")
	}
}

func TestUnmarkedIsInternalAndNilStaysNil(t *testing.T) {
	if Of(errors.New("x")) != Internal {
		t.Fatal("an unmarked error is internal")
	}
	if Mark(nil, Corrupt) != nil || Wrap(nil, Corrupt, "x") != nil || Is(nil, Internal) {
		t.Fatal("nil became an error")
	}
}

func TestEveryClassHasAName(t *testing.T) {
	for c := Internal; c <= Panicked; c++ {
		if c.String() == "unknown" || c.String() == "" {
			t.Fatalf("class %d has no name", c)
		}
	}
}

func TestDetailsSurviveWrappingAndLeaveTheClass(t *testing.T) {
	err := Wrap(With(New(NotFound, "x"), Field), Retryable, "y")
	if DetailOf(err) != Field || Of(err) != Retryable {
		t.Errorf("%v: %q of class %v", err, DetailOf(err), Of(err))
	}
	if outer := With(err, Partial); DetailOf(outer) != Partial || Of(outer) != Retryable {
		t.Errorf("%q of class %v", DetailOf(outer), Of(outer))
	}
	if With(nil, Field) != nil || DetailOf(nil) != "" || DetailOf(errors.New("z")) != "" {
		t.Error("a detail came from nothing")
	}
}
