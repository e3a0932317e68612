package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

var errCrash = errors.New("the process died")

// crashAt makes every call from the n-th write on fail, as a process does that
// died; the n-th itself may have reached the storage. wrote tells whether the
// n-th write came about.
func crashAt(b *objstore.Mem, n int64, reached bool) (wrote *atomic.Bool) {
	var writes atomic.Int64
	wrote = &atomic.Bool{}
	b.SetHook(func(call objstore.Call) objstore.Fault {
		i := writes.Load()
		if call.Op == objstore.OpPut || call.Op == objstore.OpDelete {
			i = writes.Add(1)
		} else if i < n {
			return objstore.Fault{}
		}
		if i == n {
			if wrote.CompareAndSwap(false, true) {
				return objstore.Fault{Err: errCrash, After: reached}
			}
		}
		if i >= n {
			return objstore.Fault{Err: errCrash}
		}
		return objstore.Fault{}
	})
	return wrote
}

// checkInvariants verifies what must hold whenever a process may have died.
func checkInvariants(t *testing.T, b objstore.Bucket) {
	t.Helper()
	c := open(t, b)
	all, err := c.ListCollections(t.Context())
	must(t, err)
	seen := map[string]bool{}
	for _, col := range all {
		if seen[col.Name] {
			t.Errorf("collection %q is listed twice", col.Name)
		}
		seen[col.Name] = true
		got, err := c.Collection(t.Context(), col.Name)
		if err != nil || got.ID != col.ID {
			t.Errorf("listed collection %q (id %d) is not found by its name: %+v, %v", col.Name, col.ID, got, err)
		}
		if channels, err := c.ListChannels(t.Context(), col.ID); err != nil || len(channels) != len(col.VChannels) {
			t.Errorf("channels of %q: %d, %v", col.Name, len(channels), err)
		}
	}
}

// TestACrashAfterAnyWriteLeavesAUsableCatalog runs each call on a catalog with
// the collections one (alias nick) and two, lets it die at its n-th write for
// every n, and looks at what the next process finds.
func TestACrashAfterAnyWriteLeavesAUsableCatalog(t *testing.T) {
	calls := map[string]struct {
		run  func(ctx context.Context, c *Catalog) error
		find []string // must be found afterwards, whether the call was done or not
		some []string // exactly one must be found
	}{
		"create": {
			func(ctx context.Context, c *Catalog) error {
				_, err := c.CreateCollection(ctx, spec("new"))
				return err
			},
			[]string{"one", "two", "nick"}, nil,
		},
		"drop": {
			func(ctx context.Context, c *Catalog) error { _, err := c.DropCollection(ctx, "one", 9); return err },
			[]string{"two"}, nil,
		},
		"rename": {
			func(ctx context.Context, c *Catalog) error {
				_, err := c.RenameCollection(ctx, "one", "new")
				return err
			},
			[]string{"two", "nick"},
			[]string{"one", "new"},
		},
		"create alias": {
			func(ctx context.Context, c *Catalog) error { return c.CreateAlias(ctx, "one", "new") },
			[]string{"one", "two", "nick"}, nil,
		},
		"alter alias": {
			func(ctx context.Context, c *Catalog) error { return c.AlterAlias(ctx, "two", "nick") },
			[]string{"one", "two", "nick"}, nil,
		},
		"drop alias": {
			func(ctx context.Context, c *Catalog) error { return c.DropAlias(ctx, "nick") },
			[]string{"one", "two"}, nil,
		},
		"create partition": {
			func(ctx context.Context, c *Catalog) error {
				_, err := c.CreatePartition(ctx, "one", "p", 1)
				return err
			},
			[]string{"one", "two", "nick"}, nil,
		},
		"next term": {
			func(ctx context.Context, c *Catalog) error { _, err := c.NextTerm(ctx, "dml-0", "me"); return err },
			[]string{"one", "two", "nick"}, nil,
		},
	}
	for name, call := range calls {
		for _, reached := range []bool{false, true} {
			for n := int64(1); ; n++ {
				died := false
				t.Run(fmt.Sprintf("%s at write %d, reached %v", name, n, reached), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { died = crashOnce(t, n, reached, call.run, call.find, call.some) })
				})
				if !died {
					break // the call has fewer writes than n
				}
			}
		}
	}
}

