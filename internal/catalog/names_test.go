package catalog

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

func TestRename(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		made := create(t, c, "old")
		create(t, c, "other")
		must(t, c.CreateAlias(t.Context(), "old", "nick"))
		col, err := c.RenameCollection(t.Context(), "old", "new")
		must(t, err)
		if col.ID != made.ID || col.Name != "new" {
			t.Errorf("renamed %+v", col)
		}
		_, err = c.Collection(t.Context(), "old")
		wantClass(t, err, errclass.NotFound)
		for _, n := range []string{"new", "nick"} {
			if col, err := c.Collection(t.Context(), n); err != nil || col.ID != made.ID {
				t.Errorf("%s: %v", n, err)
			}
		}
		_, err = c.RenameCollection(t.Context(), "new", "other")
		wantClass(t, err, errclass.Exists, "other")
		_, err = c.RenameCollection(t.Context(), "new", "nick")
		wantClass(t, err, errclass.Exists, "nick")
		_, err = c.RenameCollection(t.Context(), "nick", "third")
		wantClass(t, err, errclass.Invalid, "alias")
		_, err = c.RenameCollection(t.Context(), "none", "third")
		wantClass(t, err, errclass.NotFound)
		_, err = c.RenameCollection(t.Context(), "new", "old") // back again: the name is free
		must(t, err)
		if got := names(t, c); !slices.Equal(got, []string{"old", "other"}) {
			t.Errorf("listed %q", got)
		}
	})
}

func TestAliases(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		one, two := create(t, c, "one"), create(t, c, "two")
		leads := func(alias string, id int64) {
			t.Helper()
			col, err := c.Collection(t.Context(), alias)
			if err != nil || col.ID != id {
				t.Errorf("%s leads to %+v (%v), want collection %d", alias, col, err, id)
			}
		}
		must(t, c.CreateAlias(t.Context(), "one", "nick"))
		leads("nick", one.ID)
		wantClass(t, c.CreateAlias(t.Context(), "two", "nick"), errclass.Exists, "nick", "one")
		wantClass(t, c.CreateAlias(t.Context(), "two", "one"), errclass.Exists)
		_, err := c.CreateCollection(t.Context(), spec("nick"))
		wantClass(t, err, errclass.Exists, "alias")
		must(t, c.AlterAlias(t.Context(), "two", "nick"))
		leads("nick", two.ID)
		must(t, c.AlterAlias(t.Context(), "two", "nick"))
		wantClass(t, c.AlterAlias(t.Context(), "two", "one"), errclass.Invalid)
		wantClass(t, c.AlterAlias(t.Context(), "two", "none"), errclass.NotFound)
		_, err = c.DropCollection(t.Context(), "nick", 5)
		wantClass(t, err, errclass.Invalid, "alias")
		for name, want := range map[string][]string{"one": nil, "two": {"nick"}} {
			if col, err := c.Collection(t.Context(), name); err != nil || !slices.Equal(col.Aliases, want) {
				t.Errorf("%s has aliases %q, %v", name, col.Aliases, err)
			}
		}
		must(t, c.DropAlias(t.Context(), "nick"))
		wantClass(t, c.DropAlias(t.Context(), "nick"), errclass.NotFound)
		must(t, c.CreateAlias(t.Context(), "one", "nick"))
		_, err = c.DropCollection(t.Context(), "one", 5)
		must(t, err)
		create(t, c, "nick") // the drop freed the alias, too
	})
}

func TestLongestNames(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		long := strings.Repeat("n", schema.MaxNameBytes)
		create(t, c, long)
		create(t, c, long[1:])
		create(t, c, long[:200])
		for _, n := range []string{long, long[1:], long[:200]} {
			if col, err := c.Collection(t.Context(), n); err != nil || col.Name != n {
				t.Errorf("%d bytes: %v", len(n), err)
			}
		}
	})
}

func TestOfManyCreatorsOneWins(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		var mu sync.Mutex
		var won []int64
		var wg sync.WaitGroup
		for range 8 {
			c := open(t, b)
			wg.Go(func() {
				col, err := c.CreateCollection(context.Background(), spec("movies"))
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					won = append(won, col.ID)
				} else {
					wantClass(t, err, errclass.Exists)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d creators won", len(won))
		}
		c := open(t, b)
		if col, err := c.Collection(t.Context(), "movies"); err != nil || col.ID != won[0] {
			t.Errorf("got %+v, %v, want id %d", col, err, won[0])
		}
		// Losers clean up behind themselves: counter, name, collection, three channels.
		if got := keys(t, b); len(got) != 6 {
			t.Errorf("left in the bucket: %q", got)
		}
	})
}

// TestTheLoserOfANameCleansUp lets another create the collection just before the
// put that would have claimed its name.
func TestTheLoserOfANameCleansUp(t *testing.T) {
	b := objstore.NewMem(nil)
	c, other := open(t, b), open(t, b)
	var winner *Collection
	b.SetHook(func(call objstore.Call) objstore.Fault {
		if call.Op == objstore.OpPut && call.Key == c.nameKey("movies") {
			b.SetHook(nil)
			winner = create(t, other, "movies")
		}
		return objstore.Fault{}
	})
	got, err := c.CreateCollection(t.Context(), spec("movies"))
	wantClass(t, err, errclass.Exists, "movies")
	if got == nil || got.ID != winner.ID {
		t.Errorf("got %+v, want the winner's", got)
	}
	wantNothingLeft(t, c, b)
}
