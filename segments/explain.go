package segments

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/bitset"
)

// SegmentTrace tells what a read did in one segment.
type SegmentTrace struct {
	Meta
	Growing   bool
	Rows      int64    // inserted at or before the read timestamp, deleted ones included
	Pruned    string   // why it was not read; "" = it was
	Matched   int64    // rows that deletes and the filter left
	Ways      []string // how it was searched
	Distances int64    // computed
	Hops      int64    // rows of a graph whose links were followed
	Filter    time.Duration
	Search    time.Duration // summed over parts
	Parts     int           // that the work was split into
	Sub       int           // which search of a hybrid one
}

// The ways of searching a segment.
const (
	wayScan        = "scan"               // every row
	wayScanMatches = "scan of matches"    // the rows that deletes and filter left
	wayGraph       = "graph"              // walk
	wayFiltered    = "filtered graph"     // walk that passes through other rows
	wayBoth        = "graph, then scan"   // the walk had cost as much as the scan would
	wayGraphLists  = "lists of the graph" // with a filter, lists of near rows were read instead of walking
	wayLists       = "lists"              // those of a growing segment that may have something near
	wayKept        = "kept rows"          // found for a page before
	wayNulls       = "no vectors"         // the field came after the segment's rows
	wayRows        = "rows"               // read one after the other, for a query
)

// trace collects what a read does. Its methods may be called by any task.
type trace struct {
	mu struct {
		sync.Mutex
		segments map[traced]*SegmentTrace
	}
}

// traced is one search of a read in one segment.
type traced struct {
	id  int64
	sub int
}

func newTrace() *trace {
	t := &trace{}
	t.mu.segments = map[traced]*SegmentTrace{}
	return t
}

// atLocked returns the trace of a search in a segment.
func (t *trace) atLocked(h *holder, sub int) *SegmentTrace {
	k := traced{h.Meta().ID, sub}
	s := t.mu.segments[k]
	if s == nil {
		s = &SegmentTrace{Meta: h.Meta(), Growing: h.growing, Sub: sub}
		t.mu.segments[k] = s
	}
	return s
}

func (t *trace) pruned(h *holder, sub int, rows int64, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.atLocked(h, sub)
	s.Rows, s.Pruned = rows, why
}

// filtered says how many rows of a target are left and what finding out took.
func (t *trace) filtered(x *target, sub, rows int, matched int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.atLocked(x.holder, sub)
	s.Rows, s.Matched = int64(rows), int64(matched)
	s.Filter += took
}

// searched adds one part.
func (t *trace) searched(x *target, sub int, w *work, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.atLocked(x.holder, sub)
	s.Parts++
	s.Distances += int64(w.distances)
	s.Hops += int64(w.hops)
	s.Search += took
	for _, way := range w.ways {
		if !slices.Contains(s.Ways, way) {
			s.Ways = append(s.Ways, way)
		}
	}
}

// finish moves what was collected to the stats.
func (t *trace) finish(x *reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x.stats.Segments = x.stats.Segments[:0]
	for _, s := range t.mu.segments {
		x.stats.Segments = append(x.stats.Segments, *s)
	}
	slices.SortFunc(x.stats.Segments, func(a, b SegmentTrace) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Sub, b.Sub)) })
}

// work is what a task has done, for a trace.
type work struct {
	ways      []string
	distances int
	hops      int
}

// note adds to w; nil = nobody asked.
func (w *work) note(way string, distances, hops int) {
	if w == nil {
		return
	}
	w.distances += distances
	w.hops += hops
	if !slices.Contains(w.ways, way) {
		w.ways = append(w.ways, way)
	}
}

// traced notes what the scratch does from now on, until the function it returns
// is called.
func (s *searching) traced(t *target, sc *scratch) func() {
	w, start := &work{}, time.Now()
	sc.work = w
	return func() {
		sc.work = nil // the scratch outlives the search
		s.trace.searched(t, s.sub, w, time.Since(start))
	}
}

// seen is allowed that tells the trace.
func (x *reader) seen(ctx context.Context, t *target, set *bitset.Set) (n int, rows *bitset.Set, err error) {
	if x.trace == nil {
		return x.allowed(ctx, t, set)
	}
	start := time.Now()
	if n, rows, err = x.allowed(ctx, t, set); err != nil {
		return 0, nil, err
	}
	matched := n
	if rows != nil {
		matched = rows.Count()
	}
	x.trace.filtered(t, x.sub, n, matched, time.Since(start))
	return n, rows, nil
}

// listed notes that a query has read rows of a target.
func (x *reader) listed(t *target, start time.Time) {
	if x.trace != nil {
		x.trace.searched(t, x.sub, &work{ways: []string{wayRows}}, time.Since(start))
	}
}

// stages measures one stage of a read after the other; the zero stages measures nothing.
type stages struct{ start time.Time }

// stage starts the first stage, if anybody asked.
func (x *reader) stage() stages {
	if x.trace == nil {
		return stages{}
	}
	return stages{time.Now()}
}

// end adds the time since the last stage's end to took.
func (s *stages) end(took *time.Duration) {
	if s.start.IsZero() {
		return
	}
	now := time.Now()
	*took += now.Sub(s.start)
	s.start = now
}
