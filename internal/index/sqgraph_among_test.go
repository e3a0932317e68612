package index

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// Where near rows are in many lists, a walk through all rows finds half of them sooner.
func TestAFilterThatLeavesMuchIsWalkedThrough(t *testing.T) {
	const n, dim, asked = 30_000, 12, 60
	base := gauss(91, n+asked, dim)
	base, queries := base[:n*dim], base[n*dim:]
	for i := range n { // some are copies of rows that a filter may not leave
		if i%40 == 1 {
			copy(base[i*dim:(i+1)*dim], base[(i-1)*dim:])
		}
	}
	_, b := buildCodes(t, L2, dim, base)
	f, x := newFlat(t, dim, L2, base), reopened(t, b, base).(*sqGraph)
	x.shares = slices.Clone(x.shares)
	for i := range x.shares {
		x.shares[i].lists, x.shares[i].half = uint32(x.lists.n), x.shares[i].half/2
	}
	for _, share := range []float64{0.98, 0.8, 0.5} {
		for shape, allowed := range selections(f, share) {
			q := Query{K: 10, Effort: 40, Allowed: allowed}
			wantRecall(t, x, f, queries, q, 0.93)
			for k := range 3 { // as many as there are, whatever the effort
				wantRecall(t, x, f, queries, Query{K: k + 1, Effort: k + 1, Allowed: allowed}, 0)
			}
			walked := 0
			var s Scratch
			for i := range asked {
				x.Search(queries[i*dim:][:dim], &q, &s)
				if st := s.Stats(); st.Lists == 0 && !st.Scanned && st.Hops > 0 && st.Distances > 0 {
					walked++
				}
			}
			if walked < asked/4 {
				t.Errorf("%v %s: %d of %d searches were walks", share, shape, walked, asked)
			}
			var stop atomic.Bool
			stop.Store(true)
			s.Stop = &stop
			wantSorted(t, x.Search(queries[:dim], &q, &s), allowed)
			if st := s.Stats(); !st.Stopped {
				t.Errorf("%v %s: %+v: want a search that was stopped", share, shape, st)
			}
		}
	}
}

// A walk that has ended goes on with more effort, and finds what one of that effort finds.
func TestAWalkGoesOn(t *testing.T) {
	const n, dim, asked, ef = 6000, 12, 50, 60
	base := gauss(92, n+asked, dim)
	base, queries := base[:n*dim], base[n*dim:]
	g, _ := buildCodes(t, L2, dim, base)
	var s Scratch
	same, all := 0, 0
	for i := range asked {
		v := queries[i*dim:][:dim]
		begin := func(ef, room int) {
			s.begin(g.m0)
			sq := g.prepare(v, &s)
			row, d := g.descend(&sq, 0, &s)
			s.walk.begin(g, sq, row, d, ef, 0)
			s.walk.room = room
			s.walk.run(g, &s)
		}
		begin(ef, amongRoom(ef))
		whole := map[uint32]bool{}
		for _, key := range s.walk.pool[:ef] {
			whole[poolRow(key)] = true
		}
		for i, first := range []int{amongRoom(ef), 12, amongRoom(ef)} { // there was room, and there was none; it ended by distance
			begin(amongFirst, first)
			before := s.walk.distances
			if i == 2 {
				s.walk.goOn(g, v, 4, ef/4, &s)
			}
			s.walk.goOn(g, v, 1000, ef, &s)
			if s.walk.distances <= before {
				t.Fatalf("query %d: %d distances, %d before it went on", i, s.walk.distances, before)
			}
			for _, key := range s.walk.pool[:ef] {
				if all++; whole[poolRow(key)] {
					same++
				}
			}
		}
	}
	if part := float64(same) / float64(all); part < 0.97 {
		t.Errorf("%.3f of what a walk meets at once is met by one that went on", part)
	}
}

