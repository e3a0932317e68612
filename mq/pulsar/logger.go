package pulsar

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// clientLogger is what the client of Pulsar logs to. It calls every reconnect an
// error and every close news, so that each line goes one level down; its debug
// lines, which hold payloads, are dropped. Errors go to t as well.
func clientLogger(l *slog.Logger, t *trouble) *slog.Logger {
	return slog.New(demoted{Handler: l.Handler(), trouble: t}).With("component", "pulsar-client")
}

const levelStep = slog.LevelError - slog.LevelWarn

// demoted lowers the level of each record by one.
type demoted struct {
	slog.Handler
	trouble *trouble
	why     string // the attribute "error"
}

// Enabled implements slog.Handler.
func (d demoted) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn || l >= slog.LevelInfo && d.Handler.Enabled(ctx, l-levelStep)
}

// Handle implements slog.Handler.
func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case strings.HasPrefix(r.Message, "Failed to establish connection"): // what the broker said to "connect"
		d.trouble.note(r.Message, true)
	case r.Level >= slog.LevelWarn && d.why != "":
		d.trouble.note(r.Message+": "+d.why, false)
	}
	r.Level -= levelStep
	if !d.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return d.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (d demoted) WithAttrs(as []slog.Attr) slog.Handler {
	for _, a := range as {
		if a.Key == "error" {
			d.why = a.Value.String()
		}
	}
	d.Handler = d.Handler.WithAttrs(as)
	return d
}

// WithGroup implements slog.Handler.
func (d demoted) WithGroup(name string) slog.Handler {
	d.Handler = d.Handler.WithGroup(name)
	return d
}

// trouble is what the client said last: why a connection fails, a certificate or
// a token for example, is in its log only; its errors say "connection error".
type trouble struct {
	mu struct {
		sync.Mutex
		refusal, other remark
	}
}

type remark struct {
	text string
	at   time.Time
}

func (t *trouble) note(text string, refusal bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refusal {
		t.mu.refusal = remark{text, time.Now()}
	} else {
		t.mu.other = remark{text, time.Now()}
	}
}

// since returns what was said after began, the broker's own words first; "" if
// nothing was.
func (t *trouble) since(began time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range []remark{t.mu.refusal, t.mu.other} {
		if r.text != "" && !r.at.Before(began) {
			return r.text
		}
	}
	return ""
}
