package scalarindex

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"unsafe"
)

// Value is what an ordered column holds.
type Value interface {
	int64 | float32 | float64 | string
}

// maxCuts is about how many bitmaps an Ordered keeps: 64 of them cost eight bytes a
// row, and leave at most two 64ths of the rows to be set one by one.
const maxCuts = 64

// Ordered holds the rows of a column in the order of their values, and bitmaps of
// what lies below some of them: a range is the difference of two bitmaps, plus the rows
// between its ends and the nearest cuts. With few distinct values every cut is a
// value's end, and the index is a bitmap index.
type Ordered[T Value] struct {
	values []T      // the column's, by row
	rows   []uint32 // by value, then by row; without nulls and NaNs
	marks  []T      // the value at each markEvery-th place in rows: a search ends among few rows, whose values are anywhere
	heads  []T      // instead of marks, if many rows share a value: all values
	starts []uint32 // the place of the first row of each of heads, then len(rows)
	cuts   []int    // ascending places in rows; the first is 0, the last len(rows)
	below  [][]uint64
	valid  []uint64 // rows that are not null
}

// NewOrdered builds the index over a column; valid is as in schema.Column. The
// error is that of ctx.
func NewOrdered[T Value](ctx context.Context, values []T, valid []bool) (*Ordered[T], error) {
	o := &Ordered[T]{values: values, valid: make([]uint64, (len(values)+63)/64)}
	type pair struct {
		v   T
		row uint32
	}
	pairs := make([]pair, 0, len(values))
	for i, v := range values {
		if valid != nil && !valid[i] {
			continue
		}
		o.valid[i>>6] |= 1 << (i & 63)
		if v == v { // not NaN
			pairs = append(pairs, pair{v, uint32(i)})
		}
	}
	// Sorted in pieces, so that a node that stops does not wait for it.
	if err := sortPieces(ctx, pairs, func(a, b pair) int {
		if c := cmp.Compare(a.v, b.v); c != 0 {
			return c
		}
		return cmp.Compare(a.row, b.row)
	}); err != nil {
		return nil, err
	}
	o.rows = make([]uint32, len(pairs))
	for i, p := range pairs {
		o.rows[i] = p.row
	}
	distinct := 0
	for i := range pairs {
		if i == 0 || pairs[i].v != pairs[i-1].v {
			distinct++
		}
	}
	o.mark(distinct)
	o.cut()
	return o, ctx.Err()
}

// mark notes values by which others are found.
func (o *Ordered[T]) mark(distinct int) {
	if len(o.rows) < distinct*shared {
		o.marks = make([]T, 0, (len(o.rows)+markEvery-1)/markEvery)
		for at := 0; at < len(o.rows); at += markEvery {
			o.marks = append(o.marks, o.at(at))
		}
		return
	}
	o.heads, o.starts = make([]T, 0, distinct), make([]uint32, 0, distinct+1)
	for at := range o.rows {
		if v := o.at(at); len(o.heads) == 0 || v != o.heads[len(o.heads)-1] {
			o.heads, o.starts = append(o.heads, v), append(o.starts, uint32(at))
		}
	}
	o.starts = append(o.starts, uint32(len(o.rows)))
}

// sortPieces sorts pieces and merges them.
func sortPieces[E any](ctx context.Context, v []E, compare func(a, b E) int) error {
	const piece = 1 << 16
	for from := 0; from < len(v); from += piece {
		if err := ctx.Err(); err != nil {
			return err
		}
		slices.SortFunc(v[from:min(from+piece, len(v))], compare)
	}
	other := make([]E, len(v))
	for width := piece; width < len(v); width *= 2 {
		for from := 0; from < len(v); from += 2 * width {
			if err := ctx.Err(); err != nil {
				return err
			}
			mid, end := min(from+width, len(v)), min(from+2*width, len(v))
			a, b, out := v[from:mid], v[mid:end], other[from:from]
			for len(a) > 0 && len(b) > 0 {
				if compare(b[0], a[0]) < 0 {
					out, b = append(out, b[0]), b[1:]
				} else {
					out, a = append(out, a[0]), a[1:]
				}
			}
			rest := other[from+len(out) : end]
			copy(rest[copy(rest, a):], b)
		}
		copy(v, other)
	}
	return nil
}

// cut chooses the cuts, at ends of values if there are few values.
func (o *Ordered[T]) cut() {
	n := len(o.rows)
	o.cuts = []int{0}
	step := o.step()
	for at := 0; at < n; {
		next := min(at+step, n)
		// The end of this value, if that is not far; else the middle of its rows.
		if end := o.end(next - 1); end-at <= 2*step {
			next = end
		}
		o.cuts = append(o.cuts, next)
		at = next
	}
	o.below = make([][]uint64, len(o.cuts))
	words := len(o.valid)
	for k := 1; k < len(o.cuts); k++ {
		b := make([]uint64, words)
		if k > 1 {
			copy(b, o.below[k-1])
		}
		setRows(b, o.rows[o.cuts[k-1]:o.cuts[k]])
		o.below[k] = b
	}
}

// step is how many rows are between two cuts at least, but for the last.
func (o *Ordered[T]) step() int { return max(1, (len(o.rows)+maxCuts-1)/maxCuts) }

