package lifecycle

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

func push(t *testing.T, s *Stack, name string, deadline time.Duration, closer func(context.Context) error) {
	t.Helper()
	if err := s.Push(name, closer, deadline); err != nil {
		t.Fatal(err)
	}
}

func names(r *Report) []string {
	var all []string
	for _, p := range r.Parts {
		all = append(all, p.Name)
	}
	return all
}

// polite waits for its context, as a closer with too much to do would.
func polite(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestPartsCloseInReverseOrderWhateverHappens(t *testing.T) {
	s := NewStack()
	var order []string
	closer := func(name string, end func() error) {
		push(t, s, name, time.Second, func(context.Context) error { order = append(order, name); return end() })
	}
	boom := errors.New("boom")
	closer("catalog", func() error { return nil })
	closer("pool", func() error { panic("pool") })
	closer("wal", func() error { return boom })
	closer("odd", func() error { runtime.Goexit(); return nil })
	closer("server", func() error { return nil })
	r := s.Close(context.Background())

	want := []string{"server", "odd", "wal", "pool", "catalog"}
	if !slices.Equal(order, want) || !slices.Equal(names(r), want) {
		t.Fatalf("closed %v, reported %v", order, names(r))
	}
	var pe *PanicError
	err := r.Err()
	if !errors.Is(err, boom) || !errors.As(err, &pe) || !errors.Is(err, ErrGoexit) || len(r.Stuck()) != 0 {
		t.Fatalf("%v, stuck %v", err, r.Stuck())
	}
	if again := s.Close(context.Background()); len(order) != 5 || len(again.Parts) != 5 {
		t.Fatalf("a second Close closed again: %v", order)
	}
	if err := s.Push("late", polite, 0); !errors.Is(err, ErrStackClosed) || !errclass.Is(err, errclass.Closed) {
		t.Fatal(err)
	}
}

func TestAPartThatIgnoresItsContextIsLeftBehindAndShown(t *testing.T) {
	free, closed := make(chan struct{}), false
	s := NewStack()
	push(t, s, "storage", time.Second, func(context.Context) error { closed = true; return nil })
	push(t, s, "wal 7", 20*time.Millisecond, func(context.Context) error { hangHere(free); return nil })
	r := s.Close(context.Background())
	if !closed {
		t.Fatal("the stuck part kept the next from closing")
	}
	wal := r.Parts[0]
	if !wal.Stuck || !slices.Equal(r.Stuck(), []string{"wal 7"}) || !strings.Contains(r.Err().Error(), "wal 7 did not stop within 20ms") {
		t.Fatalf("%+v, %v", wal, r.Err())
	}
	if !strings.Contains(r.String(), "wal 7 is stuck on:") || !strings.Contains(r.String(), "hangHere") {
		t.Fatalf("the report does not show where:\n%s", r)
	}

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if r := s.Close(ended); len(r.Stuck()) != 1 {
		t.Fatalf("still stuck, but reported %v", r.Stuck())
	}
	close(free)
	if r := s.Close(context.Background()); len(r.Stuck()) != 0 || r.Err() != nil {
		t.Fatalf("it has ended, but reported %v", r.Err())
	}
}

func hangHere(free chan struct{}) { <-free }

func TestDeadlinesNest(t *testing.T) {
	const s0 = time.Second
	for _, c := range []struct {
		why   string
		own   []time.Duration // in the order of closing; every part uses all it is given
		whole time.Duration   // 0 = none
		want  []time.Duration
	}{
		{"what nobody has asked for", []time.Duration{2 * s0, 3 * s0}, 10 * s0, []time.Duration{7 * s0, 3 * s0}},
		{"shortened in proportion", []time.Duration{20 * s0, 10 * s0, 10 * s0}, 20 * s0, []time.Duration{10 * s0, 5 * s0, 5 * s0}},
		{"equal shares", []time.Duration{0, 0, 0}, 30 * s0, []time.Duration{10 * s0, 10 * s0, 10 * s0}},
		{"no whole deadline", []time.Duration{3 * s0, 0}, 0, []time.Duration{3 * s0, DefaultPartTime}},
	} {
		t.Run(c.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewStack()
				for i := range slices.Backward(c.own) {
					push(t, s, "p", c.own[i], polite)
				}
				ctx, cancel := context.WithCancel(context.Background())
				if c.whole > 0 {
					ctx, cancel = context.WithTimeout(context.Background(), c.whole)
				}
				defer cancel()
				r := s.Close(ctx)
				for i, p := range r.Parts {
					if p.Stuck || !errors.Is(p.Err, context.DeadlineExceeded) {
						t.Errorf("part %d: a closer that watches its context is not stuck: %+v", i, p)
					}
					// Each returns a little before its time is up, which leaves the later ones a little more.
					if d := p.Budget - c.want[i]; d < 0 || d > s0 {
						t.Errorf("part %d got %v, want about %v", i, p.Budget, c.want[i])
					}
				}
				if c.whole > 0 && r.Took > c.whole {
					t.Errorf("took %v of %v", r.Took, c.whole)
				}
			})
		})
	}
}

func TestACutSkipsWhatHasNotHadItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStack()
		free := make(chan struct{})
		push(t, s, "storage", time.Minute, func(context.Context) error { t.Error("closed after the cut"); return nil })
		push(t, s, "server", time.Minute, func(context.Context) error { <-free; return nil })
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(2*time.Second, cancel)
		r := s.Close(ctx)
		if r.Took != 2*time.Second || !slices.Equal(r.Stuck(), []string{"server", "storage"}) || !r.Parts[1].Skipped {
			t.Fatalf("after %v: %v", r.Took, r)
		}
		close(free)
		s.Close(context.Background())
	})
}

func TestASecondCloseWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStack()
		push(t, s, "slow", time.Minute, func(context.Context) error { time.Sleep(5 * time.Second); return nil })
		first := make(chan *Report)
		go func() { first <- s.Close(context.Background()) }()
		synctest.Wait()
		hasty, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if r := s.Close(hasty); !slices.Equal(r.Stuck(), []string{"slow"}) {
			t.Errorf("a hasty second Close: %v", r)
		}
		if r := s.Close(context.Background()); r.Err() != nil || r.Took != 4*time.Second {
			t.Errorf("a patient second Close: %v", r)
		}
		if r := <-first; r.Err() != nil {
			t.Error(r)
		}
	})
}
