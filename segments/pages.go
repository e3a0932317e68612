package segments

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// Key is a primary key: the number or the text, by the field's type.
type Key struct {
	Int int64
	Str string
}

// Cursor says where a page of a search ended: at the row of a key, at a distance.
type Cursor struct {
	Distance float32
	Key      Key
}

// Paging makes a search return the next page of all rows in order of distance,
// those equally near in order of their keys. Read at the same timestamp, pages
// neither repeat nor miss a row, whatever is loaded, sealed or handed off between
// them. It is exact, so a page costs a scan of the rows, unless rows behind the end of
// one before were kept. NQ must be 1 and Offset 0.
type Paging struct {
	After *Cursor // the end of the page before; nil = the first page
	// Request is the same for all that makes rows the same, timestamps apart, and for
	// nothing else. 0 = no rows are kept for further pages.
	Request uint64
}

// pageHit is a hit with its place in the order.
type pageHit struct {
	hit
	far uint32 // orders as the distance does
	key value
}

// farness is a number that orders as distances do.
func farness(distance float32) uint32 { return uint32(vec.Key(distance, 0) >> 32) }

func (a *pageHit) compare(b *pageHit) int {
	return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.key.i, b.key.i), cmp.Compare(a.key.s, b.key.s))
}

// pager collects one page.
type pager struct {
	*searching
	k    int         // rows that a target looks for: one more than the page has
	tops [][]pageHit // by target, in order
	more []bool      // by target: there are rows behind those in tops
	lookahead
}

// searchPage answers a request with Paging.
func (s *searching) searchPage(ctx context.Context, res *SearchResult) error {
	p := &pager{searching: s, k: s.req.TopK + 1}
	if err := s.takes(64 * int64(p.k) * int64(len(s.targets)+1)); err != nil {
		return err
	}
	s.share()
	p.open()
	defer p.keep()
	var after *pageHit
	if c := s.req.Page.After; c != nil {
		after = &pageHit{far: farness(c.Distance), key: value{i: c.Key.Int, s: c.Key.Str}}
	}
	var page []pageHit
	for {
		stage := s.stage()
		p.tops, p.more = make([][]pageHit, len(s.targets)), make([]bool, len(s.targets))
		if err := p.find(ctx, after); err != nil {
			return err
		}
		stage.end(&s.stats.Wall)
		var some []pageHit
		var more bool
		if err := guard("merge page", func() error { some, more, after = p.collect(); return nil }); err != nil {
			return err
		}
		stage.end(&s.stats.Merge)
		page = append(page, some...)
		if len(page) > s.req.TopK {
			page, res.More = page[:s.req.TopK], true
			break
		}
		if !more {
			break
		}
	}
	for _, h := range page {
		s.merger.hits = append(s.merger.hits, h.hit)
		res.Scores = append(res.Scores, s.req.Metric.Score(h.distance))
	}
	res.Counts = append(res.Counts, int64(len(page)))
	if n := len(page); n > 0 {
		res.Last = &Cursor{Distance: page[n-1].distance, Key: Key{page[n-1].key.i, strings.Clone(page[n-1].key.s)}} // it may be mapped
	}
	return nil
}

// find sets tops to the first rows of each target behind the cursor; nil = the first.
func (p *pager) find(ctx context.Context, after *pageHit) error {
	done := make([]bool, len(p.targets))
	if p.keeps() {
		p.findKept(after, done)
	}
	if !slices.Contains(done, false) {
		return nil
	}
	return p.waves(ctx, p.req.FieldID, done, func(skip []bool) error {
		return p.eachOf(ctx, skip, func(ctx context.Context, i int, t *target) error {
			return p.scan(ctx, int32(i), t, after)
		})
	})
}

// scan looks at every row of a target for the first ones behind the cursor.
func (p *pager) scan(ctx context.Context, number int32, t *target, after *pageHit) error {
	sc := p.coll.set.scratch.Get().(*scratch)
	defer p.coll.set.scratch.Put(sc)
	n, allowed, err := p.rowsOf(ctx, number, sc)
	if err != nil {
		return err
	}
	if p.trace != nil {
		defer p.traced(t, sc)()
	}
	q := p.query()
	q.ctx, q.exact = ctx, true
	p.req.vector(0, &q)
	if p.keeps() && !p.plain[number] {
		if done, err := p.scanAhead(t, number, &q, n, allowed, sc, after); done || err != nil {
			return err
		}
	}
	p.tops[number], err = p.nearestAfter(t, number, &q, n, allowed, sc, after)
	p.more[number] = len(p.tops[number]) == p.k
	return err
}