func crashOnce(t *testing.T, n int64, reached bool, run func(context.Context, *Catalog) error, find, some []string) bool {
	b := objstore.NewMem(nil)
	before := open(t, b)
	create(t, before, "one")
	create(t, before, "two")
	must(t, before.CreateAlias(t.Context(), "one", "nick"))
	dying := open(t, b)
	wrote := crashAt(b, n, reached)
	err := run(t.Context(), dying)
	b.SetHook(nil)
	died := wrote.Load()
	if !died {
		must(t, err)
	}

	checkInvariants(t, b)
	after := open(t, b)
	for _, name := range find {
		if _, err := after.Collection(t.Context(), name); err != nil {
			t.Errorf("%q is gone: %v", name, err)
		}
	}
	found := 0
	for _, name := range some {
		if _, err := after.Collection(t.Context(), name); err == nil {
			found++
		}
	}
	if len(some) > 0 && found != 1 {
		t.Errorf("%d of %q are found, want exactly one", found, some)
	}
	first, err := after.AllocateIDs(t.Context(), 1)
	must(t, err)
	for _, k := range keys(t, b) {
		if id, ok := after.collectionID(k); ok && id >= first {
			t.Errorf("id %d is given although %s exists", first, k)
		}
	}

	// Once the remains are old they are swept, and every name is usable again.
	time.Sleep(after.o.SweepAge + after.o.DropGrace)
	for range 2 {
		_, err := after.Sweep(t.Context())
		must(t, err)
	}
	checkInvariants(t, b)
	wantNothingLeft(t, after, b)
	for _, name := range []string{"one", "two", "nick", "new"} {
		if _, err := after.Collection(t.Context(), name); errclass.Is(err, errclass.NotFound) {
			create(t, after, name)
		}
	}
	checkInvariants(t, b)
	return died
}

// wantNothingLeft verifies that the bucket holds what the collections need and no more.
func wantNothingLeft(t *testing.T, c *Catalog, b objstore.Bucket) {
	t.Helper()
	want := []string{c.idsKey()}
	all, err := c.ListCollections(t.Context())
	must(t, err)
	for _, col := range all {
		want = append(want, c.collectionKey(col.ID), c.nameKey(col.Name))
		for _, a := range col.Aliases {
			want = append(want, c.nameKey(a))
			if got, err := c.Collection(t.Context(), a); err != nil || got.ID != col.ID {
				t.Errorf("%q lists the alias %q, which leads elsewhere: %v", col.Name, a, err)
			}
		}
		for _, v := range col.VChannels {
			want = append(want, c.channelKey(v.Name))
		}
	}
	slices.Sort(want)
	got := slices.DeleteFunc(keys(t, b), func(k string) bool { return strings.HasPrefix(k, c.o.Prefix+"/pchannels/") || k == c.clockKey() })
	if !slices.Equal(got, want) {
		t.Errorf("in the bucket:\n got %q\nwant %q", got, want)
	}
}

// TestALostAnswerIsNotAFailure lets every single write fail once in the way that
// usually passes, having reached the storage or not: each call succeeds.
func TestALostAnswerIsNotAFailure(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := int64(1); n <= 30; n++ {
			synctest.Test(t, func(t *testing.T) {
				var writes atomic.Int64
				b := objstore.NewMem(func(call objstore.Call) objstore.Fault {
					if call.Op == objstore.OpPut && writes.Add(1) == n {
						return objstore.Fault{Err: errclass.New(errclass.Retryable, "write %d: connection lost", n), After: after}
					}
					return objstore.Fault{}
				})
				everyCall(t, open(t, b))
				checkInvariants(t, b)
			})
		}
	}
}

func everyCall(t *testing.T, c *Catalog) {
	t.Helper()
	one := create(t, c, "one")
	create(t, c, "two")
	_, err := c.CreatePartition(t.Context(), "one", "p", 1)
	must(t, err)
	_, err = c.DropPartition(t.Context(), "one", "p")
	must(t, err)
	must(t, c.CreateAlias(t.Context(), "one", "nick"))
	must(t, c.AlterAlias(t.Context(), "two", "nick"))
	must(t, c.DropAlias(t.Context(), "nick"))
	must(t, c.DropIndex(t.Context(), "one", "plot_index"))
	_, err = c.RenameCollection(t.Context(), "one", "three")
	must(t, err)
	term, err := c.NextTerm(t.Context(), "dml-0", "me")
	must(t, err)
	ch, err := c.CommitFlush(t.Context(), one.VChannels[0].Name, FlushCommit{Term: term, AddSegments: []Segment{segment(one, 0, 77)}})
	must(t, err)
	if len(ch.Segments) != 1 {
		t.Errorf("channel %+v", ch)
	}
	_, err = c.DropCollection(t.Context(), "two", 9)
	must(t, err)
	if got := names(t, c); !slices.Equal(got, []string{"three"}) {
		t.Errorf("collections %q", got)
	}
}

