package admin

import (
	"runtime"
	"time"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

// status is what /statusz shows. Its keys may change between versions.
type status struct {
	Name          string            `json:"name"`
	Version       string            `json:"version"`
	State         string            `json:"state"`
	Missing       []string          `json:"missing,omitempty"` // why it is not ready
	History       []change          `json:"history"`
	UptimeSeconds float64           `json:"uptime_seconds"`
	Goroutines    int               `json:"goroutines"`
	Go            string            `json:"go"`
	Problem       string            `json:"problem,omitempty"`  // what the keeper of the node tries again
	Troubles      []string          `json:"troubles,omitempty"` // what it does without: problem, what is set aside, flushes that fail
	Collections   []collection      `json:"collections,omitempty"`
	Loading       []int64           `json:"loading,omitempty"`
	Channels      []channel         `json:"channels,omitempty"`
	Logs          []log             `json:"logs,omitempty"`
	Consumers     []consumer        `json:"consumers,omitempty"`
	Dispatcher    *dispatcherTotals `json:"dispatcher,omitempty"`
	Memory        *memory           `json:"memory,omitempty"`
	Pool          *poolTotals       `json:"pool,omitempty"`
	PoolRunning   []string          `json:"pool_running,omitempty"`
	Queue         *embedded.Stats   `json:"queue,omitempty"`
	QueueOpen     []string          `json:"queue_open,omitempty"`
}

type change struct {
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

type collection struct {
	ID       int64                    `json:"id"`
	Name     string                   `json:"name"`
	Segments []segments.SegmentStatus `json:"segments"`
}

type channel struct {
	VChannel    string `json:"vchannel"`
	PChannel    string `json:"pchannel"`
	Collection  string `json:"collection"`
	State       string `json:"state"`
	Tsafe       uint64 `json:"tsafe"`
	LagMillis   int64  `json:"lag_millis"`
	Quarantined int64  `json:"quarantined"`
	Error       string `json:"error,omitempty"`
}

type log struct {
	PChannel string  `json:"pchannel"`
	Term     uint64  `json:"term"`
	Assigned bool    `json:"assigned"`
	State    string  `json:"state"`
	Attempts int     `json:"attempts"`
	Replayed float64 `json:"replayed"` // share, 0 to 1
	Rows     int64   `json:"replayed_rows"`
	Bytes    int64   `json:"replayed_bytes"`
	Position string  `json:"replayed_position,omitempty"`
	Error    string  `json:"error,omitempty"`
}

type consumer struct {
	Name       string   `json:"name"`
	PChannel   string   `json:"pchannel"`
	VChannels  []string `json:"vchannels"`
	Kind       string   `json:"kind"`
	State      string   `json:"state"`
	Leaked     bool     `json:"leaked,omitempty"`
	LagMillis  int64    `json:"lag_millis"`
	Messages   uint64   `json:"messages"`
	AgeSeconds float64  `json:"age_seconds"`
	Error      string   `json:"error,omitempty"`
}

// dispatcherTotals are the dispatcher's counters, with names for its states.
type dispatcherTotals struct {
	dispatcher.Stats
	Subscriptions map[string]int // instead of the map by state
}

// poolTotals are the pool's counters without the histograms.
type poolTotals struct {
	pool.Stats
	Wait, Run *struct{} `json:",omitempty"` // instead of the histograms
}

type memory struct {
	LimitBytes int64                   `json:"limit_bytes"`
	UsedBytes  map[segments.Kind]int64 `json:"used_bytes"`
	TotalBytes int64                   `json:"total_bytes"` // what counts against the limit
	Refused    int64                   `json:"refused"`
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *Server) status() *status {
	st := s.o.Machine.State()
	out := &status{
		Name: s.o.Name, Version: s.o.Version, State: st.String(), UptimeSeconds: time.Since(s.began).Seconds(),
		Goroutines: runtime.NumGoroutine(), Go: runtime.Version(), History: []change{},
	}
	if !st.Ready() {
		out.Missing = s.missing()
	}
	for _, c := range s.o.Machine.History() {
		out.History = append(out.History, change{c.From.String(), c.To.String(), c.Reason, c.At})
	}
	if p := s.o.Parts(); p != nil {
		out.add(p)
	}
	return out
}

func (out *status) add(p *Parts) {
	set := p.Node.Segments()
	for _, c := range set.Collections() {
		out.Collections = append(out.Collections, collection{c.Info().ID, c.Info().Name, c.Segments()})
	}
	out.Loading = set.Loading()
	out.Problem = text(p.Node.Problem())
	out.Troubles = p.Node.Troubles()
	for _, c := range p.Node.Channels() {
		out.Channels = append(out.Channels, channel{c.VChannel, c.PChannel, c.Collection, c.State, c.Tsafe, c.Lag.Milliseconds(), c.Quarantined, text(c.Err)})
	}
	for _, l := range p.Node.Logs() {
		out.Logs = append(out.Logs, log{l.PChannel, l.Term, l.Assigned, l.State.String(), l.Attempts, l.Replay.Share, l.Replay.Rows, l.Replay.Bytes,
			l.Replay.Position, text(l.Err)})
	}
	d := p.Node.Dispatcher()
	for _, c := range d.Consumers() {
		out.Consumers = append(out.Consumers, consumer{c.Name, c.PChannel, c.VChannels, string(c.Kind), string(c.State), c.Leaked, c.Lag.MS, c.Messages, c.Age.Seconds(), text(c.LastErr)})
	}
	totals := &dispatcherTotals{Stats: d.Stats(), Subscriptions: map[string]int{}}
	for state, n := range totals.Stats.Subscriptions {
		totals.Subscriptions[state.String()] = n
	}
	out.Dispatcher = totals
	l := set.Ledger()
	out.Memory = &memory{l.Limit(), l.Used(), l.Total(), l.Refused()}
	if p.Pool != nil {
		out.Pool = &poolTotals{Stats: p.Pool.Stats()}
		out.PoolRunning = p.Pool.Running()
	}
	if p.Queue != nil {
		q := p.Queue.Stats()
		out.Queue, out.QueueOpen = &q, p.Queue.Handles()
	}
}
