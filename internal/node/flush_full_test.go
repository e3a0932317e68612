package node

import (
	"testing"
	"time"
)

// TestAFlushWaitsForSegmentsThatWereFull: what seals these may still be on its way when
// somebody asks for a flush, and there is nothing left to seal.
func TestAFlushWaitsForSegmentsThatWereFull(t *testing.T) {
	r := newWorld(t).open(func(o *Options) { o.Flush.SealRows, o.Flush.Interval = 10, time.Millisecond }).ready()
	r.create()
	coll, err := r.Collection(within(t), things)
	must(t, err)
	enough := time.Now().Add(30 * time.Second) // a busy machine does fewer rounds
	for round := range int64(300) {
		if round >= 30 && time.Now().After(enough) {
			t.Logf("%d rounds", round)
			break
		}
		r.insert(between(10*round, 10*round+10)...)
		r.flush()
		c, err := r.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
		must(t, err)
		rows := int64(0)
		for _, s := range c.Segments {
			rows += int64(s.Rows)
		}
		if want := 10 * (round + 1); rows != want {
			t.Fatalf("the catalog has %d rows after a flush of %d", rows, want)
		}
	}
	r.kill()
}
