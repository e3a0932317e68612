package node

import (
	"fmt"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq/wal"
)

// Replay is how far a channel has read what was in its log when this node opened
// it. It moves while the node recovers; a node that is killed then goes on from
// the checkpoint, which follows what is stored meanwhile.
type Replay struct {
	Messages int64
	Rows     int64
	Bytes    int64
	Position string  // up to which it has applied; "" = at the beginning
	Share    float64 // 0 to 1, by timestamps; 1 = done, or the log is not this node's
	Waits    error   // why the next message cannot be applied yet, as there is no room for its rows; nil = it can
}

// replayLook is how often the keeper looks how far a recovery is.
const replayLook = 20 * time.Millisecond

// replayOf measures one channel.
func (n *Node) replayOf(w *watch) Replay {
	c := w.sink.Counts()
	r := Replay{Messages: c.Messages, Rows: c.Rows, Bytes: c.Bytes, Share: 1, Waits: w.sink.Waits()}
	if at := w.handle.Info().Position; !at.IsZero() {
		r.Position = at.String()
	}
	l, err := n.wals.Get(w.pchannel)
	if err != nil {
		return r
	}
	end, tsafe, from := l.Opened(), w.channel.Tsafe(), w.from
	if from == 0 {
		from = c.First
	}
	switch {
	case l.State() != wal.Ready && end == 0, tsafe <= from && tsafe < end:
		r.Share = 0
	case tsafe < end && end > from:
		r.Share = float64(tsafe-from) / float64(end-from)
	}
	return r
}

// replaying returns an error of class Retryable that says how far the channels
// are that still read what was in their logs at the start; nil = all have, or
// nobody asks.
func (n *Node) replaying(ask bool) error {
	if !ask || !n.o.Standalone {
		return nil
	}
	var left int
	var slowest ChannelStatus
	for _, ch := range n.Channels() {
		if ch.Replay.Share >= 1 {
			continue
		}
		if left++; left == 1 || ch.Replay.Share < slowest.Replay.Share {
			slowest = ch
		}
	}
	if left == 0 {
		return nil
	}
	waits := ""
	if slowest.Replay.Waits != nil {
		waits = fmt.Sprintf("; it waits: %v", slowest.Replay.Waits)
	}
	return errclass.New(errclass.Retryable, "%d channels replay their logs; the slowest, %s, has done %.0f %%: %d rows, %d bytes, at %s%s",
		left, slowest.VChannel, 100*slowest.Replay.Share, slowest.Replay.Rows, slowest.Replay.Bytes, slowest.Replay.Position, waits)
}

// LogStatus is a write-ahead log with what its channels on this node have replayed of it.
type LogStatus struct {
	wal.ChannelStatus
	Replay      Replay // sums; Share is that of the slowest, Position the lowest
	Quarantined int64  // messages set aside
}

// Logs describes the write-ahead logs of this node in order of their names.
func (n *Node) Logs() []LogStatus {
	channels := n.Channels()
	var out []LogStatus
	for _, st := range n.wals.List() {
		l := LogStatus{ChannelStatus: st, Replay: Replay{Share: st.Progress.Share}}
		if w, err := n.wals.Get(st.PChannel); err == nil {
			l.Quarantined = int64(w.Stats().Quarantined)
		}
		for _, ch := range channels {
			if ch.PChannel != st.PChannel {
				continue
			}
			r := &l.Replay
			r.Messages, r.Rows, r.Bytes = r.Messages+ch.Replay.Messages, r.Rows+ch.Replay.Rows, r.Bytes+ch.Replay.Bytes
			l.Quarantined += ch.Quarantined
			if ch.Replay.Share < r.Share || r.Position == "" {
				r.Share, r.Position = min(r.Share, ch.Replay.Share), ch.Replay.Position
			}
		}
		out = append(out, l)
	}
	return out
}
