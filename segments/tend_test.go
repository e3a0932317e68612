package segments

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
)

// TestADiskThatIsFullIsLoggedOnce, tried less and less often, and its end is told.
func TestADiskThatIsFullIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	x := tending{log: slog.New(slog.NewTextHandler(&log, nil))}
	began := time.Unix(1_000_000, 0)
	tries := 0
	for s := range 600 {
		if now := began.Add(time.Duration(s) * time.Second); x.due(now) {
			tries++
			x.ended(now, errors.New("no space left on device"))
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || tries > 20 || tries < 10 {
		t.Fatalf("%d tries and %d lines in ten minutes: %s", tries, lines, &log)
	}
	log.Reset()
	now := began.Add(time.Hour)
	for range 3 {
		if x.ended(now, nil); !x.due(now) {
			t.Fatal("it is not tried at once when memory is short again")
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 {
		t.Fatalf("%d lines: %s", lines, &log)
	}
	x.ended(now, errors.New("no space left on device"))
	if strings.Count(log.String(), "\n") != 2 || x.due(now) || !x.due(now.Add(time.Second)) {
		t.Fatalf("the next failure is not as the first one: %s", &log)
	}
}

// TestASegmentThatCannotBeCooledKeepsNoOtherFromIt.
func TestASegmentThatCannotBeCooledKeepsNoOtherFromIt(t *testing.T) {
	r := newRig(t, rigOptions{memory: 1 << 30})
	for s := int64(1); s <= 3; s++ {
		r.insert(s, seq(s*1000, s*1000+500)...)
		r.handOff(s)
	}
	r.idle()
	snap := r.coll.Acquire()
	h, _ := snap.view.find(1)
	dir := h.segment.(*Sealed).dir
	snap.Release()
	must(t, os.Rename(dir, dir+".away"))
	l := r.set.Ledger()
	l.limit.Store(1) // short, whatever is made cold
	err := r.set.coolColdest(t.Context())
	l.limit.Store(1 << 30)
	must(t, os.Rename(dir+".away", dir))
	if err == nil || !strings.Contains(err.Error(), "segment 1") {
		t.Errorf("%v, want an error that names segment 1", err)
	}
	for s := int64(1); s <= 3; s++ {
		if cold := r.statusOf(s).Cold; cold != (s != 1) {
			t.Errorf("segment %d is cold: %v", s, cold)
		}
	}
}
