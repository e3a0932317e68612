package catalog

import (
	"slices"
	"strconv"
	"strings"
)

// LeastRecall is the smallest share of the nearest rows that may be wanted.
const LeastRecall = 0.5

// indexParam is a parameter of an index of a FloatVector field: a number from least
// to most, one of some words, or a share from LeastRecall to 1.
type indexParam struct {
	name        string
	least, most int
	words       []string // nil = a number; else the first is what it means to leave it out
	share       bool
}

var (
	paramM              = indexParam{name: "M", least: 2, most: 512}
	paramEfConstruction = indexParam{name: "efConstruction", least: 1, most: 65_536}
	paramLists          = indexParam{name: "nlist", least: 1, most: 65_536}
	paramRowBytes       = indexParam{name: "row_bytes", least: 1, most: 1 << 20}
	paramRecall         = indexParam{name: "recall", share: true}
	// What Milvus' users may write, but what is always so here: codes of a byte or less
	// choose what the float32 vectors themselves put in order.
	paramCodes      = indexParam{name: "sq_type", words: []string{"SQ8"}}
	paramRefine     = indexParam{name: "refine", words: []string{"true"}}
	paramRefineType = indexParam{name: "refine_type", words: []string{"FP32"}}
	paramRaw        = indexParam{name: "with_raw_data", words: []string{"true"}}
)

// floatIndex is a type of index of a FloatVector field.
type floatIndex struct {
	name   string
	params []indexParam
}

// floatIndexes are the types of indexes of FloatVector fields, in the order in which
// errors tell them.
func floatIndexes() []floatIndex {
	return []floatIndex{
		{name: IndexFlat},
		{IndexHNSW, []indexParam{paramM, paramEfConstruction, paramRecall}},
		{IndexHNSWSQ, []indexParam{paramM, paramEfConstruction, paramCodes, paramRefine, paramRefineType, paramRecall}},
		{IndexIVFFlat, []indexParam{paramLists, paramRecall}},
		{IndexIVFSQ8, []indexParam{paramLists, paramRecall}},
		{IndexScaNN, []indexParam{paramLists, paramRaw, paramRecall}},
		{IndexAuto, []indexParam{paramRecall, paramRowBytes}},
	}
}

// narrowIndexes are those of fields of float16, bfloat16 and int8.
func narrowIndexes() []floatIndex {
	graphs := slices.DeleteFunc(floatIndexes(), func(t floatIndex) bool {
		return !slices.Contains([]string{IndexFlat, IndexHNSW, IndexHNSWSQ}, t.name)
	})
	return append(graphs, floatIndex{IndexAuto, []indexParam{paramRecall}})
}

// validateDense checks the index of a dense field, of which these are the types.
func (x *Index) validateDense(types []floatIndex, p *problems) {
	var names []string
	for _, t := range types {
		if names = append(names, t.name); t.name == x.Type {
			x.validateParams(t, p)
		}
	}
	p.check(slices.Contains(names, x.Type), "index %q: type %q, want one of %s", x.Name, x.Type, strings.Join(names, ", "))
	p.check(x.Metric == MetricL2 || x.Metric == MetricIP || x.Metric == MetricCosine, "index %q: metric %q, want L2, IP or COSINE", x.Name, x.Metric)
}

func (x *Index) validateParams(t floatIndex, p *problems) {
	var known []string
	for _, a := range t.params {
		known = append(known, a.name)
		if v, ok := x.Params[a.name]; ok {
			x.validateParam(a, v, p)
		}
	}
	for k := range x.Params {
		switch {
		case slices.Contains(known, k):
		case len(known) == 0:
			p.add("index %q: unknown parameter %q, but %s has none", x.Name, k, x.Type)
		default:
			p.add("index %q: unknown parameter %q, want some of %s for %s", x.Name, k, strings.Join(known, ", "), x.Type)
		}
	}
}

func (x *Index) validateParam(a indexParam, v string, p *problems) {
	if a.share {
		n, err := strconv.ParseFloat(v, 32)
		p.check(err == nil && n >= LeastRecall && n <= 1, "index %q: %s is %q, want %v to 1", x.Name, a.name, v, LeastRecall)
		return
	}
	if a.words != nil {
		fits := slices.ContainsFunc(a.words, func(w string) bool { return strings.EqualFold(w, v) })
		p.check(fits, "index %q: %s is %q, want %s, or leave it out", x.Name, a.name, v, strings.Join(a.words, " or "))
		return
	}
	n, err := strconv.Atoi(v)
	p.check(err == nil && n >= a.least && n <= a.most, "index %q: %s is %q, want %d to %d", x.Name, a.name, v, a.least, a.most)
}
