package embedded

import (
	"cmp"
	"log/slog"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// SyncPolicy says when appended messages are forced to the disk.
type SyncPolicy uint8

// The policies.
const (
	// SyncAlways acknowledges after fdatasync: acknowledged is durable.
	SyncAlways SyncPolicy = iota
	// SyncInterval acknowledges after the write and syncs every Options.SyncInterval:
	// a power failure may cost that much, a killed process nothing.
	SyncInterval
	// SyncNone leaves it to the operating system, except at roll-over and Close.
	SyncNone
)

// ParseSync reads the name of a policy: always, interval or none. Any other name is an
// Invalid error.
func ParseSync(name string) (SyncPolicy, error) {
	switch name {
	case "always":
		return SyncAlways, nil
	case "interval":
		return SyncInterval, nil
	case "none":
		return SyncNone, nil
	}
	return 0, errclass.New(errclass.Invalid, "sync policy %q: always, interval or none", name)
}

const (
	minSegmentBytes    = 4 << 10
	maxSegmentBytes    = 1 << 30
	maxPayloadHard     = 256 << 20 // no frame on disk is larger, whatever the options say
	maxTopicNameBytes  = 1024
	indexEveryBytes    = 64 << 10 // one sparse index entry per this many bytes
	trimAtOnce         = 8        // files that Trim removes before appends get a turn
	maxGroupBytes      = 4 << 20  // what one write carries, unless a batch is larger
	defaultGrace       = 500 * time.Millisecond
	defaultReadBuffer  = 256 << 10
	defaultSegment     = 64 << 20
	defaultMaxPayload  = 16 << 20
	defaultMaxPending  = 64 << 20
	defaultSyncEvery   = 100 * time.Millisecond
	minReadBufferBytes = 4 << 10
)

// Options configure Open. The zero value of every field but Dir is usable.
type Options struct {
	// Dir is the folder of the queue; created if missing. Required.
	Dir string
	// SegmentBytes is the size at which a new file is begun. 0 = 64 MiB.
	SegmentBytes int64
	// MaxPayloadBytes bounds Message.Payload. 0 = 16 MiB; at most 256 MiB.
	MaxPayloadBytes int
	// MaxPendingBytes bounds what waits to be written per topic, and one batch;
	// beyond it Append fails with an Exhausted error. 0 = 64 MiB.
	MaxPendingBytes int
	// ReadBufferBytes is the buffer of one reader. 0 = 256 KiB.
	ReadBufferBytes int
	// Sync says when to fsync. The zero value is SyncAlways.
	Sync SyncPolicy
	// SyncInterval is for the policy of that name. 0 = 100 ms.
	SyncInterval time.Duration
	// Logger gets what was repaired or found damaged. nil = nothing is logged.
	Logger *slog.Logger
	// BeforeSync is asked before each sync of a file or folder, with the path by which that was
	// opened: an error stands for one of the disk, and nothing is synced. It is called by several
	// goroutines. nil = nobody is asked; for tests of a disk that fails.
	BeforeSync func(path string) error

	fs    *fileSystem   // nil = the real one; tests inject faults
	boot  string        // tells this run of the machine from others; "" = what the machine says
	grace time.Duration // how long Append waits for an outcome after its context; 0 = half a second
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	o.SegmentBytes = cmp.Or(o.SegmentBytes, defaultSegment)
	o.MaxPayloadBytes = cmp.Or(o.MaxPayloadBytes, defaultMaxPayload)
	o.MaxPendingBytes = cmp.Or(o.MaxPendingBytes, max(defaultMaxPending, o.MaxPayloadBytes+frameHeaderBytes+1024))
	o.ReadBufferBytes = cmp.Or(o.ReadBufferBytes, defaultReadBuffer)
	o.SyncInterval = cmp.Or(o.SyncInterval, defaultSyncEvery)
	o.grace = cmp.Or(o.grace, defaultGrace)
	if o.boot == "" {
		o.boot = bootID()
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.fs == nil {
		o.fs = osFiles(o.BeforeSync)
	}
}

// Validate lists all that is wrong.
func (o *Options) Validate() error {
	var bad []string
	check := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	check(o.Dir != "", "Dir: must be set")
	check(o.SegmentBytes >= minSegmentBytes && o.SegmentBytes <= maxSegmentBytes, "SegmentBytes: 4 KiB to 1 GiB")
	check(o.MaxPayloadBytes > 0 && o.MaxPayloadBytes <= maxPayloadHard, "MaxPayloadBytes: 1 to 256 MiB")
	check(o.MaxPendingBytes >= o.MaxPayloadBytes+frameHeaderBytes+512, "MaxPendingBytes: at least MaxPayloadBytes plus 1 KiB")
	check(o.ReadBufferBytes >= minReadBufferBytes && o.ReadBufferBytes <= 64<<20, "ReadBufferBytes: 4 KiB to 64 MiB")
	check(o.Sync <= SyncNone, "Sync: always, interval or none")
	check(o.SyncInterval >= time.Millisecond, "SyncInterval: at least 1 ms")
	if len(bad) == 0 {
		return nil
	}
	return errclass.New(errclass.Invalid, "embedded queue options: %s", strings.Join(bad, "; "))
}
