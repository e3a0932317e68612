package vec

// Merger walks several sorted lists as one. The zero Merger is empty. It keeps
// no copy of the lists: they must not change while it walks. Not safe for
// concurrent use.
type Merger struct {
	lists [][]Neighbor
	heads []head
}

// head is the next neighbor of a list; the heap keeps the nearest on top.
type head struct {
	key  uint64
	list int
}

func (a head) less(b head) bool {
	return a.key < b.key || a.key == b.key && a.list < b.list
}

// Reset starts over with lists, each sorted by Neighbor.Compare. The slice of
// lists is used up by the walk.
func (m *Merger) Reset(lists [][]Neighbor) {
	m.lists = lists
	m.heads = m.heads[:0]
	for i, l := range lists {
		if len(l) > 0 {
			m.heads = append(m.heads, head{Key(l[0].Distance, l[0].Row), i})
		}
	}
	for i := len(m.heads)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
}

// Next returns the nearest neighbor left and the list it came from. Of equal
// ones the smaller row comes first, then the one of the earlier list. Rows of
// different lists may have the same number: what they mean is the caller's.
func (m *Merger) Next() (list int, n Neighbor, ok bool) {
	if len(m.heads) == 0 {
		return 0, Neighbor{}, false
	}
	list = m.heads[0].list
	l := m.lists[list]
	n, l = l[0], l[1:]
	m.lists[list] = l
	if len(l) > 0 {
		m.heads[0].key = Key(l[0].Distance, l[0].Row)
	} else {
		last := len(m.heads) - 1
		m.heads[0] = m.heads[last]
		m.heads = m.heads[:last]
	}
	m.down(0)
	return list, n, true
}

func (m *Merger) down(i int) {
	for h := m.heads; ; {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].less(h[c]) {
			c++
		}
		if !h[c].less(h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// AppendMerged appends the k nearest of the lists, each sorted, to dst.
func AppendMerged(dst []Neighbor, k int, lists ...[]Neighbor) []Neighbor {
	var m Merger
	m.Reset(append([][]Neighbor(nil), lists...))
	for range k {
		_, n, ok := m.Next()
		if !ok {
			break
		}
		dst = append(dst, n)
	}
	return dst
}
