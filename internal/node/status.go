package node

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/mq/wal"
)

// ChannelStatus is one watched channel.
type ChannelStatus struct {
	VChannel    string
	PChannel    string
	Collection  string
	State       string // of the subscription
	Tsafe       uint64
	Lag         time.Duration // of tsafe behind the clock
	Quarantined int64         // messages set aside
	Err         error
	Replay      Replay
}

// Channels describes the watched channels in order of their names.
func (n *Node) Channels() []ChannelStatus {
	now := n.o.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []ChannelStatus
	for _, s := range n.mu.serving {
		for name, w := range s.channels {
			info := w.handle.Info()
			tsafe := w.channel.Tsafe()
			out = append(out, ChannelStatus{
				VChannel: name, PChannel: w.pchannel, Collection: s.coll.Info().Name, State: info.State.String(), Tsafe: tsafe,
				Lag: max(0, now.Sub(wal.Time(tsafe))), Quarantined: w.sink.Quarantined(), Err: w.handle.Err(),
				Replay: n.replayOf(w),
			})
		}
	}
	slices.SortFunc(out, func(a, b ChannelStatus) int { return cmp.Compare(a.VChannel, b.VChannel) })
	return out
}

// BrokenSegments is the number of segments that this node should serve and cannot
// load, see Broken.
func (n *Node) BrokenSegments() (all int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.mu.serving {
		all += len(s.broken)
	}
	return all
}

// FlushesFailing is the number of channels that cannot be flushed for now.
func (n *Node) FlushesFailing() int { return n.flusher.Failing() }

// UnindexedFields is how many fields of segments have been stored without their index so far, since there was no room for it.
func (n *Node) UnindexedFields() int64 { return n.flusher.Unindexed() }

// FailingFlushes lists them, and why.
func (n *Node) FailingFlushes() []flush.Failure { return n.flusher.Failures() }

// UnstoredChannels lists the channels with rows that nobody stores: this node owns their log
// and does not watch them, or has just begun to.
func (n *Node) UnstoredChannels() []flush.Unstored { return n.flusher.Unstored() }

// Troubles says for people what the node has to do without, though it serves: what the
// keeper tries again, collections that are set aside, flushes that fail, topics that have
// lost messages, and channels that are not stored.
func (n *Node) Troubles() (all []string) {
	if err := n.Problem(); err != nil {
		all = append(all, err.Error())
	}
	for _, a := range n.SetAside() {
		what := "not served, what the catalog says of it cannot be read"
		if a.CollectionID != 0 {
			what = fmt.Sprintf("collection %d is %s", a.CollectionID, what)
		} else {
			what = "a collection is " + what
		}
		all = append(all, fmt.Sprintf("%s: %v", what, a.Err))
	}
	for _, f := range n.FailingFlushes() {
		all = append(all, fmt.Sprintf("flush of %s fails for %s, the log keeps what is not stored: %v", f.What, n.o.Now().Sub(f.Since).Round(time.Second), f.Err))
	}
	for _, t := range n.LostTopics() {
		if !t.Reader { // that is the problem, or a part of it
			all = append(all, t.String())
		}
	}
	for _, u := range n.UnprovenChannels() {
		all = append(all, u.String())
	}
	for _, a := range n.LogsAhead() {
		all = append(all, a.String())
	}
	for _, u := range n.UnstoredChannels() {
		what, do := fmt.Sprintf("rows of %s are in the log, %s, and not stored", u.VChannel, u.PChannel),
			"as this node owns the log and does not watch the channel; the log keeps them. Load the collection on this node, or assign the log to the one that serves it"
		if u.Segments > 0 {
			what = fmt.Sprintf("%d or more segments of %s are sealed and not stored; their rows are in the log, %s", u.Segments, u.VChannel, u.PChannel)
		}
		if u.Watched {
			do = "and this node, which watches the channel again, is at it"
		}
		all = append(all, fmt.Sprintf("%s, since %s (%s), %s", what, u.Since.UTC().Format(time.RFC3339), n.o.Now().Sub(u.Since).Round(time.Second), do))
	}
	return all
}

// CatalogStats counts what the catalog had to try again.
func (n *Node) CatalogStats() catalog.Stats { return n.o.Catalog.Stats() }

// Version grows with each change of what is served: segments, channels, what is
// broken. One of the channels is closed at the next change.
func (n *Node) Version() (version int64, segments, others <-chan struct{}) {
	version, segments = n.o.Segments.Version()
	n.mu.Lock()
	defer n.mu.Unlock()
	return version + n.mu.changes, segments, n.mu.changed
}

func (n *Node) changedLocked() {
	n.mu.changes++
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// Closing is closed when Close begins.
func (n *Node) Closing() <-chan struct{} { return n.group.Context().Done() }
