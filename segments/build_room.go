package segments

import (
	"cmp"
	"slices"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
)

// BuildRoom is memory for building the indexes of a growing segment, one after the other. Nil is as much as there is.
type BuildRoom struct {
	g     *Growing
	room  *Reservation
	most  int64 // what building one index may take
	short error // why that is not enough for all; nil = it is
}

// Build takes memory for building the indexes of the segment with so many workers (0 = 1). It may go a quarter beyond the limit: to store rows is what makes
// room, and it ends. If there is none for all of them, an error of class Exhausted says so, unless less will do: then the room is that
// of the largest index that there is room for, and no other is built. Release gives it back.
func (g *Growing) Build(workers int, less bool) (*BuildRoom, error) {
	b := &BuildRoom{g: g}
	for _, bytes := range buildSizes(g.latest(), g.Rows(), workers) {
		room, err := g.ledger.roomToBuild(bytes)
		if err == nil {
			b.room, b.most = room, bytes
			break
		}
		if !less {
			return nil, err
		}
		if b.short == nil {
			b.short = err
		}
	}
	return b, nil
}

// Short says why there is not room for all indexes; nil = there is.
func (b *BuildRoom) Short() error { return b.short }

// Release gives the room back, once the build has ended. The segment is not built again, as far as that is known.
func (b *BuildRoom) Release() {
	b.g.toBuild(0)
	b.room.Release()
}

// lacks says why there is no room to build an index that takes so many bytes; nil = there is.
func (b *BuildRoom) lacks(bytes int64) error {
	if b == nil || b.short == nil || bytes <= b.most {
		return nil
	}
	return errclass.With(errclass.Wrap(b.short, errclass.Exhausted, "building it takes %d bytes", bytes), errclass.Memory)
}

// buildSizes lists what building the index of each field takes, the largest first.
func buildSizes(info CollectionInfo, rows, workers int) (all []int64) {
	for _, f := range info.Schema.Fields {
		if ix := info.index(f.ID); Indexable(f.Type) && ix.Type != indexFlat {
			if bytes := index.BuildBytes(ix.spec(f), rows, workers); bytes > 0 && !slices.Contains(all, bytes) {
				all = append(all, bytes)
			}
		}
	}
	slices.SortFunc(all, func(a, b int64) int { return cmp.Compare(b, a) })
	return all
}
