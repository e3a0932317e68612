package lifecycle

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/errclass"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// exits records how goroutines ended.
type exits struct {
	mu  sync.Mutex
	how map[string]error
}

func (e *exits) record(name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.how == nil {
		e.how = map[string]error{}
	}
	e.how[name] = err
}

func start(t *testing.T, g *Group, name string, fn func(context.Context) error) {
	t.Helper()
	if err := g.Go(name, fn); err != nil {
		t.Fatal(err)
	}
}

func closeGroup(t *testing.T, g *Group) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestTheOwnerLearnsHowEachGoroutineEnded(t *testing.T) {
	var e exits
	g := NewGroup(context.Background(), e.record)
	boom := errors.New("boom")
	start(t, g, "fine", func(context.Context) error { return nil })
	start(t, g, "fails", func(context.Context) error { return boom })
	start(t, g, "panics", func(context.Context) error { panic(boom) })
	start(t, g, "exits", func(context.Context) error { runtime.Goexit(); return nil })
	start(t, g, "runs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	closeGroup(t, g)

	if len(e.how) != 5 || e.how["fine"] != nil {
		t.Fatalf("%v", e.how)
	}
	for name, want := range map[string]error{"fails": boom, "panics": boom, "exits": ErrGoexit, "runs": context.Canceled} {
		if !errors.Is(e.how[name], want) {
			t.Errorf("%s ended with %v, want %v", name, e.how[name], want)
		}
	}
	var pe *PanicError
	if !errors.As(e.how["panics"], &pe) || pe.Task != "panics" || !strings.Contains(string(pe.Stack), "group_test.go") {
		t.Errorf("the panic arrived as %v", e.how["panics"])
	}
	if !errclass.Is(e.how["panics"], errclass.Panicked) {
		t.Errorf("class %v", errclass.Of(e.how["panics"]))
	}
}

func TestAPanickingOnExitKillsNothing(t *testing.T) {
	g := NewGroup(context.Background(), func(string, error) { panic("observer") })
	start(t, g, "a", func(context.Context) error { return nil })
	closeGroup(t, g)
}

func TestALateStartIsRefused(t *testing.T) {
	g := NewGroup(context.Background(), nil)
	closeGroup(t, g)
	err := g.Go("late", func(context.Context) error { t.Error("it ran"); return nil })
	if !errors.Is(err, ErrGroupClosed) || !errclass.Is(err, errclass.Closed) || !strings.Contains(err.Error(), "late") {
		t.Fatal(err)
	}
	closeGroup(t, g)
}

func TestStartsThatRaceWithCloseAreWaitedForOrRefused(t *testing.T) {
	for range 50 {
		g := NewGroup(context.Background(), nil)
		var ran, started sync.WaitGroup
		for range 4 {
			started.Go(func() {
				for {
					ran.Add(1)
					if g.Go("w", func(context.Context) error { ran.Done(); return nil }) != nil {
						ran.Done()
						return
					}
				}
			})
		}
		closeGroup(t, g)
		if len(g.Running()) != 0 {
			t.Fatal(g.Running())
		}
		started.Wait()
		ran.Wait()
	}
}

func TestCloseNamesWhatIsStuckAndCanWaitAgain(t *testing.T) {
	g := NewGroup(context.Background(), nil)
	free := make(chan struct{})
	for _, name := range []string{"reader", "appender"} {
		start(t, g, name, func(context.Context) error { <-free; return nil })
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := g.Close(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `["appender" "reader"]`) {
		t.Fatal(err)
	}
	if g.Context().Err() == nil {
		t.Fatal("Close did not cancel the context")
	}
	close(free)
	closeGroup(t, g)
}

func TestTheParentsEndReachesTheGoroutines(t *testing.T) {
	parent, cancel := context.WithCancel(context.Background())
	g := NewGroup(parent, nil)
	seen := make(chan struct{})
	start(t, g, "a", func(ctx context.Context) error { <-ctx.Done(); close(seen); return nil })
	cancel()
	<-seen
	closeGroup(t, g)
}
