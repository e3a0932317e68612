package quickstart

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// killsPerRound is how often one data folder is killed before it is looked at.
const killsPerRound = 5

// Acknowledged = durable: whatever the killed runs were told is written is there
// once, and the next run brings the rest.
func TestAKilledIngestLosesAndDoublesNothing(t *testing.T) {
	rng := random(t)
	left := times(t, 3, 20)
	for round := 0; left > 0; round++ {
		n := min(left, killsPerRound)
		left -= n
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) { killAndLook(t, rng, n) })
	}
}

func killAndLook(t *testing.T, rng *rand.Rand, kills int) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	for i := range kills {
		p := begin(t, dir)
		have := len(p.acknowledged())
		// Somewhere in the ingest, or, once that is through, in the flush and after it.
		want, wait := min(have+rng.IntN(6)*1000, rows), rng.Int64N(int64(30*time.Millisecond))
		if have > rows-killsPerRound*1000 && rng.IntN(2) == 0 {
			want = rows
			wait = rng.Int64N(int64(3 * time.Second))
		}
		// A batch that was durable when the kill came, but not yet acknowledged, is
		// never written again: then want is never reached.
		p.until("some rows", func() bool {
			return len(p.acknowledged()) >= want || strings.Contains(p.stdout.String(), "Ctrl-C stops")
		})
		<-time.After(time.Duration(wait)) // the moment is what is tested, nothing is waited for
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.done
		t.Logf("kill %d: %d rows acknowledged", i, len(p.acknowledged()))
	}
	before := (&program{t: t, ack: dir + ".ack"}).acknowledged()
	for id, n := range before {
		if n > 1 {
			t.Errorf("row %d was acknowledged, and the next run found it missing", id)
			break
		}
	}
	if f := finish(t, dir); f.Rows != rows || int(f.Written) > rows-len(before) {
		t.Errorf("%d rows, %d written by the last run after %d acknowledged", f.Rows, f.Written, len(before))
	}
	p := begin(t, dir, "--json")
	f := p.figures()
	if f.Rows != rows || !f.Reused {
		t.Errorf("after all: %+v", f)
	}
	checkWords(t, dial(t, f.Addr), p)
}
