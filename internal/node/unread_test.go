package node

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// full is object storage that takes no segments while a test wants it.
type full struct {
	objstore.Bucket
	on *atomic.Bool
}

func (f full) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if f.on.Load() && strings.HasPrefix(key, "segments/") {
		return objstore.Info{}, errclass.New(errclass.Retryable, "no segment is taken")
	}
	return f.Bucket.Put(ctx, key, r, size, o)
}

// unstoredOf says what is told of the one channel whose rows nobody stores.
func (r *rig) unstoredOf() (text string) {
	r.t.Helper()
	all := r.UnstoredChannels()
	if len(all) > 1 {
		r.t.Fatalf("there is one channel, told of are %+v", all)
	}
	for _, line := range r.Troubles() {
		if strings.Contains(line, "not stored") && strings.Contains(line, "in the log, ") {
			text = line
		}
	}
	if len(r.UnstoredChannels()) != len(all) { // it has changed meanwhile
		return r.unstoredOf()
	}
	if (len(all) == 1) != (text != "") {
		r.t.Fatalf("told of are %+v, troubles say %q", all, text)
	}
	return text
}

// looked waits until the node has looked at the log of the channel that it does not watch.
func (r *rig) looked() {
	r.t.Helper()
	eventually(r.t, "the log is looked at", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, u := range r.mu.unread.of {
			if u.looked != 0 {
				return true
			}
		}
		return false
	})
}

// TestWhatIsSealedAndNotStoredIsToldUntilItIs: an owner seals, storage is away, and it is told
// to watch no more. Nobody stores the rows, which is told: after a crash too, and while they
// are replayed, until they are stored.
func TestWhatIsSealedAndNotStoredIsToldUntilItIs(t *testing.T) {
	w := newWorld(t)
	var away atomic.Bool
	patient := func(o *Options) {
		dispatched(o)
		o.Bucket = full{o.Bucket, &away}
	}
	r := w.open(patient)
	r.create()
	r.own()
	r.load()
	r.insert(between(0, 100)...)
	r.flush()
	away.Store(true)
	r.insert(between(100, 150)...)
	r.remove(1, 2)
	_, _, err := r.Flush(within(t), things, false)
	must(t, err)
	eventually(t, "the flush fails", func() bool { return r.FlushesFailing() > 0 })
	if text := r.unstoredOf(); text != "" {
		t.Errorf("the owner watches, and is told: %s", text)
	}
	_, err = r.UnwatchChannels(within(t), things, nil)
	must(t, err)
	eventually(t, "it is told", func() bool { return strings.Contains(r.unstoredOf(), "segments of ") })
	if text := r.unstoredOf(); !strings.Contains(text, "1 or more segments") || !strings.Contains(text, "Load the collection on this node") {
		t.Error(text)
	}
	r.kill()

	// The next one owns the log, and does not watch either.
	r = w.open(patient)
	r.own()
	eventually(t, "it is told after a crash", func() bool { return strings.Contains(r.unstoredOf(), "1 or more segments") })
	r.load()
	r.has(148)
	eventually(t, "it is told that the channel is watched", func() bool { return strings.Contains(r.unstoredOf(), "is at it") })
	eventually(t, "the flush fails", func() bool { return r.FlushesFailing() > 0 })
	if r.unstoredOf() == "" {
		t.Error("it is not told any more, and nothing is stored")
	}
	r.kill()

	// And one that watches from the start.
	away.Store(false)
	r = w.open(patient)
	r.own()
	eventually(t, "it is told after another crash", func() bool { return r.unstoredOf() != "" })
	r.load()
	eventually(t, "all is stored", func() bool { return r.unstoredOf() == "" })
	c, err := r.o.Catalog.Channel(within(t), r.Channels()[0].VChannel)
	must(t, err)
	rows := int64(0)
	for _, s := range c.Segments {
		rows += s.Rows
	}
	if len(c.Segments) != 2 || rows != 150 {
		t.Errorf("stored are %+v, want two segments with 150 rows", c.Segments)
	}
	r.has(148)
	_, err = r.UnwatchChannels(within(t), things, nil)
	must(t, err)
	r.looked()
	if text := r.unstoredOf(); text != "" {
		t.Errorf("all is stored, and told is: %s", text)
	}
}

// TestRowsThatGrewWithAnOwnerWhoCrashedAreTold once they are older than a watching owner
// lets any become. What is in stored segments, or of partitions that are gone, is not missed.
func TestRowsThatGrewWithAnOwnerWhoCrashedAreTold(t *testing.T) {
	w := newWorld(t)
	r := w.open(dispatched)
	r.create()
	_, err := r.CreatePartition(within(t), things, "p")
	must(t, err)
	r.own()
	r.load()
	r.insertInto("p", 1, 2, 3)
	_, err = r.o.Catalog.DropPartition(within(t), things, "p")
	must(t, err)
	r.kill()

	r = w.open(dispatched)
	r.own()
	r.looked()
	if text := r.unstoredOf(); text != "" {
		t.Errorf("rows of a partition that is gone are missed: %s", text)
	}
	r.load()
	r.insert(between(10, 20)...)
	r.kill()

	r = w.open(dispatched)
	r.own()
	r.looked()
	if text := r.unstoredOf(); text != "" {
		t.Errorf("rows that are new are missed: %s", text)
	}
	r.kill()
	r = w.open(func(o *Options) { dispatched(o); o.Flush.SealAge = 200 * time.Millisecond })
	r.own()
	eventually(t, "they are told when they are old", func() bool { return strings.Contains(r.unstoredOf(), "rows of ") })
	r.load()
	eventually(t, "they are not once they are applied", func() bool { return r.unstoredOf() == "" })
	r.becomes(10)
}