// end is where the rows end whose value is that of place at.
func (o *Ordered[T]) end(at int) int {
	v := o.at(at)
	return o.after(v)
}

func (o *Ordered[T]) at(i int) T { return o.values[o.rows[i]] }

func setRows(bits []uint64, rows []uint32) {
	for _, r := range rows {
		bits[r>>6] |= 1 << (r & 63)
	}
}

const (
	// markEvery is after how many rows there is a mark.
	markEvery = 64
	// shared is how many rows have the same value, on average, where all values are kept.
	shared = 8
)

// least is the number of values that are less than v; all are sorted.
func least[T Value](all []T, v T) int {
	at, n := 0, len(all)
	for n > 0 { // a jump where to look on would be guessed wrong every other time
		half := (n + 1) >> 1
		less := 0
		if all[at+half-1] < v {
			less = 1
		}
		at += half & -less
		n -= half
	}
	return at
}

// near returns the places between which the first row is that has a value of at least v; with
// after, of more than v.
func (o *Ordered[T]) near(v T, after bool) (from, to int) {
	lo, hi := 0, len(o.marks)
	for lo < hi {
		if m := int(uint(lo+hi) >> 1); o.marks[m] < v || after && o.marks[m] == v {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(0, (lo-1)*markEvery), min(lo*markEvery, len(o.rows))
}

// from is the place of the first row with a value of at least v.
func (o *Ordered[T]) from(v T) int {
	if o.starts != nil {
		return int(o.starts[least(o.heads, v)])
	}
	from, to := o.near(v, false)
	return from + sort.Search(to-from, func(i int) bool { return o.at(from+i) >= v })
}

// after is the place of the first row with a value above v.
func (o *Ordered[T]) after(v T) int {
	if o.starts != nil {
		i := least(o.heads, v)
		if i < len(o.heads) && o.heads[i] == v {
			i++
		}
		return int(o.starts[i])
	}
	from, to := o.near(v, true)
	return from + sort.Search(to-from, func(i int) bool { return o.at(from+i) > v })
}

// Span is rows whose values follow one another.
type Span struct{ from, to int }

// Rows is how many they are.
func (s Span) Rows() int { return s.to - s.from }

// Span is the rows with lo <= value <= hi.
func (o *Ordered[T]) Span(lo, hi T) Span {
	from := o.from(lo)
	return Span{from, max(from, o.after(hi))}
}

// Equal is the rows with that value.
func (o *Ordered[T]) Equal(v T) Span {
	if o.starts == nil {
		return o.Span(v, v)
	}
	i := least(o.heads, v)
	if i == len(o.heads) || o.heads[i] != v {
		return Span{}
	}
	return Span{int(o.starts[i]), int(o.starts[i+1])}
}

// SearchCost is about how many nanoseconds Equal takes.
func (o *Ordered[T]) SearchCost() int {
	if o.starts != nil {
		return 100
	}
	return 500
}

// Count is the number of rows with lo <= value <= hi.
func (o *Ordered[T]) Count(lo, hi T) int { return o.Span(lo, hi).Rows() }

// Add adds the rows with lo <= value <= hi.
func (o *Ordered[T]) Add(lo, hi T, out []uint64) { o.AddSpan(o.Span(lo, hi), out) }

// AddSpan adds the rows of a Span of this index.
func (o *Ordered[T]) AddSpan(s Span, out []uint64) { o.addSpan(out, s.from, s.to) }

// From is the number of rows with a value of at least lo.
func (o *Ordered[T]) From(lo T) int { return len(o.rows) - o.from(lo) }

// AddBetween adds the rows with lo <= value < hi, or all from lo on if there is no hi.
func (o *Ordered[T]) AddBetween(lo T, hi *T, out []uint64) {
	from, to := o.from(lo), len(o.rows)
	if hi != nil {
		to = max(from, o.from(*hi))
	}
	o.addSpan(out, from, to)
}

func (o *Ordered[T]) addSpan(out []uint64, from, to int) {
	if to-from < o.step() { // less than is between two cuts
		setRows(out, o.rows[from:to])
		return
	}
	// The cuts inside of the span.
	first := sort.SearchInts(o.cuts, from)
	last := sort.SearchInts(o.cuts, to+1) - 1
	if first >= last {
		setRows(out, o.rows[from:to])
		return
	}
	upper, lower := o.below[last], o.below[first]
	if first == 0 {
		for i, w := range upper {
			out[i] |= w
		}
	} else {
		for i, w := range upper {
			out[i] |= w &^ lower[i]
		}
	}
	setRows(out, o.rows[from:o.cuts[first]])
	setRows(out, o.rows[o.cuts[last]:to])
}

// Valid is the rows that are not null; not to be written to.
func (o *Ordered[T]) Valid() []uint64 { return o.valid }

// Bytes is the memory the index takes.
func (o *Ordered[T]) Bytes() int64 {
	var v T
	return int64(4*len(o.rows)+8*len(o.valid)*len(o.cuts)+4*len(o.starts)) + int64(len(o.marks)+len(o.heads))*int64(unsafe.Sizeof(v))
}
