package main

import (
	"context"
	"fmt"
	"math"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// sample is the filter, joined to one that keeps each row with a probability.
func (a *asking) sample() (text string, share float64) {
	share = []float64{0.01, 0.1, 0.5, 0.9}[a.r.IntN(4)]
	text = fmt.Sprintf("random_sample(%v)", share)
	switch {
	case a.q.text() == "":
	case a.r.IntN(2) == 0 && !a.q.filter.last:
		text = fmt.Sprintf("(%s) and %s", a.q.text(), text)
	default:
		text = fmt.Sprintf("%s and (%s)", text, a.q.text())
	}
	return text, share
}

// plausible says whether n of all rows can be a sample: one in hundred millions is
// further from the mean.
func (a *asking) plausible(n, all int, share float64) error {
	mean := float64(all) * share
	if off := 6*math.Sqrt(mean*(1-share)) + 6; n > all || math.Abs(float64(n)-mean) > off {
		return a.differs("%v: a sample of %v has %d of %d rows, want %.0f, %.0f more or less", &a.q, share, n, all, mean, off)
	}
	return nil
}

// sampled asks for a sample of rows.
func (l *lane) sampled(ctx context.Context, a *asking, req *qnpb.QueryRequest) error {
	var share float64
	req.OutputFields = a.m.spec.outputs(a.r)
	req.Filter, share = a.sample()
	got, err := l.ask(ctx, a.op, req)
	if err != nil || !a.m.loaded || a.m.unclear(a.q) {
		return err
	}
	want := a.m.see(a.q)
	if err := a.plausible(len(got.rows), len(want), share); err != nil {
		return err
	}
	return a.compareSome(got.rows, want, req.OutputFields)
}
