package flush

import (
	"maps"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// failure is a step, or a trim, that failed the last time and is tried again.
type failure struct {
	err   error
	since time.Time
	delay time.Duration // until the next try

	told time.Time // in the log
	as   errclass.Class
}

// repeat is how often the log is told again of a failure that lasts.
const repeat = 5 * time.Minute

// tell reports whether the log is to be told: of the first failure, of one of another kind,
// and now and then. A full disk fails all channels for hours.
func (f *failure) tell(now time.Time) bool {
	class := errclass.Of(f.err)
	if !f.told.IsZero() && class == f.as && now.Sub(f.told) < repeat {
		return false
	}
	f.told, f.as = now, class
	return true
}

// Failure is what cannot be stored, or trimmed, for now.
type Failure struct {
	What  string // the vchannel, or "trim" and a topic
	Since time.Time
	Err   error // of the last try
}

// Failures lists the channels whose last step failed, what they have is not stored for
// now, and the topics whose last trim failed, by name.
func (f *Flusher) Failures() (all []Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.mu.failing)) {
		was := f.mu.failing[name]
		all = append(all, Failure{What: name, Since: was.since, Err: was.err})
	}
	return all
}

// Failing is the number of Failures.
func (f *Flusher) Failing() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.failing)
}
