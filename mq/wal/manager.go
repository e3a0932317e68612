package wal

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// ManagerOptions configure NewManager.
type ManagerOptions struct {
	// Open returns the options for a WAL: queue, checkpoint, replay and so on.
	// The manager sets PChannel and Term itself. It is called before each
	// opening, from one goroutine per pchannel, and its context ends when a
	// newer command comes.
	Open func(ctx context.Context, pchannel string, term uint64) (Options, error)
	// OpenTimeout bounds one call of Open. 0 = 30 s.
	OpenTimeout time.Duration
	// MinBackoff and MaxBackoff say how long to wait before a WAL that failed is
	// opened again: from the first, doubled each time, up to the second. A WAL
	// that was ready for MaxBackoff starts anew. 0 = 100 ms and 5 s: after a broker
	// that took a minute to restart, nobody is to wait for half a minute more.
	MinBackoff time.Duration
	MaxBackoff time.Duration
	// CloseTimeout bounds Close. 0 = 15 s.
	CloseTimeout time.Duration
	// Logger gets what fails and is tried again. nil = discard.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the defaults.
func (o *ManagerOptions) EnsureDefaults() {
	o.OpenTimeout = cmp.Or(o.OpenTimeout, 30*time.Second)
	o.MinBackoff = cmp.Or(o.MinBackoff, 100*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 15*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports all problems at once, with class Invalid.
func (o *ManagerOptions) Validate() error {
	var problems []error
	if o.Open == nil {
		problems = append(problems, errors.New("Open is not set"))
	}
	if o.OpenTimeout <= 0 {
		problems = append(problems, errors.New("OpenTimeout must be > 0"))
	}
	if o.CloseTimeout <= 0 {
		problems = append(problems, errors.New("CloseTimeout must be > 0"))
	}
	if o.MinBackoff <= 0 || o.MaxBackoff < o.MinBackoff {
		problems = append(problems, errors.New("backoff: 0 < MinBackoff <= MaxBackoff is needed"))
	}
	return errclass.Wrap(errors.Join(problems...), errclass.Invalid, "wal manager options")
}

// Outcome says what became of a command to the manager.
type Outcome uint8

const (
	// Applied: the command was carried out, or its carrying out failed; see the error.
	Applied Outcome = iota
	// Ignored: a newer command was there before, or came while this one waited.
	Ignored
)

// String returns the name for logs.
func (o Outcome) String() string {
	if o == Applied {
		return "applied"
	}
	return "ignored"
}

// expected is what a pchannel shall be: it only moves forward. A term is first
// available, then not.
type expected struct {
	term      uint64
	available bool
}

func (e expected) before(o expected) bool {
	return e.term < o.term || e.term == o.term && e.available && !o.available
}

// ChannelStatus is one line of List.
type ChannelStatus struct {
	PChannel string
	Term     uint64
	Assigned bool     // false = removed, or to be
	State    State    // of the WAL that is open; Closed if none is
	Attempts int      // openings since it was last well
	Err      error    // of the last attempt; nil when it is well
	Progress Progress // of the WAL that is open
}

// Manager owns the WALs of a node: at most one per pchannel is open. One
// goroutine per pchannel brings what is to what was commanded last, so that
// opening and closing never overlap and no lock is held across them. A command
// is carried out even if its caller no longer waits. Close it before the queues.
type Manager struct {
	o       ManagerOptions
	closing chan struct{}
	group   *lifecycle.Group // one reconciler per pchannel
	calls   calls            // calls of Options.Open

	mu struct {
		sync.Mutex
		closed    bool
		slots     map[string]*slot
		abandoned []*WAL  // closed by us, but not released yet
		closeErrs []error // of WALs closed by Close
	}
}

// NewManager returns a manager without pchannels.
func NewManager(o ManagerOptions) (*Manager, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{o: o, closing: make(chan struct{})}
	m.group = lifecycle.NewGroup(context.Background(), nil)
	m.calls = calls{group: lifecycle.NewGroup(context.Background(), nil)}
	m.mu.slots = map[string]*slot{}
	return m, nil
}

// Assign makes this node the owner of pchannel under term and waits until its
// WAL is Ready, or has failed once, or ctx ends. A WAL of a lower term is closed
// before; if that misses its deadline the new one goes ahead, for it fences the
// old. A WAL that failed is opened again with back-off until another command
// comes, also after Assign has returned its error; a fenced one is not. To repeat the
// command waits for the next try.
func (m *Manager) Assign(ctx context.Context, pchannel string, term uint64) (Outcome, error) {
	return m.command(ctx, pchannel, expected{term, true})
}

// Remove closes the WAL of pchannel if its term is term or lower, and waits for
// that. The error names what could not be stopped in time. It is no error when
// there is none; that a command for a lower term comes later is ignored then.
func (m *Manager) Remove(ctx context.Context, pchannel string, term uint64) (Outcome, error) {
	return m.command(ctx, pchannel, expected{term, false})
}

func (m *Manager) command(ctx context.Context, pchannel string, e expected) (Outcome, error) {
	if pchannel == "" {
		return Ignored, errclass.New(errclass.Invalid, "wal manager: the pchannel has no name")
	}
	s, err := m.slot(pchannel)
	if err != nil {
		return Ignored, err
	}
	failures, ok := s.expect(e)
	if !ok {
		return Ignored, nil
	}
	return s.await(ctx, e, failures)
}

// slot returns that of pchannel; a new one comes with its goroutine.
func (m *Manager) slot(pchannel string) (*slot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil, errors.Wrapf(ErrClosed, "wal manager: %s", pchannel)
	}
	s := m.mu.slots[pchannel]
	if s != nil {
		return s, nil
	}
	s = newSlot(m, pchannel)
	if err := m.group.Go("wal "+pchannel, s.run); err != nil {
		return nil, err
	}
	m.mu.slots[pchannel] = s
	return s, nil
}

// Get returns the WAL of pchannel. It may still be recovering: Append waits.
// Only the manager closes it. Errors: class NotFound when the pchannel is not
// assigned; when it is, the reason why no WAL is open just now.
func (m *Manager) Get(pchannel string) (*WAL, error) {
	m.mu.Lock()
	s, closed := m.mu.slots[pchannel], m.mu.closed
	m.mu.Unlock()
	switch {
	case closed:
		return nil, errors.Wrapf(ErrClosed, "wal manager: %s", pchannel)
	case s == nil:
		return nil, errclass.With(errclass.New(errclass.NotFound, "wal manager: %s is not assigned to this node", pchannel), errclass.Channel)
	}
	return s.get()
}

// List returns the status of every pchannel ever commanded, sorted by name.
func (m *Manager) List() []ChannelStatus {
	all := m.slots()
	out := make([]ChannelStatus, 0, len(all))
	for _, s := range all {
		out = append(out, s.status())
	}
	return out
}

func (m *Manager) slots() []*slot {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*slot, 0, len(m.mu.slots))
	for _, s := range m.mu.slots {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *slot) int { return strings.Compare(a.pchannel, b.pchannel) })
	return out
}

