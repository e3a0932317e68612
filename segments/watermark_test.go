package segments

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

func TestAWatermarkWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatermark()
		w.advance(10)
		w.advance(7) // only grows
		if ts, err := w.wait(t.Context(), 10); ts != 10 || err != nil {
			t.Fatalf("%d, %v", ts, err)
		}
		type answer struct {
			ts  uint64
			err error
		}
		wait := func(ctx context.Context, ts uint64) <-chan answer {
			c := make(chan answer, 1)
			go func() {
				ts, err := w.wait(ctx, ts)
				c <- answer{ts, err}
			}()
			synctest.Wait()
			return c
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a, b, late := wait(t.Context(), 15), wait(t.Context(), 20), wait(ctx, 30)
		w.advance(16)
		if got := <-a; got != (answer{16, nil}) {
			t.Fatalf("%v", got)
		}
		select {
		case got := <-b:
			t.Fatalf("woken too early: %v", got)
		default:
		}
		w.advance(20)
		if got := <-b; got != (answer{20, nil}) {
			t.Fatalf("%v", got)
		}
		got := <-late // a second later, by the bubble's clock
		if got.ts != 20 || !errors.Is(got.err, context.DeadlineExceeded) || !errclass.Is(got.err, errclass.Retryable) {
			t.Fatalf("%v", got)
		}
		if len(w.mu.waiters) != 0 {
			t.Fatalf("%d waiters left", len(w.mu.waiters))
		}
		boom := errclass.New(errclass.Conflict, "gone")
		c := wait(t.Context(), 40)
		w.fail(boom)
		w.fail(errors.New("the second reason does not count"))
		if got := <-c; !errors.Is(got.err, boom) {
			t.Fatalf("%v", got)
		}
		if got := <-wait(t.Context(), 50); !errors.Is(got.err, boom) {
			t.Fatalf("%v", got)
		}
		if ts, err := w.wait(t.Context(), 20); ts != 20 || err != nil || w.now() != 20 {
			t.Fatalf("what was applied stays so: %d, %v", ts, err)
		}
	})
}

// TestReadsWaitForTheirGuarantee and fail when it cannot be met.
func TestReadsWaitForTheirGuarantee(t *testing.T) {
	r := newRig(t, rigOptions{})
	want := r.now + 10
	read := Read{Guarantee: func(string) uint64 { return want }}
	done := make(chan int64, 1)
	go func() {
		res, err := r.coll.Query(t.Context(), &QueryRequest{Read: read, CountOnly: true}, nil)
		if err != nil {
			t.Error(err)
			done <- -1
			return
		}
		done <- res.Count
	}()
	r.insert(1, 1, 2, 3)
	if n := <-done; n != 3 {
		t.Fatalf("count %d: it did not wait", n)
	}
	want = r.now + 1000
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := r.coll.Query(ctx, &QueryRequest{Read: read, CountOnly: true}, nil)
	wantClass(t, err, errclass.Retryable)
	_, err = r.coll.Search(ctx, &SearchRequest{Read: Read{}, FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 1, Metric: r.o.index.Metric})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("past its deadline: %v", err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := r.coll.Query(t.Context(), &QueryRequest{Read: read, CountOnly: true}, nil)
		failed <- err
	}()
	r.coll.Unwatch("v")
	wantClass(t, <-failed, errclass.Conflict)
}

// TestAChannelThatIsFreshEnoughIsNotAskedAbout, for what is guaranteed costs a look at the log: but one that is behind
// is, and so are all of a read that goes by one time.
func TestAChannelThatIsFreshEnoughIsNotAskedAbout(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2, 3)
	asked := 0
	count := func(read Read) int64 {
		t.Helper()
		asked = 0
		read.Guarantee = func(string) uint64 { asked++; return min(r.now, read.Enough) }
		res, err := r.coll.Query(t.Context(), &QueryRequest{Read: read, CountOnly: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res.Count
	}
	for _, c := range []struct {
		what  string
		read  Read
		asked int
	}{
		{"all was applied", Read{Enough: r.now}, 0},
		{"it is behind", Read{Enough: r.now + 1}, 1},
		{"nobody knows what is enough", Read{}, 1},
		{"one time for all channels", Read{Enough: r.now, OneTime: true}, 1},
		{"as of a time", Read{Enough: r.now, ReadTimestamp: r.now}, 0},
	} {
		if n := count(c.read); n != 3 || asked != c.asked {
			t.Errorf("%s: %d rows, asked %d times, want %d", c.what, n, asked, c.asked)
		}
	}
}
