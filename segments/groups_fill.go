package segments

import (
	"context"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// fillAll looks for further rows of the chosen groups where there may be some.
func (g *grouping) fillAll(ctx context.Context, chosen [][]group) error {
	var missing []bool // by target
	for t := range g.targets {
		need := false
		for q := range chosen {
			need = need || g.misses(g.part(t, q), chosen[q])
		}
		missing = append(missing, need)
	}
	err := g.each(ctx, func(ctx context.Context, i int, t *target) error {
		if !missing[i] {
			return nil
		}
		return g.eachQuery(ctx, i, t, func(at int, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
			p := g.part(i, at)
			if !g.misses(p, chosen[at]) {
				return nil
			}
			return g.fill(t, int32(i), q, n, allowed, sc, p, chosen[at])
		})
	})
	if err != nil {
		return err
	}
	return guard("fill groups", func() error {
		for q := range chosen {
			if err := ended(ctx, "fill groups"); err != nil {
				return err
			}
			g.refill(q, chosen[q])
		}
		return nil
	})
}

// misses reports whether there may be rows that belong to the chosen groups and
// were not looked at.
func (g *grouping) misses(p *groupPart, chosen []group) bool {
	return slices.ContainsFunc(chosen, func(c group) bool {
		return !math.IsInf(float64(p.horizon), 1) && (len(c.hits) < g.size || c.hits[len(c.hits)-1].distance >= p.horizon)
	})
}

// fill finds the nearest rows of each chosen group in one target.
func (g *grouping) fill(t *target, number int32, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, p *groupPart, chosen []group) error {
	tops := make([]vec.TopK, len(chosen))
	at := make(map[value]int, len(chosen))
	for i := range chosen {
		at[chosen[i].of] = i
		tops[i].Reset(g.size)
	}
	col := schema.NewColumn(g.by, scanBlock)
	err := t.distances(q, n, allowed, sc, func(rows []uint32, distances []float32) error {
		truncate(col)
		g.values(t, col, rows)
		for i, d := range distances {
			if k, ok := at[valueOf(col, i)]; ok && g.inRange(q, d) {
				tops[k].Push(rows[i], d)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.hits = p.hits[:0]
	var found []vec.Neighbor
	for i := range tops {
		found = tops[i].AppendSorted(found[:0])
		for _, f := range found {
			p.hits = append(p.hits, groupHit{hit{target: number, row: f.Row, distance: f.Distance}, chosen[i].of})
		}
	}
	return nil
}

// refill puts what was found for the chosen groups together.
func (g *grouping) refill(q int, chosen []group) {
	var all []groupHit
	for t := range g.targets {
		if !g.targets[t].dead {
			all = append(all, g.part(t, q).hits...)
		}
	}
	all = g.distinct(all)
	at := make(map[value]int, len(chosen))
	for i := range chosen {
		at[chosen[i].of] = i
		chosen[i].hits = chosen[i].hits[:0]
	}
	for _, h := range all {
		if i, ok := at[h.of]; ok && len(chosen[i].hits) < g.size {
			chosen[i].hits = append(chosen[i].hits, h)
		}
	}
}
