// Package errclass marks errors with the class by which callers branch on
// them, so that a caller decides on "retry", "refuse" or "quarantine" without
// knowing which package failed. Classes survive wrapping. Only internal/server
// turns a class into a gRPC code.
package errclass

import "github.com/cockroachdb/errors"

// Class says what kind of failure an error is. The zero Class is Internal.
type Class uint8

// The classes. An error carries at most one that counts: the outermost mark.
const (
	// Internal: a bug or something nobody foresaw. Retrying does not help.
	Internal Class = iota
	// Invalid: the caller asked for something that can never work.
	Invalid
	// NotFound: the named thing does not exist.
	NotFound
	// Exists: the thing to be created is there already.
	Exists
	// Conflict: the state does not allow it now (not loaded, changed meanwhile).
	Conflict
	// Exhausted: no room (memory, disk, queue); retry later or elsewhere.
	Exhausted
	// Retryable: a dependency failed in a way that usually passes.
	Retryable
	// Corrupt: stored bytes are not what was written. Never retried.
	Corrupt
	// Fenced: a newer owner has taken over. Never retried here.
	Fenced
	// Closed: the component is closing or closed.
	Closed
	// Denied: no permission.
	Denied
	// Unimplemented: this build does not offer it.
	Unimplemented
	// Position: a queue position that the broker no longer has or never had.
	Position
	// Panicked: a task panicked; the error holds the stack.
	Panicked
)

var names = [...]string{
	"internal", "invalid", "not_found", "exists", "conflict", "exhausted", "retryable",
	"corrupt", "fenced", "closed", "denied", "unimplemented", "position", "panicked",
}

// String returns the class' name as used in logs, metrics and error details.
func (c Class) String() string {
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

// Retry reports whether the same call may succeed later without a change.
func (c Class) Retry() bool { return c == Exhausted || c == Retryable || c == Closed }

type classed struct {
	error
	class Class
}

func (c *classed) Unwrap() error { return c.error }

// Mark returns err with class c; nil stays nil. The outermost mark counts.
func Mark(err error, c Class) error {
	if err == nil {
		return nil
	}
	return &classed{error: err, class: c}
}

// New returns a new error of class c, with a stack.
func New(c Class, format string, args ...any) error {
	return Mark(errors.NewWithDepthf(1, format, args...), c)
}

// Wrap adds a message to err and marks it with class c; nil stays nil.
func Wrap(err error, c Class, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return Mark(errors.WrapWithDepthf(1, err, format, args...), c)
}

// Of returns the class of err: that of its outermost mark, Internal if it has none.
func Of(err error) Class {
	var c *classed
	if errors.As(err, &c) {
		return c.class
	}
	return Internal
}

// Is reports whether err carries class c as its outermost mark.
func Is(err error, c Class) bool { return err != nil && Of(err) == c }
