package segfile

import (
	"context"
	"io"
	"os"

	"github.com/cockroachdb/errors"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// readDeletes reads a file of deletes; class NotFound if there is none.
func readDeletes(path string) (keys *schema.Column, timestamps []uint64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, errclass.Wrap(err, errclass.NotFound, "read deletes")
	}
	if err != nil {
		return nil, nil, ioError(err, "read deletes")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, MaxDeletesBytes+1))
	if err != nil {
		return nil, nil, ioError(err, "read deletes")
	}
	keys, timestamps, err = DecodeDeletes(b)
	return keys, timestamps, errors.Wrapf(err, "read %s", path)
}

// Verify reads all files of the segment and compares every block with its
// checksum; class Corrupt names file and block. progress, if not nil, is
// called after each block with bytes.
func (s *Segment) Verify(ctx context.Context, progress func(done, total int64)) error {
	return s.m.Verify(ctx, s.dir, progress)
}
