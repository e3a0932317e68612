package quickstart

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// moments are where SIGTERM comes: a random time after something was seen.
func moments() []struct {
	name  string
	seen  func(p *program) bool
	after time.Duration // at most
} {
	return []struct {
		name  string
		seen  func(p *program) bool
		after time.Duration
	}{
		// Before main has run nobody can hear a signal; the folder is made by the first steps.
		{"start", func(p *program) bool { _, err := os.Stat(p.dir); return err == nil }, 60 * time.Millisecond},
		{"ingest", func(p *program) bool { return len(p.acknowledged()) > 0 }, 200 * time.Millisecond},
		{"flush", func(p *program) bool { return len(p.acknowledged()) == rows }, 3 * time.Second},
		{"search", func(p *program) bool { return strings.Contains(p.stdout.String(), "Nearest words") }, 300 * time.Millisecond},
		{"serving", func(p *program) bool { return strings.Contains(p.stdout.String(), "Ctrl-C stops") }, 100 * time.Millisecond},
	}
}

func TestSIGTERMAtAnyMomentStopsCleanly(t *testing.T) {
	rng := random(t)
	all := moments()
	for i := range times(t, 5, 50) {
		m := all[i%len(all)]
		t.Run(m.name, func(t *testing.T) {
			p := begin(t, filepath.Join(t.TempDir(), "data"))
			p.until(m.name, func() bool { return m.seen(p) })
			stopWithin(t, p, time.Duration(rng.Int64N(int64(m.after))), rng)
		})
	}
}

// TestARunThatWasToEndByItselfAndIsStoppedHasFailed: a script that waits for the figures
// must not take it for done.
func TestARunThatWasToEndByItselfAndIsStoppedHasFailed(t *testing.T) {
	for _, m := range moments()[:3] {
		t.Run(m.name, func(t *testing.T) {
			p := begin(t, filepath.Join(t.TempDir(), "data"), "--exit", "--json")
			p.until(m.name, func() bool { return m.seen(p) })
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(5 * time.Second); code != 1 || !strings.Contains(p.stderr.String(), "stopped before it was done") || p.stdout.String() != "" {
				t.Fatalf("exit code %d\n%s", code, p.output())
			}
			p.nothingLeft()
		})
	}
}

// stopWithin sends SIGTERM after a while; the program has 5 s to end with code 0.
func stopWithin(t *testing.T, p *program, after time.Duration, rng *rand.Rand) {
	t.Helper()
	select {
	case <-time.After(after): // the moment is what is tested
	case <-p.done:
		t.Fatalf("it ended by itself\n%s", p.output())
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	code := p.wait(5 * time.Second)
	t.Logf("SIGTERM after %s: ended in %s", after, time.Since(begin))
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.output())
	}
	p.nothingLeft()
	if rng.IntN(3) > 0 {
		return // the rest takes seconds
	}
	if f := finish(t, p.dir); f.Rows != rows {
		t.Errorf("the next run has %d rows", f.Rows)
	}
}