func TestAPlanIsTheCheapestWay(t *testing.T) {
	table := shareTable{finding(10, 10, 0.8), finding(10, 40, 0.95), finding(10, 160, 0.99), finding(100, 100, 0.8), finding(100, 400, 0.95)}
	for i := range table {
		table[i].lists = []uint32{4, 20, 60, 30, 100}[i]
		table[i].half = table[i].found
	}
	for _, c := range []struct {
		k, ef int
		want  float64
	}{{10, 10, 0.2}, {10, 5, 0.2}, {10, 40, 0.05}, {10, 20, 0.1}, {10, 1600, 0.001}, {100, 100, 0.2}, {100, 400, 0.05}, {32, 128, 0.05}, {1000, 4000, 0.05}, {1, 1, 0.2}} {
		if got := table.missing(c.k, c.ef); math.Abs(got-c.want) > 0.001 {
			t.Errorf("%d rows, effort %d: %.4f are missing, want %.4f", c.k, c.ef, got, c.want)
		}
	}
	for _, c := range []struct {
		k             int
		missing       float64
		effort, lists float64
	}{{10, 0.05, 40, 20}, {100, 0.05, 400, 100}, {32, 0.05, 128, 45}, {1000, 0.05, 4000, 1000}} {
		if effort, lists := table.takes(c.k, c.missing); math.Abs(effort-c.effort) > 2 || math.Abs(lists-c.lists) > 2 {
			t.Errorf("%d rows, %v missing: effort %.1f and %.1f lists, want %v and %v", c.k, c.missing, effort, lists, c.effort, c.lists)
		}
	}
	g := &sqGraph{rows: 64_000, lists: &sqLists{n: 1000}, code: &coder{stride: 64}, shares: table}
	for name, c := range map[string]struct {
		ef, allowed int
		lists       []uint32 // that find as much as walks
		half        float64  // what lists find of what walks do
		scan, walk  bool
	}{
		"few rows":                             {40, 500, table.listsOf(), 1, true, false},
		"half of the rows, few lists":          {40, 32_000, table.listsOf(), 1, false, false},
		"half of the rows, many lists":         {40, 32_000, []uint32{200, 600, 900, 300, 900}, 1, false, true},
		"half of the rows, lists find too few": {40, 32_000, table.listsOf(), 0.6, false, true},

		"a sixteenth, many lists":               {40, 4000, []uint32{200, 600, 900, 300, 900}, 1, true, false},
		"a tenth, few lists":                    {40, 6400, table.listsOf(), 1, false, false},
		"nearly all rows, lists find as little": {20, 63_000, []uint32{200, 600, 900, 300, 900}, 1, false, true},
	} {
		g.shares = append(shareTable(nil), table...)
		for i := range g.shares {
			g.shares[i].lists = c.lists[i]
			g.shares[i].half = uint32(float64(table[i].found) * c.half)
		}
		if p := g.plan(10, c.ef, c.allowed, true); p.scan != c.scan || p.begin != c.walk {
			t.Errorf("%s: %+v", name, p)
		}
	}
	g.shares = table
	if p := g.plan(10, 40, 4500, false); !p.scan || !p.learn || g.plan(10, 40, 4500, true).scan {
		t.Errorf("a filter that is not known: %+v, and if it were: %+v", p, g.plan(10, 40, 4500, true))
	}
	for name, unknown := range map[string]shareTable{"no table": nil, "lists alone": {{rows: 10, effort: 10, lists: 4}}} {
		g.shares = unknown
		if p := g.plan(10, 40, 32_000, false); p.missing != 0 || p.lists != 40 || p.begin || unknown.knows() {
			t.Errorf("%s: %+v", name, p)
		}
	}
	g.shares = shareTable{finding(10, 10, 0.8)} // nothing of lists
	if p := g.plan(10, 40, 32_000, false); p.lists != 40 {
		t.Errorf("lists are read with an effort of %d, nothing is known of them", p.lists)
	}
}

func (t shareTable) listsOf() (lists []uint32) {
	for _, p := range t {
		lists = append(lists, p.lists)
	}
	return lists
}

// Rows near to one another are told from rows by lot by the lists that were read.
func TestUnevenFiltersAreToldByTheListsRead(t *testing.T) {
	r := rng(93)
	for _, share := range []float64{0.5, 0.1, 0.02} {
		by, around := unevenness{share: float32(share)}, unevenness{share: float32(share)}
		for range 12 {
			some := 0
			for range 64 {
				if r.Float64() < share {
					some++
				}
			}
			by.learn(some, 64)
			if r.Float64() < max(share, 0.3) {
				around.learn(64, 64)
			} else {
				around.learn(0, 64)
			}
		}
		if by.is() || !around.is() {
			t.Errorf("%v: by lot %v, around a row %v", share, by.is(), around.is())
		}
	}
	var none unevenness
	if none.is() {
		t.Error("no list was read, and rows are uneven")
	}
}

// A scan lists its rows in groups of words: none is left out at their ends, and none behind the last row.
func TestAScanMeetsEachAllowedRowOnce(t *testing.T) {
	const dim = 4
	for _, n := range []int{1, 63, 64, 65, 64 * scanGroup, 64*scanGroup + 1, glanceMost + 64*scanGroup + 7, 5000} {
		g, _ := buildCodes(t, L2, dim, gauss(94, n, dim))
		var s Scratch
		for _, every := range []int{0, 1, 3, 200} {
			var allowed *bitset.Set
			want := n
			if every > 0 {
				allowed, want = bitset.New(n+130), 0
				for row := 0; row < n+130; row += every {
					allowed.Add(row)
					if row < n {
						want++
					}
				}
			}
			s.begin(g.m0)
			sq := g.prepare(make([]float32, dim), &s)
			var words []uint64
			if allowed != nil {
				words = nonNil(allowed.Words())
			}
			found := g.scanCodes(make([]float32, dim), &sq, n, n, words, &s)
			if len(found) != want || s.Stats().Distances < want {
				t.Errorf("%d rows, one of %d: %d found, %d distances, want %d", n, every, len(found), s.Stats().Distances, want)
			}
			if allowed != nil {
				wantSorted(t, found, allowed)
			}
		}
	}
}
