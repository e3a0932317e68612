package main

import (
	"encoding/json"
	"os"
	"testing"
)

// TestBenchAppend measures for a moment and leaves nothing behind.
func TestBenchAppend(t *testing.T) {
	dir := t.TempDir()
	code, out, errs := command(t, nil, "bench", "append", "--duration", "50ms", "--writers", "4", "--size", "100", "--data-dir", dir, "--json")
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var f appendFigures
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if f.Appends == 0 || f.PerSecond <= 0 || f.P50 <= 0 || f.P99 < f.P50 || f.Writers != 4 || f.PerBatch < 1 || f.Errors != 0 {
		t.Errorf("%+v", f)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, args := range [][]string{{"--writers", "0"}, {"--size", "1"}, {"--duration", "0s"}, {"--addr", "x:1", "--data-dir", dir}} {
		if code, _, errs := command(t, nil, append([]string{"bench", "append"}, args...)...); code != exitUsage {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
}
