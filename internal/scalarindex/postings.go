package scalarindex

import (
	"context"

	"github.com/querynode/querynode/internal/analyze"
)

// postings are the rows of each key, ascending.
type postings[K comparable] struct {
	rows  map[K][]uint32
	valid []uint64
	bytes int64
}

// perKey is about what a key costs beside its rows.
const perKey = 64

func newPostings[K comparable](n int) postings[K] {
	return postings[K]{rows: map[K][]uint32{}, valid: make([]uint64, (n+63)/64)}
}

// add notes that row has the key; rows come in order.
func (p *postings[K]) add(key K, row int) {
	l := p.rows[key]
	if len(l) > 0 && l[len(l)-1] == uint32(row) {
		return
	}
	p.rows[key] = append(l, uint32(row))
}

// pack gives back what appending left over.
func (p *postings[K]) pack() {
	p.bytes = int64(8 * len(p.valid))
	for k, l := range p.rows {
		p.rows[k] = append(make([]uint32, 0, len(l)), l...)
		p.bytes += perKey + int64(4*len(l))
	}
}

// Bytes is the memory the index takes.
func (p *postings[K]) Bytes() int64 { return p.bytes }

// Valid is the rows that are not null; not to be written to.
func (p *postings[K]) Valid() []uint64 { return p.valid }

// Count is the most rows that have one of the keys.
func (p *postings[K]) Count(keys []K) int {
	n := 0
	for _, k := range keys {
		n += len(p.rows[k])
	}
	return n
}

// AddAny adds the rows that have one of the keys.
func (p *postings[K]) AddAny(keys []K, out []uint64) {
	for _, k := range keys {
		setRows(out, p.rows[k])
	}
}

// AddAtLeast adds the rows that have need of the keys, which differ. With need
// 0, those are all that are not null.
func (p *postings[K]) AddAtLeast(keys []K, need int, out []uint64) {
	switch {
	case need > len(keys):
		return
	case need == 0:
		for i, w := range p.valid {
			out[i] |= w
		}
		return
	case need == 1:
		p.AddAny(keys, out)
		return
	case need == len(keys):
		p.addAll(keys, out)
		return
	}
	// have[j] is the rows that have had j+1 of the keys so far.
	have := make([][]uint64, need-1)
	for j := range have {
		have[j] = make([]uint64, len(out))
	}
	for _, k := range keys {
		for _, r := range p.rows[k] {
			w, bit := r>>6, uint64(1)<<(r&63)
			for j := need - 1; j >= 0; j-- {
				if j > 0 && have[j-1][w]&bit == 0 {
					continue
				}
				if j == need-1 {
					out[w] |= bit
				} else {
					have[j][w] |= bit
				}
				break
			}
		}
	}
}

// addAll intersects the lists, the shortest with each of the others.
func (p *postings[K]) addAll(keys []K, out []uint64) {
	shortest := 0
	for i, k := range keys {
		if len(p.rows[k]) < len(p.rows[keys[shortest]]) {
			shortest = i
		}
	}
	left := append([]uint32(nil), p.rows[keys[shortest]]...)
	for i, k := range keys {
		if i != shortest && len(left) > 0 {
			left = intersect(left, p.rows[k])
		}
	}
	setRows(out, left)
}

// intersect keeps in a what is in b too. It gallops through b, which is the longer one.
func intersect(a, b []uint32) []uint32 {
	out := a[:0]
	at := 0
	for _, x := range a {
		step := 1
		for at+step < len(b) && b[at+step] < x {
			step *= 2
		}
		lo, hi := at, min(at+step, len(b))
		for lo < hi {
			if mid := int(uint(lo+hi) >> 1); b[mid] < x {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		if at = lo; at == len(b) {
			break
		}
		if b[at] == x {
			out = append(out, x)
		}
	}
	return out
}

// checkEvery is how many rows are worked on between looks at the context.
const checkEvery = 1 << 12

// Text is the words of a column of texts.
type Text struct{ postings[string] }

// NewText builds the index with the field's analyzer. The error is that of ctx.
func NewText(ctx context.Context, a analyze.Analyzer, texts []string, valid []bool) (*Text, error) {
	t := &Text{newPostings[string](len(texts))}
	sc := a.Scan()
	for i, text := range texts {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if valid != nil && !valid[i] {
			continue
		}
		t.valid[i>>6] |= 1 << (i & 63)
		for sc.Reset(text); sc.Next(); {
			word := sc.Token()
			l, ok := t.rows[string(word)] // no copy of the word
			if ok && l[len(l)-1] == uint32(i) {
				continue
			}
			t.rows[string(word)] = append(l, uint32(i))
		}
	}
	t.pack()
	for w := range t.rows {
		t.bytes += int64(len(w))
	}
	return t, ctx.Err()
}

// Members is the elements of a column of arrays.
type Members[K comparable] struct{ postings[K] }

// NewMembers builds the index; offsets and valid are as in schema.Column. The
// error is that of ctx. A NaN is no member of anything.
func NewMembers[K comparable](ctx context.Context, elements []K, offsets []int, valid []bool) (*Members[K], error) {
	n := max(0, len(offsets)-1)
	m := &Members[K]{newPostings[K](n)}
	for i := range n {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if valid != nil && !valid[i] {
			continue
		}
		m.valid[i>>6] |= 1 << (i & 63)
		for _, e := range elements[offsets[i]:offsets[i+1]] {
			if e == e {
				m.add(e, i)
			}
		}
	}
	m.pack()
	return m, ctx.Err()
}

// gram is three bytes of a text.
type gram uint32

// Trigrams is the pieces of three bytes of a column of texts.
type Trigrams struct{ postings[gram] }

// NewTrigrams builds the index. The error is that of ctx.
func NewTrigrams(ctx context.Context, texts []string, valid []bool) (*Trigrams, error) {
	t := &Trigrams{newPostings[gram](len(texts))}
	for i, text := range texts {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if valid != nil && !valid[i] {
			continue
		}
		t.valid[i>>6] |= 1 << (i & 63)
		for k := 0; k+3 <= len(text); k++ {
			t.add(gramAt(text, k), i)
		}
	}
	t.pack()
	return t, ctx.Err()
}

func gramAt(s string, i int) gram { return gram(s[i])<<16 | gram(s[i+1])<<8 | gram(s[i+2]) }

// Candidates adds rows whose text may hold all the pieces; it is false, and adds none, if
// no piece has three bytes. rows is how many there are at most.
func (t *Trigrams) Candidates(pieces []string, out []uint64) (rows int, ok bool) {
	keys := grams(pieces)
	if len(keys) == 0 {
		return 0, false
	}
	rows = len(t.rows[keys[0]])
	for _, k := range keys {
		rows = min(rows, len(t.rows[k]))
	}
	if out != nil {
		t.addAll(keys, out)
	}
	return rows, true
}

func grams(pieces []string) []gram {
	var keys []gram
	seen := map[gram]bool{}
	for _, p := range pieces {
		for k := 0; k+3 <= len(p); k++ {
			if g := gramAt(p, k); !seen[g] {
				seen[g] = true
				keys = append(keys, g)
			}
		}
	}
	return keys
}
