package main

import (
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"
)

// tailLines is how much of what a node has logged is kept for the case that it differs.
const tailLines = 20_000

// tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines [][]byte
	at    int // of the oldest, once there are tailLines
}

// Write keeps a line.
func (t *tail) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) < tailLines {
		t.lines = append(t.lines, slices.Clone(line))
		return len(line), nil
	}
	t.lines[t.at] = append(t.lines[t.at][:0], line...)
	t.at = (t.at + 1) % tailLines
	return len(line), nil
}

// logger logs to the tail and, unless it is nil, to another logger.
func (t *tail) logger(also *slog.Logger) *slog.Logger {
	here := slog.NewTextHandler(t, &slog.HandlerOptions{Level: slog.LevelDebug})
	if also == nil {
		return slog.New(here)
	}
	return slog.New(slog.NewMultiHandler(here, also.Handler()))
}

// save writes the lines to a file.
func (t *tail) save(name string) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, err := os.Create(name)
	if err != nil {
		return errors.Wrap(err, "save what the node has logged")
	}
	defer func() { err = errors.CombineErrors(err, f.Close()) }()
	return t.write(f)
}

func (t *tail) write(w io.Writer) error {
	for i := range t.lines {
		if _, err := w.Write(t.lines[(t.at+i)%len(t.lines)]); err != nil {
			return errors.Wrap(err, "save what the node has logged")
		}
	}
	return nil
}
