package main

import (
	"slices"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Operations name rows by keys of the model, which are the same in each run of a
// script. If the node gives keys, they are not: then a row has both.

// idsOf are keys as the API wants them. Of a key whose rows had several ids it is all of them.
func (m *model) idsOf(keys []int64) *qnpb.Ids {
	if !m.spec.auto {
		return m.spec.ids(keys)
	}
	var ids []int64
	for _, k := range keys {
		known := m.idsOfOne(k)
		if len(known) == 0 {
			known = []int64{unknownID(k)}
		}
		ids = append(ids, known...)
	}
	return ints(ids)
}

// idsOfOne are the ids that the rows of a key have had, oldest first.
func (m *model) idsOfOne(key int64) (ids []int64) {
	for _, x := range m.rows {
		if x.key == key && !slices.Contains(ids, x.id) {
			ids = append(ids, x.id)
		}
	}
	return ids
}

// unknownID is an id that the node does not give.
func unknownID(key int64) int64 { return -1 - key }

// replaces gives rows the ids of those that they replace.
func (m *model) replaces(rows []*row) {
	for _, x := range rows {
		known := m.idsOfOne(x.key)
		switch live := m.live[x.key]; {
		case live != nil:
			x.id = live.id
		case len(known) > 0:
			x.id = known[len(known)-1]
		default:
			x.id = unknownID(x.key)
		}
	}
}

// given takes the ids that the node gave to rows.
func (m *model) given(o *op, rows []*row, ids []int64) error {
	if len(ids) != len(rows) {
		return o.differs("%d keys for %d rows", len(ids), len(rows))
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) || slices.ContainsFunc(m.rows, func(x *row) bool { return x.id == id }) {
			return o.differs("the key %d is given a second time: %v", id, ids)
		}
		rows[i].id = id
	}
	return nil
}
