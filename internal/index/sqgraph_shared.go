package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// What a search of a batch that shares lists costs, in nanoseconds: whatever it reads, for
// each byte that a row is ranked by (it ranks more rows than a walk), for each list that there is, and for each
// that it reads. Rows cost what they do in panels, see panelQuadCost.
const (
	sharedCost, sharedFine, sharedKnown, sharedRead = 9000, 3, 1.2, 50
)

// sharedFaster reports whether n queries that read so many lists each, one list for all
// that want it, are faster than walks of an effort.
func (g *sqGraph) sharedFaster(n, lists, ef int) bool {
	all, rows := float64(g.lists.n), float64(g.rows)
	missed := func(lists int) float64 { return math.Pow(max(1-float64(lists)/all, 0), float64(n)) }
	packed := rows * (2 - missed(min(lists, batchFirst)) - missed(lists))
	order := g.code.panelOrder()
	row := panelRowCost + panelQuadCost*4*float64(order.quads)
	pack := panelPackCost * float64(g.code.stride/vec.SQ8Line)
	cost := sharedCost + sharedFine*float64(g.rankStride()) + sharedKnown*all + float64(lists)*(sharedRead+row*rows/all) + pack*packed/float64(n)
	return cost < aloneCost+aloneKeptCost*float64(ef)
}

// rankStride is how many bytes a row is ranked by; vectors, which need no query to be made for them, take half the time.
func (g *sqGraph) rankStride() int {
	if g.fine.exists() {
		return g.fine.stride
	}
	return 2 * g.dim
}

// sharedMost is how many queries read lists together: they have room for what they find.
func sharedMost(k, ef int) int {
	return min(batchQueries, max(batchLeast, panelKeys/(2*sharedRank(k, ef)+64)))
}

// sharedRank is how many of the rows nearest by panels are ranked at most, in place of a walk of an effort: of many rows
// wanted, some are far behind by coarse codes.
func sharedRank(k, ef int) int { return max(k+k/2+16, min(ef, 3*k)) }

// shareBatch reads for each of the vectors so many lists, the nearest ones, each once for
// all that want it, in place of walks of an effort.
func (g *sqGraph) shareBatch(vectors []float32, q *Query, k, ef, lists int, s *Scratch, found func(i int, rows []Neighbor)) {
	n, most := len(vectors)/g.dim, sharedMost(k, ef)
	alone := *g
	alone.twins = nil // they are rows of their own in lists
	var whole Stats   // of the blocks before
	for from := 0; from < n; from += most {
		to := min(from+most, n)
		block := vectors[from*g.dim : to*g.dim]
		s.begin(g.m0)
		if s.stats = whole; s.stopped() {
			notFound(from, n, found)
			return
		}
		g.panelRoom(to-from, sharedRank(k, ef), s)
		g.findShared(block, lists, s)
		for _, uses := range s.ivf.batch.pairs {
			g.readShared(uses, s)
		}
		whole = s.stats
		for i := range to - from {
			v, c := block[i*g.dim:][:g.dim], &s.panels.cands[i]
			if c.cut(g.kern); (len(c.keys) < k || s.panels.aff[i].Scale == 0) && !s.stats.Stopped {
				// Near lists have too few rows, or numbers are too large for codes.
				rows := g.Search(v, q, s)
				whole.add(&s.stats)
				found(from+i, rows)
				continue
			}
			slices.Sort(c.keys)
			s.stats, s.out = Stats{Stopped: s.stats.Stopped}, s.out[:0]
			rows := q.within(alone.rank(v, &s.panels.queries[i], c.keys, k, nil, s))
			whole.add(&s.stats)
			found(from+i, rows)
		}
		s.stats = whole
	}
}

