//go:build unix

package main

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/cockroachdb/errors"
)

// Options say what is to be done.
type Options struct {
	// Seed of the schedule and the workload. How the two meet is up to the clock:
	// the same seed makes the same faults in the same order, not the same run.
	Seed uint64
	// Duration of the time in which faults are made. Default 10 minutes.
	Duration time.Duration
	// MaxFaults ends that time earlier. 0 = no limit.
	MaxFaults int
	// Terms, if not 0, makes nothing but so many SIGTERMs; see Terminate.
	Terms int
	// Queue is "embedded" (the default) or "pulsar": one that is started for the
	// run, or that of QUERYNODE_TEST_PULSAR_URL.
	Queue string
	// Storage is "file" (the default) or "s3".
	Storage string
	// Binary is the program under test. Empty: it is built from ./cmd/querynode.
	Binary string
	// Dir is where everything is kept. Empty: a new temporary folder.
	Dir string
	// Only makes faults whose names contain it. Empty: all.
	Only string
	// Keep keeps Dir also when nothing is wrong.
	Keep bool
	// Progress gets a line per fault. Nil = discard.
	Progress io.Writer
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	o.Duration = cmp.Or(o.Duration, 10*time.Minute)
	o.Queue = cmp.Or(o.Queue, "embedded")
	o.Storage = cmp.Or(o.Storage, "file")
	if o.Progress == nil {
		o.Progress = io.Discard
	}
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	if !slices.Contains([]string{"embedded", "pulsar"}, o.Queue) {
		errs = append(errs, errors.Newf("--queue %q: want embedded or pulsar", o.Queue))
	}
	if !slices.Contains([]string{"file", "s3"}, o.Storage) {
		errs = append(errs, errors.Newf("--storage %q: want file or s3", o.Storage))
	}
	if o.Duration < 0 || o.MaxFaults < 0 || o.Terms < 0 {
		errs = append(errs, errors.New("--duration, --faults and --sigterms must not be negative"))
	}
	return errors.Join(errs...)
}

// Bounds of what is waited for.
const (
	callTimeout  = 4 * time.Second  // each call of a client
	stopLimit    = 5 * time.Second  // SIGTERM to the end of the process
	slowStop     = 10 * time.Second // the same where a broker may be silent: shutdown.total
	stuckLimit   = 20 * time.Second // then it is told to show its goroutines
	startLimit   = 60 * time.Second // start of the process to ready
	settleLimit  = 30 * time.Second // what must come true by itself when the fault is over
	maxMoment    = 400 * time.Millisecond
	endgameLimit = 3 * time.Minute // everything after the last fault
)
