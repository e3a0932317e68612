package index

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/cockroachdb/errors"
)

// Of measuring what scans by first lines find.
const (
	// glanceProbes is how many rows stand for queries.
	glanceProbes = 64
	// glanceLoose is the most that a search that is measured may miss.
	glanceLoose = 0.05
	// glanceLoss and glanceLooseLoss are the parts of what a scan of whole records finds that one by first lines may miss, if no more
	// than glanceMissing and than glanceLoose may be missing.
	glanceLoss, glanceLooseLoss = 0.01, 0.03
	// One query of glancePoor at most may miss glanceMuch rows or more: there may be few of a kind that first lines do not tell.
	glancePoor, glanceMuch = 16, 3
)

// learnGlance measures whether first lines tell which rows are worth more, with some rows in place of queries. They do not where
// what makes rows near to one another is in the values behind: no row near by its first line says so then.
func (b *sqBuilt) learnGlance(ctx context.Context, workers int) error {
	g := b.g
	if g.lists == nil || !g.kern.FirstLinesFast() {
		return nil
	}
	rows := make([]uint32, min(glanceProbes, g.rows))
	for i, l := 0, lot(1); i < len(rows); i++ { // not one in so many: rows may come by turns
		rows[i] = uint32(i*g.rows/len(rows) + l.below(g.rows/len(rows)))
	}
	for _, c := range []struct{ missing, most float64 }{{glanceLoose, glanceLooseLoss}, {glanceMissing, glanceLoss}} {
		lost, poor, err := g.glanceLoses(ctx, workers, rows, c.missing)
		if err != nil || lost > c.most || poor > len(rows)/glancePoor {
			return errors.Wrap(err, "measure what scans by first lines find")
		}
	}
	g.glanced = true
	binary.LittleEndian.PutUint32(b.mem.bytes[120:], 1)
	binary.LittleEndian.PutUint32(b.mem.bytes[124:], castagnoli(b.mem.bytes[:124]))
	return nil
}

// glanceLoses is what part of the rows that scans find scans by first lines do not, of which a part may be missing. Every second row
// is allowed. It counts the searches that miss glanceMuch rows, too.
func (g *sqGraph) glanceLoses(ctx context.Context, workers int, rows []uint32, missing float64) (part float64, poor int, err error) {
	var lost, all, many atomic.Int64
	half := halfOf(g.rows, rows).Words()
	whole, first := *g, *g
	whole.glanced, first.glanced = false, true
	err = parallel(ctx, workers, len(rows), 1, func() func(from, to int) error {
		var s, exact Scratch
		return func(from, to int) error {
			for _, row := range rows[from:to] {
				v := g.vector(row)
				s.begin(g.m0)
				sq := g.prepare(v, &s)
				found := map[uint32]bool{}
				for _, n := range first.scanMissing(v, &sq, calibrateK, calibrateK, missing, half, &s) {
					found[n.Row] = true
				}
				exact.begin(g.m0)
				sq = g.prepare(v, &exact)
				less := 0
				for _, n := range whole.scanMissing(v, &sq, calibrateK, calibrateK, missing, half, &exact) {
					if all.Add(1); !found[n.Row] {
						less++
					}
				}
				if lost.Add(int64(less)); less >= glanceMuch {
					many.Add(1)
				}
			}
			return nil
		}
	})
	return float64(lost.Load()) / float64(max(all.Load(), 1)), int(many.Load()), err
}
