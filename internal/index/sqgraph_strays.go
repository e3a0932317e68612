package index

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"
)

// Every row of a graph can be reached (see repair), but not by every walk: pruning takes a link to a row away for one to a row
// between, and no more than a few are left that lead to some rows, or to heaps of rows that are far from all others. Who looks for
// their surroundings needs many times the effort of others, or does not find them. So each row is looked for in the end by a walk of
// little effort, and where that does not come by it, the nearest rows that it has found and that have room lead to it from
// then on: walks for what is near to the row end there, too. Lists are half full in the mean, so that this takes no memory.
const (
	// strayEffort is that of the walks.
	strayEffort = 10
	// strayLinks is how many rows lead to one that was not found from then on.
	strayLinks = 3
	// strayRounds is how often a row is looked for that was not found.
	strayRounds = 2
	// strayStep is how many rows one goroutine looks for at a time.
	strayStep = 256
	// ledLeast is how many rows lead to a row at least, if those that it leads to have room.
	ledLeast = 6
)

// linkStrays links rows that short walks do not find, and such as few rows lead to.
func (b *sqBuilder) linkStrays(ctx context.Context, workers int) error {
	rows := make([]uint32, 0, len(b.order))
	for _, row := range b.order {
		if b.g.level(row) == 0 { // the others are on the way to level 0
			rows = append(rows, row)
		}
	}
	for range strayRounds {
		missed := make([]bool, len(rows))
		err := parallel(ctx, workers, len(rows), strayStep, func() func(from, to int) error {
			s := &Scratch{}
			return func(from, to int) error {
				for i, row := range rows[from:to] {
					missed[from+i] = !b.findOrLead(row, s)
				}
				return nil
			}
		})
		if err != nil {
			return errors.Wrap(err, "link rows that short walks do not find")
		}
		some := rows[:0]
		for i, row := range rows {
			if missed[i] {
				some = append(some, row)
			}
		}
		rows = some
	}
	return errors.Wrap(b.leadBack(ctx, workers), "link rows that few lead to")
}

// findOrLead looks for a row by a short walk, and reports whether it was found. If not, some of those that were lead to it.
func (b *sqBuilder) findOrLead(row uint32, s *Scratch) bool {
	g := b.g
	s.begin(g.m0 + 1)
	q := b.query(row)
	near, d := g.descend(&q, 0, s)
	w := &s.walk
	w.begin(g, q, near, d, strayEffort, 0)
	for w.next(g) {
		if slices.Contains(w.ids[:w.n], row) {
			return true
		}
		w.score(g)
	}
	left := strayLinks
	for i := 0; i < len(w.pool) && left > 0; i++ {
		if b.lead(poolRow(w.pool[i]), row) {
			left--
		}
	}
	return false
}

// lead makes a row lead to another one on level 0 if it has room and does not yet. It reports whether it does so now.
func (b *sqBuilder) lead(from, to uint32) bool {
	mu := &b.locks[from%lockStripes]
	mu.Lock()
	defer mu.Unlock()
	links := b.g.list(from, 0)[:b.keep]
	for i := range links {
		switch atomic.LoadUint32(&links[i]) {
		case 0:
			atomic.StoreUint32(&links[i], to+1)
			return true
		case to + 1:
			return false
		}
	}
	return false
}

// leadBack has rows that few lead to be led to by those that they lead to, the nearest first.
func (b *sqBuilder) leadBack(ctx context.Context, workers int) error {
	g, led := b.g, make([]uint32, b.g.rows)
	each := func(do func(row uint32)) error {
		return parallel(ctx, workers, len(b.order), strayStep, func() func(from, to int) error {
			return func(from, to int) error {
				for _, row := range b.order[from:to] {
					do(row)
				}
				return nil
			}
		})
	}
	err := each(func(row uint32) {
		for _, link := range g.list(row, 0)[:b.keep] {
			if link == 0 {
				return
			}
			atomic.AddUint32(&led[link-1], 1)
		}
	})
	if err != nil {
		return err
	}
	return each(func(row uint32) {
		links := g.list(row, 0)[:b.keep]
		for i := 0; i < len(links) && led[row] < ledLeast; i++ {
			link := atomic.LoadUint32(&links[i])
			if link == 0 {
				return
			}
			if b.lead(link-1, row) {
				led[row]++
			}
		}
	})
}
