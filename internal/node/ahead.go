package node

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/querynode/querynode/mq/wal"
)

// Ahead is a log whose newest timestamp is ahead of this node's clock: timestamps only grow,
// so that one machine whose clock was wrong moves all that is written after it, until
// the clocks have caught up.
type Ahead struct {
	PChannel string
	By       time.Duration
	Newest   time.Time // of the log
}

// aheadFor is how far a log may be ahead and nobody is told: clocks of machines differ,
// and many rows in a millisecond move a log by some.
const aheadFor = 10 * time.Second

// aheadTold is how often the log is told of one that is ahead.
const aheadTold = 5 * time.Minute

// newest returns the newest timestamp that this node knows of each log.
func (n *Node) newest() map[string]uint64 {
	all := map[string]uint64{}
	for _, st := range n.wals.List() {
		if w, err := n.wals.Get(st.PChannel); err == nil {
			all[st.PChannel] = w.LastTimestamp()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.mu.serving {
		for _, w := range s.channels {
			all[w.pchannel] = max(all[w.pchannel], w.channel.Tsafe())
		}
	}
	return all
}

// LogsAhead lists the logs that are far ahead of the clock, by name.
func (n *Node) LogsAhead() (list []Ahead) {
	now := n.o.Now()
	for pchannel, ts := range n.newest() {
		if by := wal.Time(ts).Sub(now); by > aheadFor {
			list = append(list, Ahead{PChannel: pchannel, By: by, Newest: wal.Time(ts)})
		}
	}
	slices.SortFunc(list, func(a, b Ahead) int { return cmp.Compare(a.PChannel, b.PChannel) })
	return list
}

// String says what it is and what it does.
func (a Ahead) String() string {
	return fmt.Sprintf("the log of %s is %s ahead of this node's clock: its newest entry is of %s. The clock of a machine that wrote to it was wrong, or this one's is. "+
		"Until it has caught up, rows that are written count as that much newer: a TTL ends that much later, reads at a time of the clock do not see them, and BOUNDED reads wait for nothing",
		a.PChannel, a.By.Round(time.Second), a.Newest.UTC().Format(time.RFC3339))
}

// tellAhead tells the log of logs that are ahead of the clock. It is the keeper's.
func (n *Node) tellAhead(told map[string]time.Time) {
	list := n.LogsAhead()
	for _, a := range list {
		if now := time.Now(); now.Sub(told[a.PChannel]) >= aheadTold {
			told[a.PChannel] = now
			n.o.Logger.Warn("node: "+a.String(), "pchannel", a.PChannel, "ahead", a.By, "newest", a.Newest)
		}
	}
	for pchannel := range told {
		if !slices.ContainsFunc(list, func(a Ahead) bool { return a.PChannel == pchannel }) {
			delete(told, pchannel)
			n.o.Logger.Info("node: the clock has caught up with the log, or the log has left this node", "pchannel", pchannel)
		}
	}
}
