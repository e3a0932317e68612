package objstore

import (
	"context"
	"io"
	"net"
	"net/http"

	"github.com/cockroachdb/errors"
	"github.com/minio/minio-go/v7"

	"github.com/querynode/querynode/internal/errclass"
)

// s3Error maps what the client library says to a class and wraps it with what
// was tried. Errors that carry a class already keep it.
func s3Error(ctx context.Context, err error, op, key string) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return errors.Wrapf(ended(ctx, err), "%s %s", op, key)
	}
	if errclass.Of(err) != errclass.Internal {
		return errors.Wrapf(err, "%s %s", op, key)
	}
	var resp minio.ErrorResponse
	if errors.As(err, &resp) {
		return errclass.Wrap(err, responseClass(resp), "%s %s: %s (HTTP %d)", op, key, resp.Code, resp.StatusCode)
	}
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) {
		return errclass.Wrap(err, errclass.Retryable, "%s %s", op, key)
	}
	return errclass.Wrap(err, errclass.Internal, "%s %s", op, key)
}

// responseClass is the class of an answer of the server.
func responseClass(r minio.ErrorResponse) errclass.Class {
	switch r.Code {
	case "NoSuchBucket", "InvalidBucketName":
		// Not NotFound: a missing bucket must never look like an empty one.
		return errclass.Invalid
	case "NoSuchKey", "NoSuchUpload":
		return errclass.NotFound
	case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage":
		return errclass.Exhausted
	case "SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted":
		return errclass.Retryable
	}
	switch r.StatusCode {
	case http.StatusNotFound:
		return errclass.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return errclass.Denied
	case http.StatusPreconditionFailed:
		return errclass.Conflict
	case http.StatusInsufficientStorage:
		return errclass.Exhausted
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return errclass.Retryable
	case http.StatusNotImplemented:
		return errclass.Unimplemented
	}
	switch {
	case r.StatusCode >= 500:
		return errclass.Retryable
	case r.StatusCode >= 400:
		return errclass.Invalid
	}
	return errclass.Internal
}

// badRange reports that a range lies behind the end of the object.
func badRange(err error) bool {
	var resp minio.ErrorResponse
	return errors.As(err, &resp) && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable
}