func TestHungStorageEndsWithTheDeadline(t *testing.T) {
	for name, run := range map[string]func(ctx context.Context, c *Catalog) error{
		"open": func(ctx context.Context, c *Catalog) error { _, err := Open(ctx, c.o); return err },
		"ids":  func(ctx context.Context, c *Catalog) error { _, err := c.AllocateIDs(ctx, 1<<20); return err },
		"create": func(ctx context.Context, c *Catalog) error {
			_, err := c.CreateCollection(ctx, spec("new"))
			return err
		},
		"describe": func(ctx context.Context, c *Catalog) error { _, err := c.Collection(ctx, "one"); return err },
		"list":     func(ctx context.Context, c *Catalog) error { _, err := c.ListCollections(ctx); return err },
		"drop":     func(ctx context.Context, c *Catalog) error { _, err := c.DropCollection(ctx, "one", 1); return err },
		"flush": func(ctx context.Context, c *Catalog) error {
			_, err := c.CommitFlush(ctx, "dml-0_1v0", FlushCommit{Term: 1})
			return err
		},
		"term":  func(ctx context.Context, c *Catalog) error { _, err := c.NextTerm(ctx, "dml-0", "me"); return err },
		"sweep": func(ctx context.Context, c *Catalog) error { _, err := c.Sweep(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := objstore.NewMem(nil)
				c := open(t, b)
				create(t, c, "one")
				b.SetHook(func(objstore.Call) objstore.Fault { return objstore.Fault{Hang: true} })
				start := time.Now()
				err := run(t.Context(), c)
				wantClass(t, err, errclass.Retryable)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v, want context.DeadlineExceeded", err)
				}
				if took := time.Since(start); took > 2*c.o.CallTimeout {
					t.Errorf("it took %v with a timeout of %v", took, c.o.CallTimeout)
				}

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start = time.Now()
				if err := run(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("with the caller's deadline: %v", err)
				}
				if took := time.Since(start); took > time.Second {
					t.Errorf("it took %v with the caller's deadline of a second", took)
				}
			})
		})
	}
}

func TestStorageThatIsDownIsTriedAgainUntilItIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		create(t, c, "one")
		start := time.Now()
		b.SetHook(func(objstore.Call) objstore.Fault {
			if time.Since(start) < 2*time.Second {
				return objstore.Fault{Err: errclass.New(errclass.Retryable, "503 slow down")}
			}
			return objstore.Fault{}
		})
		_, err := c.NextTerm(t.Context(), "dml-0", "me")
		must(t, err)
		if c.Stats().Retries == 0 {
			t.Error("no retry was counted")
		}
		b.SetHook(func(objstore.Call) objstore.Fault { return objstore.Fault{Err: errclass.New(errclass.Denied, "403")} })
		start = time.Now()
		_, err = c.NextTerm(t.Context(), "dml-0", "me")
		wantClass(t, err, errclass.Denied)
		if time.Since(start) != 0 {
			t.Error("a refusal was tried again")
		}
	})
}

func TestSweepSparesWhatIsYoungAndWhatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem(nil)
		c := open(t, b)
		col := create(t, c, "movies")
		keep := create(t, c, "keep")
		for _, x := range []*Collection{col, keep} {
			_, err := c.CommitFlush(t.Context(), x.VChannels[2].Name, FlushCommit{Term: 1, AddSegments: []Segment{segment(x, 2, x.ID)}, AddDeltas: []Delta{delta(int(x.ID))}})
			must(t, err)
			for _, f := range []string{"manifest.json", "plot.npy", "plot/deep.idx"} {
				putRaw(t, b, fmt.Sprintf("segments/%d/%s", x.ID, f), "x")
			}
			putRaw(t, b, fmt.Sprintf("segments/%d0/manifest.json", x.ID), "a neighbour")
			putRaw(t, b, delta(int(x.ID)).Path, "x")
		}
		_, err := c.DropCollection(t.Context(), "movies", 9)
		must(t, err)
		before := len(keys(t, b))
		swept, err := c.Sweep(t.Context())
		must(t, err)
		if swept != (Swept{}) || len(keys(t, b)) != before+1 { // the storage's time
			t.Errorf("swept at once: %+v", swept)
		}
		time.Sleep(c.o.DropGrace)
		swept, err = c.Sweep(t.Context())
		must(t, err)
		if swept.Collections != 1 || swept.Files != 4 {
			t.Errorf("swept %+v", swept)
		}
		for _, k := range keys(t, b) {
			if strings.HasPrefix(k, fmt.Sprintf("segments/%d/", col.ID)) || strings.Contains(k, fmt.Sprintf("_%dv", col.ID)) || k == delta(int(col.ID)).Path {
				t.Errorf("still there: %s", k)
			}
		}
		for _, k := range []string{fmt.Sprintf("segments/%d0/manifest.json", col.ID), fmt.Sprintf("segments/%d/plot.npy", keep.ID), delta(int(keep.ID)).Path} {
			if _, err := b.Head(t.Context(), k); err != nil {
				t.Errorf("swept too much: %v", err)
			}
		}
		checkInvariants(t, b)
	})
}

