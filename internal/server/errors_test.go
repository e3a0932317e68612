package server

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/errors"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/schema"
)

// detailsOf returns the code, the reason and whether a retry may help.
func detailsOf(t *testing.T, err error) (code codes.Code, reason string, retry bool) {
	t.Helper()
	s := status.Convert(err)
	said := ""
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason, said = d.GetReason(), d.GetMetadata()["retryable"]
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration() > 0
		}
	}
	if (said == "true") != retry {
		t.Errorf("%v: retryable is %q, a delay is there: %v", err, said, retry)
	}
	return s.Code(), reason, retry
}

func TestEveryClassHasItsCode(t *testing.T) {
	for class, want := range map[errclass.Class]codes.Code{
		errclass.Internal: codes.Internal, errclass.Invalid: codes.InvalidArgument, errclass.NotFound: codes.NotFound,
		errclass.Exists: codes.AlreadyExists, errclass.Conflict: codes.FailedPrecondition, errclass.Exhausted: codes.ResourceExhausted,
		errclass.Retryable: codes.Unavailable, errclass.Corrupt: codes.DataLoss, errclass.Fenced: codes.FailedPrecondition,
		errclass.Closed: codes.Unavailable, errclass.Denied: codes.PermissionDenied, errclass.Unimplemented: codes.Unimplemented,
		errclass.Position: codes.OutOfRange, errclass.Panicked: codes.Internal,
	} {
		code, reason, retry := detailsOf(t, toStatus(t.Context(), errors.Wrap(errclass.New(class, "x"), "y")))
		if code != want || reason != class.String() || retry != class.Retry() {
			t.Errorf("%v: code %v, reason %q, retry %v", class, code, reason, retry)
		}
	}
	if toStatus(t.Context(), nil) != nil {
		t.Error("no error became one")
	}
}

func TestDetailsAreSaid(t *testing.T) {
	for _, c := range []struct {
		err  error
		want errclass.Detail
	}{
		{errclass.New(errclass.NotFound, "there is no partition"), ""},
		{errors.Wrap(errclass.With(errclass.New(errclass.NotFound, "there is no x"), errclass.Partition), "insert"), errclass.Partition},
		{errclass.Wrap(errclass.With(errclass.New(errclass.Conflict, "x"), errclass.NotLoaded), errclass.Retryable, "y"), errclass.NotLoaded},
		{(&schema.Schema{Fields: []schema.Field{{ID: schema.FirstFieldID, Name: "v", Type: schema.FloatVector, Dim: 2}}}).Validate(), errclass.NoKey},
		{errclass.Wrap(syscall.ENOSPC, errclass.Exhausted, "append"), errclass.DiskFull},
		{errclass.Wrap(syscall.ENOMEM, errclass.Exhausted, "map 5 bytes"), errclass.Memory},
	} {
		got := ""
		for _, d := range status.Convert(toStatus(t.Context(), c.err)).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				got = info.GetMetadata()["detail"]
			}
		}
		if got != string(c.want) {
			t.Errorf("%v: detail %q, want %q", c.err, got, c.want)
		}
	}
}

// TestWhoseDeadlineItWas: a part that did not answer in its own time is not a
// client that gave too little.
func TestWhoseDeadlineItWas(t *testing.T) {
	late := errclass.Wrap(context.DeadlineExceeded, errclass.Retryable, "read the catalog")
	over, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		err    error
		code   codes.Code
		reason string
		retry  bool
	}{
		{"the call's", over, late, codes.DeadlineExceeded, "deadline", true},
		{"a part's", t.Context(), late, codes.Unavailable, "retryable", true},
		{"a part's, unmarked", t.Context(), errors.Wrap(context.DeadlineExceeded, "x"), codes.Unavailable, "retryable", true},
		{"the caller left", gone, errors.Wrap(context.Canceled, "x"), codes.Canceled, "canceled", false},
		{"a part was cancelled", t.Context(), errors.Wrap(context.Canceled, "x"), codes.Unavailable, "retryable", true},
		{"another error at the end", over, errclass.New(errclass.Invalid, "x"), codes.InvalidArgument, "invalid", false},
	} {
		if code, reason, retry := detailsOf(t, toStatus(c.ctx, c.err)); code != c.code || reason != c.reason || retry != c.retry {
			t.Errorf("%s: code %v, reason %q, retry %v; want %v, %q, %v", c.name, code, reason, retry, c.code, c.reason, c.retry)
		}
	}
}

// TestTheTextFitsIntoAHeader: it is cut, and is UTF-8 whatever a request held.
func TestTheTextFitsIntoAHeader(t *testing.T) {
	for _, text := range []string{strings.Repeat("ä", 100_000), "\xff\xfe", strings.Repeat("x", maxText) + "ä"} {
		s := status.Convert(toStatus(t.Context(), errclass.New(errclass.Invalid, "%s", text)))
		if len(s.Message()) > maxText+100 || !utf8.ValidString(s.Message()) {
			t.Errorf("a text of %d bytes became one of %d, valid %v", len(text), len(s.Message()), utf8.ValidString(s.Message()))
		}
	}
}

func TestAPanicIsAnErrorWithoutItsStack(t *testing.T) {
	err := lifecycle.Call("test", func() error { panic("a bug") })
	code, reason, retry := detailsOf(t, toStatus(t.Context(), err))
	if code != codes.Internal || reason != "panicked" || retry {
		t.Errorf("code %v, reason %q, retry %v", code, reason, retry)
	}
	if m := status.Convert(toStatus(t.Context(), err)).Message(); !strings.Contains(m, "a bug") || strings.Contains(m, "goroutine") {
		t.Errorf("the text is %q", m)
	}
}
