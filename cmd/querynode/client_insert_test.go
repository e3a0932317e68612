package main

import (
	"strings"
	"testing"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestWhatIsSaidOfAnInsertThatStopped: rows that were sent without an answer may be there, and are
// doubled by whoever believes that they are not.
func TestWhatIsSaidOfAnInsertThatStopped(t *testing.T) {
	sent := func(c codes.Code) error { return errors.Mark(status.Error(c, "why"), errSent) }
	for _, c := range []struct {
		err          error
		done         int64
		says, repeat string
	}{
		{errors.New("line 1"), 0, "(nothing was written)", ""},
		{sent(codes.InvalidArgument), 0, "(nothing was written)", ""},
		{sent(codes.DeadlineExceeded), 0, "(it is not known whether the first rows were written)", "repeat with --upsert"},
		{sent(codes.Unavailable), 0, "(it is not known whether the first rows were written)", "repeat with --upsert"},
		{sent(codes.Canceled), 7, "(7 rows written before, and safe)", "repeat with --upsert"},
		{sent(codes.InvalidArgument), 7, "(7 rows written before, and safe; rows are counted from row 7 of the file on, the first that was not written)", "repeat with --upsert"},
		{errors.New("line 8"), 7, "(7 rows written before, and safe)", "repeat with --upsert"},
	} {
		var p *problem
		if err := stopped(c.err, "here:1", c.done); !errors.As(err, &p) {
			t.Fatalf("%v: %v", c.err, err)
		}
		if !strings.HasSuffix(p.text, c.says) || strings.Contains(p.next, "--upsert") != (c.repeat != "") {
			t.Errorf("%v after %d rows: %q, next %q", c.err, c.done, p.text, p.next)
		}
	}
}