// TestSweepNeverTakesALiveCollection lets a rename happen between any two
// steps of a sweep.
func TestSweepNeverTakesALiveCollection(t *testing.T) {
	for n := int64(1); n <= 25; n++ {
		synctest.Test(t, func(t *testing.T) {
			b := objstore.NewMem(nil)
			c, other := open(t, b), open(t, b)
			made := create(t, c, "a")
			must(t, c.CreateAlias(t.Context(), "a", "nick"))
			time.Sleep(2 * c.o.SweepAge)
			var calls atomic.Int64
			b.SetHook(func(objstore.Call) objstore.Fault {
				if calls.Add(1) == n {
					b.SetHook(nil)
					_, err := other.RenameCollection(t.Context(), "a", "b")
					must(t, err)
				}
				return objstore.Fault{}
			})
			_, err := c.Sweep(t.Context())
			must(t, err)
			b.SetHook(nil)
			for _, name := range []string{"nick", names(t, c)[0]} {
				if col, err := c.Collection(t.Context(), name); err != nil || col.ID != made.ID {
					t.Errorf("rename before call %d of the sweep: %s: %v", n, name, err)
				}
			}
			checkInvariants(t, b)
		})
	}
}

// TestSweepNeverDeletesANameThatIsTaken lets another take a free name between
// any two steps of the sweep that deletes it.
func TestSweepNeverDeletesANameThatIsTaken(t *testing.T) {
	for n := int64(1); n <= 12; n++ {
		synctest.Test(t, func(t *testing.T) {
			b := objstore.NewMem(nil)
			c, other := open(t, b), open(t, b)
			create(t, c, "a")
			_, err := c.RenameCollection(t.Context(), "a", "b")
			must(t, err)
			time.Sleep(2 * c.o.SweepAge)
			var calls atomic.Int64
			var taken error
			b.SetHook(func(objstore.Call) objstore.Fault {
				if calls.Add(1) == n {
					b.SetHook(nil)
					_, taken = other.CreateCollection(t.Context(), spec("a"))
				}
				return objstore.Fault{}
			})
			_, err = c.Sweep(t.Context())
			must(t, err)
			b.SetHook(nil)
			_, err = c.Collection(t.Context(), "a")
			switch {
			case calls.Load() < n:
				// the sweep has fewer calls than n
			case taken == nil && err != nil:
				t.Errorf("taken before call %d of the sweep, and gone after it: %v", n, err)
			case taken != nil:
				wantClass(t, taken, errclass.Retryable, "try again")
			}
			checkInvariants(t, b)
		})
	}
}

// TestChangesThatCollideAreCounted: by the one that comes second, and by nobody else.
func TestChangesThatCollideAreCounted(t *testing.T) {
	b := objstore.NewMem(nil)
	c, other := open(t, b), open(t, b)
	col := create(t, c, "movies")
	put := 0
	b.SetHook(func(call objstore.Call) objstore.Fault {
		if call.Op == objstore.OpPut && call.Key == c.collectionKey(col.ID) {
			if put++; put == 1 { // c has read, and is about to write what it made of it
				_, err := other.AlterProperties(t.Context(), "movies", map[string]string{"b": "2"})
				must(t, err)
			}
		}
		return objstore.Fault{}
	})
	_, err := c.AlterProperties(t.Context(), "movies", map[string]string{"a": "1"})
	must(t, err)
	got, err := c.Collection(t.Context(), "movies")
	must(t, err)
	if got.Properties["a"] != "1" || got.Properties["b"] != "2" || put != 3 {
		t.Fatalf("after %d puts: %v", put, got.Properties)
	}
	if s, o := c.Stats(), other.Stats(); s != (Stats{Conflicts: 1}) || o != (Stats{}) {
		t.Errorf("counted: %+v, by the other %+v", s, o)
	}
}
