package catalog

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// What is known of a topic is kept, changed by who knows what was, and forgotten.
func TestATopicThatWasWrittenToIsRemembered(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		for _, step := range []struct{ instead, written, want string }{
			{"", "", ""},     // nothing to forget
			{"p0", "p1", ""}, // what it was to replace is not there
			{"", "p1", "p1"}, // the first
			{"", "p2", "p1"}, // of another node that knew of none
			{"p0", "p2", "p1"},
			{"p1", "p3", "p3"},
			{"p3", "p3", "p3"}, // a lost answer
			{"p3", "", ""},
			{"", "p4", "p4"},
		} {
			must(t, c.NoteWritten(t.Context(), "dml-0", step.instead, step.written))
			got, err := open(t, b).Written(t.Context(), "dml-0")
			if err != nil || got != step.want {
				t.Errorf("%+v: got %q, %v", step, got, err)
			}
		}
		if got, err := c.Written(t.Context(), "dml-1"); err != nil || got != "" {
			t.Errorf("of another topic: %q, %v", got, err)
		}
		if err := c.NoteWritten(t.Context(), "", "", "p"); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("no name: %v", err)
		}
	})
}