// TestWhoWatchesDoesNotWaitForALook: the one subscription that there may be is theirs.
func TestWhoWatchesDoesNotWaitForALook(t *testing.T) {
	w := newWorld(t)
	r := w.open(dispatched)
	r.create()
	r.own()
	r.load()
	r.insert(1, 2, 3)
	r.kill()

	var hang, hung atomic.Bool
	hang.Store(true)
	w.broker.SetHooks(mqtest.Hooks{BeforeOpenReader: func(ctx context.Context, _ string, o mq.ReaderOptions) error {
		if strings.Contains(o.Name, "#") && hang.Load() { // the dispatcher's
			hung.Store(true)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}})
	r = w.open(dispatched)
	r.own()
	eventually(t, "a look hangs", hung.Load)
	hang.Store(false)
	r.load()
	r.has(3)
	if names := r.o.Dispatcher.Consumers(); len(names) != 1 || !slices.Equal(names[0].VChannels, []string{r.Channels()[0].VChannel}) {
		t.Errorf("consumers: %+v", names)
	}
}

// TestALookDoesNotHoldUpOthers: the queue does not let one on, of a channel that begins at the oldest message, as
// it hangs, or refuses it for good. The other channel is looked at all the same.
func TestALookDoesNotHoldUpOthers(t *testing.T) {
	for name, young := range map[string][]string{"it hangs": {"a", "z"}, "many are refused": {"a", "b", "y", "z"}} { // before and behind it in any list
		t.Run(name, func(t *testing.T) {
			hangs := len(young) < 2*lookersMost
			w := newWorld(t)
			r := w.open(dispatched)
			r.create()
			r.own()
			r.load()
			r.insert(1, 2, 3)
			r.flush()
			r.checkpointed()
			for _, name := range young {
				r.createAs(name, 1)
			}
			r.insert(4, 5)
			r.kill()

			var tried atomic.Bool
			w.broker.SetHooks(mqtest.Hooks{BeforeOpenReader: func(ctx context.Context, _ string, o mq.ReaderOptions) error {
				if !strings.Contains(o.Name, "#") || o.From.ID != "" { // not the dispatcher's, or that of the other
					return nil
				}
				tried.Store(true)
				if hangs {
					<-ctx.Done()
					return ctx.Err()
				}
				return mq.ErrTrimmed
			}})
			r = w.open(func(o *Options) { dispatched(o); o.Flush.SealAge = time.Millisecond })
			r.own()
			eventually(t, "the rows are told", func() bool { return r.unstoredOf() != "" })
			eventually(t, "others are to be looked at", tried.Load)
		})
	}
}

// TestAChannelThatNobodyWatchesDoesNotHoldBackTheTrim, once it is known that nothing of it is in the log alone: it was
// never loaded, or it was let go of when all was stored. What is not stored stays.
func TestAChannelThatNobodyWatchesDoesNotHoldBackTheTrim(t *testing.T) {
	w := newWorld(t)
	r := w.open(func(o *Options) { dispatched(o); o.Flush.SealAge = 10 * time.Millisecond })
	r.create()
	r.own()
	r.load()
	r.insert(between(0, 10)...)
	r.flush()
	r.checkpointed()
	_, err := r.UnwatchChannels(within(t), things, nil)
	must(t, err)
	r.createAs("never_loaded", 1)
	begin := func() mq.Position {
		b, err := r.o.Queue.Bounds(within(t), topic)
		must(t, err)
		return b.First
	}
	trimmed := func(what string) {
		t.Helper()
		l, err := r.WALs().Get(topic)
		must(t, err)
		end := l.Stats().LastPosition
		eventually(t, what, func() bool { return end.Before(begin()) })
	}
	trimmed("the log is trimmed")
	trimmed("it is trimmed again")
	r.insert(between(10, 20)...)
	rows := r.lastOf(things)
	eventually(t, "the rows are told", func() bool { return r.unstoredOf() != "" })
	if rows <= begin().Timestamp {
		t.Error("rows that are not stored are trimmed")
	}
	r.load()
	r.has(20)
	r.flush()
	trimmed("what was stored is trimmed")
	r.kill()
	w.open(nil).ready().has(20)
}

// lastOf is the timestamp of the newest change of a collection of one channel.
func (r *rig) lastOf(collection string) uint64 {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), collection)
	must(r.t, err)
	l, err := r.WALs().Get(topic)
	must(r.t, err)
	return l.LastOf(coll.VChannels[0].Name)
}

// TestALookThatKeepsFailingIsToldNowAndThen: a lost topic fails it for good.
func TestALookThatKeepsFailingIsToldNowAndThen(t *testing.T) {
	var u unwatched
	start := time.Now()
	for _, c := range []struct {
		after time.Duration
		err   error
		told  bool
	}{
		{0, mq.ErrTrimmed, true},
		{15 * time.Second, mq.ErrTrimmed, false},
		{30 * time.Second, errclass.New(errclass.Retryable, "the storage is away"), true},
		{45 * time.Second, errclass.New(errclass.Retryable, "it still is"), false},
		{30*time.Second + failedToldEvery, errclass.New(errclass.Retryable, "it still is"), true},
	} {
		if got := u.tell(start.Add(c.after), c.err); got != c.told {
			t.Errorf("after %s, %v: told %t", c.after, c.err, got)
		}
	}
}
