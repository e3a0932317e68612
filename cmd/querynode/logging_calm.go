package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// How often one warning or error is written, by its message: so many times in such
// a time. A full disk would fill the log too, with one line for each write that
// fails.
const (
	calmTimes  = 20
	calmWindow = 10 * time.Second
	calmTexts  = 1024 // different messages to remember
)

// calmHandler leaves out warnings and errors that come again and again. What was left
// out is counted in the next line with the same message.
type calmHandler struct {
	slog.Handler
	seen *seenTexts // shared by all that WithAttrs and WithGroup have made
}

// seenTexts counts lines by their message.
type seenTexts struct {
	mu struct {
		sync.Mutex
		texts map[string]*seenText
	}
}

// seenText is what is known of one message.
type seenText struct {
	since   time.Time
	times   int // since then
	leftOut int // since one was written
}

func newCalmHandler(h slog.Handler) *calmHandler {
	c := &calmHandler{Handler: h, seen: &seenTexts{}}
	c.seen.mu.texts = map[string]*seenText{}
	return c
}

// Handle writes the record, unless there were many like it.
func (c *calmHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return c.Handler.Handle(ctx, r)
	}
	leftOut, last, ok := c.seen.note(r.Message, r.Time)
	if !ok {
		return nil
	}
	if leftOut > 0 || last {
		r = r.Clone()
	}
	if leftOut > 0 {
		r.AddAttrs(slog.Int("left_out", leftOut))
	}
	if last {
		r.AddAttrs(slog.String("more", "left out and counted for up to "+calmWindow.String()))
	}
	return c.Handler.Handle(ctx, r)
}

// note counts a line: whether it is to be written, how many before it were not, and
// whether it is the last one for a while.
func (s *seenTexts) note(message string, now time.Time) (leftOut int, last, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.mu.texts[message]
	if t == nil {
		if len(s.mu.texts) >= calmTexts {
			clear(s.mu.texts)
		}
		t = &seenText{since: now}
		s.mu.texts[message] = t
	}
	if now.Sub(t.since) >= calmWindow {
		t.since, t.times = now, 0
	}
	if t.times >= calmTimes {
		t.leftOut++
		return 0, false, false
	}
	t.times++
	leftOut, t.leftOut = t.leftOut, 0
	return leftOut, t.times == calmTimes, true
}

// WithAttrs returns a handler that adds attributes.
func (c *calmHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &calmHandler{Handler: c.Handler.WithAttrs(attrs), seen: c.seen}
}

// WithGroup returns a handler that qualifies attributes.
func (c *calmHandler) WithGroup(name string) slog.Handler {
	return &calmHandler{Handler: c.Handler.WithGroup(name), seen: c.seen}
}
