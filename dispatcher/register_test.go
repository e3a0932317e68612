package dispatcher

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// TestTheRegisterTellsAllAboutAConsumer: whom it feeds, how far it is, how far
// behind in time and messages, how fast, how old, and what went wrong last.
func TestTheRegisterTellsAllAboutAConsumer(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		began := time.Now()
		w.subscribe("p", "a", mq.Position{}, &recorder{})
		h := w.subscribe("p", "b", mq.Position{}, &recorder{})
		w.in(h, Tailing)
		var last mq.Position
		for range 50 { // ten a second
			last = w.put("p", "a", "")
			time.Sleep(200 * time.Millisecond)
		}
		synctest.Wait()
		c := w.m.Consumers()
		if len(c) != 1 {
			t.Fatalf("%+v", c)
		}
		i := c[0]
		if i.PChannel != "p" || !slices.Equal(i.VChannels, []string{"a", "b"}) || i.Kind != Shared || i.State != ConsumerReading || i.LastErr != nil || i.Leaked {
			t.Errorf("%+v", i)
		}
		if i.Position.ID != last.ID || i.Messages != 100 || i.Lag.MS != 200 || i.Lag.Messages != 0 {
			t.Errorf("position %s, %d messages, lag %+v; the last is at %s", i.Position, i.Messages, i.Lag, last)
		}
		if i.Rate < 7 || i.Rate > 13 || i.Age != time.Since(began) {
			t.Errorf("%.1f messages a second, age %s", i.Rate, i.Age)
		}
		time.Sleep(30 * time.Second)
		if i := w.m.Consumers()[0]; i.Rate > 1 || i.Lag.MS != 30_200 {
			t.Errorf("when nothing comes: %.1f messages a second, lag %+v", i.Rate, i.Lag)
		}
		w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error { return errBroken }})
		w.put("p", "a")
		time.Sleep(5 * time.Second)
		if i := w.m.Consumers()[0]; !errors.Is(i.LastErr, errBroken) || i.State == ConsumerReading {
			t.Errorf("when the queue is away: %s, %v", i.State, i.LastErr)
		}
	})
}
