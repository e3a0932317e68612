package node

import "testing"

// TestAFollowerLetsGoOfGrowingRowsThatWereCompacted: it was told to watch a channel, not to
// serve all of it, and another node stores the rows and compacts them. They do not stay in
// its memory for good, and are read from what was made of them.
func TestAFollowerLetsGoOfGrowingRowsThatWereCompacted(t *testing.T) {
	w := newWorld(t)
	owner, follower := w.open(dispatched), w.open(dispatched)
	owner.own()
	owner.create()
	owner.load()
	_, err := follower.WatchChannels(within(t), things, nil)
	must(t, err)
	for from := int64(0); from < 40; from += 10 {
		owner.insert(between(from, from+10)...)
		follower.has(from + 10)
		owner.flush()
	}
	owner.remove(between(0, 5)...)
	owner.checkpointed()
	jobs, err := owner.Compact(within(t), things)
	must(t, err)
	if len(jobs) == 0 {
		t.Fatal("nothing was compacted")
	}
	growing := func() (n int) {
		coll, err := follower.Collection(within(t), things)
		must(t, err)
		served, _ := follower.set.Collection(coll.ID)
		ch, ok := served.Channel(coll.VChannels[0].Name)
		if !ok {
			t.Fatal("the channel is not watched")
		}
		list, release := ch.Growing()
		defer release()
		return len(list)
	}
	eventually(t, "no growing segment is left", func() bool { return growing() == 0 })
	follower.has(35)
	owner.has(35)
}