// nearestAfter returns the first rows of a target behind the cursor.
func (p *pager) nearestAfter(t *target, number int32, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, after *pageHit) ([]pageHit, error) {
	top := pageTop{k: p.k}
	err := t.distances(q, n, allowed, sc, func(rows []uint32, distances []float32) error {
		for i, d := range distances {
			h := pageHit{hit: hit{target: number, row: rows[i], distance: d}, far: farness(d)}
			if after != nil && h.far < after.far || top.beyond(h.far) || !p.inRange(q, d) {
				continue
			}
			h.key = keyOf(t, h.row)
			if after == nil || h.compare(after) > 0 {
				top.push(h)
			}
		}
		return nil
	})
	slices.SortFunc(top.heap, func(a, b pageHit) int { return a.compare(&b) })
	return top.heap, err
}

// pageTop keeps the first k of the hits pushed: a heap with the last on top.
type pageTop struct {
	k    int
	heap []pageHit
}

// beyond reports whether a row that is so far cannot be among the first.
func (t *pageTop) beyond(far uint32) bool { return len(t.heap) == t.k && far > t.heap[0].far }

func (t *pageTop) push(h pageHit) {
	last := func(a, b *pageHit) int { return b.compare(a) }
	if len(t.heap) < t.k {
		t.heap = append(t.heap, h)
		for i := len(t.heap) - 1; i > 0; {
			up := (i - 1) / 2
			if t.heap[up].compare(&t.heap[i]) >= 0 {
				break
			}
			t.heap[up], t.heap[i] = t.heap[i], t.heap[up]
			i = up
		}
		return
	}
	if h.compare(&t.heap[0]) < 0 {
		t.heap[0] = h
		siftDownBy(t.heap, last)
	}
}

// collect merges what the targets have found. more says that there may be rows
// behind, after where to look for them.
func (p *pager) collect() (page []pageHit, more bool, next *pageHit) {
	var end *pageHit // rows up to here have all been found
	for i, top := range p.tops {
		if p.targets[i].dead {
			continue
		}
		page = append(page, top...)
		if p.more[i] {
			if last := &top[len(top)-1]; end == nil || last.compare(end) < 0 {
				end = last
			}
		}
	}
	slices.SortFunc(page, func(a, b pageHit) int { return a.compare(&b) })
	if end != nil {
		page = slices.DeleteFunc(page, func(h pageHit) bool { return h.compare(end) > 0 })
		next = &pageHit{far: end.far, key: end.key}
	}
	if len(p.targets) > 1 {
		page = p.newestOnly(page)
	}
	return page, end != nil, next
}

// newestOnly drops rows that have a newer one of the same key in another target.
func (p *pager) newestOnly(page []pageHit) []pageHit {
	keys := schema.NewColumn(p.info.Schema.Primary(), len(page))
	for _, h := range page {
		appendValue(keys, h.key)
	}
	stale := bitset.New(len(page))
	for t := range p.targets {
		if p.targets[t].dead {
			continue
		}
		sh, ts := &p.shared[t], &p.targets[t]
		ts.lookup(keys, sh.n, func(i int, row uint32) {
			h := &page[i]
			if h.target == int32(t) || sh.rows != nil && !sh.rows.Has(int(row)) {
				return
			}
			if mine, other := p.targets[h.target].timestamp(h.row), ts.timestamp(row); other > mine || other == mine && int32(t) > h.target {
				stale.Add(i)
			}
		})
	}
	out := page[:0]
	for i, h := range page {
		if !stale.Has(i) {
			out = append(out, h)
		}
	}
	return out
}

// checkPaging reports a request that cannot be answered page by page.
func (r *SearchRequest) checkPaging() error {
	if r.Page != nil && (r.NQ != 1 || r.Offset != 0 || r.Group != nil) {
		return errclass.New(errclass.Invalid, "pages: want one vector, no offset and no groups")
	}
	return nil
}
