package expr

import "github.com/querynode/querynode/internal/scalarindex"

// wide returns the i-th bitmap for n rows, empty.
func (s *scratch) wide(i, n int) []uint64 {
	words := (n + 63) / 64
	s.rows[i] = resize(s.rows[i], words)
	clear(s.rows[i])
	return s.rows[i]
}

// bitmaps lends those of a whole segment that Narrow needs beside the result. Most filters
// need none, and a plan that is new has no scratch yet.
type bitmaps struct {
	plan *Plan
	s    *scratch
}

// wide returns the i-th bitmap for n rows, empty.
func (m *bitmaps) wide(i, n int) []uint64 {
	if m.s == nil {
		m.s = m.plan.scratch.Get().(*scratch)
	}
	return m.s.wide(i, n)
}

// done gives them back.
func (m *bitmaps) done() {
	if m.s != nil {
		m.plan.scratch.Put(m.s)
	}
}

// lookup is what an index knows of a leaf.
type lookup struct {
	rows  int // at most so many rows
	price int // nanoseconds, about
	exact bool
	add   func(out []uint64) // adds the rows
	// With except, the rows are those of except that add does not add.
	except []uint64
	any    []*lookup // instead of add: the rows of all of these
}

// set writes the rows to out, which is empty.
func (l *lookup) set(m *bitmaps, out []uint64) {
	if l.any != nil {
		for _, a := range l.any {
			if a.except == nil {
				a.add(out)
				continue
			}
			one := m.wide(2, len(out)*64)
			a.set(m, one)
			for i, w := range one {
				out[i] |= w
			}
		}
		return
	}
	l.add(out)
	if l.except != nil {
		for i, w := range l.except {
			out[i] = w &^ out[i]
		}
	}
}

// indexed is a leaf that an index may answer.
type indexed interface {
	pred
	// lookup asks ix; nil if it does not have the index, or that is of no use. n is
	// the rows it covers.
	lookup(ix Indexes, n int) *lookup
}

// lookUp is lookup for a leaf, or a disjunction of leaves that all have answers.
func lookUp(p pred, ix Indexes, n int) *lookup {
	if q, ok := p.(indexed); ok {
		return q.lookup(ix, n)
	}
	terms := orTerms(p)
	if terms == nil {
		return nil
	}
	l := &lookup{exact: true}
	for _, t := range terms {
		q, ok := t.(indexed)
		if !ok {
			return nil
		}
		one := q.lookup(ix, n)
		if one == nil {
			return nil
		}
		if one.any != nil {
			l.any = append(l.any, one.any...)
		} else {
			l.any = append(l.any, one)
		}
		l.rows, l.price, l.exact = min(n, l.rows+one.rows), l.price+one.price, l.exact && one.exact
	}
	return l
}

// newLookup prices an answer of rows rows: passes over the bitmaps, and rows set
// one by one, of which an ordered index has few.
func newLookup(rows, n int, neg bool, valid []uint64, add func([]uint64)) *lookup {
	l := &lookup{rows: rows, exact: true, add: add, price: n/64 + 2*min(rows, n/16)}
	if neg {
		l.rows, l.except, l.price = n-rows, valid, l.price+n/64
	}
	return l
}

// find asks for an index of a field's own column.
func find[I scalarindex.Index](f ref, ix Indexes, kind scalarindex.Kind) (found I, ok bool) {
	if f.field.ID == derivedID {
		return found, false
	}
	found, ok = ix.Index(f.field.ID, kind).(I)
	return found, ok
}
