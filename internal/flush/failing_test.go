package flush

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// lines counts what is logged.
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

func (l *lines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// fullBucket refuses what is put into it while a test wants it.
type fullBucket struct {
	objstore.Bucket
	mu   sync.Mutex
	full bool
	puts int
}

func (b *fullBucket) set(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

func (b *fullBucket) tries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.puts
}

func (b *fullBucket) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	b.mu.Lock()
	full := b.full
	b.puts++
	b.mu.Unlock()
	if full {
		return objstore.Info{}, errclass.New(errclass.Exhausted, "no space left")
	}
	return b.Bucket.Put(ctx, key, r, size, o)
}

// TestAFlushThatFailsIsToldOnce in the log however often it is tried, and can be asked for,
// until it goes on.
func TestAFlushThatFailsIsToldOnce(t *testing.T) {
	log, bucket := &lines{}, &fullBucket{Bucket: objstore.NewMem(nil)}
	r := newRoad(t, 1, Options{Interval: 5 * time.Millisecond, CheckpointInterval: time.Hour, Bucket: bucket, Logger: slog.New(slog.NewTextHandler(log, nil))})
	bucket.set(true)
	before := bucket.tries()
	id := r.sealed(r.channels[0])
	eventually(t, "the flush has failed three times", func() bool {
		r.f.Kick()
		return bucket.tries() >= before+3 && r.f.Failing() > 0
	})
	all := r.f.Failures()
	if len(all) != 1 || all[0].What != r.channels[0].Name() || all[0].Since.IsZero() || !strings.Contains(all[0].Err.Error(), "no space left") {
		t.Errorf("%+v", all)
	}
	if n := log.count("will be tried again"); n != 1 {
		t.Errorf("told %d times", n)
	}
	bucket.set(false)
	r.stored(r.channels[0], id)
	eventually(t, "nothing fails any more", func() bool { return r.f.Failing() == 0 })
	if log.count("goes on") != 1 {
		t.Error("nobody says that it goes on")
	}
}

// TestAFailureThatLastsIsToldNowAndThen, and at once if it is another one.
func TestAFailureThatLastsIsToldNowAndThen(t *testing.T) {
	now := time.Now()
	f := &failure{err: errclass.New(errclass.Exhausted, "full")}
	for i, c := range []struct {
		after time.Duration
		class errclass.Class
		want  bool
	}{{0, errclass.Exhausted, true}, {time.Second, errclass.Exhausted, false}, {time.Second, errclass.Retryable, true},
		{time.Minute, errclass.Retryable, false}, {repeat, errclass.Retryable, true}} {
		now = now.Add(c.after)
		f.err = errclass.New(c.class, "no %d", i)
		if got := f.tell(now); got != c.want {
			t.Errorf("%d: told %t", i, got)
		}
	}
}

// TestAChannelOfWhichSomethingIsStoredIsTriedAgainSoon, though something else of it fails as it did before: each segment that is
// stored makes room that others wait for.
func TestAChannelOfWhichSomethingIsStoredIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		again := func() time.Duration {
			r.f.note(t.Context(), "v", errclass.New(errclass.Retryable, "no seal can be written"))
			r.f.mu.Lock()
			defer r.f.mu.Unlock()
			return time.Until(r.f.mu.retryAt["v"])
		}
		first := again()
		for range 6 {
			again()
		}
		if long := again(); long < 10*first {
			t.Fatalf("again after %v, at first after %v", long, first)
		}
		r.f.flushed(r.ch, Flushed{VChannel: "v", SegmentID: 7})
		if d := again(); d != first {
			t.Errorf("a segment was stored, and then it is tried again after %v, want %v", d, first)
		}
	})
}
