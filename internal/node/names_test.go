package node

import (
	"context"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

// catalogOf answers with ids that grow, and counts.
type catalogOf struct {
	asked  int
	answer error
	during func() // while it is being asked
}

func (c *catalogOf) find(_ context.Context, name string) (*catalog.Collection, error) {
	c.asked++
	id := int64(c.asked)
	if c.during != nil {
		c.during()
	}
	return &catalog.Collection{ID: id, Name: name}, c.answer
}

// TestANameIsTrustedForAWhile: a search does not read object storage, and a
// change elsewhere is seen soon.
func TestANameIsTrustedForAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	names := newNameCache(func() time.Time { return now })
	c := &catalogOf{}
	get := func() int64 {
		t.Helper()
		coll, err := names.get(t.Context(), "x", c.find)
		if err != nil {
			t.Fatal(err)
		}
		return coll.ID
	}
	for range 2 {
		if get() != 1 {
			t.Fatal("asked twice")
		}
	}
	if now = now.Add(nameTTL); get() != 2 {
		t.Fatal("trusted for too long")
	}
	if names.forget(); get() != 3 {
		t.Fatal("a change on this node is not seen at once")
	}
	// An answer from before a change is not kept.
	names.forget()
	c.during = func() { c.during = nil; names.forget() }
	if get() != 4 || get() != 5 {
		t.Fatal("an answer that a change overtook was kept")
	}
}

func TestAFailureIsNotRemembered(t *testing.T) {
	names := newNameCache(time.Now)
	c := &catalogOf{answer: errclass.New(errclass.NotFound, "x")}
	for want := 1; want <= 2; want++ {
		if _, err := names.get(t.Context(), "x", c.find); !errclass.Is(err, errclass.NotFound) || c.asked != want {
			t.Fatalf("asked %d times: %v", c.asked, err)
		}
	}
}
