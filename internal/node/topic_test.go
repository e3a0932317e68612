package node

import (
	"context"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

// TestAManifestThatCannotBeReadHoldsUpNoOtherChannel: what is known of a topic is told all the same,
// and the others begin anew. Once it is restored its channel does, too, and nothing of the others is lost.
func TestAManifestThatCannotBeReadHoldsUpNoOtherChannel(t *testing.T) {
	w := newWorld(t)
	r := w.open(nil).ready()
	r.create()
	r.createAs("other", 1)
	r.insert(between(0, 10)...)
	r.flush()
	r.checkpointed()
	other, err := r.Collection(within(t), "other")
	must(t, err)
	damaged := other.VChannels[0].Name
	eventually(t, "the other channel has a checkpoint", func() bool {
		c, err := r.o.Catalog.Channel(within(t), damaged)
		return err == nil && c.Checkpoint != ""
	})
	r.close()
	damage := func(is bool) {
		w.bucket.set(func(_ context.Context, key string) string {
			if is && strings.Contains(key, "/channels/"+damaged) {
				return "catalog/ids.json" // is none
			}
			return key
		})
	}
	look := func() Topic {
		t.Helper()
		c, err := catalog.Open(within(t), catalog.Options{Bucket: w.bucket})
		must(t, err)
		q := w.broker.Connect()
		topics, err := LookAtTopic(within(t), c, q, topic)
		must(t, err)
		must(t, q.Close(within(t)))
		return topics
	}
	damage(true)
	if got := look(); got.Lost != nil || got.Channels != 1 || got.Unread == nil || !strings.Contains(got.Unread.Error(), damaged) {
		t.Errorf("%+v", got)
	}
	w.broker = w.anew(t, true)
	got, err := w.beginAnew(t)
	must(t, err)
	if got.Lost == nil || got.Channels != 1 || got.Unread == nil || got.Stored.IsZero() {
		t.Errorf("%+v", got)
	}
	r = w.open(dispatched)
	r.own()
	r.load()
	r.insert(between(10, 15)...)
	r.has(15)
	r.close()
	damage(false)
	r = w.open(nil)
	eventually(t, "it is told what to do", func() bool {
		err := r.Problem()
		return err != nil && strings.Contains(err.Error(), "begin-anew "+topic)
	})
	r.close()
	if got := look(); got.Lost == nil || got.Channels != 2 || got.Unread != nil {
		t.Errorf("%+v", got)
	}
	if _, err = w.beginAnew(t); err != nil {
		t.Errorf("%v", err)
	}
	if _, err = w.beginAnew(t); !errclass.Is(err, errclass.Conflict) {
		t.Errorf("it is begun anew twice: %v", err)
	}
	w.open(nil).ready().has(15)
}