// Close refuses commands, answers those that wait, closes all WALs side by side
// and waits for that as long as ctx and CloseTimeout allow. Its error, of class
// Retryable, names what is still running, per pchannel; another Close waits on.
func (m *Manager) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.CloseTimeout)
	defer cancel()
	m.mu.Lock()
	if !m.mu.closed {
		m.mu.closed = true
		close(m.closing)
	}
	m.mu.Unlock()

	stuck := errors.Join(m.group.Close(ctx), m.calls.group.Close(ctx))
	for _, w := range m.stillOpen() {
		select {
		case <-w.released:
		case <-ctx.Done():
			stuck = errors.Join(stuck, errors.Newf("wal %s term %d: %q", w.PChannel(), w.Term(), w.Running()))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	stuck = errors.Join(stuck, errors.Join(m.mu.closeErrs...))
	return errclass.Wrap(stuck, errclass.Retryable, "close wal manager")
}

// last closes what a slot has open when the manager closes.
func (m *Manager) last(s *slot) error {
	w := s.current()
	err := s.retire()
	if err == nil || w.State() != Closed {
		return nil // one that still runs is named by Close from the list of the abandoned
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.closeErrs = append(m.mu.closeErrs, err)
	return err
}

// stillOpen returns the WALs of which something may be running.
func (m *Manager) stillOpen() []*WAL {
	var open []*WAL
	for _, s := range m.slots() {
		if w := s.current(); w != nil {
			open = append(open, w)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruneLocked()
	return append(open, m.mu.abandoned...)
}

func (m *Manager) abandon(w *WAL) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruneLocked()
	m.mu.abandoned = append(m.mu.abandoned, w)
}

func (m *Manager) pruneLocked() {
	m.mu.abandoned = slices.DeleteFunc(m.mu.abandoned, func(w *WAL) bool {
		select {
		case <-w.released:
			return true
		default:
			return false
		}
	})
}
