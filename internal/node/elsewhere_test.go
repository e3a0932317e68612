package node

import (
	"context"
	"path"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// insertInto writes rows to a partition.
func (r *rig) insertInto(partition string, ids ...int64) {
	r.t.Helper()
	_, err := r.Insert(within(r.t), things, partition, &schema.Batch{Rows: len(ids), Columns: []*schema.Column{keysOf(ids...),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*len(ids))}}}, false)
	must(r.t, err)
}

// Another node drops a partition, and nothing of it gets into the log: it is not the
// owner, or dies. Its rows go all the same, growing or sealed, and stay away.
func TestAPartitionThatWasDroppedElsewhere(t *testing.T) {
	for name, flushed := range map[string]bool{"growing": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.open(nil).ready()
			first.create()
			_, err := first.CreatePartition(within(t), things, "p")
			must(t, err)
			first.insertInto("p", 1, 2, 3)
			first.insert(4, 5)
			if flushed {
				first.flush()
			}
			first.has(5)
			_, err = first.o.Catalog.DropPartition(within(t), things, "p")
			must(t, err)
			first.becomes(2)
			first.close()
			w.open(nil).ready().becomes(2)
		})
	}
}

// A segment is broken until its partition is dropped, elsewhere perhaps: not because whoever loads had heard of the collection
// before there was the partition.
func TestABrokenSegmentIsOneUntilItsPartitionIsDropped(t *testing.T) {
	w := newWorld(t)
	r := w.open(nil).ready()
	r.create()
	before, err := r.Collection(within(t), things)
	must(t, err)
	_, err = r.CreatePartition(within(t), things, "p")
	must(t, err)
	r.insertInto("p", 1, 2, 3)
	r.insert(4, 5)
	r.flush()
	r.kill()
	now, err := r.o.Catalog.CollectionByID(within(t), before.ID)
	must(t, err)
	c, err := r.o.Catalog.Channel(within(t), now.VChannels[0].Name)
	must(t, err)
	at := slices.IndexFunc(c.Segments, func(s catalog.Segment) bool { return s.Rows == 3 })
	must(t, w.bucket.Delete(t.Context(), path.Join(c.Segments[at].Path, segfile.ManifestName)))

	r = w.open(nil)
	r.own()
	if _, err := r.LoadCollection(within(t), things); !errclass.Is(err, errclass.NotFound) {
		t.Fatalf("load: %v", err)
	}
	look := func() {
		must(t, r.letGoOfDropped(within(t), r.servingOf(before.ID), before))
		r.prune(r.servingOf(before.ID), c)
	}
	look()
	if b := r.Broken(before.ID); len(b) != 1 || b[0].SegmentID != c.Segments[at].ID {
		t.Fatalf("broken are %+v", b)
	}
	_, err = r.o.Catalog.DropPartition(within(t), things, "p")
	must(t, err)
	r.names.forget() // readers know by now
	if look(); len(r.Broken(before.ID)) > 0 {
		t.Errorf("broken are %+v", r.Broken(before.ID))
	}
	eventually(t, "reads miss nothing", func() bool {
		got, _, err := r.count(within(t), false)
		return err == nil && got == 2
	})
}

// becomes waits until there are so many rows.
func (r *rig) becomes(want int64) {
	r.t.Helper()
	eventually(r.t, "the rows that are left are found alone", func() bool {
		got, _, err := r.count(within(r.t), false)
		must(r.t, err)
		return got == want
	})
}

// A partition is made anew by another node: what is acknowledged from then on is in the
// new one.
func TestAPartitionThatWasMadeAnewElsewhere(t *testing.T) {
	w := newWorld(t)
	r := w.open(nil).ready()
	r.create()
	_, err := r.CreatePartition(within(t), things, "p")
	must(t, err)
	_, err = r.Collection(within(t), things) // it knows what there is
	must(t, err)
	_, err = r.o.Catalog.DropPartition(within(t), things, "p")
	must(t, err)
	_, err = r.o.Catalog.CreatePartition(within(t), things, "p", 1)
	must(t, err)
	r.insertInto("p", 1, 2, 3)
	_, err = r.Delete(within(t), things, "p", keysOf(2))
	must(t, err)
	r.names.forget() // readers know the new one by now
	res, err := r.Query(within(t), &Query{Select: Select{Collection: things, Partitions: []string{"p"}, OutputFields: []string{countStar},
		Freshness: Freshness{Level: Strong}}}, func(*Rows) error { return nil })
	must(t, err)
	if res.Count != 2 {
		t.Errorf("the partition has %d rows, want 2", res.Count)
	}
}

// Writes that ask what a name means while it is being read have the next reading together,
// and none has one that began before it asked.
func TestWritesShareTheReadingOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newNameCache(time.Now)
		var version, reads atomic.Int64
		find := func(context.Context, string) (*catalog.Collection, error) {
			reads.Add(1)
			v := version.Load()
			time.Sleep(time.Second)
			return &catalog.Collection{ID: v}, nil
		}
		asked := func(at int64) {
			got, err := c.renew(t.Context(), things, find)
			must(t, err)
			if got.ID < at {
				t.Errorf("got version %d, it was %d before", got.ID, at)
			}
		}
		go asked(0)
		synctest.Wait()
		version.Store(1)
		for range 10 {
			go asked(1)
		}
		time.Sleep(time.Minute)
		if n := reads.Load(); n != 2 {
			t.Errorf("%d readings for two moments", n)
		}
		version.Store(2)
		asked(2)
	})
}

// Who reads for others may have less time than they, be called off for a reason of its own, or
// die of a panic. They read for themselves then.
func TestAReadingThatIsGivenUpIsBegunAgain(t *testing.T) {
	for name, ends := range map[string]func(ctx context.Context) (context.Context, func()){
		"late": func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeout(ctx, 1500*time.Millisecond)
		},
		"called off": func(ctx context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(1500*time.Millisecond, func() { cancel(errclass.New(errclass.Conflict, "of its own")) })
			return ctx, func() { cancel(nil) }
		},
		"dead": func(ctx context.Context) (context.Context, func()) {
			ctx = context.WithValue(ctx, dies{}, true)
			return context.WithTimeout(ctx, 1500*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newNameCache(time.Now)
				find := func(ctx context.Context, _ string) (*catalog.Collection, error) {
					select {
					case <-time.After(time.Second):
						return &catalog.Collection{ID: 7}, nil
					case <-ctx.Done():
						if ctx.Value(dies{}) != nil {
							panic("who reads for all dies")
						}
						return nil, context.Cause(ctx)
					}
				}
				go func() { _, _ = c.renew(t.Context(), things, find) }()
				synctest.Wait()
				other, end := ends(t.Context())
				defer end()
				go func() {
					_ = lifecycle.Call("a write", func() error { _, err := c.renew(other, things, find); return err })
				}()
				synctest.Wait()
				got, err := c.renew(t.Context(), things, find)
				must(t, err)
				if got.ID != 7 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// dies is the key of a context.
type dies struct{}
