package node

import (
	"math"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
)

// TestRangesThatHoldScores: the sides are swapped between distances and scores.
func TestRangesThatHoldScores(t *testing.T) {
	f := func(v float64) *float32 { x := float32(v); return &x }
	for _, c := range []struct {
		metric         index.Metric
		radius, filter *float32
		ok             bool
	}{
		{index.L2, nil, nil, true}, {index.L2, f(1), nil, true}, {index.L2, nil, f(1), true},
		{index.L2, f(2), f(1), true}, {index.L2, f(1), f(1), false}, {index.L2, f(1), f(2), false},
		{index.IP, f(1), f(2), true}, {index.IP, f(1), f(1), false}, {index.Cosine, f(0.9), f(0.1), false},
		{index.L2, f(math.Inf(1)), f(0), true}, {index.L2, f(math.NaN()), nil, false}, {index.IP, nil, f(math.NaN()), false},
	} {
		err := checkRange(&Search{Radius: c.radius, RangeFilter: c.filter}, c.metric)
		if (err == nil) != c.ok || (err != nil && !errclass.Is(err, errclass.Invalid)) {
			t.Errorf("%v %v %v: %v", c.metric, c.radius, c.filter, err)
		}
	}
}

// TestWhatMayPassDecides: of several loads that failed, one that may succeed
// later makes the whole worth trying again.
func TestWhatMayPassDecides(t *testing.T) {
	gone, busy := errclass.New(errclass.NotFound, "gone"), errors.Wrap(errclass.New(errclass.Retryable, "busy"), "load")
	for _, c := range []struct {
		errs []error
		want errclass.Class
	}{{[]error{gone}, errclass.NotFound}, {[]error{gone, busy}, errclass.Retryable}, {[]error{busy, gone}, errclass.Retryable}} {
		if got := errclass.Of(joined(c.errs)); got != c.want {
			t.Errorf("%v is of class %v, want %v", c.errs, got, c.want)
		}
	}
	if joined(nil) != nil {
		t.Error("no error became one")
	}
}
