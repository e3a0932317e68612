package node

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestALogAheadOfTheClockIsToldOf: the clock of the machine was wrong for a while.
func TestALogAheadOfTheClockIsToldOf(t *testing.T) {
	w := newWorld(t)
	r := w.open(func(o *Options) { o.Now = func() time.Time { return time.Now().Add(3 * time.Hour) } }).ready()
	r.create()
	r.insert(between(0, 10)...)
	written := r.newest()[topic]
	if ahead := r.LogsAhead(); len(ahead) != 0 {
		t.Errorf("by its own clock it is ahead: %v", ahead)
	}
	r.close()
	for _, who := range []string{"its owner", "who follows it"} {
		if who != "its owner" {
			w.open(dispatched).own() // or there are no timeticks
		}
		log := &lines{}
		r := w.open(func(o *Options) {
			o.Standalone = who == "its owner"
			o.Logger = slog.New(slog.NewTextHandler(log, nil))
		}).ready()
		if who != "its owner" {
			r.load()
		}
		eventually(t, who+" knows", func() bool { return len(r.LogsAhead()) == 1 })
		if a := r.LogsAhead()[0]; a.PChannel != topic || a.By < 2*time.Hour || a.By > 4*time.Hour {
			t.Errorf("%+v", a)
		}
		if all := strings.Join(r.Troubles(), "\n"); !strings.Contains(all, "ahead of this node's clock") {
			t.Errorf("troubles: %s", all)
		}
		// A caller may ask for what it was told.
		if n, _, err := r.count(within(t), false); err != nil || n != 10 {
			t.Errorf("%s: a STRONG read finds %d rows, %v", who, n, err)
		}
		eventually(t, "all is applied", func() bool { return r.newest()[topic] >= written })
		ts := written
		if n, _, err := r.countAt(within(t), Freshness{Level: Session, Guarantee: ts}, false); err != nil || n != 10 {
			t.Errorf("%s: a SESSION read at what is written finds %d rows, %v", who, n, err)
		}
		eventually(t, "the log is told", func() bool { return len(log.with("ahead of this node's clock")) == 1 })
		r.close()
	}
}
