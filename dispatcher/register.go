package dispatcher

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/querynode/querynode/mq"
)

// Kind says what a consumer is for.
type Kind string

// The kinds of consumers.
const (
	Shared  Kind = "shared"
	CatchUp Kind = "catch-up"
)

// ConsumerState says what a consumer is doing.
type ConsumerState string

// The states of a consumer.
const (
	ConsumerOpening ConsumerState = "opening"
	ConsumerReading ConsumerState = "reading"
	ConsumerPaused  ConsumerState = "paused" // waits for a subscription's buffer
	ConsumerBackoff ConsumerState = "backoff"
	ConsumerClosing ConsumerState = "closing"
)

// ConsumerInfo describes one consumer in the register.
type ConsumerInfo struct {
	Name      string
	PChannel  string
	VChannels []string // attached subscriptions, sorted
	Kind      Kind
	State     ConsumerState
	// Leaked: its reader hangs, or its Close failed. It stays listed until Close succeeds.
	Leaked bool
	// Position is the last one handed out; zero = none yet, reading from the oldest.
	Position mq.Position
	Lag      Lag
	// Rate is messages a second over about the last second.
	Rate     float64
	Messages uint64 // handed out since it was registered
	Age      time.Duration
	LastErr  error // nil = none so far
}

// Lag is how far something is behind.
type Lag struct {
	// MS is now minus the position's physical time; -1 = not known.
	MS int64
	// Messages read from the queue and not yet handed on or applied; -1 = not
	// known, because more of them have not been read yet.
	Messages int64
}

// lagMS of a hybrid timestamp; -1 when there is none.
func lagMS(ts uint64, now time.Time) int64 {
	if ts == 0 {
		return -1
	}
	return max(0, now.UnixMilli()-mq.Physical(ts))
}

// register lists every consumer: entered before its reader is opened, removed
// after that reader's Close returned.
type register struct {
	prefix string

	mu struct {
		sync.Mutex
		entries    map[uint64]*entry
		registered uint64 // also the last id
		closed     uint64
	}
}

func (r *register) init(prefix string) {
	r.prefix = prefix
	r.mu.entries = map[uint64]*entry{}
}

// entry is one consumer in the register. Its actor writes, anyone reads.
type entry struct {
	id       uint64
	name     string
	pchannel string
	since    time.Time

	mu struct {
		sync.Mutex
		kind     Kind
		state    ConsumerState
		leaked   bool
		pos      mq.Position
		inbox    int64
		messages uint64
		lastErr  error
		rate     rate
	}
}

// rate counts messages in windows of a second.
type rate struct {
	start time.Time
	n     uint64
	last  float64
}

func (r *rate) add(n uint64, now time.Time) {
	r.n += n
	if d := now.Sub(r.start); d >= time.Second {
		r.last = float64(r.n) / d.Seconds()
		r.start, r.n = now, 0
	}
}

func (r rate) now(now time.Time) float64 {
	r.add(0, now)
	return r.last
}

func (r *register) add(pchannel string, k Kind, pos mq.Position) *entry {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.registered++
	id := r.mu.registered
	e := &entry{id: id, pchannel: pchannel, since: now}
	e.name = r.prefix + "/" + pchannel + "#" + strconv.FormatUint(id, 10)
	e.mu.kind, e.mu.state, e.mu.pos, e.mu.rate.start = k, ConsumerOpening, pos, now
	r.mu.entries[id] = e
	return e
}

// remove reports whether e was still there.
func (r *register) remove(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.entries[e.id] != e {
		return false
	}
	delete(r.mu.entries, e.id)
	r.mu.closed++
	return true
}

func (r *register) list() []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*entry, 0, len(r.mu.entries))
	for _, e := range r.mu.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return int(a.id) - int(b.id) })
	return list
}

func (r *register) counts() (registered, closed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.registered, r.mu.closed
}

func (e *entry) set(s ConsumerState, k Kind) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.state, e.mu.kind = s, k
}

func (e *entry) progress(pos mq.Position, n uint64, inbox int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.pos, e.mu.inbox = pos, int64(inbox)
	e.mu.messages += n
	e.mu.rate.add(n, time.Now())
}

func (e *entry) failed(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.lastErr = err
}

// leak reports whether e was not marked before.
func (e *entry) leak(err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !e.mu.leaked
	e.mu.leaked, e.mu.lastErr = true, err
	return first
}

func (e *entry) isLeaked() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.leaked
}

func (e *entry) info(now time.Time) ConsumerInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := ConsumerInfo{
		Name: e.name, PChannel: e.pchannel, Kind: e.mu.kind, State: e.mu.state, Leaked: e.mu.leaked,
		Position: e.mu.pos, Rate: e.mu.rate.now(now), Messages: e.mu.messages,
		Age: now.Sub(e.since), LastErr: e.mu.lastErr,
		Lag: Lag{MS: lagMS(e.mu.pos.Timestamp, now), Messages: -1},
	}
	if i.Kind == Shared {
		i.Lag.Messages = e.mu.inbox
	}
	return i
}
