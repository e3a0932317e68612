package main

import "testing"

func TestTheMemoryOfTheProcess(t *testing.T) {
	for text, want := range map[string]int64{
		"Name:\tx\nVmRSS:\t 900 kB\nRssAnon:\t     123 kB\nRssFile:\t 7 kB\n": 123 << 10,
		"RssAnon:\n": 0, "RssAnon: -4 kB\n": 0, "RssAnon: 99999999999999999999 kB\n": 0, "": 0,
	} {
		if got := anonymousIn(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if anonymousMemory() < 1<<20 || goMemory() < 1<<20 {
		t.Errorf("this process has %d bytes, the runtime %d", anonymousMemory(), goMemory())
	}
	if got := heapLimit(1000, 300); got != 700 {
		t.Errorf("%d", got)
	}
	if got := heapLimit(1000, 3000); got != 250 {
		t.Errorf("%d", got)
	}
}

// TestGarbageMayTakeAPartOfTheLimit, not of what is live, while that is little.
func TestGarbageMayTakeAPartOfTheLimit(t *testing.T) {
	for _, c := range []struct {
		limit, live int64
		want        int
	}{{16 << 30, 20 << 20, 640}, {16 << 30, 1 << 20, 1000}, {16 << 30, 4 << 30, 100}, {172 << 20, 10 << 20, 107}, {172 << 20, 40 << 20, 100}, {0, 0, 100}} {
		if got := gcPercent(c.limit, c.live); got != c.want {
			t.Errorf("limit %d, live %d: %d, want %d", c.limit, c.live, got, c.want)
		}
	}
}
