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
	loaded  bool
	version int64
	last    uint64 // highest timestamp that an operation returned
}

func newModel(s *spec) *model {
	return &model{spec: s, parts: []string{"_default"}, live: map[int64]*row{}, marks: map[int]uint64{}, loaded: true}
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
			return cmp.Compare(textKey(a.key), textKey(b.key))
		}
		return cmp.Compare(a.key, b.key)
	})
	return out
}

// score is the score of a row for a vector: distance, product or cosine.
func (v *vector) score(a, b []float32) float64 {
	var dot, aa, bb, l2 float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot += x * y
		aa += x * x
		bb += y * y
		l2 += (x - y) * (x - y)
	}
	switch v.metric {
	case "L2":
		return l2
	case "IP":
		return dot
	}
	return dot / math.Sqrt(aa*bb)
}

// better reports whether score a is nearer than b.
func (v *vector) better(a, b float64) bool {
	if v.metric == "L2" {
		return a < b
	}
	return a > b
}

// slack is how far a score may be off: a float32 holds the vectors' sums and
// products exactly, not their norms.
func (v *vector) slack() float64 {
	if v.metric == "COSINE" {
		return 2e-6
	}
	return 0
}

// scored is a row with its score.
type scored struct {
	*row
	score float64
}

// nearest lists rows from the nearest to the farthest.
func (m *model) nearest(field int, q []float32, rows []*row) []scored {
	v := &m.spec.vectors[field]
	out := make([]scored, len(rows))
	for i, x := range rows {
		out[i] = scored{x, v.score(q, x.vectors[field])}
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

// hybrid is the timestamp of the end of the millisecond before t.
func hybrid(t time.Time) uint64 { return uint64(t.UnixMilli())<<18 - 1 }
