package main

import (
	"math/rand/v2"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// A few collections have a crowd: thousands of rows that are written at once, and a
// vector of dimensions enough for codes. Their graphs are walked and their lists
// chosen among, where the others' few rows are all looked at.

// How far a crowd is.
const (
	crowdThere  = 1 // written
	crowdServed = 2 // and served as sealed
)

// Some searches of a crowd want more rows than an index looks at in one go; their recall
// is counted by itself, the kind of index marked.
const (
	wideFrom = 257
	wideMark = ", wide"
)

// narrowMark marks what was found of vectors that are not of float32.
const narrowMark = ", narrow"

// mostCrowd bounds what a script can ask for: keys of text have four digits.
const mostCrowd = 9_000

// gather makes a collection one with a crowd of n rows; 0 = it is as it was.
func (s *spec) gather(n int) {
	if s.crowd = n; n <= 0 {
		return
	}
	r := rand.New(rand.NewPCG(s.seed, 0xc40d))
	s.shards = 1 // all in one segment: of fewer than some 6,000 rows all are looked at
	s.ttl = 0    // which of so many rows are too old is never clear
	delete(s.props, "collection.ttl.seconds")
	v := vector{name: s.vectors[0].name, typ: float32s, dim: []int{24, 32, 48}[r.IntN(3)]}
	if r.IntN(3) == 0 {
		v.typ = []qnpb.DataType{float16s, bfloats, int8s}[r.IntN(3)]
	}
	for v.reindex(r); v.exact(); {
		v.reindex(r)
	}
	s.vectors[0] = v
}

// keys are the keys of the model that an operation names.
func (o *op) keys() []int64 {
	if o.Do != opCrowd {
		return o.Keys
	}
	keys := make([]int64, min(max(0, o.Crowd), mostCrowd))
	for i := range keys {
		keys[i] = keySpace + int64(i)
	}
	return keys
}
