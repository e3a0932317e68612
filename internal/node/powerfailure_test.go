package node

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
)

// lazyQueue is an embedded queue on a machine that keeps what was synced, and nothing else.
type lazyQueue struct {
	*embedded.Queue
	dir string

	mu   sync.Mutex
	safe map[string]int64 // how long its files were when they were synced
}

func (q *lazyQueue) Sync(ctx context.Context, topic string) error {
	sizes := map[string]int64{}
	must := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			sizes[path] = st.Size()
		}
		return err
	}
	if err := filepath.WalkDir(q.dir, must); err != nil {
		return err
	}
	if err := q.Queue.Sync(ctx, topic); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.safe = sizes
	return nil
}

// powerOff makes to the disk as it is after a power failure now.
func (q *lazyQueue) powerOff(t *testing.T, to string) {
	t.Helper()
	must(t, os.CopyFS(to, os.DirFS(q.dir)))
	q.mu.Lock()
	defer q.mu.Unlock()
	logs, err := filepath.Glob(filepath.Join(q.dir, "*", "*.seg"))
	must(t, err)
	for _, path := range logs {
		rel, err := filepath.Rel(q.dir, path)
		must(t, err)
		must(t, os.Truncate(filepath.Join(to, rel), max(q.safe[path], 128))) // its header is synced at once
	}
}

// TestAPowerFailureLeavesALogThatReachesWhatIsStored, whatever is synced when: the node
// starts, and what is stored is there.
func TestAPowerFailureLeavesALogThatReachesWhatIsStored(t *testing.T) {
	for name, policy := range map[string]embedded.SyncPolicy{"always": embedded.SyncAlways, "interval": embedded.SyncInterval, "none": embedded.SyncNone} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			open := func(dir string) (*rig, *lazyQueue) {
				q, err := embedded.Open(embedded.Options{Dir: dir, Sync: policy, SyncInterval: time.Hour})
				must(t, err)
				lazy := &lazyQueue{Queue: q, dir: dir}
				w.queue = func() mq.Queue { return lazy }
				return w.open(func(o *Options) { o.Sole = true }), lazy
			}
			dir, left := filepath.Join(t.TempDir(), "q"), filepath.Join(t.TempDir(), "left")
			r, q := open(dir)
			r.ready().create()
			r.insert(between(0, 100)...)
			r.flush()
			r.checkpointed()
			r.insert(between(100, 110)...)
			r.dead.Store(true) // nothing is stored from here on
			if policy == embedded.SyncAlways {
				must(t, q.Sync(within(t), topic))
			}
			q.powerOff(t, left)
			r.close()

			r, _ = open(left)
			r.ready()
			n, _, err := r.count(within(t), false)
			must(t, err)
			if n < 100 || policy == embedded.SyncAlways && n != 110 {
				t.Fatalf("%d rows are left of 110, of which 100 were stored", n)
			}
			r.insert(between(200, 210)...)
			r.flush()
			r.has(n + 10)
		})
	}
}
