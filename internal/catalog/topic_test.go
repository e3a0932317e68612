package catalog

import (
	"fmt"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// What is known of a topic is kept for each channel that it was noted for, and forgotten.
func TestATopicThatWasWrittenToIsRemembered(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		must(t, c.ForgetWritten(t.Context(), "dml-0")) // nothing to forget
		for _, step := range []struct {
			vchannel, position, want string
			young, names             []string
		}{
			{"a", "p1", "p1", []string{"a"}, []string{"a"}},
			{"a", "p2", "p1", []string{"a"}, []string{"a"}},                // a lost answer, or another owner
			{"b", "p3", "p3", []string{"a", "b"}, []string{"a", "b"}},      // holds for the other as well
			{"c", "p4", "p4", []string{"b", "c"}, []string{"b", "c"}},      // a is stored, or gone
			{"a", "p5", "p5", []string{"a", "b", "d"}, []string{"b", "a"}}, // d has not been written to
		} {
			must(t, c.NoteWritten(t.Context(), "dml-0", step.vchannel, step.position, step.young))
			got, err := open(t, b).Written(t.Context(), "dml-0")
			if err != nil || got.Position != step.want || !slices.Equal(got.VChannels, step.names) {
				t.Errorf("%+v: got %+v, %v", step, got, err)
			}
		}
		var all []string
		for i := range writtenMost + 5 {
			all = append(all, fmt.Sprintf("v%d", i))
			must(t, c.NoteWritten(t.Context(), "dml-1", all[i], "p", all))
		}
		if got, err := c.Written(t.Context(), "dml-1"); err != nil || !slices.Equal(got.VChannels, all[5:]) {
			t.Errorf("of many channels: %+v, %v", got, err)
		}
		must(t, c.ForgetWritten(t.Context(), "dml-0"))
		for _, of := range []string{"dml-0", "dml-2"} {
			if got, err := c.Written(t.Context(), of); err != nil || got.Position != "" || got.VChannels != nil {
				t.Errorf("%s: %+v, %v", of, got, err)
			}
		}
		if err := c.NoteWritten(t.Context(), "", "v", "p", nil); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("no name: %v", err)
		}
	})
}
