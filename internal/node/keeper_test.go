package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

func (r *rig) createAs(name string, shards int) (id int64, vchannels []string) {
	r.t.Helper()
	c, err := r.CreateCollection(within(r.t), NewCollection{Name: name, Shards: shards, Schema: schema.Schema{Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}})
	must(r.t, err)
	for _, v := range c.VChannels {
		vchannels = append(vchannels, v.Name)
	}
	return c.ID, vchannels
}

func (r *rig) watches(vchannel string) bool {
	for _, c := range r.Channels() {
		if c.VChannel == vchannel {
			return true
		}
	}
	return false
}

func (r *rig) servingOf(id int64) *serving {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.serving[id]
}

// TestAChannelThatCannotBeginAnewIsNotForgotten: the catalog is away when the subscription
// of one of two channels has to begin anew. Reads do not answer from the other alone.
func TestAChannelThatCannotBeginAnewIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	r := w.open(dispatched)
	r.own()
	id, vchannels := r.createAs(things, 2)
	_, err := r.WatchChannels(within(t), things, nil)
	must(t, err)
	r.insert(between(0, 20)...)
	r.flush()
	var segments []int64
	for _, v := range vchannels {
		c, err := r.o.Catalog.Channel(within(t), v)
		must(t, err)
		for _, seg := range c.Segments {
			segments = append(segments, seg.ID)
		}
	}
	_, err = r.LoadSegments(within(t), things, segments)
	must(t, err)
	r.insert(between(20, 40)...)
	r.has(40)
	coll, err := r.Collection(within(t), things)
	must(t, err)
	w.bucket.set(func(_ context.Context, key string) string {
		if strings.Contains(key, "channels/"+vchannels[0]) {
			return "not/there"
		}
		return key
	})
	s := r.servingOf(id)
	s.turn <- struct{}{}
	err = r.watchAnew(within(t), s, coll, coll.VChannels[0]) // as watch does when the subscription has failed
	<-s.turn
	if err == nil {
		t.Fatal("it began anew without the catalog")
	}
	for range 20 {
		if n, _, err := r.count(within(t), false); !errclass.Is(err, errclass.Retryable) {
			t.Fatalf("a read finds %d rows: %v", n, err)
		}
	}
	w.bucket.set(nil)
	eventually(t, "the channel is watched again", func() bool { return r.watches(vchannels[0]) })
	r.has(40)
}

// of returns keys from a range whose rows go to one shard of a collection.
func (r *rig) of(shard int, ids []int64) (out []int64) {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	for _, row := range r.shard(coll, keysOf(ids...))[shard] {
		out = append(out, ids[row])
	}
	if len(out) == 0 {
		r.t.Fatalf("no key of %d is of shard %d", len(ids), shard)
	}
	return out
}

// TestAReleaseThatEndsHalfWayIsEnded: of two channels the first is left at once, since all of
// it is stored, and the flush of the other hangs.
func TestAReleaseThatEndsHalfWayIsEnded(t *testing.T) {
	storage := &stuck{}
	r := newWorld(t).open(func(o *Options) {
		dispatched(o)
		storage.Bucket, o.Bucket = o.Bucket, storage
	})
	gate := make(chan struct{})
	open := sync.OnceFunc(func() {
		storage.gate.Store(nil)
		close(gate)
	})
	t.Cleanup(open) // before the node is closed
	r.own()
	id, vchannels := r.createAs(things, 2)
	r.load()
	r.insert(between(0, 100)...)
	r.flush()
	r.load()
	more := r.of(1, between(100, 200))
	r.insert(more...)
	r.has(int64(100 + len(more)))
	storage.gate.Store(&gate)
	_, _, err := r.Flush(within(t), things, false)
	must(t, err)
	eventually(t, "a write hangs", func() bool { return storage.hang.Load() > 0 })
	s := r.servingOf(id)
	ctx, cancel := context.WithCancel(within(t))
	left := make(chan error, 1)
	go func() {
		_, err := r.ReleaseSegments(ctx, things, nil)
		left <- err
	}()
	eventually(t, "one is left", func() bool { return slices.Equal(r.wantedOf(s), vchannels[1:]) })
	cancel()
	if err := <-left; err == nil {
		t.Error("nobody says that a channel could not be left")
	}
	for range 20 {
		if n, _, err := r.count(within(t), false); err == nil {
			t.Fatalf("a read finds %d rows of a collection that was half let go of", n)
		}
	}
	open()
	eventually(t, "the rest is let go of", func() bool { return len(r.wantedOf(s)) == 0 && !s.leaving.Load() })
}

