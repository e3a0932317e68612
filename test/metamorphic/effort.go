package main

import (
	"fmt"
	"math/rand/v2"
	"slices"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// effort is how much work a search asks an index to do; the zero effort leaves it to the node.
type effort struct {
	ef, lists, reorder int32
	refine             float32
	recall             float32
}

// effort draws one that the field's index knows, of a search for so many rows. It is little or much.
func (v *vector) effort(r *rand.Rand, rows int) (e effort) {
	if !v.walked() {
		return e
	}
	is := func(kinds ...string) bool { return slices.Contains(kinds, v.index) }
	lists := v.typ == float32s // others have none
	little := r.IntN(2) == 0
	if r.IntN(2) == 0 {
		e.ef = int32(rows) + pick(little, r.Int32N(8), 5_000+r.Int32N(5_000))
	}
	if lists && is("IVF_FLAT", "IVF_SQ8", "SCANN", "AUTOINDEX") && r.IntN(2) == 0 {
		e.lists = pick(little, 1+r.Int32N(4), 65_536)
	}
	if lists && is("SCANN", "AUTOINDEX") && r.IntN(2) == 0 {
		e.reorder = int32(rows) + pick(little, r.Int32N(8), 2_000+r.Int32N(2_000))
	}
	if is("HNSW_SQ", "IVF_SQ8", "SCANN", "AUTOINDEX") && r.IntN(2) == 0 {
		e.refine = []float32{1, 1.5, 2, 4}[r.IntN(4)]
	}
	if e.ef == 0 && e.lists == 0 && r.IntN(3) == 0 {
		e.recall = []float32{0.5, 0.9, 0.99}[r.IntN(3)]
	}
	return e
}

// asked are those of an effort that bound how many rows are found.
func (e *effort) asked() bool { return e.ef != 0 || e.lists != 0 || e.reorder != 0 || e.recall != 0 }

// much reports whether nearly all is looked at, in indexes as small as the model's.
func (e *effort) much() bool {
	return (e.ef >= 5_000 || e.lists == 65_536) && (e.lists == 0 || e.lists == 65_536) && (e.reorder == 0 || e.reorder >= 2_000)
}

// scores are the scores of a field with this effort: those of the vectors if the hits are ranked by them.
func (e *effort) scores(v *vector) *vector {
	if e.refine == 0 {
		return v
	}
	exact := *v
	exact.coded = false
	return &exact
}

func (e *effort) search(req *qnpb.SearchRequest) {
	req.Ef, req.Nprobe, req.ReorderK, req.RefineK, req.Recall = e.ef, e.lists, e.reorder, e.refine, e.recall
}

func (e *effort) sub(req *qnpb.SubSearch) {
	req.Ef, req.Nprobe, req.ReorderK, req.RefineK, req.Recall = e.ef, e.lists, e.reorder, e.refine, e.recall
}

// String says what was asked for, in differences; "" = nothing.
func (e *effort) String() string {
	if *e == (effort{}) {
		return ""
	}
	return fmt.Sprintf(", ef %d, nprobe %d, reorder_k %d, refine_k %v, recall %v", e.ef, e.lists, e.reorder, e.refine, e.recall)
}

// Searches that ask for much work in a crowd are counted by themselves, and find more.
const (
	muchMark  = ", much"
	minByMuch = 0.99
)
