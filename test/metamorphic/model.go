package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// keySpace is the number of different keys: few, so that they meet again.
const keySpace = 400

// model is what one collection has to be: every row there ever was, in a list.
type model struct {
	spec    *spec
	parts   []string // live, "_default" first
	rows    []*row
	live    map[int64]*row // what has not been hidden
	marks   map[int]uint64 // moments: operation to read timestamp
	pages   map[int]*pages // what is read page by page, by operation
	loaded  bool
	stored  int // all rows up to this operation are in the catalog,
	sealed  int // and those up to this one are served from there
	version int64
	crowd   int    // how far its crowd is, while operations are drawn
	born    int    // operation that created it
	last    uint64 // highest timestamp that an operation returned
}

func newModel(s *spec, op int) *model {
	return &model{spec: s, parts: []string{"_default"}, live: map[int64]*row{}, marks: map[int]uint64{}, pages: map[int]*pages{}, loaded: true, born: op}
}

func (m *model) hide(key int64, op int) {
	if x := m.live[key]; x != nil {
		x.until = op
		delete(m.live, key)
	}
}

// put takes rows that operation op wrote, instead of older ones of their keys.
func (m *model) put(rows []*row, op int) {
	for _, x := range rows {
		m.hide(x.key, op)
		x.from = op
		m.live[x.key] = x
		m.rows = append(m.rows, x)
	}
}

// dropPartition forgets the rows of a partition, at every moment.
func (m *model) dropPartition(name string) {
	m.parts = slices.DeleteFunc(m.parts, func(p string) bool { return p == name })
	for k, x := range m.live {
		if x.part == name {
			delete(m.live, k)
		}
	}
	m.rows = slices.DeleteFunc(m.rows, func(x *row) bool { return x.part == name })
	clear(m.pages)
}

// addField gives every row what it reads as without the field.
func (m *model) addField(f field) {
	m.spec.fields = append(m.spec.fields, f)
	for _, x := range m.rows {
		x.values = append(x.values, f.absent())
	}
}

// dropField takes a field from every row. Pages are forgotten: their filters may name it.
func (m *model) dropField(at int) {
	m.spec.fields = slices.Delete(m.spec.fields, at, at+1)
	for _, x := range m.rows {
		x.values = slices.Delete(x.values, at, at+1)
	}
	clear(m.pages)
}

// addVector gives every row a null of a vector field.
func (m *model) addVector(v vector) {
	m.spec.vectors = append(m.spec.vectors, v)
	for _, x := range m.rows {
		x.vectors = append(x.vectors, nil)
	}
}

// dropVector takes a vector field from every row.
func (m *model) dropVector(at int) {
	m.spec.vectors = slices.Delete(m.spec.vectors, at, at+1)
	for _, x := range m.rows {
		x.vectors = slices.Delete(x.vectors, at, at+1)
	}
	clear(m.pages)
}

// read is what a read asks for.
type read struct {
	at     int // operation of a mark; 0 = now
	parts  []string
	filter *filter
	// timestamp of the read, if it is known: rows that age are seen or not by it.
	timestamp uint64
}

// unclear reports whether the model cannot tell which rows are too old for a read.
func (m *model) unclear(q read) bool {
	if m.spec.ttl == 0 {
		return false
	}
	oldest := q.timestamp - uint64(m.spec.ttl.Milliseconds())<<18
	return q.timestamp == 0 || slices.ContainsFunc(m.rows, func(x *row) bool { return x.after < oldest && oldest < x.upTo })
}

// see lists the rows that a read sees, in order of their keys.
func (m *model) see(q read) []*row {
	var out []*row
	for _, x := range m.rows {
		if q.at == 0 && x.until != 0 || q.at != 0 && (x.from > q.at || x.until != 0 && x.until <= q.at) {
			continue
		}
		if m.spec.ttl > 0 && x.upTo <= q.timestamp-uint64(m.spec.ttl.Milliseconds())<<18 {
			continue
		}
		if len(q.parts) > 0 && !slices.Contains(q.parts, x.part) {
			continue
		}
		if q.filter == nil || q.filter.of(x) == yes {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *row) int {
		if m.spec.text {
			return order(a.name, b.name)
		}
		return cmp.Compare(a.id, b.id)
	})
	return out
}

// scored is a row with its score.
type scored struct {
	*row
	score float64
}

// nearest lists rows from the nearest to the farthest, without those that a
// search does not find. q is the read that sees them.
func (m *model) nearest(q read, v *vector, query []float64, rows []*row) []scored {
	score := v.score
	if v.of != "" {
		c := m.corpus(v, q)
		score = func(a, b []float64) (float64, bool) { return v.bm25(c, a, b) }
	}
	var out []scored
	for _, x := range rows {
		value := m.vectorOf(v, x)
		if value == nil {
			continue
		}
		if s, ok := score(query, value); ok {
			out = append(out, scored{x, s})
		}
	}
	slices.SortStableFunc(out, func(a, b scored) int {
		switch {
		case v.better(a.score, b.score):
			return -1
		case v.better(b.score, a.score):
			return 1
		}
		return 0
	})
	return out
}

// limits are those of a range search; nil = none.
type limits struct{ radius, filter *float32 }

// within keeps what is in the range. !clear = something is so near a limit that
// the last bit of its score decides.
func (v *vector) within(l limits, all []scored) (in []scored, clear bool) {
	for _, s := range all {
		for _, x := range []*float32{l.radius, l.filter} {
			if x != nil && v.slack() > 0 && math.Abs(s.score-float64(*x)) <= 2*v.slack() {
				return nil, false
			}
		}
		near := l.radius == nil || v.better(s.score, float64(*l.radius))
		far := l.filter == nil || !v.better(s.score, float64(*l.filter))
		if near && far {
			in = append(in, s)
		}
	}
	return in, true
}

// group is rows that share a value, from the nearest to the farthest.
type group struct {
	value any
	rows  []scored
}

// groups puts what is found into groups; the nearest group comes first.
func groups(all []scored, by *grouping) []group {
	var out []group
	for _, s := range all {
		value := by.of(s.row)
		i := slices.IndexFunc(out, func(g group) bool { return g.value == value })
		if i < 0 {
			i = len(out)
			out = append(out, group{value: value})
		}
		out[i].rows = append(out[i].rows, s)
	}
	return out
}

// hybrid is the timestamp of the end of the millisecond before t.
func hybrid(t time.Time) uint64 { return uint64(t.UnixMilli())<<18 - 1 }

// cut is a part of a list, as far as there is one. limit 0 = no limit.
func cut[T any](all []T, offset, limit int) []T {
	all = all[min(offset, len(all)):]
	if limit > 0 {
		all = all[:min(limit, len(all))]
	}
	return all
}
