package main

import (
	"math"
	"slices"
	"testing"
)

// TestWhatIsInForceIsNotSetAgain: the node looks each second, and each setting
// stops all goroutines.
func TestWhatIsInForceIsNotSetAgain(t *testing.T) {
	var percents []int
	var limits []int64
	c := newCollector()
	c.setPercent = func(p int) int { percents = append(percents, p); return 0 }
	c.setLimit = func(l int64) int64 { limits = append(limits, l); return 0 }
	if c.percent != 100 || c.limit != math.MaxInt64 {
		t.Errorf("at first %d %%, %d bytes", c.percent, c.limit)
	}
	for _, p := range []int{100, 100, 640, 640, 630, 670, 1000, 1000, 100, 103, 107} {
		c.keepTo(p)
	}
	if want := []int{640, 1000, 100, 107}; !slices.Equal(percents, want) {
		t.Errorf("percents %v, want %v", percents, want)
	}
	for _, l := range []int64{6400, 6400, 6350, 6450, 6000, 6000, 6400} {
		c.keepBelow(l)
	}
	if want := []int64{6400, 6000, 6400}; !slices.Equal(limits, want) {
		t.Errorf("limits %v, want %v", limits, want)
	}
}
