package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/querynode/querynode/internal/config"
)

// newLogger returns the logger of the node and what changes its level.
func newLogger(c *config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	_ = level.UnmarshalText([]byte(c.Level)) // was checked; else it stays at info
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || c.Format == "auto" && isTerminal(w) {
		return slog.New(newCalmHandler(slog.NewTextHandler(w, o))), level
	}
	o.ReplaceAttr = durationsAsText
	return slog.New(newCalmHandler(slog.NewJSONHandler(w, o))), level
}

// durationsAsText writes durations as "1.5s", as the text form of the log does: a
// bare number of nanoseconds does not say what it is.
func durationsAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
