package node

import (
	"slices"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// MaxLists is the most lists that a search may ask for.
const MaxLists = 65_536

// effortOf is how much work a search wants to be done: if it does not say, as much as the
// index of the field is to do.
func effortOf(info segments.CollectionInfo, f schema.Field, q *Search) (segments.Effort, error) {
	e := q.Effort
	if e.EF == 0 && e.Lists == 0 && e.Recall == 0 {
		e.Recall = info.Indexes[f.ID].Recall
	}
	return e, checkEffort(info, f, q)
}

// checkEffort refuses what the index of a field does not know: nprobe is for those
// of lists, reorder_k for SCANN, refine_k for what ranks by codes. AUTOINDEX takes all, since it may be any.
func checkEffort(info segments.CollectionInfo, f schema.Field, q *Search) error {
	e, kind := q.Effort, info.Indexes[f.ID].Type
	of := func(kinds ...string) bool { return slices.Contains(kinds, kind) }
	switch {
	case e.Recall != 0 && !(e.Recall >= catalog.LeastRecall && e.Recall <= 1):
		return errclass.New(errclass.Invalid, "recall is %v, want %v to 1, or 0 to leave it to the node", e.Recall, catalog.LeastRecall)
	case e.Recall != 0 && (e.EF != 0 || e.Lists != 0):
		return errclass.New(errclass.Invalid, "recall says how much work is to be done, and so does ef or nprobe: leave one out")
	case e.Recall != 0 && !segments.Indexable(f.Type):
		return errclass.New(errclass.Invalid, "recall is for vectors of floats or int8; field %q is searched exactly", f.Name)
	case e.EF < 0 || e.EF > MaxEF:
		return errclass.New(errclass.Invalid, "ef is %d, want 0 to %d", e.EF, MaxEF)
	case e.EF != 0 && int64(e.EF) < q.TopK:
		return errclass.New(errclass.Invalid, "ef is %d, want at least top_k, which is %d, or 0 to leave it to the node", e.EF, q.TopK)
	case e.Lists < 0 || e.Lists > MaxLists:
		return errclass.New(errclass.Invalid, "nprobe is %d, want 0 to %d", e.Lists, MaxLists)
	case e.Lists != 0 && !of(catalog.IndexIVFFlat, catalog.IndexIVFSQ8, catalog.IndexScaNN, catalog.IndexAuto):
		return errclass.New(errclass.Invalid, "nprobe is for IVF_FLAT, IVF_SQ8, SCANN and AUTOINDEX; field %q has %s: use ef for a graph, or leave it to the node", f.Name, kind)
	case e.Reorder < 0 || e.Reorder > MaxEF:
		return errclass.New(errclass.Invalid, "reorder_k is %d, want 0 to %d", e.Reorder, MaxEF)
	case e.Reorder != 0 && int64(e.Reorder) < q.TopK:
		return errclass.New(errclass.Invalid, "reorder_k is %d, want at least top_k, which is %d, or 0 to leave it to the node", e.Reorder, q.TopK)
	case e.Reorder != 0 && !of(catalog.IndexScaNN, catalog.IndexAuto):
		return errclass.New(errclass.Invalid, "reorder_k is for SCANN and AUTOINDEX; field %q has %s", f.Name, kind)
	case e.Refine != 0 && !(e.Refine >= 1):
		return errclass.New(errclass.Invalid, "refine_k is %v, want 1 or more, or 0 to leave ranking to the index", e.Refine)
	case e.Refine != 0 && float64(e.Refine)*float64(q.TopK+q.Offset) > MaxEF:
		return errclass.New(errclass.Invalid, "refine_k * (top_k + offset) is %v * %d, at most %d", e.Refine, q.TopK+q.Offset, MaxEF)
	case e.Refine != 0 && !of(catalog.IndexHNSWSQ, catalog.IndexIVFSQ8, catalog.IndexScaNN, catalog.IndexAuto) && (kind != catalog.IndexHNSW || f.Type == schema.FloatVector):
		return errclass.New(errclass.Invalid, "refine_k is for HNSW_SQ, IVF_SQ8, SCANN and AUTOINDEX; field %q has %s, which ranks by the vectors", f.Name, kind)
	}
	return nil
}
