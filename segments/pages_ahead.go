package segments

import (
	"strings"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// lookahead is what a pager has beyond the end of its page.
type lookahead struct {
	id   iteration
	kept map[uint64]*keptRun // when the page began
	rows int                 // that a scan of one target finds
	runs []*keptRun          // by target; nil = it is scanned
	// by target: what was kept of it could not be read, so nothing is kept
	plain []bool
}

// keeps reports whether rows are found ahead.
func (a *lookahead) keeps() bool { return a.rows > 0 }

// open looks up what pages before have found.
func (p *pager) open() {
	// Scores of BM25 follow what is in the collection and how its index weighs words: what
	// a page before has found need not be in today's order.
	if p.req.Page.Request == 0 || len(p.targets) == 0 || p.req.scores != nil {
		return
	}
	p.id = iteration{collection: p.info.ID, request: p.req.Page.Request, at: p.at, ttl: p.info.TTL, schema: p.info.Schema.Version}
	p.runs, p.plain = make([]*keptRun, len(p.targets)), make([]bool, len(p.targets))
	most := p.k
	p.kept = p.coll.set.pages.get(p.id)
	for i := range p.targets {
		run := p.kept[p.targets[i].serial]
		if run == nil {
			continue
		}
		p.runs[i] = run
		most = max(most, len(run.keys))
		sh := &p.shared[i]
		sh.once.Do(func() { sh.n, sh.rows = run.n, run.rows })
		if p.trace != nil {
			matched := run.n
			if run.rows != nil {
				matched = run.rows.Count()
			}
			p.trace.filtered(&p.targets[i], p.sub, run.n, matched, 0)
		}
	}
	p.rows = max(min(keptFactor*most, keptRows/len(p.targets)), 2*p.k)
	if p.takes(24*int64(p.rows)*int64(len(p.targets))) != nil {
		p.rows = 0
	}
}

// findKept takes from the runs what they have behind the cursor, and notes in done
// which targets need no scan.
func (p *pager) findKept(after *pageHit, done []bool) {
	at, scans := make([]int, len(p.targets)), false
	for i := range p.targets {
		t := &p.targets[i]
		if done[i] = t.dead; p.runs[i] != nil && !t.dead {
			p.readKept(i, func() { at[i], done[i] = p.runs[i].behind(after, t) })
		}
		scans = scans || !done[i]
	}
	for i, run := range p.runs {
		if !done[i] || run == nil || p.targets[i].dead {
			continue
		}
		// Where one is scanned so are those that are nearly used up: at the same time.
		if scans && !run.whole && len(run.keys)-at[i] < len(run.keys)/4 {
			done[i] = false
			continue
		}
		done[i] = p.readKept(i, func() { p.take(int32(i), at[i], wayKept) })
	}
}

// readKept does something with what is kept of a target. If that fails the target is
// scanned as if nothing were kept, and nothing is: a row in the run may be one that this page
// does not need.
func (p *pager) readKept(i int, do func()) bool {
	err := guard("read kept rows", func() error { do(); return nil })
	if err != nil {
		p.coll.set.fault(p.targets[i].holder, err)
		p.runs[i], p.plain[i] = nil, true
	}
	return err == nil
}

// take makes rows of a run, from place at on, those that a target has found.
func (p *pager) take(number int32, at int, way string) {
	run, t := p.runs[number], &p.targets[number]
	end := min(at+p.k, len(run.keys))
	top := make([]pageHit, 0, end-at)
	for i := at; i < end; i++ {
		top = append(top, run.hit(i, t, number))
	}
	p.tops[number], p.more[number] = top, end < len(run.keys) || !run.whole
	if p.trace != nil && way != "" {
		p.trace.searched(t, p.sub, &work{ways: []string{way}}, 0)
	}
}

// scanAhead finds more rows of a target behind the cursor than the page needs. It
// reports false where so many are equally near that there are too few others.
func (p *pager) scanAhead(t *target, number int32, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, after *pageHit) (bool, error) {
	var top vec.TopK
	top.Reset(p.rows + 1)
	err := t.distances(q, n, allowed, sc, func(rows []uint32, distances []float32) error {
		bound := top.BoundKey()
		for i, d := range distances {
			key := vec.Key(d, rows[i])
			if key >= bound || !p.inRange(q, d) {
				continue
			}
			if after != nil {
				h := pageHit{far: uint32(key >> 32)}
				if h.far < after.far {
					continue
				}
				if h.far == after.far {
					if h.key = keyOf(t, rows[i]); h.compare(after) <= 0 {
						continue
					}
				}
			}
			top.PushKey(key)
			bound = top.BoundKey()
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	run := &keptRun{n: n, rows: allowed, whole: !top.Full()}
	if after != nil {
		run.from = &pageHit{far: after.far, key: value{i: after.key.i, s: strings.Clone(after.key.s)}} // it may be mapped
	}
	run.keys = top.AppendKeys(make([]uint64, 0, top.Len()))
	if !run.whole { // others may be as near as the last
		end := len(run.keys)
		for end > 0 && run.keys[end-1]>>32 == run.keys[len(run.keys)-1]>>32 {
			end--
		}
		if run.keys = run.keys[:end]; end < p.k {
			return false, nil
		}
	}
	sortEquals(run.keys, t)
	p.runs[number] = run
	p.take(number, 0, "")
	return true, nil
}

// keep keeps the runs for the page behind.
func (p *pager) keep() {
	if !p.keeps() || p.left {
		return
	}
	runs, fresh := make(map[uint64]*keptRun, len(p.runs)), false
	for i, run := range p.runs {
		if serial := p.targets[i].serial; run != nil && !p.targets[i].dead {
			runs[serial] = run
			fresh = fresh || run != p.kept[serial]
		}
	}
	if fresh || len(runs) < len(p.kept) {
		p.coll.set.pages.put(p.id, runs)
	}
}
