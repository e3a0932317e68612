package node

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/querynode/querynode/internal/errclass"
)

// TestTheKeeperLooksAtEachCollectionAFewTimes, not each time that one of the others has
// been looked after, whether they can be served or not.
func TestTheKeeperLooksAtEachCollectionAFewTimes(t *testing.T) {
	const many = 2000
	for name, fail := range map[string]error{"all can be served": nil, "none can be served": errclass.New(errclass.Retryable, "not now")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newWorld(t).open(dispatched).ready()
				served := func(fail error) {
					for id := range int64(many) {
						r.lookAfter(id+1, "a collection", func(context.Context) error {
							for len(r.chored) > 0 { // the keeper keeps up with what it is told
								runtime.Gosched()
							}
							return fail
						})
					}
					synctest.Wait()
				}
				served(fail)
				if problem := r.Problem(); (problem != nil) != (fail != nil) {
					t.Errorf("the problem is %v", problem)
				}
				r.mu.Lock()
				looks := r.mu.chores.looks
				r.mu.Unlock()
				if looks > 20*many { // some for each of them, not for each pair: these are 2,000,000
					t.Errorf("%d looks at %d collections", looks, many)
				}
				served(nil)
				must(t, r.Problem())
			})
		})
	}
}

// TestNothingIsQueuedForWhatIsNotServed: a node that serves what it is told to has nothing to
// do for the other collections of the catalog.
func TestNothingIsQueuedForWhatIsNotServed(t *testing.T) {
	r := newWorld(t).open(dispatched).ready()
	r.own()
	served, _ := r.createAs(things, 1)
	r.createAs("zebra", 1)
	r.load()
	must(t, r.pass(within(t)))
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.mu.chores.of {
		if id != served {
			t.Errorf("%s: is looked after", c.what)
		}
	}
	if r.mu.chores.of[served] == nil {
		t.Error("what is served is not looked after")
	}
}
