// Package node is what a query node does: the use cases behind the API, in Go
// terms. It knows every part and owns the order in which they work together;
// internal/server translates the API to it.
package node

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/compact"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// Options configure a Node. The parts belong to the caller, who opens them
// before the Node and closes them after it.
type Options struct {
	// Name of the node in lists and logs. Required.
	Name string
	// Dir is scratch space of this run. Required.
	Dir string
	// The parts; all required.
	Catalog    *catalog.Catalog
	Bucket     objstore.Bucket
	Queue      mq.Queue
	Segments   *segments.Set
	Dispatcher *dispatcher.Manager
	// PChannels are the topics that new collections are spread over. Required.
	PChannels []string
	// Standalone makes the node its own coordinator: it owns all PChannels and
	// serves every collection of the catalog.
	Standalone bool
	// Sole says that nobody but this node can write to Queue: it is the embedded
	// one, whose folder this process has locked, and no other node uses it. Then the
	// node cannot be replaced as the owner of a log without knowing, and a STRONG
	// read need not ask. See Node.acknowledged.
	Sole bool
	// AdoptQueue is the identity of a queue, as mq.Private tells it, that takes the place
	// of another one which is gone, with what only that had. "" = none does.
	AdoptQueue string
	// BoundedStaleness is how old a BOUNDED read may be. 0 = 5 s.
	BoundedStaleness time.Duration
	// MaxAnswerBytes is what the values of one answer of Search, HybridSearch or Get may
	// have. 0 = 100 MiB.
	MaxAnswerBytes int64
	// RefreshInterval is how often the catalog is looked at for segments that
	// other nodes have flushed, and for collections to serve. 0 = 5 s.
	RefreshInterval time.Duration
	// SweepInterval is how often what dropped collections, replaced segments and
	// calls that did not end left in object storage is removed; see the catalog's
	// Sweep. 0 = 10 minutes.
	SweepInterval time.Duration
	// CallTimeout bounds each call of catalog and queue. 0 = 30 s.
	CallTimeout time.Duration
	// Flush configures sealing; its parts are filled in by the Node.
	Flush flush.Options
	// Compact configures compactions; its parts are filled in by the Node.
	Compact compact.Options
	// WAL configures the logs; its parts are filled in by the Node.
	WAL wal.Options
	// Now is the clock. Nil = time.Now.
	Now func() time.Time
	// Logger gets what an operator should see. Nil = discard.
	Logger *slog.Logger
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	o.BoundedStaleness = cmp.Or(o.BoundedStaleness, 5*time.Second)
	o.RefreshInterval = cmp.Or(o.RefreshInterval, 5*time.Second)
	o.SweepInterval = cmp.Or(o.SweepInterval, 10*time.Minute)
	o.CallTimeout = cmp.Or(o.CallTimeout, 30*time.Second)
	o.MaxAnswerBytes = cmp.Or(o.MaxAnswerBytes, 100<<20)
	o.Compact.Retention = cmp.Or(o.Compact.Retention, time.Hour) // reads are refused by it too
	o.Compact.ReadSlack = cmp.Or(o.Compact.ReadSlack, time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	need := func(ok bool, name string) {
		if !ok {
			errs = append(errs, errors.Newf("node: %s is required", name))
		}
	}
	need(o.Name != "", "Name")
	need(o.Dir != "", "Dir")
	need(o.Catalog != nil, "Catalog")
	need(o.Bucket != nil, "Bucket")
	need(o.Queue != nil, "Queue")
	need(o.Segments != nil, "Segments")
	need(o.Dispatcher != nil, "Dispatcher")
	need(len(o.PChannels) > 0, "PChannels")
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

// Node is a running query node. Open it with Open, Close it before its parts.
type Node struct {
	o         Options
	wals      *wal.Manager
	flusher   *flush.Flusher
	compactor *compact.Compactor
	group     *lifecycle.Group
	names     *nameCache
	logEnds   logEnds
	written   written
	clock     wal.Clock     // of all logs of this node
	kick      chan struct{} // wakes the keeper; capacity 1
	chored    chan struct{} // tells it that a chore has ended; capacity 1
	ready     chan struct{} // closed once everything to be served at the start is
	started   time.Time

	mu struct {
		sync.Mutex
		serving map[int64]*serving
		problem error                  // why the keeper is not done yet
		queues  map[string]*queueState // by pchannel
		chores  chores                 // of the keeper
		unread  unread                 // channels of own logs that are not watched
		lost    lostTopics             // of own logs
		listed  error                  // why its last pass could not list the collections
		aside   map[int64]error        // by collection, see SetAside
		changes int64                  // of channels and broken segments
		changed chan struct{}          // closed at the next one
	}
	onFlush struct {
		sync.Mutex
		next int
		subs map[int]func(flush.Progress)
	}
}

// Open returns a running node. In standalone mode it takes its pchannels and
// loads the catalog's collections in the background: see Ready.
func Open(o Options) (_ *Node, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var opened []func(context.Context) error
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), o.CallTimeout)
		defer cancel()
		for _, closer := range slices.Backward(opened) {
			err = errors.CombineErrors(err, closer(ctx))
		}
	}()
	n := &Node{o: o, names: newNameCache(o.Now), kick: make(chan struct{}, 1), chored: make(chan struct{}, 1), ready: make(chan struct{}), started: o.Now()}
	n.mu.serving = map[int64]*serving{}
	n.mu.queues = map[string]*queueState{}
	n.mu.chores = newChores()
	n.mu.unread = newUnread()
	n.mu.lost = newLostTopics()
	n.mu.aside = map[int64]error{}
	n.logEnds.mu.next = map[string]*logEnd{}
	n.written.mu.of = map[string]*noting{}
	n.mu.changed = make(chan struct{})
	n.onFlush.subs = map[int]func(flush.Progress){}
	n.group = lifecycle.NewGroup(context.Background(), n.ended)
	if n.wals, err = wal.NewManager(wal.ManagerOptions{Open: n.walOptions, Logger: o.Logger}); err != nil {
		return nil, err
	}
	opened = append(opened, n.wals.Close)
	fo := o.Flush
	fo.Catalog, fo.Bucket, fo.Dir, fo.Logger = o.Catalog, o.Bucket, filepath.Join(o.Dir, "flush"), o.Logger
	fo.WAL, fo.Channels = n.wals.Get, n.watched
	fo.OnFlushed = func(flush.Flushed) { n.Kick() }
	fo.OnProgress = n.flushProgress
	fo.Pressed = n.pressed
	fo.EnsureDefaults()
	if limit := o.Segments.Ledger().Limit(); limit > 0 {
		// Who loads a collection of several shards has room for them.
		fo.MaxUnreadBytes = min(fo.MaxUnreadBytes, max(1, limit/16))
	}
	if n.flusher, err = flush.New(fo); err != nil {
		return nil, err
	}
	opened = append(opened, n.flusher.Close)
	co := o.Compact
	co.Catalog, co.Bucket, co.Dir, co.Logger = o.Catalog, o.Bucket, filepath.Join(o.Dir, "compact"), o.Logger
	co.Channels, co.Now = n.compactable, o.Now
	co.OnCompacted = func(compact.Done) { n.Kick() }
	if n.compactor, err = compact.New(co); err != nil {
		return nil, err
	}
	opened = append(opened, n.compactor.Close, n.group.Close)
	if err := n.group.Go("sweeper", n.sweep); err != nil {
		return nil, err
	}
	if err := n.group.Go("keeper", n.keep); err != nil {
		return nil, err
	}
	return n, nil
}