// TestOneManifestThatCannotBeReadHoldsUpNothingElse: it is damaged, or of a newer build.
func TestOneManifestThatCannotBeReadHoldsUpNothingElse(t *testing.T) {
	for _, what := range []string{"collections/", "channels/"} {
		for name, with := range map[string]string{"damaged": "garbage", "of a newer build": `{"format": 99, "version": 1}`} {
			t.Run(what+name, func(t *testing.T) {
				w := newWorld(t)
				r := w.open(nil).ready()
				r.create()
				r.insert(between(0, 10)...)
				id, _ := r.createAs("other", 1)
				r.close()
				var key string
				must(t, w.bucket.List(within(t), "", "", func(i objstore.Info) error {
					if strings.Contains(i.Key, what) && strings.Contains(i.Key, fmt.Sprint(id)) {
						key = i.Key
					}
					return nil
				}))
				good, err := objstore.ReadAll(within(t), w.bucket, key, 1<<20)
				must(t, err)
				put := func(data []byte) {
					_, err := w.bucket.Put(within(t), key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{})
					must(t, err)
				}
				put([]byte(with))
				r = w.open(nil).ready()
				r.has(10)
				r.insert(between(10, 20)...)
				r.flush()
				r.has(20)
				if aside := r.SetAside(); len(aside) != 1 || !strings.Contains(aside[0].Err.Error(), key) {
					t.Errorf("set aside: %v, want %s", aside, key)
				}
				if _, err := r.LoadCollection(within(t), "other"); !unreadable(err) || !strings.Contains(err.Error(), key) {
					t.Errorf("a load of it: %v", err)
				}
				put(good)
				eventually(t, "it is served again", func() bool { return len(r.SetAside()) == 0 && len(r.Channels()) == 2 })
			})
		}
	}
}

// TestOneSlowCollectionHoldsUpNoOther, whatever the loads of the first wait for.
func TestOneSlowCollectionHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	r := w.open(nil).ready()
	r.create()
	r.insert(1, 2, 3)
	r.flush()
	r.checkpointed()
	coll, err := r.Collection(within(t), things)
	must(t, err)
	r.close()
	entered, release := make(chan struct{}, 100), make(chan struct{})
	w.bucket.set(func(ctx context.Context, key string) string {
		if strings.HasPrefix(key, fmt.Sprintf("segments/%d/", coll.ID)) {
			entered <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return key
	})
	r = w.open(nil)
	<-entered // a load hangs, and the turn of the collection is taken
	_, vchannels := r.createAs("zebra", 1)
	eventually(t, "the other is watched", func() bool { return r.watches(vchannels[0]) })
	eventually(t, "the log is owned", func() bool { _, err := r.WALs().Get(topic); return err == nil })
	close(release)
	r.ready().has(3)
	w.bucket.set(nil)
}

// TestAStartThatGoesWellWarnsOfNothing: what it has begun need not be told of, what lasts is,
// in one line.
func TestAStartThatGoesWellWarnsOfNothing(t *testing.T) {
	w := newWorld(t)
	w.open(nil).ready().create()
	log := &lines{}
	logged := func(o *Options) {
		o.RefreshInterval = time.Hour // one pass, and those that failures bring about
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	r := w.open(logged).ready()
	r.close()
	if told := log.with("not everything is served"); len(told) > 0 {
		t.Errorf("%s", told)
	}
	w.bucket.set(func(_ context.Context, key string) string {
		if strings.Contains(key, "channels/") {
			return "not/there"
		}
		return key
	})
	w.open(logged)
	eventually(t, "it is told", func() bool { return len(log.with("not everything is served")) > 0 })
	for _, line := range log.with("not everything is served") {
		if strings.Contains(line, "stack trace") {
			t.Errorf("%s", line)
		}
	}
	w.bucket.set(nil)
}

// lines is what is logged.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(b))
	return len(b), nil
}

func (l *lines) with(part string) (some []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, part) {
			some = append(some, line)
		}
	}
	return some
}
