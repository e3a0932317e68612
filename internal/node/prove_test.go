package node

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// TestAChannelThatIsNotStoredYetIsTold: the queue is slow, so that it is not known whether the channel reads all of
// its log. It is watched, and nobody says that it is not.
func TestAChannelThatIsNotStoredYetIsTold(t *testing.T) {
	for name, hang := range map[string]bool{"it hangs": true, "it refuses": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			fast := make(chan struct{})
			w.broker.SetHooks(mqtest.Hooks{BeforeOpenReader: func(ctx context.Context, _ string, o mq.ReaderOptions) error {
				if !strings.Contains(o.Name, "#") { // not the dispatcher's
					return nil
				}
				select {
				case <-fast:
					return nil
				default:
				}
				if !hang {
					return errclass.New(errclass.Retryable, "the broker is busy")
				}
				select {
				case <-fast:
				case <-ctx.Done():
				}
				return ctx.Err()
			}})
			var later atomic.Int64
			r := w.open(func(o *Options) {
				o.Flush.SealAge = time.Millisecond
				o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			})
			r.create()
			told := func() (text string) {
				for _, line := range r.Troubles() {
					if strings.Contains(line, "nothing of it is stored before it is known") {
						text = line
					}
				}
				return text
			}
			eventually(t, "it is watched", func() bool { return len(r.Channels()) == 1 })
			if text := told(); text != "" {
				t.Errorf("told at once: %s", text)
			}
			later.Store(int64(provesWithin))
			why := "busy"
			if hang {
				why = "has not let it read yet"
			}
			eventually(t, "it is told why", func() bool { return strings.Contains(told(), why) })
			if all := r.UnstoredChannels(); len(all) > 0 {
				t.Errorf("it is said not to be watched: %+v", all)
			}
			close(fast)
			eventually(t, "it is stored", func() bool { return told() == "" })
		})
	}
}