// Growing segments are sealed from sealAt percent of the memory on, once making sealed ones
// cold, which begins earlier and costs no upload, has not been enough; from sealAllAt on small
// ones too. Inserts go on until memoryReserve.
const (
	sealAt    = 80
	sealAllAt = 90
)

// pressed says which growing segments are sealed because there is no room.
func (n *Node) pressed(bytes int64) bool {
	return n.memoryPressed(bytes) || n.diskPressed(bytes)
}

// memoryPressed: large ones first, all when memory is very short.
func (n *Node) memoryPressed(bytes int64) bool {
	l := n.o.Segments.Ledger()
	if !l.Short(sealAt) {
		return false
	}
	return l.Above(sealAllAt) || bytes >= l.Limit()/segments.LargeShare
}

// diskPressed: flushes let go of files of a queue that is on the local disk.
func (n *Node) diskPressed(bytes int64) bool {
	return n.o.Sole && n.o.Segments.DiskShort(bytes)
}

func (n *Node) ended(name string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		n.o.Logger.Error("node: goroutine ended with an error", "name", name, "error", err)
	}
}

// Name is the node's name.
func (n *Node) Name() string { return n.o.Name }

// Segments is what is searchable.
func (n *Node) Segments() *segments.Set { return n.o.Segments }

// Dispatcher owns the consumers.
func (n *Node) Dispatcher() *dispatcher.Manager { return n.o.Dispatcher }

// WALs are the logs that this node owns.
func (n *Node) WALs() *wal.Manager { return n.wals }

// Ready is closed once the node serves what it is to serve from the start: at
// once if it is not standalone.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Problem says what the keeper could not do at its last try, and will try
// again; nil when all is well.
func (n *Node) Problem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.problem
}

// call returns a context for one call of catalog or queue.
func (n *Node) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, n.o.CallTimeout)
}

func (n *Node) now() uint64 { return wal.FromTime(n.o.Now()) }

// Close stops in order: keeper, compactor, flusher, subscriptions, logs. It waits until ctx
// ends and returns what did not stop. Sets, queue and dispatcher are the caller's.
func (n *Node) Close(ctx context.Context) error {
	errs := []error{
		errors.Wrap(n.group.Close(ctx), "node"),
		n.compactor.Close(ctx),
		n.flusher.Close(ctx),
		n.unwatchAll(ctx),
		errors.Wrap(n.wals.Close(ctx), "write-ahead logs"),
	}
	return errors.Join(errs...)
}

// OnFlushProgress calls fn with the progress of flushes until the returned
// function is called. fn must not block.
func (n *Node) OnFlushProgress(fn func(flush.Progress)) (cancel func()) {
	n.onFlush.Lock()
	defer n.onFlush.Unlock()
	id := n.onFlush.next
	n.onFlush.next++
	n.onFlush.subs[id] = fn
	return func() {
		n.onFlush.Lock()
		defer n.onFlush.Unlock()
		delete(n.onFlush.subs, id)
	}
}

func (n *Node) flushProgress(p flush.Progress) {
	n.onFlush.Lock()
	defer n.onFlush.Unlock()
	for _, fn := range n.onFlush.subs {
		fn(p)
	}
}
