// Package objstore is object storage: flat keys to immutable bytes, replaced as
// a whole, with conditional put. A Bucket is a folder (file.go), an S3 bucket or
// a prefix in one (s3.go), or memory with faults for tests (mem.go). Open picks
// by URL. objtest is the conformance suite that all of them pass.
package objstore

import (
	"context"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Bucket holds objects under keys. All methods are safe for concurrent use, and
// every one ends when ctx ends or the bucket's own timeout for a silent storage
// passes (the file bucket cannot interrupt a system call that hangs).
//
// A write is visible to every reader, listers included, once Put or Delete has
// returned nil, and durable as far as the storage promises. Readers see an
// object whole, old or new, never a mix.
//
// Errors carry a class: NotFound, Conflict (ErrPrecondition), Invalid (key,
// range or size), Denied, Exhausted (no room), Retryable (storage silent, down
// or busy), Closed.
type Bucket interface {
	// Get reads length bytes from offset; length < 0 means to the end. What lies
	// past the end is cut, so that a range behind it is empty and no error. The
	// caller closes the reader. The reader also tells what it reads: see InfoOf.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Head describes the object.
	Head(ctx context.Context, key string) (Info, error)
	// Put stores exactly size bytes of r, or nothing: if r holds fewer or more the
	// error is of class Invalid. After a Retryable error the object may be there or
	// not. ErrPrecondition is definite unless a Retryable error came before it.
	Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error)
	// Delete removes the object; that it is absent is no error.
	Delete(ctx context.Context, key string) error
	// List calls fn for each object whose key starts with prefix and is greater
	// than startAfter ("" = all), in order of the key's bytes, at any depth. It
	// stops at the first error of fn and returns that very error. ETag may be
	// empty. Objects put or deleted meanwhile may or may not be seen.
	List(ctx context.Context, prefix, startAfter string, fn func(Info) error) error
	// Close refuses new calls (class Closed), cancels the running ones, open
	// readers included, and waits for them until ctx ends; the error names those
	// that have not ended. It may be called any number of times.
	Close(ctx context.Context) error
}

// Info describes an object.
type Info struct {
	Key     string
	Size    int64     // bytes
	ETag    string    // changes whenever the content does; opaque; may be "" in List
	ModTime time.Time // of the last Put, by the storage's clock
}

// PutOptions makes a Put conditional. The zero value overwrites.
type PutOptions struct {
	IfNoneMatch bool   // the key must not exist
	IfMatch     string // the object must exist with this ETag; "" = no condition
}

// ErrPrecondition is returned by a Put whose condition does not hold.
var ErrPrecondition = errclass.Mark(errors.New("the object is not in the state the put asks for"), errclass.Conflict)

// Limits on keys. A part must fit a file name, a key an S3 key with a prefix.
const (
	MaxKeyBytes  = 900
	MaxPartBytes = 255
)

// CheckKey reports what is wrong with a key: keys are UTF-8 parts joined by
// single slashes, no part is empty or starts with a dot, and there are no
// control characters or backslashes.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKeyBytes {
		return errclass.New(errclass.Invalid, "object key of %d bytes: want 1 to %d", len(key), MaxKeyBytes)
	}
	if err := checkKeyBytes(key); err != nil {
		return err
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || len(part) > MaxPartBytes {
			return errclass.New(errclass.Invalid, "object key %q: a part between slashes has 1 to %d bytes and does not start with a dot", key, MaxPartBytes)
		}
	}
	return nil
}

// checkPrefix is CheckKey for the start of a key, which may end anywhere.
func checkPrefix(prefix string) error {
	if len(prefix) > MaxKeyBytes {
		return errclass.New(errclass.Invalid, "object key prefix of %d bytes: want at most %d", len(prefix), MaxKeyBytes)
	}
	if strings.HasPrefix(prefix, "/") || strings.HasPrefix(prefix, ".") || strings.Contains(prefix, "//") || strings.Contains(prefix, "/.") {
		return errclass.New(errclass.Invalid, "object key prefix %q: a part between slashes is not empty and does not start with a dot", prefix)
	}
	return checkKeyBytes(prefix)
}

func checkKeyBytes(key string) error {
	if !utf8.ValidString(key) || strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' }) {
		return errclass.New(errclass.Invalid, "object key %q: want UTF-8 without control characters and backslashes", key)
	}
	return nil
}

func checkRange(key string, offset int64) error {
	if offset < 0 {
		return errclass.New(errclass.Invalid, "get %s: offset %d is negative", key, offset)
	}
	return nil
}

func checkPut(key string, size int64, o PutOptions) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if size < 0 {
		return errclass.New(errclass.Invalid, "put %s: size %d is negative; it must be known before", key, size)
	}
	if o.IfNoneMatch && o.IfMatch != "" {
		return errclass.New(errclass.Invalid, "put %s: IfNoneMatch and IfMatch exclude each other", key)
	}
	return nil
}

func notFound(key string) error {
	return errclass.New(errclass.NotFound, "there is no object %s", key)
}
