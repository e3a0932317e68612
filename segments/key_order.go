package segments

import (
	"cmp"
	"slices"
	"sort"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
)

// span is a piece of the rows in order of their keys.
type span struct {
	after *Key // rows with larger keys; nil = all
	most  int  // 0 = all
}

// behind reports whether a key is in the span as far as its beginning goes.
func (s *span) behind(t schema.Type, i int64, text string) bool {
	switch {
	case s.after == nil:
		return true
	case t == schema.VarChar:
		return text > s.after.Str
	}
	return i > s.after.Int
}

// keyOrder lists the rows of a set in order of their keys, those in the span.
func (s *Sealed) keyOrder(set *bitset.Set, in span) []uint32 {
	first := 0
	if in.after != nil {
		first = sort.Search(s.rows.Rows, func(at int) bool {
			i, text := s.key(s.byKey(at))
			return in.behind(s.keys.Type, i, text)
		})
	}
	count := set.Count()
	if in.most > 0 {
		count = min(count, in.most)
	}
	rows := make([]uint32, 0, count)
	switch {
	case s.order == nil:
		for r := set.Next(first); r >= 0 && len(rows) < count; r = set.Next(r + 1) {
			rows = append(rows, uint32(r))
		}
	case count > s.rows.Rows/16 || in.most > 0 && set.Count() > s.rows.Rows/16:
		// Walking the order costs less than sorting so many.
		for _, r := range s.order[first:] {
			if len(rows) == count {
				break
			}
			if int(r) < set.Len() && set.Has(int(r)) {
				rows = append(rows, r)
			}
		}
	default:
		rows = set.AppendTo(rows[:0])
		if in.after != nil {
			rows = slices.DeleteFunc(rows, func(r uint32) bool {
				i, text := s.key(r)
				return !in.behind(s.keys.Type, i, text)
			})
		}
		slices.SortFunc(rows, func(a, b uint32) int { return compareKeys(s.keys, int(a), s.keys, int(b)) })
		rows = rows[:min(len(rows), count)]
	}
	return rows
}

// keyOrder lists the rows of a set in order of their keys, those in the span.
func (g *Growing) keyOrder(set *bitset.Set, in span) []uint32 {
	chunks := *g.chunks.Load()
	compare := func(a, b uint32) int {
		x, xs := g.keyIn(chunks, a)
		y, ys := g.keyIn(chunks, b)
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(xs, ys))
	}
	room := set.Count()
	if in.most > 0 {
		room = min(room, 2*in.most+1024)
	}
	rows := make([]uint32, 0, room)
	full := false // the last of rows is the most-th so far
	for r := set.Next(0); r >= 0; r = set.Next(r + 1) {
		i, text := g.keyIn(chunks, uint32(r))
		if !in.behind(g.pk.Type, i, text) || full && compare(uint32(r), rows[in.most-1]) > 0 {
			continue
		}
		if rows = append(rows, uint32(r)); in.most > 0 && len(rows) == room && room > in.most {
			slices.SortFunc(rows, compare)
			rows, full = rows[:in.most], true
		}
	}
	slices.SortFunc(rows, compare)
	if in.most > 0 {
		rows = rows[:min(len(rows), in.most)]
	}
	return rows
}
