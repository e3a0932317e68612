package index

import (
	"context"
	"slices"
)

// repair links the rows that no walk over level 0 reaches.
func (b *sqBuilder) repair(ctx context.Context, workers int) error {
	g := b.g
	if g.top < 0 {
		return nil
	}
	r := repair{
		rows: g.rows, start: g.start, order: b.order,
		links: func(row uint32) []uint32 { return g.list(row, 0) }, near: b.reachedNear, link: b.append,
	}
	_, err := r.run(ctx, workers, b.told)
	return err
}

// reachedNear is what a walk to a row that is not reached has found.
func (b *sqBuilder) reachedNear(keys []uint64, row uint32, reached []uint64, s *Scratch) []uint64 {
	g := b.g
	s.begin(g.m0 + 1)
	q := b.query(row)
	near, d := g.descend(&q, 0, s)
	w := &s.walk
	w.begin(g, q, near, d, g.ef, 0)
	w.seen.add(row)
	for w.next(g) {
		w.score(g)
	}
	// Higher levels may lead to row itself, and on from there to others that are not reached.
	w.pool = slices.DeleteFunc(w.pool, func(key uint64) bool { return !has(reached, poolRow(key)) })
	return append(keys, w.pool...)
}

// append adds row to the level 0 links of `to` if one of those that are kept is free, or in
// the place of the last one.
func (b *sqBuilder) append(to, row uint32, replace bool) bool {
	links := b.g.list(to, 0)[:b.keep]
	at := slices.Index(links, 0)
	if at < 0 {
		at = len(links) - 1
		if !replace {
			return false
		}
	}
	links[at] = row + 1
	return true
}
