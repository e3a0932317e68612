package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/pool"
)

// errorDomain stands in the details of every error.
const errorDomain = "querynode"

// codeOf is the gRPC code of each class.
func codeOf(c errclass.Class) codes.Code {
	switch c {
	case errclass.Invalid:
		return codes.InvalidArgument
	case errclass.NotFound:
		return codes.NotFound
	case errclass.Exists:
		return codes.AlreadyExists
	case errclass.Conflict, errclass.Fenced:
		return codes.FailedPrecondition
	case errclass.Exhausted:
		return codes.ResourceExhausted
	case errclass.Retryable, errclass.Closed:
		return codes.Unavailable
	case errclass.Corrupt:
		return codes.DataLoss
	case errclass.Denied:
		return codes.PermissionDenied
	case errclass.Unimplemented:
		return codes.Unimplemented
	case errclass.Position:
		return codes.OutOfRange
	}
	return codes.Internal
}

// maxText bounds the text of an error. It travels in a header, twice, and many
// clients and proxies refuse headers of more than 8 KiB altogether.
const maxText = 2_500

// clip shortens a text that quotes too much of a request, and makes it UTF-8.
func clip(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + fmt.Sprintf("... (%d bytes more)", len(text)-maxText)
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// detailOf is the detail of an error; what the operating system refuses has none yet.
func detailOf(err error) errclass.Detail {
	switch d := errclass.DetailOf(err); {
	case d != "":
		return d
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errclass.DiskFull
	case errors.Is(err, syscall.ENOMEM):
		return errclass.Memory
	}
	return ""
}

// toStatus turns an error into a gRPC status with details: the class as reason, the
// detail if there is one, whether a retry may help and after how long. The text is the error's; its
// stack stays in the log. ctx is the call's: a deadline that passed inside while
// the call still has time is a part that did not answer, not the client's.
func toStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return err
	}
	class := errclass.Of(err)
	code, reason, retry := codeOf(class), class.String(), class.Retry()
	switch ended := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ended, context.DeadlineExceeded), errors.Is(err, errAhead):
		code, reason, retry = codes.DeadlineExceeded, "deadline", true
	case errors.Is(err, context.Canceled) && errors.Is(ended, context.Canceled):
		code, reason, retry = codes.Canceled, "canceled", false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code, reason, retry = codes.Unavailable, errclass.Retryable.String(), true
	}
	text := err.Error()
	if class == errclass.Panicked {
		text = "a task failed unexpectedly; the node goes on, see its log: " + text
	}
	s := status.New(code, clip(text))
	info := &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain, Metadata: map[string]string{
		"retryable": strconv.FormatBool(retry),
	}}
	if d := detailOf(err); d != "" {
		info.Metadata["detail"] = string(d)
	}
	var fe *expr.Error
	if errors.As(err, &fe) {
		info.Metadata["filter_column"] = strconv.Itoa(fe.Column)
		info.Metadata["filter_offset"] = strconv.Itoa(fe.Pos)
	}
	if d, derr := s.WithDetails(info); derr == nil {
		s = d
	}
	if retry {
		after := 100 * time.Millisecond
		if hint, ok := pool.RetryAfter(err); ok {
			after = hint
		}
		if d, derr := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); derr == nil {
			s = d
		}
	}
	return s.Err()
}
