package node

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
	"github.com/querynode/querynode/mq/wal"
)

// rowsIn reports whether messages carry more than the time.
func rowsIn(msgs []mq.Message) bool {
	return slices.ContainsFunc(msgs, func(m mq.Message) bool {
		e, err := wal.Decode(m)
		return err != nil || e.Type != wal.TimeTick
	})
}

// A change of four channels ends differently in each topic: whoever hears that parts were
// refused must hear of the one that may be written, whichever ended first.
func TestAPartOfAChangeThatIsInDoubtIsNotToldAsRefused(t *testing.T) {
	w := newWorld(t)
	topics := []string{"topic-0", "topic-1", "topic-2", "topic-3"}
	r := w.open(func(o *Options) { o.PChannels = topics }).ready()
	_, err := r.CreateCollection(within(t), NewCollection{Name: things, Shards: len(topics), Schema: schema.Schema{Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}})
	must(t, err)
	r.insert(between(0, 100)...) // the topics are noted in the catalog
	w.broker.SetHooks(mqtest.Hooks{BeforeAppend: func(_ context.Context, topic string, msgs []mq.Message) error {
		switch {
		case !rowsIn(msgs):
			return nil
		case topic == topics[1], topic == topics[2]:
			return errclass.New(errclass.Exhausted, "no room in %s", topic)
		case topic == topics[3]:
			return errors.Wrapf(mq.ErrUnknownOutcome, "%s has not answered", topic)
		}
		return nil
	}})
	_, err = r.Delete(within(t), things, "", keysOf(between(0, 100)...))
	if !errors.Is(err, mq.ErrUnknownOutcome) || !errclass.Is(err, errclass.Retryable) {
		t.Errorf("one part may be written, and it is %v: %v", errclass.Of(err), err)
	}
	if want := "of 4 parts of the change: 1 written, 2 refused, 1 in doubt, which may be written: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s...", err, want)
	}
}

func TestWhatBecameOfTheParts(t *testing.T) {
	full, gone := errclass.New(errclass.Exhausted, "full"), errclass.New(errclass.Fenced, "gone")
	for _, c := range []struct {
		ended []error
		all   int
		want  string
		class errclass.Class
	}{
		{[]error{nil, nil}, 2, "", 0},
		{[]error{nil, full, gone}, 3, "of 3 parts of the change: 1 written, 2 refused: full", errclass.Exhausted},
		{[]error{gone}, 3, "of 3 parts of the change: 3 refused: gone", errclass.Fenced},
	} {
		p := parts{all: c.all}
		for _, err := range c.ended {
			p.ended(err)
		}
		switch err := p.err(); {
		case c.want == "" && err != nil, c.want != "" && (err == nil || err.Error() != c.want):
			t.Errorf("%v is told as %v, want %q", c.ended, err, c.want)
		case c.want != "" && errclass.Of(err) != c.class:
			t.Errorf("%v has the class %v", err, errclass.Of(err))
		}
	}
}
