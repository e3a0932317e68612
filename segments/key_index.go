package segments

import (
	"context"
	"hash/maphash"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
)

// noRow ends a chain of rows with the same key.
const noRow = ^uint32(0)

// keyIndex finds the rows of a key in a growing segment: a hash table with open
// addressing that holds row numbers, the keys being where the rows are. One
// goroutine adds rows, any number of them look up and never wait for it: a slot
// is only ever set to a newer row of the same key, and a table that is full is
// replaced as a whole.
type keyIndex struct {
	key   func(row uint32) (int64, string)
	text  bool
	seed  maphash.Seed
	slots atomic.Pointer[[]atomic.Uint32]      // newest row of a key plus 1; 0 = empty; at most half are used
	older atomic.Pointer[[]*[chunkRows]uint32] // row to the row with the same key before it, or noRow
	used  int                                  // slots; writer only
}

const (
	// bytesPerKey is what a row costs in the index: two to four slots, and a table
	// that is being replaced.
	bytesPerKey = 4*4 + 8
	// chainBytes is what the places in the chains of chunkRows rows cost.
	chainBytes = 4 * chunkRows
)

func newKeyIndex(text bool, key func(row uint32) (int64, string)) *keyIndex {
	k := &keyIndex{key: key, text: text, seed: maphash.MakeSeed()}
	slots := make([]atomic.Uint32, 64)
	k.slots.Store(&slots)
	k.older.Store(&[]*[chunkRows]uint32{})
	return k
}

func (k *keyIndex) hash(i int64, text string) uint64 {
	if k.text {
		return maphash.String(k.seed, text)
	}
	return maphash.Comparable(k.seed, i)
}

// slot returns the slot of a key, and its newest row; noRow if it is empty.
func (k *keyIndex) slot(slots []atomic.Uint32, i int64, text string) (*atomic.Uint32, uint32) {
	mask := uint64(len(slots) - 1)
	for at := k.hash(i, text); ; at++ {
		slot := &slots[at&mask]
		v := slot.Load()
		if v == 0 {
			return slot, noRow
		}
		if ri, rt := k.key(v - 1); ri == i && rt == text {
			return slot, v - 1
		}
	}
}

// newest returns the newest row of a key, or noRow.
func (k *keyIndex) newest(i int64, text string) uint32 {
	_, row := k.slot(*k.slots.Load(), i, text)
	return row
}

// before returns the row of the same key before a row, or noRow.
func (k *keyIndex) before(row uint32) uint32 {
	return (*k.older.Load())[row/chunkRows][row%chunkRows]
}

// add makes row, whose key can be read, the newest of its key, and returns the one
// before it, or noRow. Rows are added in ascending order.
func (k *keyIndex) add(row uint32) uint32 {
	older := *k.older.Load()
	if int(row/chunkRows) == len(older) {
		older = append(older[:len(older):len(older)], new([chunkRows]uint32))
		k.older.Store(&older)
	}
	if slots := *k.slots.Load(); 2*(k.used+1) > len(slots) {
		k.grow(slots)
	}
	i, text := k.key(row)
	slot, before := k.slot(*k.slots.Load(), i, text)
	if before == noRow {
		k.used++
	}
	older[row/chunkRows][row%chunkRows] = before
	slot.Store(row + 1)
	return before
}

func (k *keyIndex) grow(slots []atomic.Uint32) {
	next := make([]atomic.Uint32, 2*len(slots))
	mask := uint64(len(next) - 1)
	for s := range slots {
		v := slots[s].Load()
		if v == 0 {
			continue
		}
		at := k.hash(k.key(v - 1))
		for next[at&mask].Load() != 0 {
			at++
		}
		next[at&mask].Store(v)
	}
	k.slots.Store(&next)
}

// keyAt returns key i of a column of keys.
func keyAt(keys *schema.Column, i int) (int64, string) {
	if keys.Type == schema.VarChar {
		return 0, keys.Str[i]
	}
	return keys.Int[i], ""
}

// lookup calls found with the newest of the first n rows of each key.
func (g *Growing) lookup(keys *schema.Column, n int, found func(i int, row uint32)) {
	for i := range keys.Rows() {
		row := g.keys.newest(keyAt(keys, i))
		for row != noRow && int(row) >= n {
			row = g.keys.before(row)
		}
		if row != noRow {
			found(i, row)
		}
	}
}

// lookup calls found with the newest of the first n rows of each key.
func (s *Sealed) lookup(keys *schema.Column, n int, found func(i int, row uint32)) {
	for _, i := range s.mayHave(keys) {
		for at := s.find(keys, i); at < s.rows.Rows; at++ {
			row := s.byKey(at)
			if compareKeys(s.keys, int(row), keys, i) != 0 {
				break
			}
			if int(row) < n {
				found(i, row)
				break
			}
		}
	}
}

// gathered gives a filter some rows of a segment.
type gathered struct {
	from interface {
		rowReader
		field(id int64) fieldVectors
	}
	match *match
	rows  []uint32
}

// Column returns a copy of the rows of the field's column.
func (c gathered) Column(fieldID int64) *schema.Column {
	f, ok := c.match.schema.FieldByID(fieldID)
	if !ok {
		return nil
	}
	if f.Type.IsVector() {
		return vectorFlags(f, c.from.field(fieldID), len(c.rows), among(c.rows))
	}
	col := schema.NewColumn(f, len(c.rows))
	c.from.gather(col, c.rows)
	return col
}

// lookupAtOnce is how many keys are looked up between two looks at the deadline.
const lookupAtOnce = 1024

// filterKeys is filter for a match that names the keys. Of rows with the same key
// only the newest can be visible.
func (g *Growing) filterKeys(ctx context.Context, m *match, n int, out *bitset.Set) error {
	out.Reset(n)
	var rows []uint32
	for from := 0; from < m.keys.Rows(); from += lookupAtOnce {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "filter")
		}
		some := m.keys.Slice(from, min(from+lookupAtOnce, m.keys.Rows()))
		g.lookup(some, n, func(_ int, row uint32) { rows = append(rows, row) })
	}
	var part bitset.Set
	if !m.only {
		if err := m.plan.Eval(gathered{g, m, rows}, len(rows), nil, ctx.Err, &part); err != nil {
			return err
		}
	}
	for i, r := range rows {
		if m.only || part.Has(i) {
			out.Add(int(r))
		}
	}
	return nil
}
