package index

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// allowance lets so many bytes be taken.
type allowance struct{ left atomic.Int64 }

func (a *allowance) Take(bytes int64) bool {
	if a.left.Add(-bytes) < 0 && bytes > 0 {
		a.left.Add(bytes)
		return false
	}
	return true
}

// sizeOf is what is really kept of filters.
func sizeOf(x Learner) (bytes int64) {
	switch x := x.(type) {
	case *ivf:
		if of := x.listed.of.Load(); of != nil {
			bytes += 2 * int64(len(of.list))
		}
		for _, of := range []*vec.HalfRows{x.halves.of.Load(), &x.halves.part} {
			if of != nil {
				bytes += int64(of.Len()) * int64(vec.HalfBytes(x.dim))
			}
		}
		for i := range x.marks.known {
			if k := x.marks.known[i].Load(); k != nil {
				m := k.is
				bytes += 8*int64(cap(k.words)) + 4*int64(cap(m.masks)+cap(m.counts)) + codesSize(&m.centres)
				if p := m.packed; p != nil {
					bytes += 4*int64(cap(p.first)) + codesSize(&p.rowCodes)
				}
				if w := m.whole; w != nil {
					bytes += codesSize(&w.rowCodes)
				}
			}
		}
	case *sqGraph:
		for i := range x.filters.known {
			if k := x.filters.known[i].Load(); k != nil {
				bytes += 8*int64(cap(k.words)) + 4*int64(cap(k.is.first)+cap(k.is.rows)+cap(k.is.some)+cap(k.is.bias))
			}
		}
	}
	return bytes
}

func codesSize(c *rowCodes) int64 { return int64(cap(c.blocks)) + 4*int64(cap(c.bias)+cap(c.at)) }

// TestWhatAnIndexLearnsIsBounded by who owns the memory, who is told the truth about it.
func TestWhatAnIndexLearnsIsBounded(t *testing.T) {
	const dim, n, plenty = 16, 17_000, 1 << 30
	base := clustered(rng(61), n+4, dim)
	base, queries := base[:n*dim], base[n*dim:]
	graph, _ := buildCodes(t, L2, dim, base)
	var err error
	if graph.kern, err = vec.New(vec.Portable); err != nil { // without first lines, a scan of so few rows is not cheaper than what is learnt
		t.Fatal(err)
	}
	for name, x := range map[string]Learner{"graph": graph, "lists": buildIVFFor(t, KindScaNN, L2, dim, 300, base), "bytes": buildIVFFor(t, KindIVFSQ8, L2, dim, 300, base)} {
		t.Run(name, func(t *testing.T) {
			var a allowance
			x.LearnWithin(&a)
			var s Scratch
			again := func(of int) [][]Neighbor {
				q := Query{K: 10, Effort: 30, Allowed: filterOf(n, func(row int) bool { return row%of == 1 })}
				var found [][]Neighbor
				for range 2*filtersPause + n/marksRows {
					found = append(found, slices.Clone(x.Search(queries[:dim], &q, &s)))
				}
				return found
			}
			again(2)
			if sizeOf(x) != 0 {
				t.Fatal("a filter is known, though there is no memory for it")
			}
			a.left.Store(plenty)
			for of := 2; of < 9; of++ { // more than are known at a time
				again(of)
				real, taken := sizeOf(x), plenty-a.left.Load()
				if real == 0 || taken < real-real/20 || taken > real+real/4+4096 { // the allocator rounds up
					t.Errorf("after one row in %d: %d bytes are kept, %d were asked for", of, real, taken)
				}
			}
			x.Forget()
			if sizeOf(x) != 0 || a.left.Load() != plenty {
				t.Errorf("%d bytes are left, %d not given back", sizeOf(x), plenty-a.left.Load())
			}
			if found := again(3); sizeOf(x) == 0 || len(found[0]) != 10 {
				t.Error("nothing is learnt after it was told to forget")
			}
		})
	}
}

