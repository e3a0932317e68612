package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/lifecycle"
)

func TestDurationsInTheLogAreReadable(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log, _ := newLogger(&config.Log{Level: "info", Format: format}, &out)
		log.Info("stopped", "took", 1500*time.Millisecond, slog.Group("retry", "in", 30*time.Second), "rows", 7)
		for _, want := range []string{"1.5s", "30s", "7"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in %s", format, want, &out)
			}
		}
	}
}

func TestOneWarningDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, _ := newLogger(&config.Log{Level: "info", Format: "json"}, &out)
		lines := func() int { return strings.Count(out.String(), "\n") }
		for i := range 1000 {
			log.With("topic", i).Warn("append failed")
			log.Info("something else", "i", i)
		}
		if n := lines(); n != calmTimes+1000 {
			t.Fatalf("%d lines, want %d warnings and 1000 others", n, calmTimes)
		}
		if !strings.Contains(out.String(), `"more":"left out and counted`) {
			t.Error("nothing says that more is left out")
		}
		log.Error("another one")
		if n := lines(); n != calmTimes+1001 {
			t.Error("another message was left out, too")
		}
		time.Sleep(calmWindow)
		log.Warn("append failed")
		if last := strings.Split(strings.TrimSpace(out.String()), "\n"); !strings.Contains(last[len(last)-1], `"left_out":980`) {
			t.Errorf("what was left out is not counted: %s", last[len(last)-1])
		}
		log.Warn("append failed")
		if n := lines(); n != calmTimes+1003 {
			t.Errorf("%d lines: after a while the message is written again", n)
		}
	})
}

// TestErrorsAreLoggedInALine: they carry stacks, which the text form would write.
func TestErrorsAreLoggedInALine(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, _ := newLogger(&config.Log{Level: "info", Format: format}, &out)
		log.Warn("it failed", "error", errors.Wrap(errors.New("no bytes"), "read it"), "cause", slog.GroupValue(slog.Any("inner", errors.New("deep"))))
		if text := out.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "read it: no bytes") || strings.Contains(text, "stack") || strings.Contains(text, ".go:") {
			t.Errorf("%s: %s", format, text)
		}
		out.Reset()
		log.Error("a task died", "error", errors.Wrap(lifecycle.Call("task", func() error { panic("oh") }), "do it"))
		if text := out.String(); !strings.Contains(text, "TestErrorsAreLoggedInALine") {
			t.Errorf("%s: a panic without its stack: %s", format, text)
		}
	}
}
