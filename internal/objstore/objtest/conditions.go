package objtest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

func ifNoneMatch(t *testing.T, s *suite) {
	only := objstore.PutOptions{IfNoneMatch: true}
	s.put(t, "names/a", "1", only)
	if _, err := s.b.Put(s.ctx, "names/a", strings.NewReader("2"), 1, only); !errors.Is(err, objstore.ErrPrecondition) || !errclass.Is(err, errclass.Conflict) {
		t.Errorf("second put: %v (%v)", err, errclass.Of(err))
	}
	if got := s.get(t, "names/a", 0, -1); got != "1" {
		t.Errorf("got %q", got)
	}
	if err := s.b.Delete(s.ctx, "names/a"); err != nil {
		t.Fatal(err)
	}
	s.put(t, "names/a", "3", only)
}

func ifMatch(t *testing.T, s *suite) {
	if _, err := s.b.Put(s.ctx, "m", strings.NewReader("x"), 1, objstore.PutOptions{IfMatch: "0123"}); !errors.Is(err, objstore.ErrPrecondition) {
		t.Errorf("over nothing: %v (%v)", err, errclass.Of(err))
	}
	s.wantAbsent(t, "m")
	v1 := s.put(t, "m", "one", objstore.PutOptions{})
	v2 := s.put(t, "m", "two", objstore.PutOptions{IfMatch: v1.ETag})
	if _, err := s.b.Put(s.ctx, "m", strings.NewReader("bad"), 3, objstore.PutOptions{IfMatch: v1.ETag}); !errors.Is(err, objstore.ErrPrecondition) {
		t.Errorf("over a newer version: %v", err)
	}
	s.put(t, "m", "six", objstore.PutOptions{IfMatch: v2.ETag})
	if got := s.get(t, "m", 0, -1); got != "six" {
		t.Errorf("got %q", got)
	}
}

func raceIfNoneMatch(t *testing.T, s *suite) {
	const racers = 16
	var won atomic.Int32
	var winner atomic.Value
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			content := fmt.Sprintf("racer %d", i)
			_, err := s.b.Put(s.ctx, "race", strings.NewReader(content), int64(len(content)), objstore.PutOptions{IfNoneMatch: true})
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(content)
			case !errors.Is(err, objstore.ErrPrecondition):
				t.Errorf("racer %d: %v (%v)", i, err, errclass.Of(err))
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of %d puts won", won.Load(), racers)
	}
	if got := s.get(t, "race", 0, -1); got != winner.Load() {
		t.Errorf("%q won, the object holds %q", winner.Load(), got)
	}
}

func raceIfMatch(t *testing.T, s *suite) {
	const racers, steps = 4, 6
	s.put(t, "counter", "0", objstore.PutOptions{})
	var wg sync.WaitGroup
	for range racers {
		wg.Go(func() {
			for done := 0; done < steps && s.ctx.Err() == nil; {
				data, info, err := objstore.ReadVersion(s.ctx, s.b, "counter", 100)
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				_, _ = fmt.Sscan(string(data), &n)
				next := fmt.Sprint(n + 1)
				_, err = s.b.Put(s.ctx, "counter", strings.NewReader(next), int64(len(next)), objstore.PutOptions{IfMatch: info.ETag})
				if err == nil {
					done++
				} else if !errors.Is(err, objstore.ErrPrecondition) {
					t.Errorf("%v (%v)", err, errclass.Of(err))
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := s.get(t, "counter", 0, -1), fmt.Sprint(racers*steps); got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}