// TestAnIndexForgetsWhileItIsSearched and learns, from many sides.
func TestAnIndexForgetsWhileItIsSearched(t *testing.T) {
	const dim, n, plenty = 16, 12_000, 1 << 30
	base := clustered(rng(62), n, dim)
	x, _ := buildCodes(t, L2, dim, base)
	var a allowance
	a.left.Store(plenty)
	x.LearnWithin(&a)
	var sets []*bitset.Set
	for i := range 5 {
		sets = append(sets, tenth(n, i))
	}
	done := make(chan error)
	for w := range 3 {
		go func() {
			var s Scratch
			for i := range 300 {
				set := sets[(i/10+w)%len(sets)]
				for _, r := range x.Search(base[i*dim:][:dim], &Query{K: 10, Effort: 20, Allowed: set}, &s) {
					if !set.Has(int(r.Row)) {
						done <- fmt.Errorf("row %d is not allowed", r.Row)
						return
					}
				}
			}
			done <- nil
		}()
	}
	for left := 3; left > 0; {
		x.Forget()
		select {
		case err := <-done:
			if left--; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	x.Forget()
	if sizeOf(x) != 0 || a.left.Load() != plenty {
		t.Errorf("%d bytes are left, %d not given back", sizeOf(x), plenty-a.left.Load())
	}
}

func never() bool { return false }

// hurry stops a search as soon as it takes memory for what it is about to learn.
type hurry struct {
	allowance
	stop  atomic.Bool
	after atomic.Bool // it is in a hurry
}

func (h *hurry) Take(bytes int64) bool {
	if bytes > 0 && h.after.Load() {
		h.stop.Store(true)
	}
	return h.allowance.Take(bytes)
}

// TestASearchThatIsStoppedWhileItLearnsEnds at once, has learnt nothing and holds no memory: what it learns takes longer than
// many searches. The next one that has time learns.
func TestASearchThatIsStoppedWhileItLearnsEnds(t *testing.T) {
	const dim, n, plenty = 16, 17_000, 1 << 30
	base := clustered(rng(63), n, dim)
	graph, _ := buildCodes(t, L2, dim, base)
	var err error
	if graph.kern, err = vec.New(vec.Portable); err != nil { // without first lines, a scan of so few rows is not cheaper than what is learnt
		t.Fatal(err)
	}
	for name, x := range map[string]Learner{"graph": graph, "lists": buildIVFFor(t, KindScaNN, L2, dim, 300, base), "bytes": buildIVFFor(t, KindIVFSQ8, L2, dim, 300, base)} {
		t.Run(name, func(t *testing.T) {
			var h hurry
			h.left.Store(plenty)
			h.after.Store(true)
			x.LearnWithin(&h)
			s, q := Scratch{Stop: &h.stop}, Query{K: 10, Effort: 30, Allowed: filterOf(n, func(row int) bool { return row%5 == 3 })}
			stopped := 0
			for range 4 * filtersPause {
				h.stop.Store(false)
				x.Search(base[:dim], &q, &s)
				if s.Stats().Stopped != h.stop.Load() {
					t.Fatalf("stopped: %v, though it was to be %v", s.Stats().Stopped, h.stop.Load())
				}
				if s.Stats().Stopped {
					stopped++
				}
				if sizeOf(x) != 0 || h.left.Load() != plenty {
					t.Fatalf("%d bytes are kept of what it was stopped in, %d not given back", sizeOf(x), plenty-h.left.Load())
				}
			}
			if stopped < 2 {
				t.Fatalf("%d searches learnt something", stopped)
			}
			calls := 0
			h.stop.Store(false)
			for range filtersPause {
				x.SearchBatch(base[:20*dim], &q, &s, func(int, []Neighbor) { calls++ })
			}
			if calls != 20*filtersPause || h.left.Load() != plenty {
				t.Errorf("%d answers of %d, %d bytes not given back", calls, 20*filtersPause, plenty-h.left.Load())
			}
			h.after.Store(false)
			h.stop.Store(false)
			for range 4 * filtersPause {
				if found := x.Search(base[:dim], &q, &s); len(found) != q.K || s.Stats().Stopped {
					t.Fatalf("%d rows found, stopped: %v", len(found), s.Stats().Stopped)
				}
			}
			if sizeOf(x) == 0 {
				t.Error("nothing is learnt once there is time")
			}
		})
	}
}

// TestAFilterIsLearntWholeOrNotAtAll, wherever that is stopped.
func TestAFilterIsLearntWholeOrNotAtAll(t *testing.T) {
	const dim, n = 16, 30_000
	base := clustered(rng(64), n, dim)
	graph, _ := buildCodes(t, L2, dim, base)
	x, tight := buildIVFFor(t, KindScaNN, L2, dim, 100, base), buildIVFFor(t, KindScaNN, L2, dim, 600, groups(rng(75), n, dim, 100))
	filter := func(of int) []uint64 { return filterOf(n, func(row int) bool { return row%of == 1 }).Words() }
	if a, b := x.mark(filter(12), never), tight.mark(filter(12), never); a.packed == nil || b.whole == nil {
		t.Fatalf("packed codes: %v, whole ones: %v", a.packed != nil, b.whole != nil)
	}
	for name, c := range map[string]struct {
		learn func(stop func() bool) bool
		least int
	}{
		"rows of lists, in a graph": {func(stop func() bool) bool { return graph.lists.know(graph.kern, filter(3), n, n/3, stop) != nil }, graph.lists.n},
		"marks":                     {func(stop func() bool) bool { return x.mark(filter(3), stop) != nil }, x.lists.n},
		"marks and packed codes":    {func(stop func() bool) bool { return x.mark(filter(12), stop) != nil }, 2 * x.lists.n},
		"marks and whole codes":     {func(stop func() bool) bool { return tight.mark(filter(12), stop) != nil }, tight.lists.n + n/12/wholeAsk + wholeProofs},
	} {
		asked := 0
		if !c.learn(func() bool { asked++; return false }) || asked < c.least {
			t.Errorf("%s: asked %d times whether to stop, want %d at least", name, asked, c.least)
		}
		for _, from := range []int{1, 2, asked / 4, asked / 2, asked * 3 / 4, asked - 41, asked - 2, asked} {
			late := 0
			if c.learn(func() bool { late++; return late >= from }) {
				t.Errorf("%s: learnt though it was stopped when asked for the %dth of %d times", name, from, asked)
			}
			if late > from+8 {
				t.Errorf("%s: asked %d times more after it was stopped", name, late-from)
			}
		}
	}
}

// TestAFaultWhileAFilterIsLearntKeepsNoMemory.
func TestAFaultWhileAFilterIsLearntKeepsNoMemory(t *testing.T) {
	var a allowance
	a.left.Store(1 << 20)
	c := newFilterCache[int](2)
	c.within(&a)
	for range 200 {
		func() {
			defer func() { _ = recover() }()
			c.learn([]uint64{1, 2, 3}, 100, func() (*int, int) { panic("a page cannot be read") })
		}()
	}
	if left := a.left.Load(); left != 1<<20 {
		t.Errorf("%d bytes are not given back", 1<<20-left)
	}
}
