package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/config"
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
