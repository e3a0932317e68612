package index

import (
	"cmp"
	"hash/maphash"
	"slices"
	"unsafe"
)

// Rows of the same code are one row to the graph: the others, its twins, hang on it in a chain. Those
// that are equal, too, follow one another there, in their order. How far one of them is tells it of all,
// and of those that are allowed a search needs no more than the rows that it wants.

// twinEqual is the bit of a link from a twin to the next that says that they are equal.
const twinEqual = 1 << 31

// findTwins chains rows of the same code, and lists the others in the order in
// which they enter the graph: those of the upper levels first.
func (b *sqBuilder) findTwins() {
	type hashed struct {
		hash uint64
		row  uint32
	}
	g, stride, seed := b.g, b.g.code.stride, maphash.MakeSeed()
	all := make([]hashed, g.rows)
	for row := range all {
		all[row] = hashed{maphash.Bytes(seed, g.records[row*stride:][:stride]), uint32(row)}
	}
	slices.SortFunc(all, func(x, y hashed) int {
		return cmp.Or(cmp.Compare(x.hash, y.hash), cmp.Compare(x.row, y.row))
	})
	twin := make([]bool, g.rows)
	var chain []uint32
	for i := 0; i < len(all); {
		chain = chain[:0]
		for hash := all[i].hash; i < len(all) && all[i].hash == hash; i++ {
			chain = append(chain, all[i].row)
		}
		if len(chain) > 1 {
			b.chain(chain, seed)
			for _, row := range chain[1:] {
				twin[row] = true
			}
		}
	}
	for row := range uint32(g.rows) {
		if !twin[row] {
			b.order = append(b.order, row)
		}
	}
	slices.SortStableFunc(b.order, func(x, y uint32) int { return cmp.Compare(g.level(y), g.level(x)) })
	g.top = -1
	if len(b.order) > 0 {
		g.start = b.order[0]
		g.top = g.level(g.start)
	}
}

// chain links rows of the same code, which are in their order. It puts equal ones behind the first of them.
func (b *sqBuilder) chain(rows []uint32, seed maphash.Seed) {
	g := b.g
	if g.twins == nil {
		g.twins = make([]uint32, g.rows)
	}
	type equal struct{ first, row uint32 }
	first, all := map[uint64]uint32{}, make([]equal, len(rows))
	for i, row := range rows {
		v := g.vector(row)
		hash := maphash.Bytes(seed, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v)))
		if _, ok := first[hash]; !ok {
			first[hash] = row
		}
		all[i] = equal{first[hash], row}
	}
	if len(first) > 1 {
		slices.SortFunc(all, func(x, y equal) int { return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(x.row, y.row)) })
	}
	for i, next := range all[1:] {
		row := all[i].row
		g.twins[row] = next.row + 1
		if next.first == all[i].first && slices.Equal(g.vector(row), g.vector(next.row)) {
			g.twins[row] |= twinEqual
		}
	}
}

// follow returns the row after row in its chain of twins, within a search.
func (g *sqGraph) follow(row uint32, s *Scratch) (uint32, bool) {
	if g.twins == nil || s.twinSteps >= g.rows {
		return 0, false
	}
	if s.twinSteps++; s.twinSteps%twinPoll == 0 && s.stopped() {
		return 0, false
	}
	next := g.twins[row]&^twinEqual - 1
	return next, int(next) < g.rows
}

// equalNext reports whether the row after row in its chain is equal to it.
func (g *sqGraph) equalNext(row uint32) bool { return g.twins != nil && g.twins[row]&twinEqual != 0 }
