package pulsar

import (
	"context"
	"log/slog"
)

// clientLogger is what the client of Pulsar logs to. It calls every reconnect an
// error and every close news, so that each line goes one level down; its debug
// lines, which hold payloads, are dropped.
func clientLogger(l *slog.Logger) *slog.Logger {
	return slog.New(demoted{l.Handler()}).With("component", "pulsar-client")
}

const levelStep = slog.LevelError - slog.LevelWarn

// demoted lowers the level of each record by one.
type demoted struct{ slog.Handler }

// Enabled implements slog.Handler.
func (d demoted) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && d.Handler.Enabled(ctx, l-levelStep)
}

// Handle implements slog.Handler.
func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level -= levelStep
	return d.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (d demoted) WithAttrs(as []slog.Attr) slog.Handler { return demoted{d.Handler.WithAttrs(as)} }

// WithGroup implements slog.Handler.
func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }
