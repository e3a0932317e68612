package index

import "slices"

// repair links the rows that no walk over level 0 reaches: pruning leaves a few.
func (b *sqBuilder) repair() {
	s := &Scratch{}
	for range 4 { // a row that took the place of another may have cut that one off
		if b.repairOnce(b.g, s) == 0 {
			return
		}
	}
}

func (b *sqBuilder) repairOnce(g *sqGraph, s *Scratch) int {
	if g.top < 0 {
		return 0
	}
	reached := make([]uint64, (g.rows+63)/64)
	var stack []uint32
	reach := func(from uint32) {
		reached[from>>6] |= 1 << (from & 63)
		stack = append(stack, from)
		for len(stack) > 0 {
			row := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			for _, link := range g.list(row, 0) {
				if link == 0 {
					break
				}
				if to := link - 1; !has(reached, to) {
					reached[to>>6] |= 1 << (to & 63)
					stack = append(stack, to)
				}
			}
		}
	}
	reach(g.start)
	lost := 0
	for _, row := range b.order {
		if !has(reached, row) {
			lost++
			b.adopt(g, row, reached, s)
			reach(row)
		}
	}
	return lost
}

// adopt makes the nearest row that is reached and has a free link lead to row, or the
// nearest of all at the cost of its last link.
func (b *sqBuilder) adopt(g *sqGraph, row uint32, reached []uint64, s *Scratch) {
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
	if len(w.pool) == 0 {
		w.pool = append(w.pool, poolKey(0, g.start))
	}
	for _, key := range w.pool {
		links := g.list(poolRow(key), 0)[:b.keep]
		if links[len(links)-1] != 0 {
			continue
		}
		for i := range links {
			if links[i] == 0 {
				links[i] = row + 1
				return
			}
		}
	}
	links := g.list(poolRow(w.pool[0]), 0)[:b.keep]
	links[len(links)-1] = row + 1
}