// findShared prepares the queries of a block and finds the lists that they want.
func (g *sqGraph) findShared(vectors []float32, lists int, s *Scratch) {
	v, f, b, c := &s.ivf, &s.lists, &s.ivf.batch, g.lists.codes
	n, all, width := len(vectors)/g.dim, len(c.bias), 4*c.quads
	f.z, f.sums = grown(f.z, batchRun*width), grown(f.sums, batchRun*all)
	v.rows, v.dist = grown(v.rows, all), grown(v.dist, all)
	b.run = grown(b.run, batchRun*4*s.panels.order.quads)
	b.pairs = [2][]listUse{b.pairs[0][:0], b.pairs[1][:0]}
	var aff [batchRun]vec.Affine
	for from := 0; from < n && !s.stopped(); from += batchRun {
		run := min(batchRun, n-from)
		for i := range run {
			g.panelQuery(from+i, vectors[(from+i)*g.dim:][:g.dim], s)
			aff[i], _ = g.forCentres(f.z[i*width:][:width], s)
		}
		g.kern.Panels(f.z, run, c.quads, c.panels, all/vec.PanelRows, f.sums)
		for i := range run {
			v.selectLists(g.kern, g.lists.n, f.sums[i*all:][:all], c.bias, aff[i], lists)
			b.use(uint32(from+i), v.near)
		}
	}
}

// readShared reads the lists of uses, each once. The records of the next rows are on their
// way while those before are compared.
func (g *sqGraph) readShared(uses []listUse, s *Scratch) {
	p, b := &s.panels, &s.ivf.batch
	b.byList(uses, g.lists.n)
	p.next = grown(p.next, panelRun)
	rows, next := p.rows[:0], p.next
	var queries []uint32 // of rows
	from := uint32(0)
	for l := range g.lists.n {
		to := b.start[l]
		if to == from {
			continue
		}
		for links := range slices.Chunk(g.lists.list(uint32(l)), panelRun) {
			next = g.linked(links, next[:0])
			g.fetch(next)
			if g.compareShared(rows, queries, s); s.stopped() {
				return
			}
			rows, next, queries = next, rows, b.order[from:to]
		}
		s.stats.Lists++
		s.stats.Hops++
		from = to
	}
	g.compareShared(rows, queries, s)
}

// linked appends the rows that links lead to.
func (g *sqGraph) linked(links, rows []uint32) []uint32 {
	for _, link := range links {
		if row := link - 1; int(row) < g.rows { // else the image is damaged
			rows = append(rows, row)
		}
	}
	return rows
}

// compareShared compares rows, panelRun at most, with some of the queries.
func (g *sqGraph) compareShared(rows, queries []uint32, s *Scratch) {
	if len(rows) == 0 {
		return
	}
	p, b := &s.panels, &s.ivf.batch
	width, size, panels := 4*p.order.quads, 4*vec.PanelRows*p.order.quads, g.fillPanels(rows, s)
	s.stats.Codes += len(rows)
	s.stats.Distances += len(rows) * len(queries)
	for run := range slices.Chunk(queries, batchRun) {
		for i, q := range run {
			copy(b.run[i*width:][:width], p.z[int(q)*width:])
		}
		for from := 0; from < panels; from += chunkPanels {
			m := min(panels-from, chunkPanels)
			g.kern.Panels(b.run, len(run), p.order.quads, p.panels[from*size:], m, p.sums)
			at := from * vec.PanelRows
			for i, q := range run {
				g.takeShared(&p.cands[q], p.sums[i*m*vec.PanelRows:][:m*vec.PanelRows], p.bias[at:], p.aff[q], rows[at:], p)
			}
		}
	}
}

// takeShared adds those of rows to the candidates whose sums say that they are near.
func (g *sqGraph) takeShared(c *candidates, sums []int32, bias []float32, aff vec.Affine, rows []uint32, p *panelScratch) {
	hits := g.kern.SumsBelow(sums, bias, aff, c.limit, p.places, p.dist)
	if hits == 0 {
		return
	}
	for i, place := range p.places[:hits] {
		c.keys = append(c.keys, vec.Key(p.dist[i], rows[place]))
	}
	c.trim(g.kern)
}

// add adds what another part of a batch did.
func (t *Stats) add(o *Stats) {
	t.Distances += o.Distances
	t.Ranked += o.Ranked
	t.Exact += o.Exact
	t.Hops += o.Hops
	t.Codes += o.Codes
	t.Lists += o.Lists
	t.Scanned = t.Scanned || o.Scanned
	t.Stopped = t.Stopped || o.Stopped
}
