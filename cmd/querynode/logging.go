package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/cockroachdb/errors"
	"golang.org/x/term"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/lifecycle"
)

// newLogger returns the logger of the node and what changes its level.
func newLogger(c *config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	_ = level.UnmarshalText([]byte(c.Level)) // was checked; else it stays at info
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: errorsAsText}
	if c.Format == "text" || c.Format == "auto" && isTerminal(w) {
		return slog.New(newCalmHandler(slog.NewTextHandler(w, o))), level
	}
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr { return durationsAsText(groups, errorsAsText(groups, a)) }
	return slog.New(newCalmHandler(slog.NewJSONHandler(w, o))), level
}

// errorsAsText writes errors as their text: the text form of the log would write their
// stacks, pages of them. That of a panic is what one wants to see.
func errorsAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindAny {
		return a
	}
	err, ok := a.Value.Any().(error)
	if !ok || err == nil {
		return a
	}
	text := err.Error()
	if p := (*lifecycle.PanicError)(nil); errors.As(err, &p) {
		text += "\n" + string(p.Stack)
	}
	a.Value = slog.StringValue(text)
	return a
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
