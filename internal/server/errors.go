package server

import (
	"context"
	"strconv"
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

// toStatus turns an error into a gRPC status with details: the class as reason,
// whether a retry may help and after how long. The text is the error's; its
// stack stays in the log.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return err
	}
	class := errclass.Of(err)
	code := codeOf(class)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	text := err.Error()
	if class == errclass.Panicked {
		text = "a task failed unexpectedly; the node goes on, see its log: " + text
	}
	s := status.New(code, text)
	info := &errdetails.ErrorInfo{Reason: class.String(), Domain: errorDomain, Metadata: map[string]string{
		"retryable": strconv.FormatBool(class.Retry()),
	}}
	var fe *expr.Error
	if errors.As(err, &fe) {
		info.Metadata["filter_column"] = strconv.Itoa(fe.Column)
		info.Metadata["filter_offset"] = strconv.Itoa(fe.Pos)
	}
	if d, derr := s.WithDetails(info); derr == nil {
		s = d
	}
	if class.Retry() {
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
