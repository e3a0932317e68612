package pool

import (
	"cmp"
	"log/slog"
	"runtime"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Options configure a Pool. The zero value is usable: EnsureDefaults fills it.
type Options struct {
	// Name stands in errors and logs. Empty means "pool".
	Name string
	// Workers is how many tasks run at a time. 0 means GOMAXPROCS.
	Workers int
	// QueueLen is how many admitted tasks may wait for a worker. 0 means 64 per
	// worker; -1 means none: what cannot start at once is refused.
	QueueLen int
	// MaxCost bounds the sum of Task.Cost over queued and running tasks, in
	// whatever unit the caller chooses (bytes of scratch, rows to visit). 0 means
	// no bound.
	MaxCost int64
	// Logger gets one line per panic, with the stack. Nil means discard.
	Logger *slog.Logger
	// OnPanic is called once per panic, before its task is answered, on the
	// worker: it must not block. Nil means none.
	OnPanic func(*PanicError)
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	o.Name = cmp.Or(o.Name, "pool")
	o.Workers = cmp.Or(o.Workers, runtime.GOMAXPROCS(0))
	switch o.QueueLen {
	case 0:
		o.QueueLen = 64 * max(o.Workers, 0) // Validate refuses less than none
	case -1:
		o.QueueLen = 0
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// maxWorkers and maxQueueLen refuse typing errors, not honest needs.
const (
	maxWorkers  = 1 << 14
	maxQueueLen = 1 << 24
)

// Validate lists all that is wrong with the options, in one error of class Invalid. Call it
// after EnsureDefaults.
func (o *Options) Validate() error {
	var all error
	add := func(format string, args ...any) {
		all = errors.Join(all, errors.Newf(format, args...))
	}
	if o.Workers < 0 || o.Workers > maxWorkers {
		add("Workers is %d, must be 0 (GOMAXPROCS) to %d", o.Workers, maxWorkers)
	}
	if o.QueueLen < -1 || o.QueueLen > maxQueueLen {
		add("QueueLen is %d, must be -1 (no queue) to %d", o.QueueLen, maxQueueLen)
	}
	if o.MaxCost < 0 {
		add("MaxCost is %d, must be 0 (no bound) or more", o.MaxCost)
	}
	return errclass.Wrap(all, errclass.Invalid, "pool %q options", o.Name)
}

// The retry hint stays within these bounds, whatever the estimate says.
const (
	minRetryAfter = time.Millisecond
	maxRetryAfter = 10 * time.Second
)
