package segments

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// Grouping makes a search find groups of rows that share a field's value, null
// being a value: TopK and Offset of the request count groups. There are TopK
// groups if the rows have so many values; the nearest comes first, and the rows
// of a group stand together.
type Grouping struct {
	FieldID int64      // Bool, integer or VarChar; with Path JSON, or the dynamic field
	Path    *expr.Path // the value there; one that is no scalar is null. GroupValues has these as JSON text
	Size    int        // rows per group; 0 = 1
	Strict  bool       // a group has Size rows if there are so many; else those met on the way
}

// grouping is a search for groups.
type grouping struct {
	*searching
	by    schema.Field
	size  int
	parts []groupPart // of query q in target t: parts[t*NQ+q]

	// each runs a task for each target that is searched.
	each func(ctx context.Context, fn func(ctx context.Context, i int, t *target) error) error
}

// groupPart is what one target has for one query.
type groupPart struct {
	hits    []groupHit // nearest first
	horizon float32    // all rows nearer than this were looked at
}

// groupHit is a hit and its group.
type groupHit struct {
	hit
	of value
}

// group is a group that was chosen.
type group struct {
	of   value
	hits []groupHit
}

// searchGroups answers a request with a Grouping.
func (s *searching) searchGroups(ctx context.Context, res *SearchResult) error {
	by, ok := s.info.Schema.FieldByID(s.req.Group.FieldID)
	if !ok {
		return goneField(s.info.Schema, s.req.Group.FieldID)
	}
	g := &grouping{searching: s, by: by, size: max(s.req.Group.Size, 1)}
	hits := int64(s.req.NQ) * int64(s.want()) * int64(g.size)
	if err := s.takes(hits * (int64(len(s.targets))*64 + s.rowBytes(s.req.OutputFields))); err != nil {
		return err
	}
	g.parts = make([]groupPart, len(s.targets)*s.req.NQ)
	s.share()
	g.each = func(ctx context.Context, fn func(context.Context, int, *target) error) error {
		return s.eachTargetWith(ctx, s.req.FieldID, fn)
	}
	stage := s.stage()
	if err := g.each(ctx, g.find); err != nil {
		return err
	}
	chosen := make([][]group, s.req.NQ)
	err := guard("choose groups", func() error {
		for q := range chosen {
			if err := ended(ctx, "choose groups"); err != nil {
				return err
			}
			chosen[q] = g.choose(q)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.req.Group.Strict && g.size > 1 {
		if err := g.fillAll(ctx, chosen); err != nil {
			return err
		}
	}
	stage.end(&s.stats.Wall)
	if err := g.answer(ctx, chosen, res); err != nil {
		return err
	}
	stage.end(&s.stats.Merge)
	cols, err := s.gather(ctx, []int64{by.ID}, s.merger.hits)
	if err != nil {
		return err
	}
	res.GroupValues = s.req.Group.picked(cols[0])
	return nil
}

// values appends what rows are grouped by to col, which is empty.
func (g *grouping) values(t *target, col *schema.Column, rows []uint32) {
	t.gather(col, rows)
	g.req.Group.picked(col)
}

// picked puts the values at the path into the place of their documents, if there is a path.
func (g *Grouping) picked(col *schema.Column) *schema.Column {
	p := g.Path
	if p == nil {
		return col
	}
	valid := make([]bool, col.Rows())
	for i, doc := range col.Str {
		col.Str[i], valid[i] = "", false
		if !col.Null(i) {
			col.Str[i], valid[i] = p.Scalar(doc)
		}
	}
	col.Valid = valid
	return col
}

// answer puts the rows of the chosen groups into the answer.
func (g *grouping) answer(ctx context.Context, chosen [][]group, res *SearchResult) error {
	groups, rows := 0, 0
	for _, c := range chosen {
		groups += len(c)
		for i := range c {
			rows += len(c[i].hits)
		}
	}
	m := g.merger
	m.hits = slices.Grow(m.hits, rows)
	res.Scores, res.GroupCounts = make([]float32, 0, rows), make([]int64, 0, groups)
	for _, groups := range chosen {
		if err := ended(ctx, "merge groups"); err != nil {
			return err
		}
		n := 0
		for _, c := range groups {
			res.GroupCounts = append(res.GroupCounts, int64(len(c.hits)))
			for _, h := range c.hits {
				m.hits = append(m.hits, h.hit)
				res.Scores = append(res.Scores, g.req.Metric.Score(h.distance))
			}
			n += len(c.hits)
		}
		res.Counts = append(res.Counts, int64(n))
		if err := g.room.fits(len(m.hits)); err != nil {
			return err
		}
	}
	return nil
}

// part is where the hits of query q in target t are.
func (g *grouping) part(t, q int) *groupPart { return &g.parts[t*g.req.NQ+q] }

// find finds the nearest groups in one target, for each query.
func (g *grouping) find(ctx context.Context, i int, t *target) error {
	return g.eachQuery(ctx, i, t, func(at int, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
		return g.findFor(i, t, at, q, n, allowed, sc)
	})
}

// findFor is find for query number at.
func (g *grouping) findFor(i int, t *target, at int, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
	p := g.part(i, at)
	if !t.scans(q) {
		ok, err := g.byIndex(t, int32(i), q, n, allowed, sc, p)
		if ok || err != nil {
			return err
		}
	}
	*p = groupPart{}
	return g.byScan(t, int32(i), q, n, allowed, sc, p)
}

// perQuery does something for query number at in one target.
type perQuery func(at int, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error

// eachQuery calls fn for each query of the search.
func (g *grouping) eachQuery(ctx context.Context, i int, t *target, fn perQuery) error {
	sc := g.coll.set.scratch.Get().(*scratch)
	defer g.coll.set.scratch.Put(sc)
	n, allowed, err := g.rowsOf(ctx, int32(i), sc)
	if err != nil {
		return err
	}
	if g.trace != nil {
		defer g.traced(t, sc)()
	}
	for at := range g.req.NQ {
		q := g.query()
		q.ctx = ctx
		g.req.vector(at, &q)
		if err := fn(at, &q, n, allowed, sc); err != nil {
			return err
		}
	}
	return nil
}

// byIndex takes the groups of more rows than there are groups wanted. It reports
// false if those had too few groups.
func (g *grouping) byIndex(t *target, number int32, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, p *groupPart) (bool, error) {
	wide := *q
	wide.bounded = false
	wide.k = min(4*g.want()*g.size+64, n)
	if wide.effort.EF > 0 { // else the index looks at as many as so many rows need
		wide.effort.EF = max(wide.effort.EF, wide.k)
	}
	found, err := t.nearest(&wide, n, allowed, sc)
	if err != nil {
		return false, err
	}
	whole := len(found) < wide.k || wide.k == n
	p.horizon = float32(math.Inf(1))
	if !whole {
		p.horizon = found[len(found)-1].Distance
	}
	within := g.withinRadius(found)
	if len(within) < len(found) {
		whole, p.horizon = true, float32(math.Inf(1)) // what is farther does not count
	}
	if q.bounded {
		within = slices.DeleteFunc(slices.Clone(within), func(f vec.Neighbor) bool { return !q.keeps(f.Distance) })
	}
	take := g.taker(number, p)
	col := schema.NewColumn(g.by, len(within))
	rows := make([]uint32, len(within))
	for i, f := range within {
		rows[i] = f.Row
	}
	g.values(t, col, rows)
	for i, f := range within {
		if !take(f, valueOf(col, i)) {
			return true, nil
		}
	}
	return whole, nil
}

// taker returns a function that takes rows, nearest first, into p until it has
// as many groups as are wanted and sees one more: then it returns false.
func (g *grouping) taker(number int32, p *groupPart) func(vec.Neighbor, value) bool {
	counts := make(map[value]int)
	return func(f vec.Neighbor, of value) bool {
		c, ok := counts[of]
		switch {
		case !ok && len(counts) == g.want():
			p.horizon = f.Distance
			return false
		case c < g.size:
			counts[of] = c + 1
			p.hits = append(p.hits, groupHit{hit{target: number, row: f.Row, distance: f.Distance}, of})
		}
		return true
	}
}

// popAtOnce is how many rows are taken from the heap before their groups are read.
const popAtOnce = 64

// byScan looks at rows in order of their distance until it has enough groups.
func (g *grouping) byScan(t *target, number int32, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, p *groupPart) error {
	count := n
	if allowed != nil {
		count = allowed.Count()
	}
	if err := g.takes(8 * int64(count)); err != nil {
		return err
	}
	heap := make([]uint64, 0, count)
	err := t.distances(q, n, allowed, sc, func(rows []uint32, distances []float32) error {
		for i, d := range distances {
			if g.inRange(q, d) {
				heap = append(heap, vec.Key(d, rows[i]))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		siftKey(heap, i)
	}
	p.horizon = float32(math.Inf(1))
	take := g.taker(number, p)
	col := schema.NewColumn(g.by, popAtOnce)
	var some []vec.Neighbor
	var rows []uint32
	for len(heap) > 0 {
		if g.stop.Load() {
			return q.cut()
		}
		some, rows = some[:0], rows[:0]
		for len(heap) > 0 && len(some) < popAtOnce {
			f := vec.Unkey(heap[0])
			some, rows = append(some, f), append(rows, f.Row)
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
			siftKey(heap, 0)
		}
		truncate(col)
		g.values(t, col, rows)
		for i, f := range some {
			if !take(f, valueOf(col, i)) {
				return nil
			}
		}
	}
	return nil
}

// inRange reports whether a distance is in the range that was asked for.
func (s *searching) inRange(q *nearestQuery, d float32) bool {
	return (!q.bounded || q.keeps(d)) && (s.req.Radius == nil || s.req.Metric.Better(s.req.Metric.Score(d), *s.req.Radius))
}

// siftKey restores the order of a heap, the smallest on top, below i.
func siftKey(h []uint64, i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if h[i] <= h[c] {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// choose returns the groups of the answer to query q, without those that the
// offset cuts.
func (g *grouping) choose(q int) []group {
	var all []groupHit
	for t := range g.targets {
		if !g.targets[t].dead {
			all = append(all, g.part(t, q).hits...)
		}
	}
	all = g.distinct(all)
	var out []group
	at := map[value]int{}
	for _, h := range all {
		i, ok := at[h.of]
		if !ok {
			if len(out) == g.want() {
				break
			}
			i = len(out)
			at[h.of], out = i, append(out, group{of: h.of})
		}
		if len(out[i].hits) < g.size {
			out[i].hits = append(out[i].hits, h)
		}
	}
	return out[min(g.req.Offset, len(out)):]
}

// distinct sorts hits and keeps the newest of each key.
func (g *grouping) distinct(all []groupHit) []groupHit {
	slices.SortFunc(all, func(a, b groupHit) int {
		return cmp.Or(cmp.Compare(vec.Key(a.distance, 0), vec.Key(b.distance, 0)), cmp.Compare(a.target, b.target), cmp.Compare(a.row, b.row))
	})
	if len(g.targets) < 2 {
		return all
	}
	newest := make(map[value]hit, len(all))
	for _, h := range all {
		k := keyOf(&g.targets[h.target], h.row)
		if other, ok := newest[k]; !ok || g.newer(h.hit, other) {
			newest[k] = h.hit
		}
	}
	if len(newest) == len(all) {
		return all
	}
	return slices.DeleteFunc(all, func(h groupHit) bool { return newest[keyOf(&g.targets[h.target], h.row)] != h.hit })
}
