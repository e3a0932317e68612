package index

import (
	"fmt"
	"math"
	"strings"
)

// efforts are how much work finds a given share of the ten nearest rows: for each of
// wantedRecalls. The zero efforts knows nothing.
type efforts [8]uint32

// wantedRecalls are the shares that are measured, from less to more.
func wantedRecalls() [8]float64 {
	return [8]float64{0.80, 0.85, 0.90, 0.95, 0.97, 0.98, 0.99, 0.995}
}

// Of the measuring of efforts.
const (
	// effortStep is by how much more work is tried next.
	effortStep = 1.3
	// effortMargin is the part of what a share lacks that is added to it: a sample is small.
	effortMargin = 0.2
	// effortGain is by how much five steps must differ in what they find, or no more are made.
	effortGain = 0.001
)

// measureEfforts finds the efforts from what shares efforts from least to most find, and the share that the most that was tried finds.
func measureEfforts(least, most int, recallAt func(effort int) (float64, error)) (e efforts, found float64, err error) {
	type point struct{ effort, recall float64 }
	var seen []point
	wanted := wantedRecalls()
	last := withMargin(wanted[len(wanted)-1])
	for next := float64(least); ; next = max(next*effortStep, next+1) {
		effort := min(int(next), most)
		recall, err := recallAt(effort)
		if err != nil {
			return efforts{}, 0, err
		}
		seen = append(seen, point{float64(effort), recall})
		if effort == most || recall >= last {
			break
		}
		if n := len(seen); n > 5 && recall > wanted[2] {
			low, high := recall, recall
			for _, p := range seen[n-6:] {
				low, high = min(low, p.recall), max(high, p.recall)
			}
			if high-low < effortGain {
				break
			}
		}
	}
	found = seen[len(seen)-1].recall
	// More work may find less: a search that finds too little with few lists reads many
	// more. What a share takes is from where on nothing finds less than it.
	for i := len(seen) - 2; i >= 0; i-- {
		seen[i].recall = min(seen[i].recall, seen[i+1].recall)
	}
	for i, w := range wanted {
		w = withMargin(w)
		at := 0
		for at < len(seen) && seen[at].recall < w {
			at++
		}
		switch {
		case at == len(seen): // the most that was tried has to do
			e[i] = uint32(seen[at-1].effort)
		case at == 0:
			e[i] = uint32(seen[0].effort)
		default:
			a, b := seen[at-1], seen[at]
			part := (w - a.recall) / (b.recall - a.recall)
			e[i] = uint32(min(math.Ceil(a.effort*math.Pow(b.effort/a.effort, part)), b.effort))
		}
	}
	return e, found, nil
}

func withMargin(recall float64) float64 { return recall + effortMargin*(1-recall) }

// withoutMargin is the share that a share is with the margin.
func withoutMargin(recall float64) float64 { return (recall - effortMargin) / (1 - effortMargin) }

// of is the effort for a share of the ten nearest; 0 if none is known.
func (e *efforts) of(recall float64) int {
	wanted := wantedRecalls()
	last := len(wanted) - 1
	switch {
	case e[last] == 0:
		return 0
	case recall <= wanted[0]:
		return int(e[0])
	}
	for i := range last {
		if from, to := wanted[i], wanted[i+1]; recall <= to {
			// What is missing halves, or so, for the same factor of work.
			part := math.Log((1-from)/(1-recall)) / math.Log((1-from)/(1-to))
			return int(math.Round(float64(e[i]) * math.Pow(float64(e[i+1])/float64(e[i]), part)))
		}
	}
	a, b := float64(e[last-1]), float64(e[last])
	missing := max(1-recall, mostMissing)
	part := math.Log((1-wanted[last])/missing) / math.Log((1-wanted[last-1])/(1-wanted[last]))
	return int(math.Ceil(b * math.Pow(max(b/a, effortStep), part)))
}

// mostMissing is what a wanted share of all may miss.
const mostMissing = 0.0005

// graphEffort is how many candidates a walk for k rows has that wants a share of them: the
// default, and as many times more as less may be missing.
func graphEffort(k int, recall float32) int {
	missing := max(1-float64(recall), mostMissing)
	return int(float64(DefaultEffort(k)) * max(1, defaultMissing/missing))
}

// defaultMissing is what the default effort of a graph misses on what is hard.
const defaultMissing = 0.02

// String lists some of the efforts for who reads a manifest.
func (e *efforts) String() string {
	var b strings.Builder
	for i, w := range wantedRecalls() {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%g:%d", w, e[i])
	}
	return b.String()
}

// valid says whether the efforts could have been measured.
func (e *efforts) valid(most int) bool {
	for i, x := range e {
		if (x == 0) != (e[0] == 0) || int64(x) > int64(most) || i > 0 && x < e[i-1] {
			return false
		}
	}
	return true
}
