package server

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// watcher counts what it is told.
type watcher struct {
	qnpb.ControlService_WatchDistributionServer
	ctx  context.Context
	told chan *qnpb.Distribution
}

func (w *watcher) Context() context.Context { return w.ctx }

func (w *watcher) Send(r *qnpb.WatchDistributionResponse) error {
	select {
	case w.told <- r.Distribution:
	case <-w.ctx.Done():
	}
	return nil
}

// TestWatchersShareWhatTheyAreTold: many watchers and many changes cost few looks
// into the catalog, and the last thing that everybody hears is how things are.
func TestWatchersShareWhatTheyAreTold(t *testing.T) {
	const watchers, flushes = 20, 8
	r := newRig(t, 0)
	r.create(r.dial())
	s := newControlService(r.o.Node, r.load)
	var looks atomic.Int64
	look := s.watched.list
	s.watched.list = func(ctx context.Context) ([]*catalog.Collection, error) {
		looks.Add(1)
		return look(ctx)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, watchers)
	var all []*watcher
	for range watchers {
		w := &watcher{ctx: ctx, told: make(chan *qnpb.Distribution, 1000)}
		all = append(all, w)
		go func() { ended <- s.WatchDistribution(nil, w) }()
	}
	first := <-all[0].told
	changes := r.version() - first.Version
	insert := qnpb.NewWriteServiceClient(r.dial())
	for i := range int64(flushes) { // a growing segment, sealed and stored
		_, err := insert.Append(r.within(), insertOf(i, i+1, 1))
		must(t, err)
		_, err = insert.Flush(r.within(), &qnpb.FlushRequest{Collection: "things", Wait: true})
		must(t, err)
	}
	_, err := qnpb.NewCatalogServiceClient(r.dial()).CreatePartition(r.within(), &qnpb.CreatePartitionRequest{Collection: "things", Partition: "odd"})
	must(t, err)
	odd := insertOf(1000, 1001, 1)
	odd.Partition = "odd"
	_, err = insert.Append(r.within(), odd)
	must(t, err)
	changes = r.version() - first.Version - changes
	for _, w := range all {
		heard := int64(0)
		for seen := false; !seen; {
			select {
			case d := <-w.told:
				heard++
				for _, x := range d.Segments {
					seen = seen || x.Partition == "odd"
				}
			case <-time.After(hang):
				t.Fatal("a watcher was not told of the last change")
			}
		}
		if heard > changes+2 {
			t.Errorf("%d messages for %d changes", heard, changes)
		}
	}
	cancel()
	for range watchers {
		must(t, <-ended)
	}
	// One for each partition or collection that was new, and one every few seconds.
	t.Logf("%d changes, %d watchers: %d looks into the catalog", changes, watchers, looks.Load())
	if n := looks.Load(); n > 2*flushes {
		t.Errorf("%d looks into the catalog", n)
	}
}

func (r *rig) version() int64 {
	v, _, _ := r.o.Node.Version()
	return v
}
